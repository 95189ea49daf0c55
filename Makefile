# make demo        install, train four memories on a short Corridor, evaluate them, draw the figure
# make test        install, run the fast tests
# make test-slow   the tests that train for minutes
# make test-zoo    the tests with the RL Zoo, in an environment of its own
# make check       lint, format, types, import rules, the site, the workflow and the citation
# make docs        build the documentation site into site/; opens without a network
# make format      mend what lint and format can mend
# make bench       speed, beside peers on the same machine: writes benchmarks/RESULTS.md; about 20 minutes
# make bench-quick does all of that run? Tiny sizes, a few minutes, numbers that say nothing
# make torture     kill a training a hundred times and go on with it: the same bits?
# make fuzz        read 100,000 mutated checkpoints and 20,000 run folders: loaded or refused, nothing else?
# make kill-sweep  kill a sweep ten times in a row and go on with it: no run lost, none twice?

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Its notice about other tools would hide warnings; so would --quiet, and --strict then knows of none.
DOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs
DEMO := demo
DEMO_MEMORIES := none lstm transformer-xl expire-span

.PHONY: demo test test-slow test-zoo check docs format bench bench-quick torture fuzz kill-sweep install clean
.DEFAULT_GOAL := help
.NOTPARALLEL:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

install: $(INSTALLED)

# PyTorch first and alone: with the pinned version in place nothing that follows asks for another build of it.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into $(VENV); this takes a few minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -q -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -q -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(DEMO_MEMORIES:%=$(DEMO)/%.trained)
	$(BIN)/memspan evaluate $(DEMO)/runs --episodes 1000 --figure $(DEMO)/success-against-memory.png
	@echo "The figure: $(DEMO)/success-against-memory.png"

# A run that was interrupted goes on; one that is done is left alone.
$(DEMO)/%.trained: $(INSTALLED)
	@mkdir -p $(DEMO)
	@if [ -e $(DEMO)/runs/Corridor-v0/$*/0/config.yaml ]; then \
		$(BIN)/memspan train --resume $(DEMO)/runs/Corridor-v0/$*/0; \
	else \
		$(BIN)/memspan train --memory $* --run-dir $(DEMO)/runs --env.max-length 20 $(DEMO_FLAGS_$*); \
	fi
	@touch $@

DEMO_FLAGS_none := --total-timesteps 150000
DEMO_FLAGS_lstm := --total-timesteps 400000 --n-steps 64 --memory.longest-dependency 20
DEMO_FLAGS_transformer-xl := --total-timesteps 300000 --n-steps 64 --memory.memory-size 20
DEMO_FLAGS_expire-span := --total-timesteps 500000 --n-steps 64 --memory.max-span 28 --memory.ramp 4 --memory-target 3

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

# The zoo wants other versions of some packages than constraints.txt has.
test-zoo:
	$(PYTHON) -m venv .venv-zoo
	.venv-zoo/bin/python -m pip install --disable-pip-version-check --progress-bar on -q -c constraints.txt torch
	.venv-zoo/bin/python -m pip install --disable-pip-version-check --progress-bar on -q -e '.[zoo]' 'pytest>=8.0'
	.venv-zoo/bin/python -m pytest tests/test_zoo.py

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(DOCS) build --strict --site-dir build/site

docs: $(INSTALLED)
	$(DOCS) build --strict
	@echo "The site, search included, opens as a file: site/index.html"

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python benchmarks/bench.py

bench-quick: $(INSTALLED)
	$(BIN)/python benchmarks/bench.py --quick

torture: $(INSTALLED)
	$(BIN)/python benchmarks/torture.py

fuzz: $(INSTALLED)
	$(BIN)/python benchmarks/fuzz_checkpoints.py
	$(BIN)/python benchmarks/fuzz_runs.py

kill-sweep: $(INSTALLED)
	$(BIN)/python benchmarks/kill_sweep.py

clean:
	rm -rf $(DEMO) $(VENV) .venv-zoo build site dist .mypy_cache .pytest_cache .ruff_cache
