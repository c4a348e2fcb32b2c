# make test    the test suite, in a virtual environment made for it
# make test-newest   the engines of Celery and taskiq, with the newest clients
# make test-oldest   what needs no partner, with the oldest versions that are supported
# make check   format, lint, types and tests: what CI does
# make demo    kill a server in the middle of its work; ONESHOT=1 ends by itself
# make docs    the site of the documentation, in docs/_build/html
# make bench   compare with its peers (needs wrk)

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.DEFAULT_GOAL := test
.PHONY: test test-newest test-oldest lint types check demo docs bench soak wheel clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# Most tests wait for servers, so that more of them at once than there are processors is fine.
JOBS ?= 3

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# The engines with clients that are newer than what ARQ takes.
.venv-newest/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[newest]'
	touch $@

test-newest: .venv-newest/.installed
	.venv-newest/bin/python -m pytest tests/engines/test_celery.py tests/engines/test_taskiq.py

# The oldest versions of what the package builds on.
.venv-oldest/.installed: pyproject.toml tests/oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[oldest]' --requirement tests/oldest.txt
	touch $@

test-oldest: .venv-oldest/.installed
	.venv-oldest/bin/python -m pytest -W default tests/journal tests/telemetry \
		$(foreach name,collector coroutines events journal lifespan logs middleware \
		request_bound response runner showing task,tests/test_$(name).py) \
		--ignore tests/telemetry/test_brokers.py \
		$(foreach name,starlette fastapi,tests/integrations/test_$(name).py)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/mypy
	$(BIN)/pyright

check: lint types test

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py $(if $(ONESHOT),--oneshot)

docs: $(VENV)/.installed
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench:
	$(PYTHON) benchmarks/run.py

# A thousand servers killed, brokers that are away for half a minute at a time, the property
# tests with a hundred times the examples, and everything three times over.
soak: $(VENV)/.installed
	$(BIN)/python -m tests.crash.soak --kills 1000
	$(BIN)/python -m tests.outage.soak --seconds 30
	HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest tests/test_properties.py \
		tests/journal/test_state_machine.py tests/crash --timeout 3600
	ASGI_BG_MATRIX=full $(BIN)/python -m pytest tests/matrix
	for round in 1 2 3; do $(BIN)/python -m pytest -n $(JOBS) --dist loadfile || exit 1; done

# Built twice: who builds a release again gets the same bytes.
wheel: $(VENV)/.installed
	rm -rf dist build/again
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --outdir build/again . >/dev/null
	for file in dist/*; do cmp $$file build/again/$$(basename $$file) || exit 1; done
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

clean:
	rm -rf docs/_build $(VENV) .venv-newest .venv-oldest .venv-bench .venv-wheel build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
