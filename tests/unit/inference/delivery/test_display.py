"""Progress for people."""

import io
import logging

import pytest

from services.inference.delivery.display import Bar, Lines, display_for, text_of
from services.inference.delivery.progress import Progress, size_text

HALF = Progress(stage="downloading", model="tiny", file="d.st", done_bytes=3_400_000_000, total_bytes=6_800_000_000)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (90_000_000, "90.0 MB"), (6_782_952_896, "6.8 GB"), (10**13, "10.0 TB")],
)
def test_sizes_are_in_decimal_units(size_bytes: int, text: str):
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (HALF, "downloading d.st 3.4 GB of 6.8 GB (50 %)"),
        (Progress(stage="downloading", file="d.st", done_bytes=3000), "downloading d.st 3.0 kB"),
        (Progress(stage="waiting"), "waiting for another process that downloads to this volume"),
        (Progress(stage="waiting", file="d.st"), "waiting for another process that downloads to this volume: d.st"),
        (Progress(stage="ready", model="tiny"), "tiny is ready"),
    ],
)
def test_progress_in_words(progress: Progress, text: str):
    assert text_of(progress) == text


def test_logs_get_a_line_for_each_file_and_stage_and_not_for_each_piece(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    show = Lines()
    for progress in (HALF, HALF, Progress(stage="checking", model="tiny", file="d.st"), Progress(stage="ready", model="tiny")):
        show(progress)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["downloading", "checking", "tiny"]
    assert vars(caplog.records[0])["done_bytes"] == 3_400_000_000


def test_a_terminal_gets_one_line_that_is_written_over():
    stream = io.StringIO()
    show = Bar(stream)
    show(HALF)
    show(Progress(stage="ready", model="tiny"))
    first, second = stream.getvalue().split("\r\x1b[K")[1:]
    assert first == "[############............] downloading d.st 3.4 GB of 6.8 GB (50 %)"
    assert second == "tiny is ready\n"


def test_what_is_no_terminal_gets_log_lines():
    assert isinstance(display_for(io.StringIO()), Lines)
