# One command an intent; CI runs the same ones. `make help` lists them.

PYTHON ?= python3
# Options of the demo: make demo ARGS="--requests 300"
ARGS ?=
# Options of pytest: make test PYTEST_ARGS="-k settings"
PYTEST_ARGS ?=

PACKAGES := tierwise runtime edge_agent regional_gateway cloud_tier model_zoo hardware_profiles
SOURCES := pyproject.toml README.md LICENSE \
	$(shell find $(PACKAGES) -type f -not -path '*/__pycache__/*')
PIP := -m pip --disable-pip-version-check

.PHONY: help demo check test format golden site chaos nightly images arm64 bench docs clean
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/stamp ## install into .venv and run three tiers on this machine
	.venv/bin/tierwise demo $(ARGS)

check: .venv-dev/stamp ## everything that needs no run: style, types, layers, spelling
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/mypy
	.venv-dev/bin/mypy tests
	.venv-dev/bin/lint-imports
	.venv-dev/bin/codespell

test: .venv-dev/stamp ## the whole suite against the installed wheel, with coverage
	sh scripts/test.sh .venv-dev $(PYTEST_ARGS)

format: .venv-dev/stamp ## let ruff put the code in order
	.venv-dev/bin/ruff check --fix .
	.venv-dev/bin/ruff format .

golden: .venv-dev/stamp ## write the frozen wire schema, lists, example settings and man page anew
	.venv-dev/bin/python tests/golden/control_plane.py > tests/golden/control_plane.schema.json
	.venv-dev/bin/python tests/golden/metrics_document.py
	for tier in edge gateway cloud; do \
		.venv-dev/bin/python -m tierwise config schema --tier $$tier --toml \
			> examples/config/$$tier.toml || exit 1; \
	done

	.venv-dev/bin/python scripts/man_page.py > deploy/man/tierwise.1
	.venv-dev/bin/python scripts/asyncapi.py > docs/asyncapi.json
	.venv-dev/bin/python scripts/rollout_picture.py > docs/pictures/rollout-phases.svg

site: .venv-dev/stamp ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 .venv-dev/bin/mkdocs build --strict --quiet

chaos: .venv-dev/stamp ## bad links, killed and frozen processes: needs root, 30 minutes (ARGS="--ci": 5)
	PYTHONPATH=tests .venv-dev/bin/python -m chaos.run $(ARGS)

nightly: .venv-dev/stamp ## what takes long: examples in full, other engines (half an hour)
	PYTHONSAFEPATH=1 .venv-dev/bin/pytest -m nightly tests
	for folder in examples/*/; do \
		test ! -e $$folder/run.sh || (cd $$folder && PATH="$(CURDIR)/.venv-dev/bin:$$PATH" sh run.sh) || exit 1; \
	done

images: .venv-dev/stamp ## the steps of the Dockerfile and the installer in a Debian root: needs root, debootstrap
	.venv-dev/bin/python deploy/check/images.py --role agent --role gateway $(ARGS)
	.venv-dev/bin/python deploy/check/images.py --role cloud --build-arg EXTRAS=cloud,postgres $(ARGS)
	.venv-dev/bin/python deploy/check/installer.py

arm64: .venv-dev/stamp ## an agent on emulated ARM processors: needs root, debootstrap, qemu-user-static
	.venv-dev/bin/python deploy/check/arm64.py $(ARGS)

bench: .venv-dev/stamp ## every measurement in benchmarks/
	for file in benchmarks/*.py; do .venv-dev/bin/python $$file || exit 1; done

docs: .venv-dev/stamp ## run the code in the documentation
	PYTHONSAFEPATH=1 .venv-dev/bin/pytest tests/docs $(PYTEST_ARGS)

clean: ## remove what the other commands made
	rm -rf .venv .venv-dev dist build .coverage .coverage.* htmlcov
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Not editable: what runs is what a user installs. Made again only when a source has changed.
.venv/stamp: $(SOURCES)
	PYTHON=$(PYTHON) sh scripts/preflight.sh
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) install --quiet '.[demo]'
	touch $@

.venv-dev/stamp: $(SOURCES)
	PYTHON=$(PYTHON) sh scripts/preflight.sh
	test -x .venv-dev/bin/python || $(PYTHON) -m venv .venv-dev
	rm -rf dist
	.venv-dev/bin/python $(PIP) wheel --quiet --no-deps --wheel-dir dist .
	# pip leaves an equal version alone, even when the wheel is another one.
	.venv-dev/bin/python $(PIP) uninstall --quiet --yes tierwise
	wheel=$$(ls "$(CURDIR)"/dist/tierwise-*.whl) && \
	.venv-dev/bin/python $(PIP) install --quiet "tierwise[test,dev,completion,bench] @ file://$$wheel"
	touch $@
