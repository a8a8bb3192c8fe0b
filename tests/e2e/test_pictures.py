"""Pictures and sequences of pictures over the real API, restored by the embedded model."""

import io
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from services.common.client import GatewayClient
from services.common.errors import InvalidOption, InvalidVideo, NotSupported
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.gateway.container.tags import picture_tags
from tests.clips import pictures
from tests.e2e.page_fixtures import browse

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
PROFILE = bytes(range(256)) * 5


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Gateway and page of services that run."""
    typed = [
        "up",
        "--data",
        str(tmp_path_factory.mktemp("up")),
        "--port",
        "0",
        "--grpc-port",
        "0",
        "--worker-port",
        "0",
        "--rest-port",
        "0",
    ]
    process = subprocess.Popen([sys.executable, "-m", "services.cli", *typed], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = ""
        while "Ready" not in said:
            line = process.stderr.readline()
            assert line, f"it ended after: {said}"
            said += line
        gateway, page = re.search(r"gateway\s+(\S+)", said), re.search(r"http://(\S+)", said)
        assert gateway
        assert page
        yield gateway[1], page[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.fixture
async def gateway(addresses: tuple[str, str]) -> AsyncIterator[GatewayClient]:
    async with GatewayClient(addresses[0]) as client:
        yield client


async def restored(gateway: GatewayClient, path: Path, **options: object) -> tuple[pb.Job, bytes]:
    """The job and its result's bytes."""
    upload = await gateway.upload_file(path)
    created = await gateway.create_job(pb.JobRequest(source=pb.Source(upload_id=upload.upload_id), **options))
    job = [job async for job in gateway.watch_job(created.job_id)][-1]
    assert job.state == pb.JOB_STATE_SUCCEEDED, job.failure.message
    report = await gateway.quality_report(job.job_id)
    assert all(check.passed for check in report.checks)
    await gateway.download_result(job.job_id, path.with_name("result"))
    return job, path.with_name("result").read_bytes()


@pytest.mark.parametrize(
    ("suffix", "media_type"), [(".png", "image/png"), (".jpg", "image/jpeg"), (".webp", "image/webp"), (".tiff", "image/tiff")]
)
async def test_a_picture_comes_back_as_one_of_its_kind(gateway: GatewayClient, tmp_path: Path, suffix: str, media_type: str):
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(pictures.encoded(pictures.scene(), suffix))
    job, data = await restored(gateway, path, target=pb.Target(scale=2))
    found = pictures.decoded(data)[..., :3]
    assert found.shape == (122, 170, 3)
    assert (job.result.media_type, job.result.filename) == (media_type, f"photo_restored{suffix}")
    assert (job.result.width, job.result.height, job.result.frames) == (170, 122, 1)
    # It is the same scene, and not smeared at its edges: nothing was cut or encoded as video.
    assert np.abs(found[::2, ::2].astype(int) - pictures.scene()).mean() < 12
    assert job.plan.warnings == []


async def test_odd_sides_stay_as_they_are(gateway: GatewayClient, tmp_path: Path):
    path = tmp_path / "odd.png"
    path.write_bytes(pictures.encoded(pictures.scene(width=83, height=59), ".png"))
    _, data = await restored(gateway, path)
    found = pictures.decoded(data)
    assert found.shape == (59, 83, 3)
    # Right and bottom are there too, not a repetition of what lies beside.
    assert np.abs(found[-4:, -4:].astype(int) - pictures.scene(width=83, height=59)[-4:, -4:]).mean() < 12


async def test_transparency_comes_back(gateway: GatewayClient, tmp_path: Path):
    source = pictures.with_alpha(pictures.scene())
    path = tmp_path / "logo.png"
    path.write_bytes(pictures.encoded(source, ".png"))
    _, data = await restored(gateway, path, target=pb.Target(scale=2))
    alpha = pictures.decoded(data)[..., 3]
    assert alpha.shape == (122, 170)
    assert np.abs(alpha[::2, ::2].astype(int) - source[..., 3]).mean() < 8
    assert (alpha[50:70, 70:100] > 250).all()
    assert (alpha[:20] < 5).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
async def test_deep_pictures_stay_deep(gateway: GatewayClient, tmp_path: Path, suffix: str):
    deep = pictures.scene().astype(np.uint16) * 257
    path = tmp_path / f"deep{suffix}"
    path.write_bytes(pictures.encoded(deep, suffix))
    _, data = await restored(gateway, path)
    found = pictures.decoded(data)
    assert found.dtype == np.uint16
    assert len(np.unique(found)) > 1000


async def test_a_camera_jpeg_comes_back_upright_with_its_profile(gateway: GatewayClient, tmp_path: Path):
    path = tmp_path / "camera.jpg"
    path.write_bytes(pictures.tagged_jpeg(pictures.scene(), 6, PROFILE))
    job, data = await restored(gateway, path, target=pb.Target(scale=2))
    found, wanted = pictures.decoded(data), np.rot90(pictures.scene(), -1)
    assert (job.result.width, job.result.height) == (122, 170)
    assert picture_tags(data).profile == PROFILE
    assert picture_tags(data).orientation == 1
    assert np.abs(found[::2, ::2].astype(int) - wanted).mean() < 12


async def test_a_zip_of_pictures_comes_back_as_one(gateway: GatewayClient, tmp_path: Path):
    frames = [pictures.with_alpha(pictures.scene(4 * i)) for i in range(6)]
    path = pictures.zipped(tmp_path / "frames.zip", [pictures.encoded(f, ".png") for f in frames])
    job, data = await restored(gateway, path)
    assert (job.result.frames, job.result.filename, job.result.media_type) == (6, "frames_restored.zip", "application/zip")
    with pytest.raises(NotSupported, match="can't be played"):
        await gateway.playlist(job.job_id)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = [pictures.decoded(archive.read(name)) for name in sorted(archive.namelist())]
    assert all(np.abs(a.astype(int) - b).mean() < 12 for a, b in zip(found, frames, strict=True))


async def test_a_zip_of_pictures_can_become_a_video_and_a_video_pictures(gateway: GatewayClient, tmp_path: Path):
    frames = [pictures.encoded(pictures.scene(4 * i), ".jpg") for i in range(6)]
    _, video = await restored(gateway, pictures.zipped(tmp_path / "frames.zip", frames, ".jpg"), container="mp4")
    path = tmp_path / "video.mp4"
    path.write_bytes(video)
    job, data = await restored(gateway, path, container="zip")
    assert (job.result.frames, len(zipfile.ZipFile(io.BytesIO(data)).namelist())) == (6, 6)
    wanted = pb.Range(frames=pb.FrameRange(first=2, end=3))
    _, picture = await restored(gateway, path, container="png", range=wanted)
    assert pictures.decoded(picture).shape == (60, 84, 3)


@pytest.mark.parametrize(("name", "codec", "pixel_format"), [("a.mov", "prores_ks", "yuva444p10le"), ("a.mkv", "ffv1", "bgra")])
async def test_a_transparent_video_can_become_transparent_pictures(
    gateway: GatewayClient, tmp_path: Path, name: str, codec: str, pixel_format: str
):
    path = pictures.transparent_video(tmp_path / name, codec, pixel_format)
    _, data = await restored(gateway, path, container="zip")
    found = pictures.decoded(zipfile.ZipFile(io.BytesIO(data)).read("000003.png"))
    wanted = pictures.with_alpha(pictures.scene(2, 64, 48))[..., 3] / 255
    assert found.shape == (48, 64, 4)
    assert np.abs(found[..., 3] / np.iinfo(found.dtype).max - wanted).mean() < 0.05


@pytest.mark.parametrize("colour", ["ADAIN", "LAB", "HSV", "WAVELET_ADAPTIVE", "NONE"])
async def test_every_colour_mode_and_noise_can_be_asked_for(gateway: GatewayClient, tmp_path: Path, colour: str):
    path = tmp_path / "photo.png"
    path.write_bytes(pictures.encoded(pictures.scene(), ".png"))
    _, plain = await restored(gateway, path)
    _, data = await restored(gateway, path, colour=f"COLOUR_MODE_{colour}", input_noise=0.3, latent_noise=0.05)
    assert not np.array_equal(pictures.decoded(data), pictures.decoded(plain))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 4}, "made for one step"),
        ({"cfg_scale": 6.5}, "without guidance"),
        ({"input_noise": 3.0}, "0 .none. to 1"),
        ({"encoder": "x264"}, "no encoder of videos"),
        ({"container": "gif"}, "no container 'gif'"),
    ],
)
async def test_what_cannot_be_is_refused_in_words(gateway: GatewayClient, tmp_path: Path, options: dict[str, object], words: str):
    path = tmp_path / "photo.png"
    path.write_bytes(pictures.encoded(pictures.scene(), ".png"))
    upload = await gateway.upload_file(path)
    with pytest.raises(InvalidOption, match=words) as error:
        await gateway.create_job(pb.JobRequest(source=pb.Source(upload_id=upload.upload_id), **options))
    assert error.value.field.startswith("request.")


async def test_an_encoder_that_opens_on_no_worker_is_refused_in_words(gateway: GatewayClient, tmp_path: Path):
    path = tmp_path / "photo.png"
    path.write_bytes(pictures.encoded(pictures.scene(), ".png"))
    request = pb.JobRequest(source=pb.Source(upload_id=(await gateway.upload_file(path)).upload_id), encoder="nvenc")
    for call in (gateway.create_job, gateway.plan_job):
        with pytest.raises(NotSupported, match=r"NVENC doesn't open on the workers that serve nano: .* leave the encoder out"):
            await call(request)


async def test_many_frames_are_no_picture_and_a_zip_of_texts_is_nothing(gateway: GatewayClient, tmp_path: Path):
    several = pictures.zipped(tmp_path / "frames.zip", [pictures.encoded(pictures.scene(i), ".png") for i in range(2)])
    upload = await gateway.upload_file(several)
    with pytest.raises(InvalidOption, match="holds one picture"):
        await gateway.create_job(pb.JobRequest(source=pb.Source(upload_id=upload.upload_id), container="jpg"))
    upload = await gateway.upload_file(pictures.zipped(tmp_path / "texts.zip", [b"hello"], ".txt"))
    with pytest.raises(InvalidVideo, match="has no pictures"):
        await gateway.plan_job(pb.JobRequest(source=pb.Source(upload_id=upload.upload_id)))


async def test_the_page_shows_before_and_after_and_offers_the_picture(addresses: tuple[str, str], tmp_path: Path):
    path = tmp_path / "logo.png"
    path.write_bytes(pictures.encoded(pictures.with_alpha(pictures.scene(width=340, height=244)), ".png"))
    async with browse(f"http://{addresses[1]}") as browsed:
        await browsed.open()
        await browsed.choose(path)
        await browsed.wait_text("#plan", "680 × 488")
        await browsed.page.click("#more")
        await browsed.screenshot("picture-form")
        await browsed.page.click("#start")
        await browsed.wait_text("#download-card", "1 picture")
        await browsed.page.wait_for_selector("#compare img")
        assert not await browsed.page.is_visible("#players")
        await browsed.screenshot("picture-done")
        async with browsed.page.expect_download() as download:
            await browsed.page.click("#download")
        saved = await (await download.value).path()
        assert pictures.decoded(saved.read_bytes()).shape == (488, 680, 4)
        assert (await download.value).suggested_filename == "logo_restored.png"
