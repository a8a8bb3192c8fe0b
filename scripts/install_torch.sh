#!/usr/bin/env bash
# Install the torch that services/inference/requirements.txt pins, in the build that fits this machine:
# CUDA where there is an NVIDIA GPU; else CPU, from a local wheel folder that pip knows, or from PyTorch's own index.
set -euo pipefail
python=$1
cd "$(dirname "$0")/.."
version=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' services/inference/requirements.txt)
if "$python" -c "import torch, sys; sys.exit(torch.__version__.split('+')[0] != '$version')" 2>/dev/null; then exit 0; fi
install() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }
if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    install "torch==$version"
    exit 0
fi
install "torch==$version+cpu" 2>/dev/null && exit 0
install "torch==$version" --index-url https://download.pytorch.org/whl/cpu 2>/dev/null && exit 0
echo "No CPU build of torch $version was found; installing the default one, which is larger." >&2
install "torch==$version"
