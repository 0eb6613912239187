# Everything a person types. `make help` lists it.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PROTOS := protos/penstock/v1/*.proto
UV := $(BIN)/uv

.DEFAULT_GOAL := help
.PHONY: help setup demo run test check fix protos bench clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: .venv/ready ## Make the virtual environment (.venv) with everything in it.

.venv/ready: pyproject.toml constraints.txt client/pyproject.toml server/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Penstock needs Python 3.11 or later; say which with make PYTHON=…" if sys.version_info < (3, 11) else 0)'
	test -x $(UV) || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9; }
	$(UV) pip install --quiet --python $(BIN)/python --group dev --constraint constraints.txt --editable client --editable server
	@touch $@

.venv-protos/ready: pyproject.toml
	@$(MAKE) --no-print-directory .venv/ready
	test -x .venv-protos/bin/python || $(UV) venv --quiet --python $(BIN)/python .venv-protos
	$(UV) pip install --quiet --python .venv-protos/bin/python --group protos
	@touch $@

protos: .venv-protos/ready ## Generate the protobuf code from protos/ into client/src.
	rm -f client/src/penstock/v1/*_pb2*
	.venv-protos/bin/python -m grpc_tools.protoc -I protos --python_out=client/src --pyi_out=client/src --grpc_python_out=client/src $(PROTOS)

clean: ## Remove what setup and the runs made.
	rm -rf .venv .venv-protos .penstock build
