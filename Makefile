# Everything the project is worked on with. Each target brings up what it needs; a bare machine with make and a
# Python >= 3.11 (with venv) is enough. PYTHON=... chooses the interpreter, ARGS=... is passed on.

.DEFAULT_GOAL := help
.PHONY: help run test check bench chaos fuzz features lock vendor screenshots format clean run-environment dev-environment
.NOTPARALLEL:

# Relative, as a checkout's path may hold spaces.
BIN := .venv/bin

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: run-environment ## start the server with its own PostgreSQL (ARGS="--port 9000")
	@exec $(BIN)/parley serve $(ARGS)

# A whole run records coverage for `make check`; with ARGS it is a quick look at a part and records nothing.
test: dev-environment ## run the tests (ARGS="tests/protocol -k cursor")
ifeq ($(strip $(ARGS)),)
	@sh tests/support/coverage.sh run
else
	@$(BIN)/python -m pytest $(ARGS)
endif

check: dev-environment ## formatting, lint, types, architecture, feature table, coverage
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --features=check -qq
	@sh tests/support/coverage.sh report

bench: dev-environment ## measure (tests/benchmarks)
	$(BIN)/python -m pytest -m bench -s $(ARGS)

chaos: dev-environment ## kill and disconnect a running deployment (tests/chaos)
	$(BIN)/python -m pytest -m chaos $(ARGS)

# How many cases a route gets beside the systematic ones: FUZZ=1000 takes hours.
FUZZ ?= 100

fuzz: dev-environment ## call every route with all that the OpenAPI document allows and forbids (FUZZ=1000)
	PARLEY_FUZZ=$(FUZZ) $(BIN)/python -m pytest -o faulthandler_timeout=0 tests/rest/test_openapi_fuzz.py $(ARGS)

features: dev-environment ## the feature table with each row's tests
	@$(BIN)/python -m pytest --features=table -q

format: dev-environment ## format the code and sort its imports
	$(BIN)/ruff check --fix-only --select I .
	$(BIN)/ruff format .

# Exact versions and the hashes of every file of each release, for all platforms and Pythons at once. The index is the
# user's own setting and no part of the files.
lock: ## pin the newest versions of all packages in requirements/*.txt
	@sh requirements/lock.sh

# By npm, which checks every package against its registry's hashes; nothing of it is needed to run or to test.
vendor: ## fetch the console's library anew (ARGS="markdown-it@15.0.3")
	@node requirements/vendor.mjs $(ARGS)

screenshots: dev-environment ## take the README's pictures of the console anew
	PARLEY_SCREENSHOTS=take $(BIN)/python -m pytest -q tests/browser/test_screenshots.py

clean: ## remove environments, caches and reports
	rm -rf .venv .venv-lock .venv.lock .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache htmlcov build ./*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

run-environment:
	@PYTHON='$(PYTHON)' sh requirements/environment.sh run

dev-environment:
	@PYTHON='$(PYTHON)' sh requirements/environment.sh dev
