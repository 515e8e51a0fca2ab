# make course   set everything up and open JupyterLab on chapter 00
# make test     set everything up and prove it, offline
# make check    formatting, lint, layers, spelling
# make notebooks [ONLY="00_start …"]   rebuild notebooks from their sources
# make demo     serve the demo: a light model that answers in a browser
# make instructors [ONLY="00_start …"]   build slides, keys and PDFs in build/instructors
# make bench    time the kernels against their peers

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt --editable
PYTEST := $(BIN)/python tools/offline.py $(BIN)/python -m pytest
# Two notebooks at a time where there are processors and memory for two; a clock alone.
NOTEBOOKS := --nbval --nbval-current-env --timeout 600 -n auto --dist loadfile

.PHONY: course test check notebooks demo instructors bench

course: .venv/course
	$(BIN)/lightcourse lab

test: check
	$(PYTEST)
	NUMBA_DISABLE_JIT=1 $(PYTEST) tests/kernels
	TQDM_DISABLE=1 $(PYTEST) $(NOTEBOOKS) chapters solutions exercises

check: .venv/dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell

notebooks: .venv/dev
	$(BIN)/python -m tools.notebooks $(ONLY)

demo: .venv/course
	$(BIN)/lightcourse serve-demo

instructors: .venv/dev
	$(BIN)/python -m tools.instructors $(ONLY)

bench: .venv/bench
	$(BIN)/python -m benchmarks.bench
	$(BIN)/python -m benchmarks.end_to_end
	$(BIN)/python -m benchmarks.deployment
	$(BIN)/python -m benchmarks.streaming
	$(BIN)/python -m benchmarks.compare

# Two stamps: while pyproject.toml and constraints.txt stay as they are, nothing is set up again.
.venv/course: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) ".[practice]"
	$(BIN)/lightcourse assets
	touch $@

# Demo and slides need npm, and npm the network: so it is called here; without it their tests say
# so in a line.
.venv/dev: .venv/course web/package-lock.json tools/instructors/package-lock.json
	$(INSTALL) ".[practice,dev]"
	-$(BIN)/lightcourse serve-demo --only-build
	-npm ci --prefix tools/instructors --ignore-scripts --no-audit --no-fund
	touch $@

# llama.cpp is compiled here; where that fails, the tables name it as absent. So they name
# what the extra `edge` installs (340 MB), which nobody gets unasked.
.venv/bench: .venv/course
	-$(INSTALL) ".[practice,bench]"
	touch $@
