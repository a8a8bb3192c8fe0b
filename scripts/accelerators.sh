#!/bin/sh
# Build wheels of optional GPU kernels from source, into a directory, against the torch of a Python. Any that fails ends this.
# Usage: scripts/accelerators.sh PYTHON DIRECTORY [flash-attn] [apex]
set -eu
python=$1 directory=$2
shift 2

# flash-attn has no wheel for the torch of the lock.
flash_attn="flash-attn==2.8.3.post2"
# What the package index calls apex is something else; this is NVIDIA's source.
apex="apex @ git+https://github.com/NVIDIA/apex.git@10417aceddd7d5d05d7cbf7b0fc2daad1105f8b4"

build() { "$python" -m pip wheel --no-deps --no-build-isolation --no-binary :all: --wheel-dir "$directory" "$1"; }

for name in "$@"; do
    case $name in
    flash-attn | apex) ;;
    *) echo "There is no accelerator $name; known are flash-attn and apex." >&2 && exit 2 ;;
    esac
done
command -v nvcc >/dev/null || { echo "Accelerators are compiled by nvcc, and there is none: set CUDA_DEVEL to an image that has it." >&2; exit 1; }
"$python" -m pip install --quiet ninja packaging psutil setuptools wheel
mkdir -p "$directory"
for name in "$@"; do
    case $name in
    flash-attn) FLASH_ATTENTION_FORCE_BUILD=TRUE build "$flash_attn" ;;
    apex) APEX_CPP_EXT=1 APEX_CUDA_EXT=1 build "$apex" ;;
    esac
done
