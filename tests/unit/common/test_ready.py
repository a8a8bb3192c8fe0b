import json
import os
from pathlib import Path

from services.common.ready import tell_ready, with_port


def test_a_ready_file_names_addresses_and_process_and_leaves_no_draft(tmp_path: Path):
    tell_ready(str(tmp_path / "ready.json"), address="127.0.0.1:5", metrics_address="127.0.0.1:6")
    expected = {"address": "127.0.0.1:5", "metrics_address": "127.0.0.1:6", "pid": os.getpid()}
    assert json.loads((tmp_path / "ready.json").read_text()) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["ready.json"]


def test_an_address_gets_the_port_that_was_taken():
    assert with_port("127.0.0.1:0", 4711) == "127.0.0.1:4711"
    assert with_port("", None) == ""
