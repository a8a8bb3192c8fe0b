"""The examples of docs/client.md and docs/api.md, as programs of their own against a real gateway."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.clips import make
from tests.integration.processes import Process, echo_worker, gateway, running

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

DOCS = Path(__file__).parents[2] / "docs"
PROGRAMS = [
    (page, number, text)
    for page in ("client.md", "api.md")
    for number, text in enumerate(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL), 1)
    # The rest are lines for such a program, not one.
    if "import" in text
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    directory = tmp_path_factory.mktemp("service")
    worker = echo_worker(directory / "worker")
    async with running(worker):
        process = gateway(directory / "gateway", worker)
        async with running(process):
            yield process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs run, one after the other as on the page."""
    directory = tmp_path_factory.mktemp("user")
    make.video(directory / "old.mp4", audio="aac")
    return directory


@pytest.mark.parametrize(("page", "number", "text"), PROGRAMS, ids=[f"{page}-{number}" for page, number, _ in PROGRAMS])
async def test_an_example_runs_as_it_stands(service: Process, folder: Path, page: str, number: int, text: str):
    assert "127.0.0.1:50051" in text
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", text.replace("127.0.0.1:50051", service.address),
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, said.decode()
    assert "error" not in said.decode().lower()


async def test_the_examples_left_their_results(folder: Path):
    assert {"restored.mp4", "restored-2.mp4"} <= {path.name for path in folder.iterdir()}
