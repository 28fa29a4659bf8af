# Lockgate's commands. Each of them sets up what it needs first; all of it goes into .venv and
# .venv-bench inside this folder. `make` alone prints this list.

VENV        ?= .venv
BENCH_VENV  ?= .venv-bench
CONFIG      ?= config/gateway.yaml
# More than there are cores, because most tests wait for a socket most of the time.
TEST_JOBS   ?= 4
TEST_ARGS   ?=
ONLY        ?=
BENCH_ARGS  ?=
# Wheels only: building a source archive would download build tools that no hash covers.
PIP_INSTALL ?= install --quiet --no-input --disable-pip-version-check --only-binary :all:

# Bytecode is kept, whatever the environment says: tests and measurements start hundreds of
# processes, and each would compile the whole package for itself.
unexport PYTHONDONTWRITEBYTECODE

PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# The hot modules, compiled; COMPILE=off leaves what is there and compiles nothing.
COMPILE  ?= on
COMPILER := .ci/compile_gateway.py
COMPILED := $(VENV)/.compiled
SOURCES  := $(shell find gateway -name '*.py')
BENCH_STAMP := $(BENCH_VENV)/.installed

# The fastest Python that can do it, unless PYTHON names one. Only looked for when an environment is
# made; one that exists is kept.
PICK_PYTHON := .ci/pick_python.sh
define make_venv
if ! $(PICK_PYTHON) "$(1)/bin/python" >/dev/null 2>&1; then \
  found=$$($(PICK_PYTHON) $(PYTHON)) || exit 1; \
  echo "Making $(1) with $$found"; rm -rf "$(1)"; "$$found" -m venv "$(1)"; \
fi
endef

.PHONY: help
help:
	@echo "make run      start the gateway on $(CONFIG) with a demo upstream behind it"
	@echo "make test     run every test, on the compiled modules where there are some"
	@echo "make coverage run every test on the sources, and say which lines ran"
	@echo "make lint     style, types, import rules"
	@echo "make schema   write config/gateway.schema.json anew"
	@echo "make check    check the configuration files that are shipped"
	@echo "make image-check  go through the steps of the Dockerfile without a container engine"
	@echo "make chaos    rehearse failures of upstreams and store against $(CONFIG)"
	@echo "make crash-loop  kill everything under load, 30 rounds, and prove that no event is lost"
	@echo "make bench    measure side by side with other proxies (ONLY=throughput for one part)"
	@echo "make setup    only set up $(VENV), and compile the hot modules if that can be done here"
	@echo "make compile  compile the hot modules anew (COMPILE=off keeps other commands from it)"
	@echo "make lock     write the lock files anew from pyproject.toml"
	@echo "make clean    remove everything that these commands made"

.PHONY: setup
setup: $(COMPILED)

$(STAMP): requirements-dev.lock pyproject.toml
	@$(call make_venv,$(VENV))
	"$(PY)" -m pip $(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	"$(PY)" -m pip $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch "$@"

# Whatever the outcome, the stamp says that it was tried on these sources: without a C compiler the
# gateway runs as pure Python. What was made from other sources is never used; see compiled.py.
ifeq ($(COMPILE),on)
$(COMPILED): $(STAMP) $(COMPILER) $(SOURCES)
	"$(PY)" $(COMPILER)
	@touch "$@"
else
$(COMPILED): $(STAMP) ;
endif

.PHONY: compile
compile: $(STAMP)
	"$(PY)" $(COMPILER) --required

.PHONY: run
run: $(COMPILED)
	@exec "$(PY)" config/demo/run.py --config "$(CONFIG)"

.PHONY: test
test: $(COMPILED)
	"$(PY)" -m pytest -n $(TEST_JOBS) --dist worksteal $(TEST_ARGS)

# The same tests on the sources as they are, because compiled lines can't be counted. CI runs both.
.PHONY: coverage
coverage: $(STAMP)
	GATEWAY_COMPILED=off "$(PY)" -m pytest -n $(TEST_JOBS) --dist worksteal --cov --cov-report=term $(TEST_ARGS)

.PHONY: lint
lint: $(STAMP)
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .
	"$(PY)" -m mypy
	"$(VENV)/bin/lint-imports" --no-cache

.PHONY: schema
schema: $(STAMP)
	"$(PY)" -m gateway schema > config/gateway.schema.json.new
	mv config/gateway.schema.json.new config/gateway.schema.json

.PHONY: check
check: $(STAMP)
	"$(PY)" -m gateway check config/gateway.yaml
	LOCKGATE_ADMIN_TOKEN=only-for-this-check "$(PY)" -m gateway check deploy/gateway.yaml

.PHONY: chaos
chaos: $(COMPILED)
	"$(PY)" -m gateway chaos config/chaos/*.yaml --config "$(CONFIG)"

# Kills gateways, a worker and the store under load; CRASH_ARGS: --seed, --rounds, --embedded.
CRASH_ARGS ?=
.PHONY: crash-loop
crash-loop: $(COMPILED)
	"$(PY)" -m tests.faults.crash $(CRASH_ARGS)

.PHONY: image-check
image-check: $(STAMP)
	"$(PY)" deploy/check_image_steps.py

.PHONY: bench
bench: $(COMPILED) $(BENCH_STAMP)
	"$(PY)" -m bench $(if $(ONLY),--only $(ONLY)) --peers "$(BENCH_VENV)" $(BENCH_ARGS)

$(BENCH_STAMP): bench/requirements.lock
	@$(call make_venv,$(BENCH_VENV))
	"$(BENCH_VENV)/bin/python" -m pip $(PIP_INSTALL) --require-hashes -r bench/requirements.lock
	@touch "$@"

# The lock files name no index and no host: where packages come from is the business of whoever
# installs them; the hashes say that they are the right ones. Needs uv.
UV      ?= uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-strip-extras --no-emit-index-url --no-emit-find-links
.PHONY: lock
lock:
	$(COMPILE) $(LOCK_ARGS) pyproject.toml -o requirements.lock
	$(COMPILE) $(LOCK_ARGS) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) $(LOCK_ARGS) --group build -c requirements-dev.lock -o deploy/requirements-build.lock
	$(COMPILE) $(LOCK_ARGS) --group bench -o bench/requirements.lock

.PHONY: clean
clean:
	rm -rf "$(VENV)" "$(BENCH_VENV)" build dist gateway/_compiled .coverage .coverage.* .pytest_cache .ruff_cache \
	  .mypy_cache .import_linter_cache .hypothesis bench/results/work
	find . -name __pycache__ -type d -not -path "./.git/*" -prune -exec rm -rf {} +
