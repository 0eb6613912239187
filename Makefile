# Everything a person types. `make help` lists it.
PYTHON ?= python3
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo run test test-faults test-mlflow check check-style check-types check-layers check-protos check-protobuf check-tree fix \
	protos bench constraints clean

BIN := .venv/bin
UV := $(BIN)/uv
# Wheels only: nothing is compiled, nothing of a package runs while it is installed.
INSTALL := $(UV) pip install --quiet --only-binary :all:
COMPILE := $(UV) pip compile --quiet --universal --upgrade --python-version 3.11 --only-binary :all: --no-annotate --no-header \
	--no-emit-index-url --no-emit-package penstock --no-emit-package penstock-server
PROTOS := $(wildcard protos/penstock/v1/*.proto)
GENERATED := client/src/penstock/v1
# What the protos may not break: the newest release, until there is one the first commit.
RELEASED = $(shell git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || git rev-list --max-parents=0 HEAD | tail -n 1)

# Whatever environment this is called from is not ours.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONPATH PYTHONHOME
export UV_HTTP_TIMEOUT ?= 180

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: .venv/ready ## Make the virtual environment (.venv) with everything in it. The others do this by themselves.

demo: .venv/ready ## Train a model on real data against a server of its own, and show what was recorded.
	@$(BIN)/python examples/demo.py

run: .venv/ready ## Run a server in the foreground, on the default ports and .penstock/ (more: make run ARGS="--workers 2").
	@exec $(BIN)/penstock-server serve $(ARGS)

test: .venv/ready .venv-mlflow2/ready .venv-mlflow3/ready $(if $(TORCH),.venv-mlflow3/torch) ## Run the tests (some: make test ARGS="tests/client -k fork"; with PyTorch: TORCH=torch==2.13.0).
	$(BIN)/python -m pytest $(ARGS)

test-faults: .venv/ready ## Play the fault campaigns at length (again: make test-faults SEED=1; less of it: SCALE=0.1).
	@PYTHONPATH=tests:tests/faults $(BIN)/python -m campaign $(if $(SEED),--seed $(SEED)) $(if $(SCALE),--scale $(SCALE)) $(ARGS)

test-mlflow: .venv/ready .venv-mlflow3/ready ## Play more random requests to MLflow's own server and to ours (PROGRAMS=200 of each area; ARGS=--hypothesis-seed=1).
	@MLFLOW_PROGRAMS=$(or $(PROGRAMS),200) $(BIN)/python -m pytest tests/mlflow_api/test_mlflow_differential.py $(ARGS)

check: check-style check-types check-layers check-protos check-protobuf check-tree ## Check style, types, layers, protos, generated code.

check-style: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-types: .venv/ready
	$(BIN)/mypy

check-layers: .venv/ready
	$(BIN)/lint-imports --no-logo

# Lint, what released clients rely on, and that the committed code is what the protos generate.
check-protos: .venv-protos/ready
	.venv-protos/bin/buf lint protos
	.venv-protos/bin/buf breaking protos --against '.git#ref=$(RELEASED),subdir=protos'
	$(call generate)
	diff -r --exclude=__init__.py --exclude=__pycache__ build/protos/penstock/v1 $(GENERATED) \
		|| { echo 'The generated code is not what protos/ generates. Run: make protos' >&2; exit 1; }

# The client on other people's pins: the floors it declares, and one protobuf of each major version that it promises.
check-protobuf: .venv/ready
	$(BIN)/python tests/workspace/protobuf_versions.py

# No address of a registry, no path of somebody's machine. (The brackets keep this line from finding itself.)
check-tree:
	@! git grep -nIE 'py[p]i[.]org|python[h]osted|npm[j]s[.]|deb[.]deb[i]an|/(hom[e]|roo[t]|User[s]|wor[k])/' || exit 1

fix: .venv/ready ## Format the code and mend what can be mended by itself.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: .venv-protos/ready ## Generate the code of protos/ into client/src.
	$(call generate)
	rm -f $(GENERATED)/*_pb2*
	cp build/protos/penstock/v1/* $(GENERATED)/

bench: .venv/ready ## Measure it, beside the limit of the machine (docs/benchmarks.md).
	$(BIN)/python -m benchmarks $(ARGS)

constraints: .venv/ready ## Take the newest versions of everything into constraints.txt and those of MLflow's clients.
	printf -- '-e client\n-e server\n' | $(COMPILE) --group dev - > build-constraints.txt
	printf -- '-e client\n-e server\n' | $(COMPILE) --group mlflow2 - > build-constraints-mlflow2.txt
	printf -- '-e client\n-e server\n' | $(COMPILE) --group mlflow3 - > build-constraints-mlflow3.txt
	for name in '' -mlflow2 -mlflow3; do \
	  { echo '# Versions that the tests pass with, by name and version only. Refresh: make constraints.'; \
	    cat build-constraints$$name.txt; } > constraints$$name.txt; rm build-constraints$$name.txt; done

clean: ## Remove what setup and the tools made; what servers recorded (.penstock/) stays.
	rm -rf .venv .venv-bench-* .venv-mlflow2 .venv-mlflow3 .venv-protos build dist .hypothesis .import_linter_cache .mypy_cache .ruff_cache

.venv/ready: pyproject.toml constraints.txt client/pyproject.toml server/pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 15) or sys.exit(f"Penstock needs Python 3.11 to 3.14 and this is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12")'
	@test -x $(UV) || { echo 'Setting up .venv …'; $(PYTHON) -m venv --clear .venv \
		&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --constraint constraints.txt uv; }
	$(INSTALL) --python $(BIN)/python --group dev --constraint constraints.txt --build-constraints constraints.txt \
		--editable client --editable server
	@touch $@

# One of MLflow's clients, with our client beside it, and our server, which imports with it.
# (pyarrow has no file for Python 3.14 that MLflow 2 would take.)
.venv-mlflow%/ready: .venv/ready constraints-mlflow%.txt
	@echo 'Setting up .venv-mlflow$* …'
	@$(UV) venv --quiet --clear --python '>=3.11,<3.14' .venv-mlflow$*
	@$(INSTALL) --python .venv-mlflow$*/bin/python --group mlflow$* --constraint constraints-mlflow$*.txt \
		--build-constraints constraints.txt --editable client --editable server
	@touch $@

# By pip, which knows where people here get a PyTorch of theirs; what there is elsewhere for Linux brings gigabytes for GPUs.
.venv-mlflow3/torch: .venv-mlflow3/ready
	@echo 'Setting up $(TORCH) in .venv-mlflow3 …'
	@$(BIN)/python -m pip --python .venv-mlflow3/bin/python install --quiet --disable-pip-version-check --only-binary :all: \
		--constraint constraints-mlflow3.txt $(TORCH)
	@touch $@

.venv-protos/ready: .venv/ready
	$(UV) venv --quiet --clear --python '>=3.11,<3.14' .venv-protos
	$(INSTALL) --python .venv-protos/bin/python --group protos
	@touch $@

define generate
	rm -rf build/protos
	mkdir -p build/protos
	.venv-protos/bin/python -m grpc_tools.protoc -I protos --python_out=build/protos --pyi_out=build/protos $(PROTOS)
	.venv-protos/bin/python -m grpc_tools.protoc -I protos --grpc_python_out=build/protos $$(grep -l '^service ' $(PROTOS))
endef
