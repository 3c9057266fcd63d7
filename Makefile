# Two commands do everything on a fresh Debian-like machine: `make demo` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/
PYTEST = $(RUN)python -m pytest -p no:cacheprovider --durations=10
# Processes that share a layer, each with servers of its own: most tests wait most of the time.
AT_ONCE ?= 3
SHARED = $(PYTEST) -n $(AT_ONCE) --maxschedchunk 1
# In the layers of `make test`: what fails among others runs once more alone, and is told (tests/setup/steady.py).
STEADY = $(RUN)python tests/setup/steady.py
GROUND := $(PYTHON) tests/cluster/ground/ground.py

.PHONY: help venv lint check generate test test-unit test-postgres test-cluster test-e2e test-rights test-upgrade matrix crash soak bench servers demo demo-down lock \
	ground ground-down images

help: ## What there is
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/stamp: requirements/dev.txt
	@$(PYTHON) tests/setup/venv.py $(VENV)

venv: $(VENV)/stamp ## The locked Python environment

lint: venv ## Style, types, layers, and nothing generated is stale
	$(RUN)ruff check operator tests examples
	$(RUN)ruff format --check operator tests examples
	$(RUN)mypy
	$(RUN)lint-imports --no-cache
	$(RUN)python -m pgtend.codegen --check
	$(RUN)python tests/ledger.py --check

generate: venv ## CRDs, chart copy, reference and reason pages from the models
	$(RUN)python -m pgtend.codegen
	$(RUN)python tests/ledger.py

servers: ## Real PostgreSQL servers, PgBouncer and S3 for the tests
	$(PYTHON) tests/servers/install.py --majors 14,18

ground: ## A cluster, by whichever way this machine allows
	$(GROUND) up

ground-down:
	$(GROUND) down

images: ## The images of operator and tools, in the cluster
	$(GROUND) images

test: ## Every layer, as CI runs it
	@$(PYTHON) tests/setup/layers.py lint unit postgres cluster e2e

test-unit: venv ## No I/O, under 20 s
	$(PYTEST) -n 2 tests/unit

test-postgres: venv servers ## Real servers, no Kubernetes
	$(STEADY) -n $(AT_ONCE) tests/postgres

test-cluster: venv servers ground ## A real API server, the operator as a process
	$(STEADY) -n $(AT_ONCE) -m "not alone" tests/cluster
	$(STEADY) -m alone tests/cluster

test-e2e: venv ground images ## In the cluster: images, Helm, pods
	$(STEADY) tests/e2e

matrix: venv ground ## Every major from 14 to 18, properties on all their cases, and what is too slow for every run
	$(PYTHON) tests/servers/install.py --all
	PGTEND_THOROUGH=1 $(PYTEST) -n 2 tests/unit
	PGTEND_THOROUGH=1 $(SHARED) -m "matrix or not matrix" tests/postgres
	$(SHARED) -m matrix tests/cluster

crash: venv servers ground ## kill -9 at every failpoint; seeded short forms of it are in make test
	$(PYTHON) tests/servers/install.py --all
	$(SHARED) -m "crash or matrix or not matrix" -k killed tests/postgres tests/cluster

soak: venv servers ground ## PGTEND_SOAK_SECONDS (300) of steady state write nothing
	$(PYTEST) -s -m soak tests/cluster/test_soak.py

bench: bench-idle bench-targets bench-users bench-backup ## What it costs; each ends with one line of JSON

bench-%: venv servers ground ## bench-idle, bench-targets, bench-users, bench-backup; ARGS are its options
	$(RUN)python tests/bench/bench_$*.py $(ARGS)

test-rights: venv ground ## Every right that the chart grants was used, by the audit log of what has run
	$(RUN)python -m tests.cluster.rights

test-upgrade: venv ground ## From PGTEND_UPGRADE_FROM (HEAD~1) to this commit and back; not a part of make test
	$(PYTEST) -s tests/upgrade

lock: venv ## Write the locks anew from requirements/*.in
	$(RUN)python -m pip install -q pip-tools
	for name in operator dev; do $(RUN)pip-compile -q --generate-hashes --strip-extras --allow-unsafe --no-header \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		-o requirements/$$name.txt requirements/$$name.in; done

demo: ## The whole thing in a cluster of its own
	@$(PYTHON) examples/demo/demo.py up

demo-down: ## Remove every trace of it
	@$(PYTHON) examples/demo/demo.py down
