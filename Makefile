# What a developer does with this project. Nothing is needed but make and Python 3.11 or newer.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
SHARED := ../shared
GOLDEN := $(SHARED)/golden

# One thread for each process, so that the processes of the tests do not get in each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet

.PHONY: help setup test lint conformance gallery twins demo bench starter-eval clean

help:
	@echo "make setup        install everything into .venv (the other targets do it by themselves)"
	@echo "make test         run the fast tests"
	@echo "make lint         check the format, the style and the types"
	@echo "make conformance  compare with all recorded numbers in $(GOLDEN)"
	@echo "make gallery      measure all networks; writes docs/networks.md"
	@echo "make twins        train the chains of the published models at toy scale, on drawn birds: a quarter of an hour"
	@echo "make demo         show what birder does, with drawn birds"
	@echo "make demo PHOTOS=folder   recognise your own photographs, by MODEL=file or the starter model; results in predictions.csv"
	@echo "make starter-eval measure the starter model again, and compare with its card; needs the photographs in $(SHARED)"
	@echo "make bench        measure bulk prediction: PHOTOS=folder PEER_PYTHON=python of the peers OPTIONS='--large 50 --small 200'"
	@echo "make clean        remove what tests and builds leave behind"

setup: .venv/.stamp

.venv/.stamp: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "birder needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	       "name a newer one: make setup PYTHON=python3.12"; exit 1; }
	@echo "Installing birder and what it needs into .venv: once, a few minutes, up to 6 GB on Linux"
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	@$(PIP) install --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

test: setup
	$(PYTEST) --numprocesses 2 --dist worksteal

lint: setup
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/mypy

conformance: setup
	@test -d $(GOLDEN) || { echo "there is no $(GOLDEN): the recorded numbers are not part of this repository"; exit 1; }
	$(PYTEST) -m slow --capture no tests/conformance

gallery: setup
	$(BIN)/python docs/gallery.py

twins: setup
	$(PYTEST) -m slow --numprocesses 2 -rP tests/recipes/test_twins.py

# PHOTOS and MODEL are read from the environment, where make puts them, so that any path works.
demo: setup
ifdef PHOTOS
	@# 1 says that some files could not be read; their rows say why.
	@$(BIN)/birder predict "$${MODEL:-starter}" "$$PHOTOS" --output predictions.csv || test $$? -eq 1
else
	@$(BIN)/birder demo
endif

starter-eval: setup
	@test -d $(SHARED)/birds || { echo "there is no $(SHARED)/birds: the photographs are not part of this repository"; exit 1; }
	$(BIN)/python docs/starter.py --shared $(SHARED) --check

# PHOTOS and PEER_PYTHON are read from the environment; without PEER_PYTHON only birder itself is measured.
bench: setup
	@$(BIN)/python benchmarks/prediction.py --out build/bench $${PHOTOS:+--photographs "$$PHOTOS"} $$OPTIONS

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find birder tests -name __pycache__ -type d -prune -exec rm -rf {} +
