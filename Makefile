# make demo    environment, then the codec on a clip of its own making
# make test    environment, then the tests          (JOBS=4 PYTEST='-k video' to choose)
# make lint    ruff, check and format
# make bench   speed of the codec, as JSON in results/bench.json
# make gpu-train DATA=clips MINUTES=25   go on training lite on a GPU (docs/training.md)
# make clean   takes away what the above made, the environment too
#
# PYTHON=python3.12   the interpreter to build the environment with (3.10 to 3.12)
# VENV=path           use that environment instead of .venv; it is made where it does not exist

PYTHON ?= python3
VENV ?= .venv
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
JOBS ?= $(shell [ $(CORES) -lt 4 ] && echo $(CORES) || echo 4)
PYTEST ?=

PY := $(VENV)/bin/python
# Of this folder and no other: an environment that another checkout installed into is done again.
STAMP := $(VENV)/.lgmc-$(shell pwd -P | cksum | cut -d' ' -f1)

.PHONY: demo test lint bench gpu-train clean env
.DEFAULT_GOAL := demo

demo: $(STAMP)
	$(PY) -m lgmc demo

test: $(STAMP)
	$(PY) -m pytest -q -n $(JOBS) --dist loadfile $(PYTEST)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

bench: $(STAMP)
	@mkdir -p results
	$(PY) -m lgmc bench codec --json results/bench.json

MINUTES ?= 25
gpu-train: $(STAMP)
	@test -n "$(DATA)" || { echo "make gpu-train: name a folder of clips with DATA=clips" >&2; exit 1; }
	PYTHON=$(PY) scripts/gpu_session.sh train $$(( $(MINUTES) * 60 )) "$(DATA)"

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" sh scripts/environment.sh "$(VENV)"
	@touch "$@"

# Only ever the environment that make itself made, not one that VENV points to.
clean:
	rm -rf .venv build dist *.egg-info lgmc-demo .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
