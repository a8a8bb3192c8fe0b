import asyncio
import json
import logging

import pytest

from services.common.logs import log_context, setup_logging


@pytest.fixture(autouse=True)
def _root_logger_as_it_was():
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = kept


def _lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_each_line_is_json_with_the_ids_of_its_own_task(capsys: pytest.CaptureFixture[str]):
    setup_logging("gateway")
    log = logging.getLogger("x")

    async def work(job_id: str) -> None:
        with log_context(job_id=job_id):
            await asyncio.sleep(0)
            log.info("at work", extra={"frames": 3})

    await asyncio.gather(work("a"), work("b"))
    log.info("outside")
    lines = _lines(capsys.readouterr().err)
    assert [line.get("job_id") for line in lines] == ["a", "b", None]
    assert lines[0] | {"time": ""} == {
        "time": "", "level": "info", "service": "gateway", "logger": "x", "message": "at work", "job_id": "a", "frames": 3,
    }  # fmt: skip


def test_a_traceback_is_one_field_of_the_line(capsys: pytest.CaptureFixture[str]):
    setup_logging("ui")
    try:
        raise RuntimeError("no")
    except RuntimeError:
        logging.getLogger("x").exception("it broke")
    (line,) = _lines(capsys.readouterr().err)
    assert "RuntimeError: no" in str(line["exception"])
