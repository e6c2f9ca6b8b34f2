# Two commands do everything on a fresh machine: `make conformance` and `make test`.
.PHONY: help setup build conformance test lint bench containerd2

help:
	@echo "make conformance  build, start a private containerd, run every scenario on every builder here, report"
	@echo "make test         every test; those on a real containerd need root and are reported as ignored without"
	@echo "make lint         formatting, clippy with warnings as errors, cargo-deny where it is installed"
	@echo "make bench        latency alone: cold, no-op and one-file-change builds, interleaved"

setup:
	setup/install.sh test

build:
	setup/install.sh build
	cargo build --release --locked

# As a plain user the run itself goes through sudo: it makes namespaces and mounts, all of them private.
conformance:
	setup/install.sh conformance
	cargo build --release --locked
	$(if $(filter 0,$(shell id -u)),,sudo -E) target/release/shakedown run --out target/shakedown

bench:
	setup/install.sh conformance
	cargo build --release --locked
	$(if $(filter 0,$(shell id -u)),,sudo -E) target/release/shakedown run --filter bench --out target/shakedown

containerd2:
	setup/containerd2.sh

test: setup containerd2
	SHAKEDOWN_TEST_REQUIRE=pushless cargo test --workspace --locked

lint:
	setup/install.sh build
	cargo fmt --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@if command -v cargo-deny >/dev/null 2>&1; then cargo deny check; \
	else echo "cargo-deny is not installed: licences and advisories were not checked"; fi
