# Every target does its own set-up: Python 3.11 and make are all a machine needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
OUT ?= $(if $(DATA),out/own,out/demo)
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow fuzz check format bench docs results clean

$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/foldnorm demo -o $(OUT) $(if $(DATA),--data $(DATA))

test: $(STAMP)
	$(BIN)/python -m pytest -m 'not slow' --numprocesses auto --maxprocesses 4 --dist loadfile \
		$(if $(COVERAGE),--cov --cov-report=term:skip-covered)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

fuzz: $(STAMP)
	FOLDNORM_FUZZ_SECONDS=3600 $(BIN)/python -m pytest -m slow tests/test_fuzz.py

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p foldnorm

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python benchmarks/preprocessing.py benchmarks/results/preprocessing.json
	$(BIN)/python benchmarks/batch.py benchmarks/results/batch.json
	$(BIN)/python benchmarks/training.py benchmarks/results/training.json

docs: $(STAMP)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build/html

results: $(STAMP)
	$(BIN)/python docs/extensions/figures.py
	$(BIN)/python benchmarks/stale.py

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build docs/_gallery docs/reference/_made
