#!/usr/bin/env bash
# The service on this machine, in a cluster of its own, without a GPU: needs docker, kind, kubectl and helm. Usage: k8s/kind.sh [down]
set -euo pipefail
cd "$(dirname "$0")/.."
name=seedvr2
for command in docker kind kubectl helm; do
    command -v $command >/dev/null || { echo "$command is not installed." >&2; exit 1; }
done
if [ "${1:-}" = down ]; then
    exec kind delete cluster --name $name
fi
kind get clusters | grep -qx $name || kind create cluster --name $name --wait 120s
ENGINE=docker IMAGE_TAG=local scripts/images.sh ui gateway inference-cpu
kind load docker-image --name $name seedvr2-ui:local seedvr2-gateway:local seedvr2-inference-cpu:local
kubectl config use-context kind-$name
kubectl apply -f k8s/namespace.yaml
helm upgrade --install seedvr2 helm/seedvr2 --namespace seedvr2 --values helm/seedvr2/ci/laptop.yaml --set image.tag=local --wait --timeout 10m
helm test seedvr2 --namespace seedvr2
