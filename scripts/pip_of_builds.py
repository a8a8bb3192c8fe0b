"""``python -m scripts.pip_of_builds FILE``: this machine's pip configuration for builds in containers.

Writes a pip.conf to FILE, and prints the ``--volume`` flags without which the paths in it would lead nowhere.
"""

import ast
import subprocess
import sys
from pathlib import Path

_OPTIONS = ("cert", "index-url", "extra-index-url", "find-links", "trusted-host", "timeout")
_PATHS = ("cert", "find-links")


def main(path: Path) -> str:
    """Write the file; the flags."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    options = known_options(listed)
    path.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()))
    return " ".join(volumes(options))


def known_options(listed: str) -> dict[str, str]:
    """Of what ``pip config list`` wrote, the options that say where packages come from; not what an index on this disk says."""
    pairs = (line.split("=", 1) for line in listed.splitlines() if "=" in line)
    values = {name.rsplit(".", 1)[1]: " ".join(str(ast.literal_eval(value)).split()) for name, value in pairs}
    remote = {name: " ".join(word for word in value.split() if not word.startswith("file:")) for name, value in values.items()}
    return {name: value for name, value in remote.items() if name in _OPTIONS and value}


def volumes(options: dict[str, str]) -> list[str]:
    """Flags that show the builds the folders that options name, read-only."""
    words = [Path(word) for name in _PATHS for word in options.get(name, "").split() if word.startswith("/")]
    folders = {path.parent if path.is_file() else path for path in words}
    return [f"--volume={folder}:{folder}:ro" for folder in sorted(folders)]


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
