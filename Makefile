# What a person or CI runs here; `make` alone lists it. Every target can be run again in seconds.
.DEFAULT_GOAL := help
.PHONY: help setup control-plane build lint deny test chaos demo bench bench-smoke soak

# Which Kubernetes the cluster tests run on: today's, or the one of this folder of tests/control-plane.
export K8S ?=

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Watch a real cluster stop sending connections to a database that died (a minute, once built)
	@tests/control-plane/setup.sh demo
	@tests/control-plane/build.sh control-plane >/dev/null
	cargo test --test demo --no-run
# Ctrl-C is for the demo itself: cargo would end first, and leave it behind to write over the shell's prompt.
	@trap '' INT; cargo test --quiet --test demo

# The daemon that is measured, and the program that measures.
DAEMON ?= target/release/external-endpoints
MINUTES ?= 10
BENCH = --manifest-path benches/Cargo.toml --target-dir target/bench

bench: ## Measure the daemon beside HAProxy and bare loops: a table, and benches/results.json (half an hour; ONLY=tcp,http for parts, BEFORE=PATH for another build beside it)
	@tests/control-plane/setup.sh bench
	@tests/control-plane/build.sh control-plane >/dev/null
	cargo build $(if $(findstring /debug/,$(DAEMON)),,--release)
	cargo test --test cluster_bench --no-run
	cargo run --quiet --release $(BENCH) -- --daemon $(DAEMON) $(if $(ONLY),--only $(ONLY)) $(if $(BEFORE),--before $(BEFORE))

bench-smoke: ## Run all of the benchmark and the soak, so small and short that figures say nothing
	@tests/control-plane/setup.sh bench
	@tests/control-plane/build.sh control-plane >/dev/null
	cargo build $(if $(findstring /debug/,$(DAEMON)),,--release)
	cargo test --test cluster_bench --no-run
	cargo run --quiet --release $(BENCH) -- --daemon $(DAEMON) --smoke
	cargo run --quiet --release $(BENCH) -- --daemon $(DAEMON) --smoke --soak

soak: ## Check 2,000 targets, a tenth of them bad, for MINUTES=10: memory and descriptors must stay flat
	@tests/control-plane/setup.sh bench
	cargo build $(if $(findstring /debug/,$(DAEMON)),,--release)
	cargo run --quiet --release $(BENCH) -- --daemon $(DAEMON) --soak --minutes $(MINUTES)

test: ## Run all tests, the cluster tests on a real control plane among them (K8S=1.33 for the oldest Kubernetes)
	@tests/control-plane/setup.sh test
	@tests/control-plane/build.sh all >/dev/null
	cargo test
	cargo test --quiet $(BENCH)

chaos: ## Let everything go wrong for MINUTES=10, as SEED=n has it, and judge the daemon by the API's own history
	@tests/control-plane/setup.sh demo
	@tests/control-plane/build.sh control-plane >/dev/null
	cargo test --test chaos --no-run
	@trap '' INT; cargo test --quiet --test chaos -- --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

lint: ## Check the format, clippy's advice and the documentation's links; a warning is an error
	@tests/control-plane/setup.sh lint
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --test demo --test chaos --test cluster_bench -- -D warnings
	cargo fmt --check --manifest-path benches/Cargo.toml
	cargo clippy $(BENCH) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

# The known vulnerabilities (advisories) are a database that is fetched from GitHub.
CHECKS ?= licenses bans sources advisories

deny: ## Check dependencies by deny.toml: licences, bans, sources and known vulnerabilities (CHECKS=licenses for parts)
	@tests/supply-chain/deny.sh $(CHECKS)

build: ## Build the daemon for use: target/release/external-endpoints
	cargo build --release

setup: ## Install all Debian packages that are missing for any of these when root; else print the line that does
	@tests/control-plane/setup.sh

control-plane: setup ## Build etcd, Kubernetes and the MongoDB stand-in once (five minutes), or check KUBEBUILDER_ASSETS
	@tests/control-plane/build.sh
