"""What holds for all tests."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# The same examples every time, so that a change is what makes a test fail; no time limit, as machines are busy.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
# Others every time, and more of them: pytest --hypothesis-profile=searching
settings.register_profile("searching", deadline=None, max_examples=2000)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The S3 server that all tests share, a :class:`tests.s3.S3`."""
    # Where only the model is tested there is no client of such a server.
    from tests.s3 import shared_server

    with shared_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def logs_go_where_they_went_before() -> Iterator[None]:
    """What a command sets up in this process would write to a stream that its test has closed."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in [each for each in root.handlers if type(each.formatter).__module__ == "services.common.logs"]:
        root.removeHandler(handler)
    root.setLevel(level)
