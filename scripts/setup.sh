#!/usr/bin/env bash
# Make .venv with everything that development and the demo need. Quick when nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=.venv/.installed-$(cat requirements-dev.txt scripts/setup.sh scripts/install_torch.sh pyproject.toml | sha256sum | cut -c1-16)
if [ -f "$stamp" ]; then exit 0; fi
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; $("$python" --version) was found. Set PYTHON=/path/to/python3.11." >&2
    exit 1
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
scripts/install_torch.sh .venv/bin/python
# torch is in place, in the right build; the lock's other packages follow.
grep -v '^torch==' requirements-dev.txt > .venv/requirements.txt
.venv/bin/uv pip install --quiet --python .venv/bin/python -r .venv/requirements.txt
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable .
rm -f .venv/.installed-*
touch "$stamp"
