# One stamp file per environment: every target builds it when it is missing or stale.
PYTHON ?= python3.11
VENV   ?= .venv
BIN     = $(VENV)/bin
# uv does not read pip's settings: hand it the wheel folder that pip was given (empty on most machines).
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Ray starts many Python processes; without bytecode each one would compile torch and diffusers again.
export UV_COMPILE_BYTECODE = 1

.PHONY: demo test test-again test-slow chaos check bench docs lock clean

demo: $(VENV)/.stamp
	$(BIN)/wanray render configs/demo.yaml
	$(BIN)/python tools/contact_sheet.py .demo/out .demo/sheet.webp

test: $(VENV)/.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

test-again: $(VENV)/.stamp
	OMP_NUM_THREADS=1 $(BIN)/python tools/rerun_failed.py -m "not slow"

test-slow: $(VENV)/.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(ARGS)

ROWS  ?= 1000
KILLS ?= 100
chaos: $(VENV)/.stamp
	OMP_NUM_THREADS=1 $(BIN)/python tests/chaos.py --rows $(ROWS) --kills $(KILLS) $(if $(SEED),--seed $(SEED)) $(ARGS)

check: $(VENV)/.stamp
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports && $(BIN)/pyright && $(BIN)/deptry .

bench: $(VENV)/.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(ARGS)

docs: $(VENV)/.stamp
	$(BIN)/python tools/make_docs.py

$(VENV)/.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install -q uv; }
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e . --group dev
	touch $@

# Exact versions of everything but what torch itself pins (its CUDA packages), so that one file is right
# for the CPU and the CUDA build of torch; triton is the one that this torch's CUDA build asks for.
lock: $(VENV)/.stamp
	printf 'torch==2.13.0\ntriton==3.7.1\n' | $(BIN)/uv pip compile -q --python-version 3.11 --all-extras --group dev -c /dev/stdin \
	    --no-annotate --no-header -o constraints.txt pyproject.toml
	sed -i -E -e 's/^(torch==[0-9.]+)\+cpu/\1/' -e '/^(nvidia-|cuda-)/d' constraints.txt

clean:
	rm -rf $(VENV) .demo
