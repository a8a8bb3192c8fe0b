from pathlib import Path

import numpy as np
import pytest

from services.inference.video.encode import SpanEncoder
from services.inference.video.x264 import repeatable_options
from tests.unit.inference.clips import make_clip, read_clip, task_for


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512f avx512bw", {"x264-params": "asm=avx2"}),
        ("flags\t\t: fpu sse2 avx2", {}),
        ("Features\t: fp asimd", {}),
    ],
)
def test_a_processor_with_avx512_is_held_to_avx2(flags: str, options: dict[str, str], tmp_path: Path):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert repeatable_options(tmp_path / "cpuinfo") == options


def test_a_machine_that_says_nothing_of_its_processor_gets_no_options(tmp_path: Path):
    assert repeatable_options(tmp_path / "none") == {}


@pytest.mark.parametrize("threads", [1, 4])
def test_the_same_frames_give_the_same_bytes_whatever_was_encoded_before(threads: int):
    clip = read_clip(make_clip(frames=24))
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(24)]
    found: dict[int, set[bytes]] = {}
    for stored in ([], [0], [], [8], [0, 8], [], []):
        task = task_for(clip, segment_frames=8, stored=stored)
        encoder = SpanEncoder(task, threads=threads, on_segment=lambda s, data: found.setdefault(s.first, set()).add(data))
        for picture in pictures:
            encoder.take(picture[None])
    assert {first: len(ways) for first, ways in found.items()} == {0: 1, 8: 1, 16: 1}
