# What a person or CI runs here; `make` alone lists it. Every target can be run again in seconds.
.DEFAULT_GOAL := help
.PHONY: help setup control-plane build lint test demo

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup control-plane ## Watch a real cluster stop sending connections to a database that died (a minute, once built)
	cargo test --test demo

test: setup control-plane ## Run all tests, the cluster tests on a real control plane among them
	cargo test

lint: setup ## Check the format, clippy's advice and the documentation's links; a warning is an error
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --test demo -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

build: ## Build the daemon for use: target/release/external-endpoints
	cargo build --release

setup: ## Install missing Debian packages when root; else print the line that does
	@tests/control-plane/setup.sh

control-plane: setup ## Build etcd, Kubernetes and the MongoDB stand-in once (five minutes), or check KUBEBUILDER_ASSETS
	@tests/control-plane/build.sh
