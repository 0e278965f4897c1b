# make sweep       the shipped sweep, from nothing           make test     checks and all tests
# make check       ruff, mypy, import-linter                 make bench    us beside the peers; writes docs/benchmarks.md
# make ecosystem   tests with heavy third-party libraries    make faults   faults, all; writes docs/reliability.md
# make clean       remove the virtual environments

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: sweep test check format ecosystem bench faults clean

sweep: $(READY)
	$(BIN)/orchestrate sweep conf/sweep.yaml

# Most tests wait for other processes, so more workers than cores save time. Tests that share a Ray cluster run in one
# worker and take longest: they come first (see tests/conftest.py and testpaths in pyproject.toml).
WORKERS ?= 3

test: check
	$(BIN)/pytest -n $(WORKERS) --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Everything is installed from the lock, once; the project itself is linked, not copied.
$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

# Libraries that only these tests need have an environment of their own; system packages they need are listed beside them.
ECOSYSTEM_VENV := .ecosystem-venv
ECOSYSTEM_READY := $(ECOSYSTEM_VENV)/.ready

ecosystem: $(ECOSYSTEM_READY)
	$(ECOSYSTEM_VENV)/bin/pytest tests/ecosystem

$(ECOSYSTEM_READY): requirements-ecosystem.lock requirements.lock pyproject.toml tests/ecosystem/packages.txt
	packages=$$(grep -v '^#' tests/ecosystem/packages.txt); \
	if [ -n "$$packages" ] && command -v apt-get > /dev/null; then apt-get install --yes $$packages; fi
	test -x $(ECOSYSTEM_VENV)/bin/python || $(PYTHON) -m venv $(ECOSYSTEM_VENV)
	$(ECOSYSTEM_VENV)/bin/pip install --quiet --disable-pip-version-check --requirement requirements-ecosystem.lock
	$(ECOSYSTEM_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(ECOSYSTEM_READY)

# All faults, or some groups: make faults FAULTS="trial disk"
faults: $(READY)
	$(BIN)/python -m pytest -q -p tests.faults.page --faults "$(FAULTS)" tests/faults tests/ray tests/unit

# The peers have an environment of their own; what they share with us is as the lock says.
BENCH_VENV := .bench-venv
BENCH_READY := $(BENCH_VENV)/.ready

bench: $(BENCH_READY)
	$(BENCH_VENV)/bin/python tests/benchmarks/all.py $(BENCH)

$(BENCH_READY): requirements.lock pyproject.toml
	test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BENCH_VENV)/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock \
		--no-build-isolation --editable '.[bench]'
	touch $(BENCH_READY)

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(ECOSYSTEM_VENV)
