from pathlib import Path

import pytest

from services.common.durable import replaced_when_done


def test_a_file_appears_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "result"
    path.write_bytes(b"before")
    with replaced_when_done(path) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "result"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError, match="no more"), replaced_when_done(path) as file:
        file.write(b"half")
        raise RuntimeError("no more")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
