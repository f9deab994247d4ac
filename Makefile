MACHINES ?= 100
PORT ?= 3000
TRIALS ?= 28
BIN := .venv/bin
# Two workers, a module each; in the order of the folders, for the long modules are among the first.
AT_ONCE := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo test test-slow test-long check audit format lock graph dev bench compare quality search chaos soak bytes
help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: .venv/.ready ## make .venv from the lock file, install Java for the fit of models where possible

.venv/.ready: pyproject.toml requirements.lock requirements-uv.lock scripts/setup.sh
	@scripts/setup.sh

demo: setup ## simulate a fleet, train, start Dagster on port 3000, score the days as they land (MACHINES=100)
	@$(BIN)/pdm-assets demo --machines $(MACHINES) --port $(PORT)

test: setup ## run the tests
	@$(BIN)/pytest -q $(AT_ONCE)

test-slow: setup ## run the tests that `make test` leaves out
	@$(BIN)/pytest -q $(AT_ONCE) -m "slow and not journey"
	@$(BIN)/pytest -q -m "slow and journey"

test-long: setup ## the long forms: ten thousand files, 5 GB, arrivals in ten more orders, thousands of fuzzed inputs, kills
	@$(BIN)/pytest -q -m long

check: setup ## linters, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

audit: setup ## known vulnerabilities of the pinned packages, asked of osv.dev; skipped where that can't be reached
	@$(BIN)/python scripts/audit.py

format: setup ## let ruff format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

graph: setup ## write the graph to pdm_assets_tests/graph/graph.txt
	@$(BIN)/python -m pdm_assets_tests.graph.test_graph

dev: setup ## Dagster without the demo, on PDM_DATA
	@$(BIN)/pdm-assets dev --port $(PORT)

bench: setup ## the benchmarks of README (MACHINES=1000 takes minutes)
	@$(BIN)/python benchmarks/run.py --machines $(MACHINES)

bytes: setup ## what a new day adds on disk: benchmarks/bytes.md (MACHINES=1000 takes minutes)
	@$(BIN)/python benchmarks/bytes.py --machines $(MACHINES)


quality: setup ## what models are worth on simulated fleets: benchmarks/quality.md (half an hour)
	@$(BIN)/python benchmarks/quality.py

search: setup ## hyperparameters of each type of model over temporal folds: benchmarks/search.md (an hour)
	@$(BIN)/python benchmarks/search.py

chaos: setup ## kill parts of the platform at random moments, TRIALS=28 times; docs/reliability-trials.md (an hour and more)
	@$(BIN)/python -m pdm_assets_tests.chaos.trials --trials $(TRIALS) --out docs/reliability-trials.md

soak: setup ## a year of days through the landing sensor: docs/reliability-soak.md (half an hour and more)
	@$(BIN)/python -m pdm_assets_tests.chaos.soak --out docs/reliability-soak.md

compare: setup ## the same work by Polars, pandas, scikit-learn and XGBoost: benchmarks/peers.md (MACHINES=1000 takes minutes; ONLY=--load-only for no trainings)
	@$(BIN)/uv pip install -q --require-hashes -r requirements-bench.lock
	@$(BIN)/python benchmarks/compare.py --machines $(MACHINES) $(ONLY)

lock: setup ## compile the lock files anew from pyproject.toml
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url \
		--group dev --extra mlflow --extra postgres --extra s3 --extra kafka pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url \
		--group bench -c requirements.lock pyproject.toml -o requirements-bench.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url \
		-c requirements.lock --no-emit-package pyspark --no-emit-package py4j --no-emit-package delta-spark \
		--no-emit-package numpy --no-emit-package pandas --no-emit-package pyarrow \
		pyproject.toml -o deploy/databricks/requirements-databricks.txt
	@echo "uv==$$($(BIN)/uv --version | cut -d' ' -f2)" | $(BIN)/uv pip compile -q --universal --generate-hashes --no-annotate --no-header \
		--no-emit-index-url - -o requirements-uv.lock
