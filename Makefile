# Each target works alone, first, on a fresh clone; only a package index has to be reachable.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PARITY := .venv-parity
NEWER  := 3.12 3.13
SUITE  := tests/faults tests/integration tests/unit
# Of Debian, for `make infra-check`: a line for each kind of check.
INFRA_PACKAGES := iproute2 util-linux \
  slurmctld slurmd slurm-client munge \
  debootstrap buildah podman crun \
  ceph-common ceph-mon ceph-osd libfaketime radosgw docker-compose \
  prometheus bubblewrap \
  sshfs fuse3 openssh-server openssh-client
FUZZED := changed_record or jsonl or csv or parquet or tar or junk or any_kind

# Two beside each other, each printed in one piece where make can do that (GNU make 4). Not three: on two cores, what a
# test waits for would come too late.
BESIDE = $(MAKE) --no-print-directory -j 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync)

# Which unit tests `make unit` takes: all if empty.
UNIT ?= not slow

# uv, since it takes seconds where pip takes minutes; pip where the package index is one that only pip is set up for.
# The largest wheel has 500 MB: more than uv's 30 seconds on a slow line.
# `make demo TORCH=cpu` takes torch's CPU wheels, a tenth as large, from their own index; pip knows no such option.
TORCH ?=
install = UV_HTTP_TIMEOUT=300 $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt \
  $(if $(TORCH),--torch-backend=$(TORCH)) $(1) \
  $(if $(TORCH),,|| $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(1))

# A shell that keeps Python from writing bytecode makes every process that a test starts compile all that it imports: half
# of what it takes to start one.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "featray needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): $(if $(TORCH),with torch for $(TORCH),some 7 GB with torch), a few minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(call install,-e .)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(call install,-e '.[dev]')
	@touch $@

# py-feat in an environment of its own, through which featray's shows, so that torch is there once.
$(PARITY)/.installed: $(VENV)/.installed-dev tests/parity/requirements.txt
	$(BIN)/python -m venv --clear $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/parity/requirements.txt
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > "$$($(PARITY)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/featray-venv.pth"
	@touch $@

install: $(VENV)/.installed  ## make .venv with what the main job needs

demo: $(VENV)/.installed  ## run the main job on two bundled clips, into demo-output/
	$(BIN)/featray demo

# What Ray waits for leaves time to lint; the rest of the tests, on two cores, comes after that.
test: $(VENV)/.installed-dev  ## everything that has to pass
	$(BESIDE) lint test-ray-then-parity test-local

lint: $(VENV)/.installed-dev  ## ruff, mypy, and that imports keep to the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.installed-dev  ## the fast unit tests, in minutes on two cores
	$(BIN)/python -m pytest -q -n 2 -m "$(UNIT)" tests/unit

suite: $(VENV)/.installed-dev  ## unit tests, the real job, and what happens when it is hurt
	$(BESIDE) test-ray test-local

test-ray: $(VENV)/.installed-dev  ## the part of the suite that is about Ray
	$(BIN)/python -m pytest -q -m ray tests/faults tests/integration

test-ray-then-parity: test-ray
	@$(MAKE) --no-print-directory parity

test-local: $(VENV)/.installed-dev  ## the part of the suite that needs no Ray
	$(BIN)/python -m pytest -q -m "not ray" -n 2 --dist loadfile --no-loadscope-reorder $(SUITE)

test-long: $(VENV)/.installed-dev  ## the suite with every kill point and every seed, infra-check, and the newest Python: hours
	FEATRAY_TEST_LONG=1 $(MAKE) suite
	$(MAKE) infra-check
	$(MAKE) unit-newest

# A check that finds no program of its packages, or no root, is skipped and says so.
infra-check: $(VENV)/.installed-dev  ## what infra/ describes, started for real: root and Debian packages, half an hour
	@if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then apt-get update -qq \
	  && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=600 $(INFRA_PACKAGES); fi
	FEATRAY_INFRA=1 $(BIN)/python -m pytest -v tests/infra

# The newest of NEWER whose command is there; `make unit-newest NEWER=3.14` tries another.
unit-newest:  ## the unit tests on the newest Python there is, in an environment of its own
	@newest=; for version in $(NEWER); do ! "python$$version" -c 'import venv, ensurepip' 2>/dev/null || newest=$$version; done; \
	  if [ -z "$$newest" ]; then echo "unit-newest: skipped, since none of Python $(NEWER) is installed"; \
	  else $(MAKE) PYTHON="python$$newest" VENV=".venv-$$newest" UNIT= unit; fi

fuzz: $(VENV)/.installed-dev  ## ten minutes of records, manifests, tars and checkpoint headers; what fails is kept in .hypothesis
	end=$$(($$(date +%s) + 600)); while [ $$(date +%s) -lt $$end ]; do \
	  FEATRAY_TEST_LONG=1 FEATRAY_FUZZ=1 $(BIN)/python -m pytest -q -x -k "$(FUZZED)" tests/unit/tables/test_hostile_records.py \
	    tests/unit/sources/test_fuzz.py tests/unit/model/test_checkpoint.py || exit 1; done

# The wheel is tried in an environment that has nothing else of this tree; `make dist TORCH=cpu` spares the gigabytes of CUDA.
dist: $(VENV)/.installed-dev  ## build wheel and sdist into dist/, install the wheel into an empty environment, run its demo
	rm -rf dist
	$(BIN)/uv build --quiet --out-dir dist
	! tar -tzf dist/*.tar.gz | grep -E '^[^/]+/(tests|docs|infra)/'
	! $(BIN)/python -m zipfile -l dist/*.whl | grep -E '^(tests|docs|infra)/'
	tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && $(PYTHON) -m venv "$$tmp/env" && \
	  UV_HTTP_TIMEOUT=300 $(BIN)/uv pip install --quiet --python "$$tmp/env/bin/python" -c constraints.txt \
	    $(if $(TORCH),--torch-backend=$(TORCH)) dist/*.whl && \
	  cd "$$tmp" && env/bin/featray demo --out demo-output && env/bin/featray verify demo-output

docs: $(VENV)/.installed-dev  ## renew the generated pages of docs/ and build the site into site/
	$(BIN)/python docs/generate.py
	NO_COLOR=1 $(BIN)/zensical build --strict --clean

parity: $(PARITY)/.installed  ## the real py-feat beside featray, from frame and box to final columns
	$(PARITY)/bin/python -m pytest -q tests/parity

bench: $(PARITY)/.installed  ## stages, network, chips, the whole job, small units: CPU ms a frame and a face, frames/s, memory
	$(PARITY)/bin/python tests/benchmarks/bench_network.py
	$(PARITY)/bin/python tests/benchmarks/bench_crop.py
	$(BIN)/python -m tests.benchmarks.bench_stages --json bench-stages.json
	$(BIN)/python -m tests.benchmarks.bench_job --stages --json bench-job.json
	$(BIN)/python -m tests.benchmarks.bench_growth --executor local --units 10 110 --json bench-growth-local.json
	$(BIN)/python -m tests.benchmarks.bench_growth --executor ray --units 10 110 --json bench-growth-ray.json

bench-peers: $(PARITY)/.installed  ## the job beside py-feat alone and in a short Ray Data script, in turns
	$(PARITY)/bin/python -m tests.benchmarks.bench_peers --json bench-peers.json

gpu-check: $(VENV)/.installed  ## on a machine with a CUDA GPU, in eight minutes: what only that can show
	$(BIN)/python tests/benchmarks/gpu_check.py --json gpu-check.json

constraints:  ## write constraints.txt from what is installed and tested
	( echo '# What featray is tested with; `make constraints` renews it. Passed to pip by the Makefile.'; \
	  $(BIN)/python -m pip freeze --all --exclude pip --exclude-editable --disable-pip-version-check | sort -f ) > constraints.tmp
	mv constraints.tmp constraints.txt

lock: $(VENV)/.installed  ## write the image's lock files with hashes, from constraints.txt and the index
	$(BIN)/python infra/docker/lock.py

clean:  ## remove .venv, caches and the demo's output
	rm -rf $(VENV) $(VENV)-3.* $(PARITY) demo-output site bench-*.json gpu-check.json .pytest_cache .mypy_cache .ruff_cache

.PHONY: help install demo test test-long infra-check unit-newest test-ray test-ray-then-parity test-local lint unit suite fuzz parity docs dist bench bench-peers gpu-check constraints lock clean
