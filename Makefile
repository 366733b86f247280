# make demo   the environment, then one small model compressed and measured on this machine
# make test   the environment, then the tests with their coverage
# make test-slow  the tests that take minutes: fuzzing and load at length, the aarch64 builds emulated
# make lint   the environment, then ruff and mypy
# make clean  remove what these made
#
# PYTHON=...       which Python makes the environment (default: the first of 3.11 and 3.12 that is found)
# PYTEST_ARGS=...  passed on to pytest
# WORKERS=2        how many files of tests run at once; each takes up to 3 GiB

SHELL := bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?=
PYTEST_ARGS ?=
WORKERS ?= 2
SUPPORTED := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))

.DEFAULT_GOAL := help
.PHONY: help environment demo test test-slow lint clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed -n '1,9p'

environment: $(STAMP)

# Nothing is installed twice: the stamp is newer than what it was made from until one of them changes.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -c '$(SUPPORTED)' 2>/dev/null; then \
		found=; \
		for python in $(PYTHON) $(if $(PYTHON),,python3.11 python3.12 python3 python); do \
			if "$$python" -c '$(SUPPORTED)' 2>/dev/null; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "edgeloop needs Python 3.11 or 3.12 with its venv module; found none as" \
				"$(if $(PYTHON),$(PYTHON),python3.11$(comma) python3.12$(comma) python3 or python)." \
				"Install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
			exit 2; \
		fi; \
		echo "Making $(VENV) with $$("$$found" --version) ..."; \
		"$$found" -m venv --clear $(VENV); \
	fi
	@echo "Installing what constraints.txt pins into $(VENV); the first time takes some minutes ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[agent,pipeline,dask,postgres,s3,dev]"
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/edgeloop compress --model cnn --data digits --target local-onnxruntime --target local-litert

# The data sets beside the checkout are used where they are; without them the tests that need them are skipped.
test: $(STAMP)
	@if [ -z "$${EDGELOOP_DATA:-}" ] && [ -d ../shared/data ]; then \
		export EDGELOOP_DATA="$$(cd ../shared/data && pwd)"; \
	fi; \
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --durations=25 --durations-min=5 --cov --cov-report= $(PYTEST_ARGS)

test-slow: $(STAMP)
	@$(BIN)/python -m pytest -m "slow or arm" --durations=25 --durations-min=5 $(PYTEST_ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis

comma := ,
