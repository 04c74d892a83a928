# Each target sets up .venv by itself, with uv when it is there and pip when not, and is quick when nothing changed.
PYTHON ?= python3
CANARY ?= good
# Two files of tests at a time: most of them wait for something real.
PYTEST_OPTIONS ?= -q -n 2 --dist loadfile
BIN := .venv/bin
READY := .venv/.ready

SERVERS := .venv-servers

.PHONY: demo test servers test-cluster kind lab screenshots docs lint bench clean

$(READY): pyproject.toml
	@echo "setting up .venv: this takes a minute or two, once"
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing .venv && uv pip install --quiet --python $(BIN)/python -e '.[dev]'; \
	else \
	  $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	fi
	@touch $@

demo: $(READY) ## A whole rollout with real traffic; CANARY=good, slow, failing, wrong or stable
	@exec $(BIN)/canarykit report notebooks/rollout-report.ipynb --out build/demo --die-with-parent \
	  -p canary $(CANARY) --expect $(if $(filter slow failing wrong,$(CANARY)),"rolled back",promoted)

test: $(READY) ## All tests
	@$(BIN)/python -m pytest $(PYTEST_OPTIONS)

servers: $(SERVERS)/others/.ready $(SERVERS)/bentoml/.ready ## Model servers that others built, for tests/servers

$(SERVERS)/%/.ready: tests/servers/%.txt
	@echo "setting up $(@D): this takes a minute, once"
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing $(@D) && uv pip install --quiet --python $(@D)/bin/python -r $<; \
	else \
	  $(PYTHON) -m venv $(@D) && $(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<; \
	fi
	@touch $@

test-cluster: $(READY) ## The tests that need a cluster, on the one that KUBECONFIG names
	@CANARYKIT_REQUIRE="cluster gateway" $(BIN)/python -m pytest tests/cluster tests/deploy $(PYTEST_OPTIONS)

kind: ## How to get a cluster for the tests on your own machine
	@sed -n 's/^# \{0,1\}//p' deploy/kind.yaml

lab: $(READY) ## The notebooks in JupyterLab
	@exec $(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/01-first-canary.ipynb

screenshots: $(READY) ## The pictures in the README, from a real JupyterLab; needs a Chromium
	@PYTHONPATH=tests $(BIN)/python tests/browser/screenshots.py docs

docs: $(READY) ## The documentation, in build/docs, with every notebook run; no network is needed
	@$(BIN)/python -m sphinx -q -W --keep-going -d build/doctrees docs build/docs && echo "build/docs/index.html"

lint: $(READY) ## Style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(READY) ## The figures of docs/measured.md, in about three hours; those of clusters (kube_shift, api_requests) are run by themselves
	@for script in $(filter-out benchmarks/kube_shift.py benchmarks/api_requests.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## Remove what the other targets made
	@rm -rf .venv $(SERVERS) build dist docs/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis
