#!/usr/bin/env bash
# Build the images with podman on a stand-in for their base, and test the containers: `make images-test`. Needs podman and debootstrap, as
# root; fetches Debian's packages and the locks' wheels, no image of a registry. IMAGES_TEST_BUILD=no tests what was built before.
set -euo pipefail
cd "$(dirname "$0")/.."
standin=localhost/seedvr2-standin:bookworm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for command in podman debootstrap; do
    command -v $command >/dev/null || { echo "$command is not installed: apt-get install podman buildah runc debootstrap" >&2; exit 1; }
done
if ! podman image exists "$standin"; then
    # Python and certificates is all that the Dockerfiles expect of python:3.12-slim; the stand-in's Python is Debian's.
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/root" >"$work/log" || { cat "$work/log"; exit 1; }
    tar -C "$work/root" -cf - . | podman import - "$standin"
fi
if [ "${IMAGES_TEST_BUILD:-yes}" = yes ]; then
    # The build uses the package index as this machine's pip does, with its certificates and its folder of wheels.
    volumes=$(.venv/bin/python -m scripts.pip_of_builds "$work/pip.conf")
    # chroot: needs fewer privileges of the machine than a build that isolates more.
    flags="--pull=never --isolation chroot --network host --secret id=pip,src=$work/pip.conf $volumes"
    flags="$flags --build-arg PYTHON_IMAGE=$standin --build-arg CUDA_BASE=$standin --build-arg CUDA_DEVEL=$standin"
    flags="$flags --build-arg TORCH_INDEX= --build-arg ACCELERATOR_PACKAGES="
    export ENGINE=podman IMAGE_PREFIX=localhost/seedvr2- IMAGE_TAG=standin IMAGE_FLAGS=$flags
    scripts/images.sh ui gateway inference-cpu
    if IMAGE_FLAGS="$flags --build-arg ACCELERATORS=apex" scripts/images.sh inference-cpu >"$work/log" 2>&1; then
        echo "An accelerator that can't be built did not fail the image." >&2
        exit 1
    fi
    grep -q "Accelerators are compiled by nvcc" "$work/log" || { cat "$work/log"; exit 1; }
fi
SEEDVR2_TEST_IMAGES=standin .venv/bin/python -m pytest -q tests/images "$@"
