# A thin list of commands; each does its own set-up.
CARGO ?= cargo

.PHONY: help build test lint unit cluster-free deny generate image bench setup demo demo-down e2e

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 16

build: ## The release binary, in target/release
	$(CARGO) build --release

test: setup lint deny cluster-free unit ## Everything CI runs: lints, licences, and the tests of every tier

setup: ## Install what the tests need beside cargo and go
	tests/setup.sh

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --no-default-features --lib --bins -- -D warnings
# As it is built where there is no epoll.
	$(CARGO) clippy --no-default-features --lib -- --cfg without_fast_lane -D warnings -A dead_code

deny: ## Licences, banned crates, duplicates
	tests/deny.sh

cluster-free: ## The tests without the `cluster` feature
	$(CARGO) test --no-default-features

unit: ## The tests of every tier, a real API server and a real node included
	$(CARGO) test

e2e: ## The tests on a real node alone (Linux, root)
	$(CARGO) test --test e2e

generate: ## crds/, and what the chart makes from it and from its values
	$(CARGO) run --quiet -- crds > crds/healthchecks.healthcheck-operator.dev.yaml
	charts/tools/generate.sh

image: ## Both container images, with buildah
	build/image.sh

demo: ## A real node with the operator on it, to try it (Linux, root)
	tests/node/demo

demo-down: ## Remove what `demo` made
	tests/node/demo down

bench: ## The figures of docs/benchmarks.md, on this machine
	benches/run.sh
