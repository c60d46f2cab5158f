# make demo: set up and run every pipeline on generated data.   make test: set up and test.   make gpu: on a GPU.
# make edge: set up and test the engine without torch.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ROOT ?= assets
FUZZ_SECONDS ?= 600
TESTS := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
READY := $(VENV)/.ready
EDGE ?= .venv-edge
export MILLRACE_EDGE ?= $(abspath $(EDGE))

.PHONY: demo test long edge gpu mutants kills fuzz lint bench setup lock clean

demo: setup  ## Run every pipeline with its demo profile on data it generates, then write the reports
	$(BIN)/millrace run all --profile demo --root $(ROOT)
	$(BIN)/millrace report all --root $(ROOT)

test: setup  ## Run the tests, but for those that take long
	$(TESTS) -m "not gpu and not long"

long: setup  ## Run the tests that take long: real servers, several ranks, kills at random moments, whole real archives
	$(TESTS) -m "not gpu and long"

edge: setup $(EDGE)/.ready  ## Set up the engine without torch (compiles llama.cpp: six minutes), and test it
	$(BIN)/python -m pytest tests/edge tests/quantise tests/vision_language/test_export.py

gpu: setup  ## On a machine with a GPU: run the tests that need one, and measure how busy trainings keep it
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python -m benchmarks gpu_loop

mutants: setup  ## Put faults into what decides about results, and see whether tests notice (hours; resumes)
	$(BIN)/python -m tests.mutants

kills: setup  ## Kill every stage of every pipeline at one file operation after another (hours; resumes)
	$(BIN)/python -m tests.kills

fuzz: setup  ## Give readers files that nobody would write, for so many seconds (goes on where it ended)
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

lint: setup  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## Run every benchmark and renew docs/benchmarks.md (about an hour, nothing else should run)
	$(BIN)/python -m benchmarks

setup: $(READY)  ## Set up, and compile the code ahead: dozens of processes import it, whatever PYTHONDONTWRITEBYTECODE says
	@$(BIN)/python -m compileall -q configs flows models storage tasks

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Millrace needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(EDGE)/.ready: tasks/edge/requirements.txt
	test -x $(EDGE)/bin/python || $(PYTHON) -m venv $(EDGE)
	CMAKE_ARGS=-DLLAVA_BUILD=OFF SKBUILD_BUILD_TARGETS='llama;llama-common' $(EDGE)/bin/python -m pip install --quiet --requirement $<
	@touch $@

lock: setup  ## Pin what is installed now
	{ echo "# A tested set for Python 3.11; the Makefile installs from it. Refresh: make lock"; \
		$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.txt

clean:  ## Remove the environment; assets stay
	rm -rf $(VENV) $(EDGE) .venv-bench bench-work .mypy_cache .ruff_cache .pytest_cache
