#!/usr/bin/env bash
# Build the container images with podman or docker. Usage: scripts/images.sh [ui] [gateway] [inference] [inference-cpu]; `make images` builds
# the first three. What the environment may say:
#   ENGINE         podman or docker; default: the first that is there
#   IMAGE_PREFIX   what comes before a service's name, for example registry.example/team/seedvr2- (default: seedvr2-)
#   IMAGE_TAG      default: the version in pyproject.toml
#   IMAGE_FLAGS    more flags of `build`: --build-arg ACCELERATORS=flash-attn, --secret id=pip,src=pip.conf, --push, …
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
prefix=${IMAGE_PREFIX:-seedvr2-} tag=${IMAGE_TAG:-$version}
engine=${ENGINE:-$(command -v podman || command -v docker || true)}
[ -n "$engine" ] || { echo "Neither podman nor docker is installed; ENGINE can name another program with the same commands." >&2; exit 1; }
# Podman's own format has no HEALTHCHECK.
case $(basename "$engine") in podman | buildah) format=(--format docker) ;; *) format=() ;; esac
read -ra flags <<<"${IMAGE_FLAGS:-}"
python_image=$(sed -n 's/^ARG PYTHON_IMAGE=//p' services/ui/Dockerfile)
cpu=(--build-arg "CUDA_BASE=$python_image" --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu --build-arg SYSTEM_PACKAGES=)

for image in "${@:-}"; do
    [ -n "$image" ] || { echo "Name the images to build: ui, gateway, inference, inference-cpu." >&2; exit 2; }
    variant=()
    [ "$image" != inference-cpu ] || variant=("${cpu[@]}")
    began=$SECONDS
    "$engine" build "${format[@]}" --file "services/${image%-cpu}/Dockerfile" --tag "$prefix$image:$tag" \
        --build-arg "VERSION=$version" --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
        "${variant[@]}" "${flags[@]}" .
    bytes=$("$engine" image inspect --format '{{.Size}}' "$prefix$image:$tag")
    echo "$prefix$image:$tag: $((bytes / 1000000)) MB, built in $((SECONDS - began)) s"
done
