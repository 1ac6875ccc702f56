# Two commands for a newcomer: `make demo` and `make test`. Each makes .venv, installs what it needs, and runs.
# Once installed, both work without a network and without calling pip, until pyproject.toml or constraints.txt changes.
#
#   TORCH=cpu make demo    PyTorch's own CPU builds (a much smaller download) instead of the registry's CUDA builds
#   PYTHON=/path/python3   the Python that makes .venv (3.11 or newer)
#   WORKERS=8 make test    test processes

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo docs test test-all test-fresh test-minimum lint bench clean update-constraints install-demo install-test venv

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
TESTED := -c constraints.txt
TRY := $(BIN)/python .ci/try_imports.py
INSTALLED := cat pyproject.toml constraints.txt
WORKERS ?= 2
TORCH ?=
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

help:
	@echo "make demo      audio and sheet music find each other: trains for a few minutes, writes runs/audio-demo/report.html"
	@echo "make test      the tests that take minutes"
	@echo "make test-all  every test, also the slow ones"
	@echo "make test-fresh  the installations of newcomers, in environments of their own, with the oldest pip and the newest"
	@echo "make test-minimum  the tests with the lowest versions that pyproject.toml allows"
	@echo "make docs      the documentation, as build/docs/index.html"
	@echo "make lint      ruff"
	@echo "make bench     speed measurements"
	@echo "make update-constraints  the newest versions of every dependency, written to constraints.txt; then run make test"
	@echo "make clean     removes .venv and build leftovers, keeps runs/"

demo: install-demo
	@echo "== Running the demo (counterpoint audio demo)"
	$(BIN)/counterpoint audio demo

test: install-test
	@echo "== Running the tests"
	$(PYTEST) -m "not slow and not gpu"

test-all: install-test
	@echo "== Running every test"
	$(PYTEST) --timeout 1800

test-fresh:
	.ci/fresh

test-minimum:
	.ci/fresh minimum

docs: install-test
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "wrote build/docs/index.html"

lint: install-test
	$(BIN)/ruff check .

bench: install-test
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

# What was installed is remembered as a copy of the files that decide it, so a fresh timestamp alone installs nothing
# again; and only once everything that the extras promise can be imported, since pip may leave out an extra with a warning.
install-demo: venv
	@$(INSTALLED) | cmp -s - $(VENV)/demo.installed || { \
	  echo "== Installing Counterpoint with the audio extra into $(VENV) (up to 3.3 GB to download: this takes minutes)" && \
	  $(PIP) $(TESTED) -e '.[audio-speech]' && $(TRY) audio-speech && $(INSTALLED) > $(VENV)/demo.installed; }

install-test: venv
	@$(INSTALLED) | cmp -s - $(VENV)/test.installed || { \
	  echo "== Installing Counterpoint with every extra and the test tools into $(VENV) (up to 3.4 GB to download: this takes minutes)" && \
	  $(PIP) $(TESTED) -e '.[all,dev]' && $(TRY) all dev && \
	  $(INSTALLED) > $(VENV)/test.installed && $(INSTALLED) > $(VENV)/demo.installed; }

# A local version (2.14.1+cpu) is written without its suffix, which every build of that version satisfies.
update-constraints: venv
	$(PIP) --upgrade --upgrade-strategy eager -e '.[all,dev]'
	$(TRY) all dev
	@{ echo "# The versions that the tests passed with, used by make (pip install -c); refreshed by: make update-constraints" && \
	  $(BIN)/python -m pip list --disable-pip-version-check --format=freeze \
	    --exclude counterpoint --exclude pip | sed 's/+.*//'; } > $(VENV)/constraints.txt
	@mv $(VENV)/constraints.txt constraints.txt

venv:
	@test -x $(BIN)/python || { \
	  for python in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "Counterpoint needs Python 3.11 or newer; python3 here is $$(python3 --version 2>&1). Install one, or name" \
	      "it: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; fi; \
	  echo "== Making $(VENV) with $$($$found --version)"; \
	  $$found -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "$$found cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }; }
ifeq ($(TORCH),cpu)
	@test -e $(VENV)/torch-cpu.installed || { \
	  echo "== Installing PyTorch's CPU builds" && \
	  $(PIP) --index-url https://download.pytorch.org/whl/cpu --no-deps "$$(grep '^torch==' constraints.txt)" && \
	  touch $(VENV)/torch-cpu.installed; }
else ifneq ($(TORCH),)
	@echo "TORCH=$(TORCH) is not known; leave it out, or say TORCH=cpu" >&2; exit 2
endif
