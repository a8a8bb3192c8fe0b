"""Pictures and zips of pictures through the child processes."""

import io
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from services.common.errors import InternalError, InvalidVideo
from services.gateway.container.adapter import Container
from services.gateway.container.tags import picture_tags
from services.gateway.ports import Joined, JoinTask
from services.gateway.source import ARCHIVE
from tests.clips import make, pictures

PROFILE = bytes(range(256)) * 3
TURNED_RIGHT = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)


def segment(directory: Path, frames: Sequence[np.ndarray]) -> Path:
    """What a worker makes of frames that must come out exactly."""
    path, buffer = directory / "segment.mp4", io.BytesIO()
    form = {3: "rgb24", 4: "rgba"}[frames[0].shape[2]]
    with av.open(buffer, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov+delay_moov"}) as output:
        stream = output.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], form
        for number, picture in enumerate(frames):
            frame = VideoFrame.from_ndarray(picture, form)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    path.write_bytes(buffer.getvalue())
    return path


async def join(
    container: Container,
    source: Path,
    output: Path,
    frames: Sequence[np.ndarray],
    *,
    counts: tuple[int, ...] = (),
    **changes: object,
) -> Joined:
    path = segment(source.parent, frames)

    @asynccontextmanager
    async def stored(number: int) -> AsyncIterator[Path]:
        yield path

    values: dict[str, object] = {
        "source": source, "output": output, "container": output.suffix[1:], "time_base": Fraction(1, 25),
        "pts": tuple(range(len(frames))), "last_duration": 1, "shift": 0, "cut": False, "end": None,
        "counts": counts or (len(frames),), "copied": (), "display_matrix": (), "image": True, **changes,
    }  # fmt: skip
    return await container.join(JoinTask(**values), stored, lambda _: None)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
async def test_a_picture_of_every_kind_is_looked_at_and_read(container: Container, tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(pictures.encoded(pictures.scene(), suffix))
    with path.open("rb") as file:
        stored = tmp_path / "data"
        stored.write_bytes(file.read())
    info = await container.probe(stored)
    index = await container.index(stored, info)
    assert (info.image, info.codec.width, info.codec.height, index.frames) == (True, 85, 61, 1)
    packets = [p async for p in container.read(stored, info, index, 0, 1)]
    assert b"".join(p.data for p in packets) == path.read_bytes()


async def test_orientation_and_transparency_are_seen(container: Container, tmp_path: Path):
    path = tmp_path / "data"
    path.write_bytes(pictures.tagged_jpeg(pictures.scene(), 6, PROFILE))
    info = await container.probe(path)
    assert (info.codec.rotation, info.display_matrix, info.alpha) == (270, TURNED_RIGHT, False)
    shown = await container.picture(path, info, await container.index(path, info), 0, size=(85, 61), max_side=0)
    assert (shown.width, shown.height) == (61, 85)
    path.write_bytes(pictures.encoded(pictures.with_alpha(pictures.scene()), ".png"))
    assert (await container.probe(path)).alpha


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "bits"),
    [("a.mov", "prores_ks", "yuva444p10le", 12), ("a.mkv", "ffv1", "bgra", 8), ("b.mov", "qtrle", "argb", 8)],
)
async def test_transparency_of_videos_is_seen(
    container: Container, tmp_path: Path, name: str, codec: str, pixel_format: str, bits: int
):
    info = await container.probe(pictures.transparent_video(tmp_path / name, codec, pixel_format))
    assert (info.alpha, info.bits, info.image) == (True, bits, False)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
@pytest.mark.parametrize("alpha", [False, True])
async def test_a_picture_is_written_without_loss(container: Container, tmp_path: Path, suffix: str, alpha: bool):
    picture = pictures.with_alpha(pictures.scene()) if alpha else pictures.scene()
    source = make.image(tmp_path / "data")
    joined = await join(container, source, tmp_path / f"out{suffix}", [picture])
    data = (tmp_path / f"out{suffix}").read_bytes()
    found = pictures.decoded(data)
    assert all(c.passed for c in joined.checks)
    assert (joined.frames, joined.size_bytes) == (1, len(data))
    if alpha and suffix == ".webp":
        # Colours of what can't be seen are not kept in a WebP.
        found[found[..., 3] == 0] = picture[picture[..., 3] == 0] = 0
    assert np.array_equal(found[..., : picture.shape[2]], picture)


async def test_a_jpeg_is_nearly_without_loss_and_keeps_the_profile(container: Container, tmp_path: Path):
    source = tmp_path / "data"
    source.write_bytes(pictures.tagged_jpeg(pictures.scene(), 1, PROFILE))
    await join(container, source, tmp_path / "out.jpg", [pictures.scene()])
    data = (tmp_path / "out.jpg").read_bytes()
    assert picture_tags(data).profile == PROFILE
    assert np.abs(pictures.decoded(data).astype(int) - pictures.scene()).mean() < 1.5


async def test_a_turned_picture_comes_out_upright(container: Container, tmp_path: Path):
    source = make.image(tmp_path / "data")
    for name in ("out.png", "out.tiff"):
        await join(container, source, tmp_path / name, [pictures.scene()], display_matrix=TURNED_RIGHT)
        data = (tmp_path / name).read_bytes()
        assert np.array_equal(pictures.decoded(data), np.rot90(pictures.scene(), -1))
        assert picture_tags(data).orientation == 1


async def test_a_zip_has_a_png_for_each_frame(container: Container, tmp_path: Path):
    frames = [pictures.scene(i) for i in range(3)]
    joined = await join(container, make.image(tmp_path / "data"), tmp_path / "out.zip", frames, image=False)
    assert [(c.name, c.passed) for c in joined.checks] == [("frame_count", True), ("pictures", True)]
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == ["000001.png", "000002.png", "000003.png"]
        assert all(np.array_equal(pictures.decoded(archive.read(n)), f) for n, f in zip(archive.namelist(), frames, strict=True))


async def test_a_segment_that_is_not_whole_is_named(container: Container, tmp_path: Path):
    with pytest.raises(InternalError, match="2 of 3 frames") as error:
        await join(container, make.image(tmp_path / "data"), tmp_path / "out.zip", [pictures.scene()] * 2, counts=(3,))
    assert error.value.field == "0"


async def test_a_zip_of_pictures_is_read_picture_by_picture(container: Container, tmp_path: Path):
    files = [pictures.encoded(pictures.scene(i), ".png") for i in range(4)]
    path = pictures.zipped(tmp_path / "data", files)
    info = await container.probe(path)
    index = await container.index(path, info)
    assert (info.container, info.image, index.frames, index.by_order) == (ARCHIVE, False, 4, False)
    packets = [p async for p in container.read(path, info, index, 1, 3)]
    assert [(p.pts, p.data) for p in packets] == [(1, files[1]), (2, files[2])]
    shown = await container.picture(path, info, index, 2, size=(85, 61), max_side=0)
    assert np.array_equal(pictures.decoded(shown.data), pictures.scene(2))


async def test_cuts_are_found_in_a_zip_of_pictures(container: Container, tmp_path: Path):
    noise = np.random.default_rng(0)
    scenes = [np.kron(noise.integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(2)]
    files = [pictures.encoded(scenes[i // 4], ".png") for i in range(8)]
    path = pictures.zipped(tmp_path / "data", files)
    info = await container.probe(path)
    index = await container.index(path, info)
    assert [frame async for frame, is_cut in container.cuts(path, info, index, 0, 8) if is_cut] == [4]


@pytest.mark.parametrize("data", [b"no picture", b"#EXTM3U\n/etc/passwd\n", b""])
async def test_a_zip_of_something_else_is_refused_by_its_name(container: Container, tmp_path: Path, data: bytes):
    path = pictures.zipped(tmp_path / "data", [data])
    with pytest.raises(InvalidVideo, match=r"f8\.png' in the zip|No frame of the file"):
        await container.probe(path)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
