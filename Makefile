# Everything a person does with a clone. `make` alone lists the targets.
#
# PYTHON       interpreter for the environment, 3.11 or newer        (default: python3.11)
# TORCH_INDEX  package index to take torch from. Leave it empty where the default index, or a wheel
#              folder that pip knows, gives the build you want; elsewhere name the CPU index that
#              PyTorch's install page shows, or a large CUDA build is fetched.
# DATA         make demo DATA=<folder>: push that folder's DICOM instead of a generated patient
# CONFIG       configuration for `make run`                             (default: config.yaml)

PYTHON ?= python3.11
TORCH_INDEX ?=
DATA ?=
CONFIG ?= config.yaml
BIN := .venv/bin
READY := .venv/.ready
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
# Font and configuration caches stay inside the clone.
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib

.PHONY: help setup demo run test test-postgresql check oracle fuzz bench lock sbom audit docs wheelhouse install rollback uninstall clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

setup: $(READY)  ## create .venv with the locked dependencies (instant when nothing changed)

# torch comes last and by itself: its wheel differs from machine to machine, so it has no hash in
# the lock; all that the CPU build needs is locked and installed before it.
$(READY): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make setup PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv \
		|| { echo "no venv module: on Debian 'apt-get install python3-venv', then make again"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## generate a patient, run the node on it, check and show what came back
	$(BIN)/python -m demo $(if $(DATA),--data "$(DATA)")

run: setup $(CONFIG)  ## start the node with $(CONFIG), made from the sample when it is missing
	$(BIN)/rtnode serve -c $(CONFIG)

$(CONFIG): | $(READY)
	$(BIN)/python -m node.config.sample > $@

# One process a core, one file a process: fixtures of a file are built once, servers take free ports.
test: setup  ## run the whole suite; installs dcmtk, dicom3tools and orthanc when it may
	@.ci/tools
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

test-postgresql: setup  ## run the tests of the store on PostgreSQL, on a server of their own
	@.ci/tools
	$(BIN)/python -m pytest -n 2 --dist loadfile --database=postgresql -m "not devpack" \
		tests/unit/node/store tests/integration/store $(PYTEST_ARGS)

check: setup  ## lint, format, types, import contracts, fast tests: what a change must pass
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -m "not slow and not devpack and not orthanc" $(PYTEST_ARGS)

# MIRP (EUPL) is read by nothing of ours: it runs in an environment of its own and is only compared.
.cache/oracle/bin/mirp-2.7.0:
	$(PYTHON) -m venv .cache/oracle
	.cache/oracle/bin/pip install --quiet --disable-pip-version-check mirp==2.7.0
	@touch $@

oracle: .cache/oracle/bin/mirp-2.7.0  ## compare every feature with MIRP on random arrays (minutes; fetches MIRP)
	PYTHONPATH=. .cache/oracle/bin/python tests/oracle/mirp_oracle.py $(ORACLE_ARGS)

# Coverage-guided fuzzing for as long as you like; CI only replays tests/fuzz/corpus and damages
# sound inputs by a seed. atheris sees the node's libraries beside its own.
.cache/fuzz/bin/atheris-3.0.0:
	$(PYTHON) -m venv .cache/fuzz
	.cache/fuzz/bin/pip install --quiet --disable-pip-version-check atheris==3.0.0
	@touch $@

fuzz: setup .cache/fuzz/bin/atheris-3.0.0  ## look for inputs that break a parser (TARGET=, SECONDS=)
	PYTHONPATH=.:$(wildcard .venv/lib/python3*/site-packages) .cache/fuzz/bin/python -m tests.fuzz.hunt \
		--target "$(TARGET)" --seconds $(or $(SECONDS),60)

bench: setup  ## ingest rate beside storescp and Orthanc
	$(BIN)/python -m benchmarks.ingest

# Tools of their own environment: nothing of them is installed with the node.
.cache/audit/bin/pip-audit:
	$(PYTHON) -m venv .cache/audit
	.cache/audit/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom pip-audit

sbom: .cache/audit/bin/pip-audit  ## write sbom.json (CycloneDX): what is installed with the node
	{ cat requirements/run.lock; echo "$(TORCH)"; } | .cache/audit/bin/cyclonedx-py requirements \
		--pyproject pyproject.toml --output-reproducible --of JSON -o sbom.json -

# Strict: a package that the service does not know, or a service that does not answer, is a failure.
audit: .cache/audit/bin/pip-audit  ## ask for known vulnerabilities of the locked dependencies (needs a network)
	.cache/audit/bin/pip-audit --strict --disable-pip --no-deps -r requirements/run.lock

docs: setup  ## print the pages anew that come from the code: sample, configuration, conformance
	$(BIN)/python -m node.config.sample > config.yaml
	$(BIN)/python -m node.config.reference > docs/configuration.md
	$(BIN)/python -m node.cli.conformance CONFORMANCE.md

# Everything that an offline machine needs: copy the clone with this folder there.
wheelhouse: setup  ## download every wheel for `make install` into wheelhouse/
	rm -rf wheelhouse
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes -r requirements/run.lock -d wheelhouse
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps \
		$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH) -d wheelhouse
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation . -w wheelhouse
	cd wheelhouse && sha256sum *.whl > SHA256SUMS

install:  ## install or upgrade the service from wheelhouse/ (as root; uses no network)
	@PYTHON=$(PYTHON) systemd/install install

rollback:  ## go back to the release that ran before (as root)
	@systemd/install rollback

uninstall:  ## remove the service; configuration and data stay (as root)
	@systemd/install uninstall

lock:  ## resolve the dependencies again (needs uv on the PATH)
	$(BIN)/python requirements/lock.py

clean:  ## remove the environment, caches and demo output
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo-output
