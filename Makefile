# Sluice. `make` lists what there is to make.
SHELL := /bin/bash
.DEFAULT_GOAL := help
DEMO_DIR ?= /var/tmp/sluice-demo
STORE    ?= file
RUNTIME  ?= sandbox
export CGO_ENABLED ?= 0
# Recipes get these by the environment, as they were given: in the text of a command the shell would run what is in them.
export DEMO_DIR STORE RUNTIME LOAD RUNS
export SLUICE_ARGS := $(value ARGS)

.PHONY: help setup build test test-load test-qemu fresh lint vulncheck bench soak demo demo-down clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what the build, the demo and the tests need (Debian packages)
	@scripts/setup.sh

build: ## build bin/sluice, bin/sluice-init and the platform's release tree
	@scripts/build.sh

test: setup build ## all tests, race detector on, from nothing (ARGS='-run Drain ./test/e2e' for some)
	@scripts/with-args.sh scripts/test.sh

fresh: ## the README's commands, in a clone in an empty Debian with make, Go and root alone
	@scripts/fresh.sh

test-load: setup build ## all tests, beside a load of 30; hours on two cores (LOAD=30, RUNS=1, ARGS='./test/chaos')
	@scripts/with-args.sh scripts/test-load.sh

test-qemu: setup build ## fleets of VMs with a kernel of their own (make test has the runtime's own suite); minutes without KVM
	@scripts/test.sh -v -tags qemu -timeout 60m -run 'Qemu|Runtimes|Postgres' ./internal/disk/frontend ./test/e2e

lint: ## golangci-lint and the house rules
	@scripts/lint.sh

vulncheck: ## known vulnerabilities in what our programs call (govulncheck; SLUICE_VULNDB names another database)
	@scripts/vulncheck.sh

bench: setup build ## the benchmarks: each beside a peer, or beside its other half, in one run (ARGS='-run Disk')
	@scripts/with-args.sh scripts/bench.sh

soak: setup build ## long runs: simulation, crash tests, chaos, fuzzing
	@scripts/with-args.sh scripts/soak.sh

demo: setup build ## the main job: bring up a fleet, drain a worker (STORE=file|s3, RUNTIME=sandbox|qemu|mixed)
	@scripts/demo.sh

demo-down: ## remove everything that make demo made
	@bin/sluice dev down --dir "$$DEMO_DIR"

clean: ## remove what was built
	rm -rf bin .cache/release
