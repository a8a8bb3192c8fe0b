"""Starts an example service, prints its process id and waits to be killed: ``parent_example DIRECTORY``."""

import asyncio
import sys
from pathlib import Path

from services.cli.service import ServiceProcess
from tests.unit.cli.test_service import example


async def main() -> None:
    service = ServiceProcess(example(Path(sys.argv[1])), print)
    await service.start()
    print(service.pid, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
