import os
from pathlib import Path

import pytest

from services.cli.folder import Record, files_of, job_key, options_key, restores_each, stems, upload_key
from services.cli.output import UsageError
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb


def _folder(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).write_bytes(name.encode())
    return path


@pytest.mark.parametrize(
    ("names", "each"),
    [
        (("a.mp4",), True),
        (("a.mp4", "1.png", "2.png"), True),
        (("f1.png", "f2.png", "f10.png"), False),
        (("f1.png", "readme.txt"), False),
        (("beach.jpg", "hill.jpg"), True),
        (("1.png", "2.jpg"), True),
        ((), False),
    ],
)
def test_a_folder_with_a_video_or_with_unlike_names_is_restored_file_by_file(tmp_path: Path, names: tuple[str, ...], each: bool):
    folder = _folder(tmp_path / "in", *names)
    assert restores_each(folder, sequence=False, each=False) == each
    assert restores_each(folder, sequence=False, each=True)
    assert not restores_each(folder, sequence=True, each=False)


def test_a_file_is_no_folder(tmp_path: Path):
    (tmp_path / "a.mp4").touch()
    assert not restores_each(tmp_path / "a.mp4", sequence=False, each=False)
    assert not restores_each(tmp_path / "frames" / "%04d.png", sequence=False, each=False)
    with pytest.raises(UsageError, match="leave out --each"):
        restores_each(tmp_path / "a.mp4", sequence=False, each=True)


def test_videos_and_pictures_are_taken_by_name_and_others_counted(tmp_path: Path):
    folder = _folder(tmp_path / "in", "b.MOV", "a.png", "notes.txt", ".hidden.mp4")
    (folder / "sub.mp4").mkdir()
    files, others = files_of(folder)
    assert ([path.name for path in files], others) == (["a.png", "b.MOV"], 1)
    with pytest.raises(UsageError, match="neither videos nor pictures"):
        files_of(_folder(tmp_path / "empty", "notes.txt"))


def test_results_of_files_that_differ_by_their_ending_only_keep_it():
    a, b, c = Path("in/a.mp4"), Path("in/A.MOV"), Path("in/c.mkv")
    assert stems([a, b, c]) == {a: "a-mp4", b: "A-mov", c: "c"}


def test_a_record_knows_what_was_made_of_what(tmp_path: Path):
    source, output = _folder(tmp_path / "in", "a.mp4") / "a.mp4", _folder(tmp_path / "out", "a.mkv") / "a.mkv"
    Record(tmp_path / "out").add(source, output, "x")
    record = Record(tmp_path / "out")
    assert record.is_done(source, "x")
    assert record.output(source) == output
    assert record.owns(output)
    assert not record.owns(output.with_name("b.mkv"))
    assert not record.is_done(source, "y")


@pytest.mark.parametrize("change", ["source written", "source longer", "output gone", "output shorter"])
def test_a_change_of_source_or_result_is_noticed(tmp_path: Path, change: str):
    source, output = _folder(tmp_path / "in", "a.mp4") / "a.mp4", _folder(tmp_path / "out", "a.mkv") / "a.mkv"
    Record(tmp_path / "out").add(source, output, "x")
    match change:
        case "source written":
            os.utime(source, ns=(0, 0))
        case "source longer":
            source.write_bytes(b"other bytes")
        case "output gone":
            output.unlink()
        case "output shorter":
            output.write_bytes(b"")
    assert not Record(tmp_path / "out").is_done(source, "x")


def test_a_record_of_another_release_is_refused(tmp_path: Path):
    (tmp_path / ".seedvr2.json").write_text('{"schema_version": 99, "files": {}}')
    with pytest.raises(UsageError, match="another release"):
        Record(tmp_path)


def test_ids_follow_from_file_name_and_options():
    one = pb.JobRequest(source=pb.Source(upload_id="a"), target=pb.Target(scale=2), labels={"b": "1", "a": "2"})
    same = pb.JobRequest(source=pb.Source(upload_id="b"), target=pb.Target(scale=2), labels={"a": "2", "b": "1"})
    other = pb.JobRequest(source=pb.Source(upload_id="a"), target=pb.Target(scale=3))
    assert options_key(one) == options_key(same) != options_key(other)
    upload = upload_key(Path("x/a.mp4"), "0" * 64)
    assert upload == upload_key(Path("y/a.mp4"), "0" * 64)
    assert upload != upload_key(Path("x/b.mp4"), "0" * 64)
    assert job_key(upload, options_key(one)) != job_key(upload, options_key(other))
