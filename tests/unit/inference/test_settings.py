import pytest

from services.common.errors import SettingsError
from services.common.settings import read_settings
from services.inference.settings import InferenceSettings


def read(**environment: str) -> InferenceSettings:
    return read_settings(
        InferenceSettings, "SEEDVR2_INFERENCE", {f"SEEDVR2_INFERENCE_{k.upper()}": v for k, v in environment.items()}
    )


def test_the_defaults_are_a_worker_with_the_embedded_model():
    settings = read()
    assert (settings.model, settings.device, settings.address) == ("nano", "auto", "127.0.0.1:50061")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("device", "tpu", "must be one of auto, cpu, cuda"),
        ("dtype", "int8", "must be one of auto, float32"),
        ("pool", "a b", "must be of a-z"),
        ("ranks", "-1", "at least 0"),
        ("sequence", "-1", "at least 0"),
        ("encoder_threads", "0", "at least 1"),
        ("rank_stop_s", "0", "at least 1"),
        ("drain_s", "nan", "at least 0"),
        ("video_memory_bytes", "1000", "at least"),
        ("nvenc_memory_bytes", "1000", "at least"),
        ("colour", "x", "is not a setting"),
    ],
)
def test_values_that_make_no_sense_are_refused_in_words(name: str, value: str, words: str):
    with pytest.raises(SettingsError, match=words):
        read(**{name: value})


def test_a_layout_that_cannot_be_is_refused_in_words():
    with pytest.raises(SettingsError, match="8 ranks can't be divided into groups of 3; sequence must be one of 1, 2, 4, 8"):
        read(ranks="8", sequence="3")
    assert (read(ranks="8", sequence="4").sequence, read(sequence="3").ranks) == (4, 0)
