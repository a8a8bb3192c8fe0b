#!/usr/bin/env bash
# Write every requirements.txt from its requirements.in. Run after changing one; commit both.
set -euo pipefail
cd "$(dirname "$0")/.."
# The CPU build has no GPU packages among its dependencies, so the lock fits every machine.
echo "torch==2.13.0+cpu" > .venv/torch-constraint.txt
lock() {
    .venv/bin/uv pip compile --quiet --no-header --no-annotate --python-version 3.11 --constraint .venv/torch-constraint.txt \
        ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} "$1" --output-file "$2" "${@:3}"
    # The lock names the version; which build of it is scripts/install_torch.sh's choice.
    sed -i 's/^torch==\([0-9.]*\)+cpu/torch==\1/; /^--find-links/d' "$2"
}
lock requirements-dev.in requirements-dev.txt "$@"
# It is installed beside any of the others.
lock services/common/requirements-tracing.in services/common/requirements-tracing.txt --constraint requirements-dev.txt "$@"
for service in gateway inference ui cli; do
    lock services/$service/requirements.in services/$service/requirements.txt "$@"
done
