# make run | make test | make check: each works on a fresh machine with Python >= 3.11 and make.
# Tests run on one thread: more of them on busy cores are many times slower.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CODE := medbench tests benchmarks resources/export
# Both ends of the admitted versions of transformers; the main environment has one near the newest.
OLDEST := 5.17.0
NEWEST := 5.24.0
TRANSFORMERS := $(OLDEST)

# Two workers, since one Snakemake leaves cores idle while it starts; the longest first, so that none of them ends alone.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations=20
SUITE := tests/smoke tests/workflow tests/cluster tests/unit

.PHONY: run test test-all test-transformers check campaign format docs lock lock-models

run: $(READY)  ## the demo grid on all cores
	$(BIN)/snakemake --cores all

test: $(READY)  ## every behaviour once; MEDBENCH_REAL_DATA names the folder of real images
	$(PYTEST) -m 'not full' $(SUITE)

test-all: $(READY)  ## every behaviour of every family and at every moment: before an issue is closed
	$(PYTEST) $(SUITE)
	$(MAKE) test-transformers TRANSFORMERS="$(OLDEST) $(NEWEST)"

test-transformers: $(TRANSFORMERS:%=.venv-transformers/%/.ready)  ## every study model loads on the oldest admitted transformers
	for version in $(TRANSFORMERS); do \
	    OMP_NUM_THREADS=1 .venv-transformers/$$version/bin/python -m pytest -q -p no:cacheprovider -m 'not full' tests/unit/test_real_layouts.py || exit 1; \
	done

# An environment beside the main one, which it sees: only transformers and what that asks for in other versions is installed anew.
.venv-transformers/%/.ready: $(READY)
	$(PYTHON) -m venv .venv-transformers/$*
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo .venv-transformers/$*/lib/python*/site-packages)/main.pth
	.venv-transformers/$*/bin/python -m pip install --quiet transformers==$*
	touch $@

check: $(READY)  ## style, types, rules, generated files
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy medbench
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	$(BIN)/python -m medbench docs --check

campaign: $(READY)  ## nano 20 times, killed or starved at a random moment, and run again
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.campaign

format: $(READY)
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)
	$(BIN)/snakefmt Snakefile workflow

docs: $(READY)  ## INTERFACE.md, docs/models.md, docs/datasets.md and config/schema.json from the code and the registries
	$(BIN)/python -m medbench docs

$(READY): requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "medbench needs Python 3.11 to 3.13; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	if command -v uv > /dev/null; then uv pip install --python $(BIN)/python --require-hashes --requirement requirements.lock; \
	else $(BIN)/python -m pip install --requirement requirements.lock; fi
	touch $@

lock-models: $(READY)  ## write the hub's present commit into every model of the registry that has none; needs the network
	$(BIN)/python -m medbench lock-models

lock:  ## pin anew what pyproject.toml admits; needs uv
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --output-file requirements.lock
