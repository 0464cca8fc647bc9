# deepintuit: `make` alone lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
# cpu (default): everything, with the CPU build of vLLM and the tools of the tests. gpu: what a GPU site runs.
ENGINE ?= cpu
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/$(if $(filter gpu,$(ENGINE)),gpu,dev).lock
SETUP := $(VENV)/.setup-$(ENGINE)

##@ First steps

help:  ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup  ## one night end to end on this machine: videos in, calibrated scores out
	@$(BIN)/deepintuit demo

test: setup  ## lint, the arrows between the rooms, types, every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=25

##@ Work

setup: $(SETUP) .jars  ## virtual environment, locked packages, Delta's jars (demo and test do it by themselves)

soak: setup  ## kill a run at every point, race and look for bad input for longer
	$(BIN)/python -m pytest tests/jobs/test_kill.py tests/lake/test_commit.py tests/conf/test_any_yaml.py tests/udfs/test_any_text.py --soak
	$(BIN)/python -m pytest -m soak --soak

bench: setup  ## how good the embedded model and its calibrators are on the embedded benchmark: docs/results.md
	@$(BIN)/python -m benchmarks.handwriting

ablation: setup  ## what each stage of training and each calibrator is worth; MISSING=1 or FRESH=1 computes, QUICK=1 a part of it
	@$(BIN)/python -m benchmarks.ablation $(if $(MISSING),--missing) $(if $(FRESH),--fresh) $(if $(QUICK),--quick)
	$(if $(QUICK),,@$(BIN)/python -m benchmarks.calibrators $(if $(MISSING)$(FRESH),--missing))

mutants: setup  ## plant small faults one at a time and see that a test fails for each
	$(BIN)/python -m benchmarks.mutants

tiny: setup  ## make the embedded model anew out of the ablation's; what is not in build/ablation is trained there
	$(BIN)/python -m benchmarks.embed

format: setup  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## compile the lock files anew from requirements/*.in
	$(BIN)/uv pip compile requirements/dev.in --overrides requirements/overrides.txt --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes -q -o requirements/dev.lock
	$(BIN)/uv pip compile requirements/gpu.in --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes -q -o requirements/gpu.lock

dist: setup  ## what executors import, as one archive for spark-submit --py-files (the driver runs from a checkout)
	rm -f dist/deepintuit.zip
	mkdir -p dist
	find lake models schemas udfs -name __pycache__ -prune -exec rm -rf {} +
	$(BIN)/python -m zipfile -c dist/deepintuit.zip lake models schemas udfs
	@echo "spark-submit --py-files dist/deepintuit.zip jobs/nightly.py --conf conf/prod.yaml"

clean:  ## remove what was built in this tree; environments and jars stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache spark-warehouse

$(SETUP): $(LOCK) requirements/overrides.txt setup.py
	@PYTHON="$(PYTHON)" sh requirements/check.sh
	@echo "== set-up: virtual environment and locked packages, a few minutes"
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --requirements $(LOCK)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.jars: $(SETUP)
	@echo "== set-up: Delta's jars from Maven"
	@$(BIN)/python -m jobs.runtime.jars .jars
	@touch .jars

.PHONY: help demo test setup soak bench ablation mutants tiny format lock dist clean
