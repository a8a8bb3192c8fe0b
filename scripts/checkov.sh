#!/usr/bin/env bash
# What checkov says of the objects that the chart renders, and of the Dockerfiles; helm/checkov.yaml names what is left out, and why.
set -euo pipefail
cd "$(dirname "$0")/.."
checkov=.venv/checkov
version=3.3.30

# Its own environment: it pins many packages that services use in other versions.
if [ ! -x "$checkov/bin/checkov" ]; then
    .venv/bin/uv venv --quiet "$checkov"
    .venv/bin/uv pip install --quiet --python "$checkov/bin/python" "checkov==$version"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HELM_CACHE_HOME=$work HELM_CONFIG_HOME=$work HELM_DATA_HOME=$work
for values in helm/seedvr2/ci/*.yaml; do
    .venv/helm/helm4 template demo helm/seedvr2 --namespace video --values "$values" >"$work/$(basename "$values")"
done
echo "checkov: every object of $(find "$work" -maxdepth 1 -name '*.yaml' | wc -l) sets of values, and the Dockerfiles"
"$checkov/bin/checkov" --quiet --compact --skip-download --framework kubernetes --config-file helm/checkov.yaml --directory "$work"
"$checkov/bin/checkov" --quiet --compact --skip-download --framework dockerfile --config-file helm/checkov.yaml --directory services
