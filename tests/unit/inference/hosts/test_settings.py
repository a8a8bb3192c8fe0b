import pytest

from services.common.errors import SettingsError
from services.common.settings import read_settings
from services.inference.hosts.settings import PREFIX, RankHostSettings


def read(**environment: str) -> RankHostSettings:
    return read_settings(RankHostSettings, PREFIX, {f"{PREFIX}_{name.upper()}": value for name, value in environment.items()})


def test_a_host_is_reached_from_its_own_machine_unless_told_otherwise():
    assert read().address == "127.0.0.1:50062"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("drain_s", "-1", "at least 0"),
        ("drain_s", "nan", "at least 0"),
        ("tls_certificate_file", "/tls.crt", "belong together"),
        ("model", "nano", "is not a setting"),
    ],
)
def test_values_that_make_no_sense_are_refused_in_words(name: str, value: str, words: str):
    with pytest.raises(SettingsError, match=words):
        read(**{name: value})
