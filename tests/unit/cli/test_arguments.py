from pathlib import Path

import pytest

from services.cli.arguments import build_parser
from services.cli.output import UsageError
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "COMMAND"),
        ("fly", "invalid choice: 'fly'"),
        ("restore", "IN"),
        ("restore a.mp4 --scale 0", "'0' is not a factor above 0"),
        ("restore a.mp4 --scale nan", "'nan' is not a number"),
        ("restore a.mp4 --scale inf", "'inf' is not a number"),
        ("restore a.mp4 --scale 2 --size 64x64", "not allowed with"),
        ("restore a.mp4 --short-side 0", "'0' is not pixels from 1"),
        ("restore a.mp4 --size 640", "'640' is not WIDTHxHEIGHT"),
        ("restore a.mp4 --seed -1", "expected one argument|is not a seed"),
        ("restore a.mp4 --seed 18446744073709551616", "is not a seed"),
        ("restore a.mp4 --colour red", "'red' is not one of wavelet, none"),
        ("restore a.mp4 --frames 3:3", "'3:3' is not FIRST:END"),
        ("restore a.mp4 --time 2:1", "'2:1' is not START:END in seconds"),
        ("restore a.mp4 --time 5", "'5' is not START:END in seconds"),
        ("restore a.mp4 --time 0:1 --frames 0:1", "not allowed with"),
        ("restore a --each --sequence", "not allowed with"),
        ("plan", "FILE"),
        ("restore a.mp4 --crf 52", "'52' is not a rate factor from 0 to 51"),
        ("restore a.mp4 --input-noise 2", "'2' is not from 0 to 1"),
        ("restore a.mp4 --latent-noise x", "'x' is not a number"),
        ("restore a.mp4 --steps 0", "'0' is not steps from 1"),
        ("restore a.mp4 --server localhost", "'localhost' is not HOST:PORT"),
        ("up --port 70000", "'70000' is not a port"),
        ("jobs", "COMMAND"),
        ("jobs show", "ID"),
        ("jobs list --limit x", "'x' is not jobs from 1"),
    ],
)
def test_wrong_usage_is_answered_with_one_sentence(typed: str, words: str):
    with pytest.raises(UsageError, match=words) as caught:
        build_parser().parse_args(typed.split())
    assert "\n" not in str(caught.value)


def test_restore_options_are_read():
    typed = "restore a.mp4 -o b.mkv --server gate:50051 --model nano --size 1280x720 --seed 7 --colour wavelet-adaptive --json"
    arguments = build_parser().parse_args(typed.split())
    assert (arguments.input, arguments.output, arguments.server) == (Path("a.mp4"), Path("b.mkv"), "gate:50051")
    assert (arguments.size, arguments.seed, arguments.model, arguments.json) == ((1280, 720), 7, "nano", True)
    assert arguments.colour == pb.COLOUR_MODE_WAVELET_ADAPTIVE


def test_a_time_range_is_read_to_the_nanosecond():
    assert build_parser().parse_args(["plan", "a.mp4", "b.mp4", "--time", "0.1:95.000000001"]).time == (10**8, 95 * 10**9 + 1)
    assert build_parser().parse_args(["restore", "a.mp4", "--time", "90:"]).time == (90 * 10**9, None)


def test_strength_options_are_read():
    typed = "restore a.mp4 --input-noise 0.25 --latent-noise 1 --steps 2 --cfg-scale -1.5"
    arguments = build_parser().parse_args(typed.split())
    assert (arguments.input_noise, arguments.latent_noise, arguments.steps, arguments.cfg_scale) == (0.25, 1.0, 2, -1.5)


def test_every_colour_mode_can_be_typed():
    for name, number in pb.ColourMode.items():
        if number:
            typed = name.removeprefix("COLOUR_MODE_").lower().replace("_", "-")
            assert build_parser().parse_args(["restore", "a", "--colour", typed]).colour == number


def test_up_has_ports_and_a_data_directory():
    arguments = build_parser().parse_args(["up", "--data", "d", "--port", "1", "--grpc-port", "2", "--worker-port", "0"])
    assert (arguments.data, arguments.port, arguments.grpc_port, arguments.worker_port) == (Path("d"), 1, 2, 0)
    assert arguments.metrics_port is None


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("seedvr2 0.")
