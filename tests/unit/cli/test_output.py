import json

import pytest

from services.cli.output import print_error, print_result, table


def test_a_table_is_aligned():
    assert table(("ID", "STATE"), [("a", "Done"), ("long-id", "Failed")]) == "ID       STATE\na        Done\nlong-id  Failed"


def test_errors_go_to_stderr_and_as_json_to_stdout(capsys: pytest.CaptureFixture[str]):
    print_error(False, "InvalidVideo", "No video in it.")
    print_error(True, "InvalidVideo", "No video in it.")
    said = capsys.readouterr()
    assert said.err == "No video in it.\n"
    assert json.loads(said.out) == {"error": {"code": "InvalidVideo", "message": "No video in it."}}


def test_a_result_is_words_or_one_json_object(capsys: pytest.CaptureFixture[str]):
    print_result(False, {"frames": 3}, "3 frames")
    print_result(True, {"frames": 3}, "3 frames")
    words, record = capsys.readouterr().out.splitlines()
    assert words == "3 frames"
    assert json.loads(record) == {"frames": 3}
