"""What is ready on a volume, and who may write."""

import dataclasses
import json
import threading
from pathlib import Path

import pytest

from services.inference.delivery.catalogue import SourceFile
from services.inference.delivery.progress import Progress
from services.inference.delivery.volume import FileRecord, Volume

SHA256 = "a" * 64
RECORD = FileRecord(
    role="dit", name="dit.st", size_bytes=4, sha256="b" * 64, repository="own/weights", file="d.st", revision="v1",
    commit="c0ffee", source_sha256=SHA256,
)  # fmt: skip


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def publish(volume: Volume, content: bytes = b"1234") -> None:
    staging = volume.staging("tiny")
    staging.file("dit.st").write_bytes(content)
    record = dataclasses.replace(RECORD, size_bytes=len(content))
    staging.note(record)
    staging.publish([record])


@pytest.mark.parametrize(
    ("wanted", "answers"),
    [
        ({"sha256": SHA256}, True),
        ({"sha256": SHA256, "repository": "another/place", "file": "other.st"}, True),
        ({"sha256": "d" * 64}, False),
        ({}, True),
        ({"revision": "v1"}, True),
        ({"revision": "c0ffee"}, True),
        ({"revision": "v2"}, False),
        ({"repository": "another/place"}, False),
        ({"file": "other.st"}, False),
    ],
)
def test_a_file_answers_for_its_content_or_where_no_hash_is_known_for_its_place(wanted: dict[str, str], answers: bool):
    given = {"role": "dit", "repository": "own/weights", "file": "d.st"} | wanted
    assert RECORD.answers(SourceFile(**given)) is answers  # type: ignore[arg-type]


def test_a_published_model_is_ready(volume: Volume):
    publish(volume)
    marker = volume.ready("tiny")
    assert marker is not None
    assert marker.files == (RECORD,)
    assert marker.answers([SourceFile(role="dit", repository="", file="", sha256=SHA256)])
    assert not marker.answers([SourceFile(role="vae", repository="", file="", sha256=SHA256)])
    assert not volume.has_parts("tiny")


def test_a_model_with_a_file_of_another_size_is_not_ready(volume: Volume):
    publish(volume)
    (volume.directory / "tiny" / "dit.st").write_bytes(b"123")
    assert volume.ready("tiny") is None
    assert volume.marker("tiny") is not None


@pytest.mark.parametrize("change", [{"schema_version": 2}, {"files": []}, {"files": [{"role": "dit"}]}, {"files": [None]}])
def test_a_marker_that_is_not_understood_counts_as_none(volume: Volume, change: dict[str, object]):
    publish(volume)
    path = volume.directory / "tiny" / "complete.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert volume.marker("tiny") is None
    assert not volume.has_foreign_files("tiny")


def test_a_new_set_takes_the_place_of_an_old_one_also_after_a_death_in_between(volume: Volume):
    publish(volume, b"1234")
    staging = volume.staging("tiny")
    (volume.directory / "tiny").rename(staging.home / "old")
    publish(volume, b"12345")
    assert (volume.directory / "tiny" / "dit.st").read_bytes() == b"12345"
    publish(volume, b"123456")
    assert (volume.directory / "tiny" / "dit.st").read_bytes() == b"123456"
    assert not volume.has_parts("tiny")


def test_what_nobody_wants_any_more_is_swept_away(volume: Volume):
    staging = volume.staging("tiny")
    kept = [staging.part("dit", "new"), staging.file("dit.st")]
    for path in (*kept, staging.part("dit", "old"), staging.file("vae.st.draft")):
        path.write_bytes(b"1234")
    staging.sweep(parts=kept[:1], done=[RECORD])
    found = [path for path in staging.home.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(kept)


def test_a_note_counts_only_with_its_file(volume: Volume):
    staging = volume.staging("tiny")
    wanted = SourceFile(role="dit", repository="own/weights", file="d.st", sha256=SHA256)
    staging.note(RECORD)
    assert staging.record(wanted) is None
    staging.file("dit.st").write_bytes(b"1234")
    assert staging.record(wanted) == RECORD
    assert staging.record(dataclasses.replace(wanted, sha256="d" * 64)) is None


def test_one_at_a_time_and_the_other_learns_how_far_it_is(volume: Volume):
    other, seen, waiting = Volume(volume.directory), list[Progress](), threading.Event()

    def wait(progress: Progress) -> None:
        seen.append(progress)
        waiting.set()

    def take() -> None:
        with other.exclusive(wait):
            seen.append(Progress(stage="ready"))

    with volume.exclusive(wait):
        volume.tell(Progress(stage="downloading", model="tiny", file="d.st", done_bytes=1, total_bytes=4))
        assert volume.busy()
        thread = threading.Thread(target=take)
        thread.start()
        assert waiting.wait(10)
    thread.join(10)
    assert seen[0] == Progress(stage="waiting", model="tiny", file="d.st", done_bytes=1, total_bytes=4)
    assert seen[-1] == Progress(stage="ready")
    assert not volume.busy()
    assert volume.told() == Progress(stage="downloading")
