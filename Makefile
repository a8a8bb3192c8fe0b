# Every command people type; `.ci/run` uses the same ones. Each target makes what it needs and is quick the second time.
PY := .venv/bin/python
PB := services/common/pb/seedvr2/v1/.stamp

.PHONY: setup proto demo run test helm-test checkov helm-bin lint format bench images images-test proxies-test lock clean
.DEFAULT_GOAL := help

help:           ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(PB)    ## .venv with everything, and the generated gRPC code

.PHONY: venv
venv:
	@scripts/setup.sh

$(PB): protos/seedvr2/v1/*.proto | venv
	scripts/proto.sh $(PY)
	@touch $@

proto: $(PB)    ## gRPC code from protos/

demo: setup     ## restore a bad clip through all services with the embedded model
	$(PY) -m demo

run: setup      ## the web page on this machine, http://127.0.0.1:7860
	.venv/bin/seedvr2 up

TESTS_AT_ONCE ?= 0
test: setup helm-bin ## all tests; TESTS_AT_ONCE=2 two files at a time
	$(PY) -m pytest -n $(TESTS_AT_ONCE) --dist loadfile

helm-test: checkov ## the chart: what both Helms render, and what checkov says of it
	$(PY) -m pytest -q tests/helm

checkov: setup helm-bin
	scripts/checkov.sh

helm-bin: setup
	@$(PY) -m scripts.helm

lint: setup     ## ruff, mypy, import rules, protos, Dockerfiles, shell scripts
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/mypy && .venv/bin/lint-imports
	.venv/bin/buf lint protos
	for wire in tests/recorded/*/wire.binpb; do .venv/bin/buf breaking protos --against $$wire || exit 1; done
	.venv/bin/hadolint services/*/Dockerfile
	.venv/bin/shellcheck scripts/*.sh .ci/run

format: setup   ## what lint would change
	.venv/bin/ruff check --fix . ; .venv/bin/ruff format .

bench: setup    ## speed, memory and wire overhead on this machine
	$(PY) -m bench

IMAGES ?= ui gateway inference
images:         ## container images, with podman or docker; IMAGES="ui gateway inference-cpu" chooses, scripts/images.sh says more
	scripts/images.sh $(IMAGES)

images-test:    ## build the images with podman on a stand-in base, and restore a clip across their containers
	scripts/images_test.sh

proxies-test: setup helm-bin ## nginx and Envoy before the services: real times, and a file of 1 GiB
	SEEDVR2_PROXIES_WHOLE=1 $(PY) -m pytest -q -s tests/integration/proxies

lock: setup     ## requirements.txt from requirements.in
	scripts/lock.sh

clean:          ## everything that make created
	rm -rf .venv services/common/pb demo-output bench-output test-output
