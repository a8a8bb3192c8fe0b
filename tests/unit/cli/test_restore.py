import asyncio
import hashlib
import io
import json
import os
import signal
import sys
import zipfile
from pathlib import Path

import pytest

from services.cli.arguments import build_parser
from services.cli.output import UsageError
from services.common.errors import InvalidVideo, NotSupported, TooLarge
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.unit.common.fake_gateway import FakeGateway, give_result


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    path.write_bytes(os.urandom(100_000))
    return path


async def _run(*typed: str) -> int:
    arguments = build_parser().parse_args(["restore", *typed])
    return int(await arguments.run(arguments))


def _succeed(gateway: FakeGateway) -> bytes:
    gateway.job.state = pb.JOB_STATE_SUCCEEDED
    gateway.job.result.MergeFrom(pb.Result(filename="film-restored.mp4", frames=4, width=640, height=360))
    gateway.job.result.elapsed.FromMilliseconds(2000)
    gateway.job.notes.append("A frame was unreadable.")
    return give_result(gateway, 200_000)


async def test_a_file_becomes_a_restored_file_beside_it(
    gateway: FakeGateway, server: str, film: Path, capsys: pytest.CaptureFixture[str]
):
    result = _succeed(gateway)
    assert await _run(str(film), "--server", server, "--short-side", "360", "--seed", "0") == 0
    output = film.with_name("film-restored.mp4")
    assert bytes(gateway.kept) == film.read_bytes()
    assert output.read_bytes() == result
    said = capsys.readouterr()
    assert said.out == f"{output}: 4 frames, 640x360, in 2.0 s (0.50 s a frame)\n"
    plan = "320x180 to 640x360, 4 frames (0:00) in 1 span; nano, mp4\n"
    assert said.err == plan + "A frame was unreadable.\n"
    request = next(request.request for name, request in gateway.calls if name == "CreateJob")
    assert request.target.short_side == 360
    assert request.HasField("seed")
    assert (request.seed, request.container, request.model) == (0, "", "")


async def test_with_json_stdout_is_one_object(gateway: FakeGateway, server: str, film: Path, capsys: pytest.CaptureFixture[str]):
    _succeed(gateway)
    output = film.with_name("out.mkv")
    await _run(str(film), "-o", str(output), "--server", server, "--size", "640x480", "--colour", "none", "--json")
    record = json.loads(capsys.readouterr().out)
    assert (record["frames"], record["seconds"], record["output"]) == (4, 2.0, str(output))
    request = next(request.request for name, request in gateway.calls if name == "CreateJob")
    assert (request.target.box.width, request.target.box.height) == (640, 480)
    assert (request.colour, request.container) == (pb.COLOUR_MODE_NONE, "mkv")
    assert not request.HasField("seed")


async def test_a_picture_is_asked_for_by_the_outputs_name(gateway: FakeGateway, server: str, film: Path):
    result = _succeed(gateway)
    photo = film.rename(film.with_name("photo.jpg"))
    output = photo.with_name("better.tif")
    await _run(str(photo), "-o", str(output), "--server", server)
    request = next(request.request for name, request in gateway.calls if name == "CreateJob")
    assert (request.container, output.read_bytes()) == ("tiff", result)


async def test_options_of_the_job_go_into_the_request(gateway: FakeGateway, server: str, film: Path):
    _succeed(gateway)
    typed = [
        "--frames",
        "5:6",
        "--crf",
        "0",
        "--encoder",
        "nvenc",
        "--input-noise",
        "0.5",
        "--latent-noise",
        "0.25",
        "--steps",
        "2",
        "--cfg-scale",
        "3",
        "--colour",
        "lab",
    ]
    await _run(str(film), "--server", server, *typed)
    request = next(request.request for name, request in gateway.calls if name == "CreateJob")
    assert (request.range.frames.first, request.range.frames.end) == (5, 6)
    assert (request.HasField("crf"), request.crf, request.colour) == (True, 0, pb.COLOUR_MODE_LAB)
    assert request.encoder == "nvenc"
    assert (request.input_noise, request.latent_noise, request.steps, request.cfg_scale) == (0.5, 0.25, 2, 3)


@pytest.mark.parametrize("output", [None, "better", "better.zip"])
async def test_a_directory_of_pictures_becomes_one(gateway: FakeGateway, server: str, tmp_path: Path, output: str | None):
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in (9, 10):
        (frames / f"f{number}.png").write_bytes(bytes([number]))
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        archive.writestr("000001.png", b"restored")
    _succeed(gateway)
    gateway.job.result.filename = "frames_restored.zip"
    gateway.result = (tmp_path / "made.zip").read_bytes()
    gateway.result_sha256 = hashlib.sha256(gateway.result).hexdigest()
    typed = ["-o", str(tmp_path / output)] if output else []
    await _run(str(frames), *typed, "--server", server)
    with zipfile.ZipFile(io.BytesIO(bytes(gateway.kept))) as sent:
        assert [(i.filename, sent.read(i)) for i in sent.infolist()] == [("f9.png", b"\x09"), ("f10.png", b"\x0a")]
    assert gateway.upload.filename == "frames.zip"
    made = tmp_path / (output or "frames-restored")
    if made.suffix:
        assert made.read_bytes() == (tmp_path / "made.zip").read_bytes()
    else:
        assert (made / "000001.png").read_bytes() == b"restored"


async def test_a_failed_job_raises_its_reason_and_leaves_no_file(gateway: FakeGateway, server: str, film: Path):
    gateway.job.state = pb.JOB_STATE_FAILED
    gateway.job.failure.reason, gateway.job.failure.message = "InvalidVideo", "It has no video."
    with pytest.raises(InvalidVideo, match="It has no video"):
        await _run(str(film), "--server", server)
    assert list(film.parent.iterdir()) == [film]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("film.mp4", "is the source itself"),
        ("film.avi", r"must end in one of \.mp4, \.mkv, \.png"),
        ("none/a.mp4", "can be written to"),
    ],
)
async def test_an_output_that_can_not_be_is_refused_before_any_work(film: Path, output: str, words: str):
    with pytest.raises(UsageError, match=words):
        await _run(str(film), "-o", str(film.parent / output), "--server", "127.0.0.1:1")


async def test_an_upload_that_no_job_came_of_is_removed(gateway: FakeGateway, server: str, film: Path):
    gateway.refusal = InvalidVideo("The file can't be read as a video.")
    with pytest.raises(InvalidVideo):
        await _run(str(film), "--server", server)
    assert [request.upload_id for name, request in gateway.calls if name == "DeleteUpload"] == [gateway.upload.upload_id]


async def test_an_upload_that_breaks_off_for_good_is_removed(gateway: FakeGateway, server: str, film: Path):
    gateway.errors = [TooLarge("The upload is larger than what is allowed here.")]
    with pytest.raises(TooLarge):
        await _run(str(film), "--server", server)
    assert [name for name, _ in gateway.calls if name in ("DeleteUpload", "CreateJob")] == ["DeleteUpload"]


async def test_what_the_gateway_fetches_is_not_uploaded_and_its_result_comes_here(
    gateway: FakeGateway, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    result = _succeed(gateway)
    gateway.job.filename = "old.mov"
    outside = ("--result-uri", "s3://films/out.mp4", "--webhook", "https://example.com/hook")
    await _run("https://example.com/old.mov?a=b", "--server", server, *outside)
    await _run("s3://films/old.mov", "-o", "new.mkv", "--server", server)
    assert (tmp_path / "old-restored.mp4").read_bytes() == (tmp_path / "new.mkv").read_bytes() == result
    first, second = (request.request for name, request in gateway.calls if name == "CreateJob")
    assert first.source == pb.Source(https_url="https://example.com/old.mov?a=b")
    assert (first.result_uri, first.webhook_url) == ("s3://films/out.mp4", "https://example.com/hook")
    assert (second.source, second.container) == (pb.Source(object_uri="s3://films/old.mov"), "mkv")
    assert "CreateUpload" not in [name for name, _ in gateway.calls]


async def test_a_gateway_that_fetches_nothing_says_so(gateway: FakeGateway, server: str, tmp_path: Path):
    gateway.refusal = NotSupported("Sources on the web are not offered here; upload the file.")
    with pytest.raises(NotSupported, match="upload the file"):
        await _run("https://example.com/old.mov", "-o", str(tmp_path / "a.mp4"), "--server", server)
    assert [name for name, _ in gateway.calls] == ["CreateJob"]


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (("https://example.com/a.mp4", "--each"), "not a directory"),
        (("https://example.com/a.mp4", "-o", "none/a.mp4"), "not a directory that can be written"),
        (("s3://a/b", "-o", "a.doc"), "must end in one of"),
        ((".", "--each", "--result-uri", "s3://a/b"), "leave out --result-uri"),
    ],
)  # fmt: skip
async def test_what_can_not_be_done_with_a_source_elsewhere_is_wrong_usage(typed: tuple[str, ...], text: str):
    with pytest.raises(UsageError, match=text):
        await _run(*typed, "--server", "127.0.0.1:1")


async def test_a_missing_input_is_wrong_usage(tmp_path: Path):
    with pytest.raises(UsageError, match="neither a file, nor a directory"):
        await _run(str(tmp_path / "none.mp4"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
async def test_an_interruption_cancels_the_job(gateway: FakeGateway, server: str, film: Path, number: signal.Signals):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.cli", "restore", str(film), "--server", server, "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await asyncio.wait_for(gateway.watching.wait(), 20)
    process.send_signal(number)
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "Interrupted"
    assert err.decode().splitlines()[-1] + "\n" == f"The job {gateway.job.job_id} was cancelled.\n"
    assert "CancelJob" in [name for name, _ in gateway.calls]
