# Every target sets itself up in .venv first: bootstrap.py does the work and needs only Python 3.11 or newer.
# make demo TORCH_INDEX=URL   takes PyTorch's CPU build from the index named.
# make test PYTHON=python3.12 takes another Python. ARGS="..." is handed to the task's commands.

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=

.PHONY: demo test lint bench docs adapters setup clean

demo test lint bench docs adapters setup:
	@$(PYTHON) bootstrap.py $@ --torch-index "$(TORCH_INDEX)" $(if $(ARGS),-- $(ARGS))

clean:
	rm -rf .venv .venv-adapters site .pytest_cache .mypy_cache .ruff_cache .hypothesis
