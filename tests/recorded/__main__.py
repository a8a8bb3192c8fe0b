"""``python -m tests.recorded tests/recorded/VERSION``: what this release writes, for later ones to read."""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.recorded.recording import record


def main() -> None:
    """Record into the directory that is named; it must not exist."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    target = parser.parse_args().directory
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        asyncio.run(record(target, Path(work)))
    # What `buf breaking` compares with.
    buf = Path(sys.executable).with_name("buf")
    subprocess.run([buf, "build", "protos", "--exclude-source-info", "-o", target / "wire.binpb"], check=True)


main()
