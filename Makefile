# `make demo` and `make test` need Python 3.10 or later and nothing else: they make .venv and install into it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOURNEY ?= work_dirs/journey
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.docs
# Where no NVIDIA GPU is seen, torch comes from here if that answers: PyPI's for Linux brings CUDA, 5 GB. Empty: from PyPI.
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
ANSWERS := import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=10)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-faults test-e2e journey tutorials pages docs docs-full linkcheck lint format clean

help:  ## List the targets.
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): setup.cfg setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@if [ -n "$(CPU_INDEX)" ] && [ "$$(uname -s)" = Linux ] && [ ! -e /proc/driver/nvidia ] && ! command -v nvidia-smi; then \
	  if $(BIN)/python -c '$(ANSWERS)' $(CPU_INDEX)/torch/ 2>/dev/null; then \
	    $(BIN)/pip install -c constraints.txt --index-url $(CPU_INDEX) torch torchvision || true; \
	  else echo '$(CPU_INDEX) does not answer: torch comes from PyPI, with CUDA'; fi; \
	fi
	$(BIN)/pip install -c constraints.txt -e '.[test]'
	@touch $@

install: $(STAMP)  ## Make the virtual environment with the tested versions.

demo: $(STAMP)  ## Pre-train, probe and draw on the Fashion-MNIST subset that ships with ldae (minutes on 2 cores).
	$(BIN)/ldae demo

# Two processes. If one dies, the run ends and names its test: with another in its place it would wait for ever for the last tests.
PARALLEL := -n 2 --max-worker-restart 0
# It imports numba, which has twice crashed in a process that had run thousands of other tests, and never in a new one.
CORRUPTIONS := tests/evaluation/test_corruptions.py
test: $(STAMP)  ## Run the tests, in two processes.
	$(BIN)/python -m pytest $(PARALLEL) tests --ignore=tests/e2e --ignore=tests/faults --ignore=$(CORRUPTIONS)
	$(BIN)/python -m pytest $(CORRUPTIONS)

test-faults: $(STAMP)  ## Run the tests that kill runs, fill disks and hand in bad configs.
	$(BIN)/python -m pytest $(PARALLEL) tests/faults

test-e2e: $(STAMP)  ## Run the tests that start the launchers.
	$(BIN)/python -m pytest $(PARALLEL) tests/e2e

journey: $(STAMP)  ## Go from a folder of photographs to an exported encoder by the documented commands (about 14 minutes on 2 cores).
	$(BIN)/python tests/journey/journey.py --out $(JOURNEY) $(JOURNEY_OPTIONS)

pages: $(STAMP)  ## Write the pages that are made from the configs.
	$(BIN)/python docs/make_pages.py

$(DOCS): $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(DOCS)  ## Build the site into build/docs (Python 3.11 or later), without running the tutorials; any warning is an error.
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs

docs-full: $(DOCS)  ## The same, with the tutorials run and their output in the pages (under 15 minutes on 2 cores).
	LDAE_DOCS_EXECUTE=1 $(BIN)/python -m sphinx -W --keep-going -q docs build/docs

linkcheck: $(DOCS)  ## Ask for each external address of the site if it is there.
	$(BIN)/python -m sphinx -q -b linkcheck docs build/linkcheck

tutorials: $(STAMP)  ## Run the tutorials' code, each in a process and folder of its own; TUTORIALS=--quick in seconds each.
	$(BIN)/python docs/run_tutorials.py $(TUTORIALS)

lint: $(STAMP)  ## Check style and spelling.
	$(BIN)/pip install -q -c constraints.txt ruff codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: $(STAMP)  ## Bring the code into shape.
	$(BIN)/pip install -q -c constraints.txt ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove what builds and tests leave, not .venv and work_dirs.
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
