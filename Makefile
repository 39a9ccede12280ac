# The commands of the project, which CI and the README use. `make help` lists them.
PYTHON ?= python3
PHOTOS ?= $(wildcard ../shared/data/codes)
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
HASHED := constraints-hashed.txt
HASHED_CUDA12 := constraints-cuda12.txt
ARGS ?=
# Unit tests share no state, so they run in parallel, and so do the files of all tests that measure nothing. Those marked
# `alone` run one at a time. Files start in alphabetical order: by default pytest-xdist begins those with the fewest tests
# last, and one core would be idle while the other runs a single long test.
PYTEST_UNIT = $(BIN)/python -m pytest -n logical --dist worksteal tests/unit
PYTEST_FILES = $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder \
	-m "not alone" --ignore tests/unit tests
PYTEST_ALONE = $(BIN)/python -m pytest -m alone --ignore tests/unit tests
INSTALL = $(BIN)/python deploy/install.py
# A service is four processes or more, and the tests start hundreds of services. Without cached bytecode each process
# compiles all its packages again: a worker then needs 1.9 s of CPU instead of 1.1 s, and Evidently 14 s instead of 6 s.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install serve test test-unit test-system test-training soak reliability check format bench train evaluate image sample demo-gif constraints hashes audit sbom fuzz chart release-plan pins clean system-packages

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: install  ## run the service on http://127.0.0.1:8000, after installing it if necessary
	$(BIN)/streamer serve $(ARGS)

install: $(VENV)/installed  ## create .venv with everything that the service needs

test: $(VENV)/installed-dev system-packages  ## run all tests, after installing what they need; ARGS=tests/... for some of them
ifeq ($(strip $(ARGS)),)
	@# Run all three parts even if one fails, so that a single run shows all failures.
	failed=; $(PYTEST_UNIT) || failed=1; $(PYTEST_FILES) || failed=1; $(PYTEST_ALONE) || failed=1; test -z "$$failed"
else
	$(BIN)/python -m pytest $(ARGS)
endif

test-unit: $(VENV)/installed-dev  ## run the unit tests on all cores: some two minutes on two cores, without root and system packages
	$(PYTEST_UNIT) $(ARGS)

test-system: $(VENV)/installed-dev system-packages  ## run all other tests, which start the service, browsers and stores
	$(PYTEST_FILES) $(ARGS)
	$(PYTEST_ALONE) $(ARGS)

test-training: $(VENV)/installed-dev $(VENV)/installed-training  ## run the tests that need PyTorch, after installing it
	$(BIN)/python -m pytest tests/training $(ARGS)

soak: $(VENV)/installed-dev system-packages  ## run the long form of the fault tests (about an hour) and update docs/reliability.md
	$(BIN)/python -m pytest tests/faults --full $(ARGS)
	$(BIN)/python -m tests.faults.report

reliability: $(VENV)/installed-dev  ## update docs/reliability.md with the latest results of the fault tests
	$(BIN)/python -m tests.faults.report

check: $(VENV)/installed-dev  ## check formatting, lint, types and layers, as CI does
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev  ## format the code and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/installed-dev  ## measure throughput relative to the bare loop, or BENCH=overload|fairness|recovery|engines|idle|first_frame|calls|simulation|sampling|shadow|version_change|drift|drift_worlds|drift_comparison|model_side|webrtc|gpu|autoscaling
	$(BIN)/python -m bench.$(or $(BENCH),throughput) $(ARGS)

train: $(VENV)/installed-training  ## train both bundled models; PHOTOS=folder adds real photographs, ARGS="--device cuda"
	$(BIN)/python -m models.training.train v2 $(if $(PHOTOS),--photos $(PHOTOS)) $(ARGS)
	$(BIN)/python -m models.training.train v1 $(if $(PHOTOS),--photos $(PHOTOS)) $(ARGS)

evaluate: $(VENV)/installed-training  ## print the table of the model card; PHOTOS=folder of annotated photographs
	@test -n "$(PHOTOS)" || { echo "name a folder with annotations.json and images/: make evaluate PHOTOS=folder"; exit 1; }
	$(BIN)/python -m models.training.evaluate --photos $(PHOTOS) $(ARGS)

image:  ## build the container image; TARGET=cpu-drift|gpu|gpu-cuda12 for another one, ARGS="--pull"
	@# Stop if there is no image of this name.
	@$(PYTHON) deploy/release.py arguments $(or $(TARGET),cpu) > /dev/null
	docker build $$($(PYTHON) deploy/release.py arguments $(or $(TARGET),cpu)) \
		--tag real-time-vision-api:$(or $(TARGET),cpu) $(ARGS) .

sample: $(VENV)/installed-training  ## render the sample clip and images in data/ again
	$(BIN)/python data/make_sample.py

demo-gif: $(VENV)/installed-dev  ## make the moving image of README again: the sample clip with the boxes of the service
	$(BIN)/python -m data.make_demo

constraints: $(VENV)/installed-dev  ## resolve and pin the versions of all packages again
	$(BIN)/uv pip compile pyproject.toml --group dev --group fuzz --all-extras --universal --python-version 3.11 \
		--no-header --no-annotate --strip-extras --upgrade -o $(CONSTRAINTS)
	@$(MAKE) --no-print-directory hashes

hashes: $(VENV)/installed-dev  ## write the hashes of the pinned packages that an image may contain
	@# hatchling builds the wheel of the project.
	echo hatchling | $(BIN)/uv pip compile pyproject.toml - --all-extras --constraint $(CONSTRAINTS) \
		--universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url --strip-extras \
		--generate-hashes --quiet -o $(HASHED)
	@# The last build of ONNX Runtime for CUDA 12. What it needs is pinned already.
	echo 'onnxruntime-gpu>=1.26,<1.27' | $(BIN)/uv pip compile - --universal --python-version 3.11 --no-header \
		--no-annotate --no-emit-index-url --no-deps --generate-hashes --quiet -o $(HASHED_CUDA12)

audit: build/audit/installed  ## check the packages of the images for advisories; fails if these cannot be fetched
	build/audit/bin/pip-audit --strict --require-hashes --disable-pip -r $(HASHED)

sbom: build/audit/installed  ## write the list of the images' packages to build/sbom-python.cdx.json (CycloneDX)
	build/audit/bin/cyclonedx-py requirements $(HASHED) --of JSON -o build/sbom-python.cdx.json

fuzz: $(VENV)/installed-dev  ## fuzz every parser that reads foreign bytes; SECONDS_EACH=30, TARGET=name for one
	$(INSTALL) --group fuzz
	$(BIN)/python -m tests.fuzz.run $(TARGET) --seconds $(or $(SECONDS_EACH),30) $(if $(SHARE),--share $(SHARE))

chart: $(VENV)/installed-dev  ## update the chart's table of values and its schema after a change of values or settings
	$(BIN)/python -m tests.deploy.chart_reference

release-plan:  ## show what a release builds, scans, signs and publishes; REPOSITORY=OWNER/NAME
	@$(PYTHON) deploy/release.py plan --repository $(or $(REPOSITORY),owner/real-time-vision-api)

pins:  ## write the digests of the images of others into the Dockerfile and the workflows; needs docker and network
	$(PYTHON) deploy/pins.py

clean:  ## remove what these commands created
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; choose one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@# On Debian and Ubuntu, ensurepip is in a separate package.
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || sh tests/system_packages.sh python3-venv
	@echo "-- creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(INSTALL) -e '.[server]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(INSTALL) -e '.[server]' --group dev
	@touch $@ $(VENV)/installed

$(VENV)/installed-training: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(INSTALL) -e '.[train]'
	@touch $@ $(VENV)/installed

# These tools need their own environment: they depend on other versions of packages than the service pins.
build/audit/installed: | $(VENV)/bin/python
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1 cyclonedx-bom==7.5.0
	@touch $@

# The second line installs third-party WebRTC clients; tests that need them skip if they are absent.
system-packages:
	@sh tests/system_packages.sh chromium nodejs npm
	@sh tests/system_packages.sh coturn ffmpeg iproute2 gstreamer1.0-tools gstreamer1.0-plugins-base \
		gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-nice python3-gi python3-gst-1.0 \
		gir1.2-gst-plugins-bad-1.0 gir1.2-gst-rtsp-server-1.0
	@sh tests/system_packages.sh nginx-light haproxy mosquitto
	@sh tests/system_packages.sh radosgw ceph-mon ceph-osd ceph-common docker-registry skopeo
	@sh tests/system_packages.sh prometheus docker-compose buildah podman runc debootstrap
