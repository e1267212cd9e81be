# Two commands do all set-up on a machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PIP_MCP := .venv-mcp/bin/python -m pip --disable-pip-version-check install --quiet --constraint .venv-mcp/constraints.txt
VECTORS := $(wildcard ../shared/vectors)

# A second run finds what the first one compiled, also where containers switch that off.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types layers conformance mcp shapes attacks evals bench crash model installed docs clean

help:  ## show what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/.base: constraints.txt
	@echo "making .venv (first time only)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "agentguard needs Python 3.11 or newer")'
	@$(PYTHON) -m venv .venv
	@$(PIP) pip setuptools
	@touch $@

.venv/.demo: .venv/.base pyproject.toml
	@echo "installing agentguard and what its demo needs"
	@PYTHONWARNINGS="ignore:Editable installation" $(PIP) --no-build-isolation --editable . --group demo
	@touch $@

.venv/.dev: .venv/.demo
	@echo "installing what the tests need"
	@$(PIP) --group dev
	@touch $@

demo: .venv/.demo  ## watch a guarded agent make, queue and export real media
	@$(BIN)/python -m graphs.demo

test: .venv/.dev  ## run all tests
	@AGENTGUARD_VECTORS="$(abspath $(VECTORS))" $(BIN)/python -m pytest -n auto --dist worksteal -q

lint: .venv/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.dev
	@$(BIN)/mypy

layers: .venv/.dev
	@$(BIN)/lint-imports

check: lint types layers test  ## ruff, mypy --strict, import-linter and the tests

conformance: .venv/.dev  ## upstream's own ToolNode and agent tests over guarded tools
	@$(PIP) --group conformance
	@$(BIN)/python -m tests.conformance.upstream

.venv-mcp/.ready: constraints.txt pyproject.toml
	@echo "making .venv-mcp (first time only)"
	@$(PYTHON) -m venv .venv-mcp
	@grep -v '^mcp==' constraints.txt > .venv-mcp/constraints.txt
	@$(PIP_MCP) pip setuptools
	@PYTHONWARNINGS="ignore:Editable installation" $(PIP_MCP) --no-build-isolation --editable . --group demo --group mcp
	@touch $@

mcp: .venv-mcp/.ready  ## tools of langchain.mcp, whose mcp 2 needs an environment of its own
	@.venv-mcp/bin/python -m pytest -q tests/integration/tools/test_langchain_mcp.py

shapes: .venv/.dev  ## sixty shapes of tutorials and applications, and what comes of each
	@$(BIN)/python -m tests.integration.shapes

attacks: .venv/.dev  ## every way round, at each gate in every mode and with every checkpointer
	@WHOLE_MATRIX=1 $(BIN)/python -m pytest -n auto --dist worksteal -q tests/attacks

evals: .venv/.dev  ## attacks and their benign twins through guards side by side
	@$(BIN)/python -m evals run

bench: .venv/.dev  ## what a guarded call costs next to an unguarded one
	@$(BIN)/python -m bench

crash: .venv/.dev  ## kill a process at every step of a call, and see what becomes of it
	@$(BIN)/python -m tests.crash

model: .venv/.dev  ## every sequence of moves against the invariants, and every mutant
	@$(BIN)/python -m tests.model --deeper $(or $(DEEPER),0)

installed: .venv/.dev  ## build wheel and sdist, and use them outside the clone under each Python
	@$(BIN)/python -m tests.e2e.installed

docs: .venv/.demo  ## build the documentation into site/
	@$(PIP) --group docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html; its search works where a server serves it: python3 -m http.server -d site"

clean:  ## remove what the other commands made
	@rm -rf .venv .venv-mcp build site *.egg-info demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
