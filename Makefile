# The two commands of the README are `make demo` and `make test`; the rest serves them.
# Everything Python lives in .venv; what comes from Debian is listed in deploy/packages.

SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
# Debian's, which is built with profiles and link-time optimisation. One that a version manager puts first in PATH often is
# not, and takes up to twice the CPU time. Another: `make install PYTHON=...`.
PYTHON := /usr/bin/python3

.PHONY: install install-test demo demo-down test test-host test-cluster test-v2 test-wheel test-qemu soak chaos lint bench bench-engine bench-images bench-machine bench-manager proto lock clean

## install: a venv with pinned dependencies and the project in it; leaves .venv/bin/shoal
install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml hatch_build.py $(wildcard proto/shoal/*/*.proto proto/shoal/*/*/*.proto)
	deploy/packages run
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	rm -f $(VENV)/lib/python3*/site-packages/distutils-precedence.pth  # of setuptools: an import in each start, for nobody
	$(PY) -m compileall -q shoal manager agent machine cli  # a third of a command's start, where Python may not write it
	touch $@

proto:
	$(PY) hatch_build.py

## lock: choose the newest versions that pyproject.toml allows and pin them with their hashes
lock:
	$(VENV)/bin/uv pip compile -q pyproject.toml --group dev --generate-hashes --python-version 3.11 --no-header -o requirements.lock

install-test: install
	deploy/packages test

## demo: three hosts on this machine, one web service, one power cut; make demo-down removes it
demo: install
	deploy/demo up

demo-down:
	deploy/demo down

## test: everything, on real parts; what the tests need is installed first. Two rows side by side: hosts of a cluster
## mostly wait. What the second says comes at its end.
test: install-test lint
	@echo "the tests run, in two rows; that takes about 20 minutes on two cores"
	$(MAKE) --jobs 2 --keep-going test-host test-cluster

## test-host: the tests that need no cluster
test-host:
	$(VENV)/bin/pytest tests/unit tests/property tests/contract tests/architecture
	$(MAKE) test-wheel
	$(VENV)/bin/pytest --durations=20 tests/kernel tests/differential

## test-cluster: the tests whose hosts are the lab's
test-cluster:
	@mkdir -p build
	@$(VENV)/bin/pytest --durations=20 tests/cluster > build/test-cluster.log 2>&1; code=$$?; cat build/test-cluster.log; exit $$code

## test-v2: the runtime's tests once more, where cgroup v2 is all there is; what needs a controller that this kernel's
## unified hierarchy lacks says so
test-v2:
	unshare --mount --propagation private sh -c 'umount -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; \
		exec $(VENV)/bin/pytest -rs tests/kernel/runtime tests/kernel/oci/test_life.py tests/kernel/oci/test_configuration.py'

## test-qemu: the driver of virtual machines on a real QEMU; its first run makes a Debian, and without KVM it takes half
## an hour. The Debian is kept in build
test-qemu: install-test
	deploy/packages qemu
	SHOAL_QEMU=1 $(VENV)/bin/pytest --durations=10 tests/contract/driver -k qemu

lint:
	$(VENV)/bin/ruff check . deploy/lab
	$(VENV)/bin/ruff format --check . deploy/lab
	$(VENV)/bin/buf lint
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

## test-wheel: the unit tests once more, against the wheel as a user would install it
test-wheel:
	rm -rf build/wheel && mkdir -p build/wheel
	$(PY) -m build --wheel --no-isolation --outdir build/wheel . >/dev/null
	$(PY) -m venv --without-pip build/wheel/venv
	realpath $(VENV)/lib/python3*/site-packages > $$(echo build/wheel/venv/lib/python3*/site-packages)/dependencies.pth
	$(PY) -m pip --python build/wheel/venv/bin/python install -q --disable-pip-version-check --no-deps --ignore-installed build/wheel/*.whl
	cd build/wheel && SHOAL_FROM_WHEEL=1 venv/bin/python -m pytest -q -p shoal -c ../../pyproject.toml --rootdir ../.. ../../tests/unit ../../tests/architecture

## soak: thousands of containers that come and go; the host is then as it was before
soak: install-test
	SHOAL_SOAK=10000 $(VENV)/bin/pytest tests/kernel/container/test_soak.py

## chaos: break a cluster in every way for SECONDS, as SEED says (printed; give it back to see a failure again)
SECONDS := 600
MANAGERS := 1
CYCLES := 100
chaos: install-test
	$(PY) -m tests.cluster.chaos --seconds $(SECONDS) --managers $(MANAGERS) --cycles $(CYCLES) $(if $(SEED),--seed $(SEED))

## bench: every benchmark beside the peers that are installed; build/bench.json
bench:
	$(PY) -m tests.bench
bench-engine:
	$(PY) -m tests.bench engine
bench-images:
	$(PY) -m tests.bench images
bench-machine:
	$(PY) -m tests.bench machine
bench-manager:
	$(PY) -m tests.bench manager

clean:
	rm -rf build .venv .mypy_cache .ruff_cache .pytest_cache
