# make demo   see the pipeline run          make test    run every test that needs no container
# make check  format, lint, types, imports  make help    the rest, such as make test-docker

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Two for each core: most tests wait, for processes that they start or for time to pass, and one for
# each leaves the machine idle. Counted by getconf, which Linux and macOS have.
WORKERS ?= $$((2 * $$(getconf _NPROCESSORS_ONLN)))
PARALLEL = -n $(WORKERS) --dist worksteal
# What runs pytest, where that is somebody else: CI, which reruns what failed.
UNDER ?=
PROGRAM = python

.DEFAULT_GOAL := help
.PHONY: help demo test test-sdks test-matrix test-slow test-docker check format benchmarks coverage \
        clean same-python

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## install into .venv, then run the one-command tour
	@$(BIN)/optly-celery demo

test: $(VENV)/.dev ## every test that needs no container engine, but for the slow ones
	$(UNDER) $(BIN)/$(PROGRAM) -m pytest $(PARALLEL) -m "not slow"

test-slow: $(VENV)/.dev ## the slow ones: outages, signals, brokers in trouble, examples from scratch
	$(UNDER) $(BIN)/python -m pytest $(PARALLEL) -m slow

test-sdks: $(VENV)/.dev ## the tests that matter against older SDKs, the oldest Celery, Flask, Django, and Python 3.13
	$(BIN)/nox --tags ci

test-matrix: $(VENV)/.dev ## the same against every version in noxfile.py
	$(BIN)/nox

test-docker: $(VENV)/.docker ## image, compose file and pytest-celery; skipped where no engine answers
	$(BIN)/python -m pytest -c tests/docker/pytest.ini tests/docker

check: $(VENV)/.dev ## format, lint, types and imports, as CI does
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: $(VENV)/.dev ## make test, and what it does not reach; fails below a floor
	$(BIN)/coverage erase
	$(MAKE) test PROGRAM="coverage run"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

benchmarks: $(VENV)/.dev ## the numbers in the README and in docs/
	$(BIN)/python benchmarks/dispatch.py
	$(BIN)/python benchmarks/drain.py
	$(BIN)/python benchmarks/queue_size.py
	$(BIN)/python benchmarks/burst.py
	$(BIN)/python benchmarks/track.py

clean: ## remove .venv and what tools left behind
	rm -rf $(VENV) .nox build *.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache

# Where PYTHON is given, what .venv was made with has to be that one, and not a silent other.
same-python:
ifneq ($(origin PYTHON),file)
	@[ ! -e $(VENV)/.made ] || { \
	  which='import os, sys; print(sys.version.split()[0], "in", os.path.realpath(sys.base_prefix))'; \
	  given=$$($(PYTHON) -c "$$which" 2>/dev/null || echo "none that runs"); \
	  made=$$($(BIN)/python -c "$$which" 2>/dev/null || echo "gone since"); \
	  [ "$$given" = "$$made" ] || { \
	    echo "$(VENV) was made with another Python ($$made) than $(PYTHON) ($$given)." \
	         "Give this one a directory of its own: make PYTHON=$(PYTHON) VENV=.venv-other" \
	         "$(MAKECMDGOALS); or have $(VENV) made anew: make clean, and then this again." >&2; \
	    exit 1; }; }
endif

$(VENV)/.made: | same-python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "This needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	       "Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "Python could not make a virtual environment: install its venv module" \
	       "(Debian, Ubuntu: apt install python3-venv) and try again." >&2; exit 1; }
	@touch $@

$(VENV)/.demo: $(VENV)/.made setup.cfg pyproject.toml
	@echo "Installing into $(VENV); the first time takes a minute."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made setup.cfg pyproject.toml
	@echo "Installing into $(VENV); the first time takes a minute or two."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.docker: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docker]'
	@touch $@
