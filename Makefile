# What a person or CI runs here; `make` alone lists it. Every target can be run again in seconds.
.DEFAULT_GOAL := help
.PHONY: help setup control-plane build lint test demo

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Watch a real cluster stop sending connections to a database that died (a minute, once built)
	@tests/control-plane/setup.sh demo
	@tests/control-plane/build.sh control-plane >/dev/null
	cargo test --test demo --no-run
# Ctrl-C is for the demo itself: cargo would end first, and leave it behind to write over the shell's prompt.
	@trap '' INT; cargo test --quiet --test demo

test: ## Run all tests, the cluster tests on a real control plane among them
	@tests/control-plane/setup.sh test
	@tests/control-plane/build.sh all >/dev/null
	cargo test

lint: ## Check the format, clippy's advice and the documentation's links; a warning is an error
	@tests/control-plane/setup.sh lint
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --test demo -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

build: ## Build the daemon for use: target/release/external-endpoints
	cargo build --release

setup: ## Install all Debian packages that are missing for any of these when root; else print the line that does
	@tests/control-plane/setup.sh

control-plane: setup ## Build etcd, Kubernetes and the MongoDB stand-in once (five minutes), or check KUBEBUILDER_ASSETS
	@tests/control-plane/build.sh
