# The commands for people and for CI. `make` alone lists them. A second run of any takes seconds.
.DEFAULT_GOAL := help
.PHONY: help setup control-plane build lint deny docs test browser chart gitops chaos demo
.PHONY: bench bench-smoke soak manifests install playground
.PHONY: monitoring image image-arm64 reproduce release package

# The Kubernetes of the cluster tests: the newest, or that of a folder of tests/control-plane.
export K8S ?=

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Watch a real cluster leave a database that dies, and follow one by DNS (90 s)
	@tests/control-plane/setup.sh demo
	@tests/control-plane/build.sh control-plane >/dev/null
	cargo test --test demo --no-run
# Ctrl-C is for the demo. cargo would end first, and the demo would write over the shell's prompt.
	@trap '' INT; cargo test --quiet --test demo

# The daemon to measure, and the program that measures it.
DAEMON ?= target/release/external-endpoints
MINUTES ?= 10
BENCH = --manifest-path benches/Cargo.toml --target-dir target/bench

bench: ## Measure the daemon beside HAProxy (30 minutes; ONLY=tcp for parts, BEFORE=PATH)
	@tests/control-plane/setup.sh bench
	@tests/control-plane/build.sh control-plane >/dev/null
	cargo build $(if $(findstring /debug/,$(DAEMON)),,--release)
	cargo test --test cluster_bench --no-run
	cargo run --quiet --release $(BENCH) -- --daemon $(DAEMON) $(if $(ONLY),--only $(ONLY)) \
		$(if $(BEFORE),--before $(BEFORE))

bench-smoke: ## Run the whole benchmark so briefly that its figures say nothing
	@tests/control-plane/setup.sh bench
	@tests/control-plane/build.sh control-plane >/dev/null
	cargo build $(if $(findstring /debug/,$(DAEMON)),,--release)
	cargo test --test cluster_bench --no-run
	cargo run --quiet --release $(BENCH) -- --daemon $(DAEMON) --smoke
	cargo run --quiet --release $(BENCH) -- --daemon $(DAEMON) --smoke --soak

soak: ## Check 2,000 targets for MINUTES=10; memory and descriptors must stay flat
	@tests/control-plane/setup.sh bench
	cargo build $(if $(findstring /debug/,$(DAEMON)),,--release)
	cargo run --quiet --release $(BENCH) -- --daemon $(DAEMON) --soak --minutes $(MINUTES)

browser: ## Try the status page in headless Chromium; pictures in target/browser/pictures
	@tests/control-plane/setup.sh browser
	cargo test --test browser

test: ## Run all tests, on a real control plane (K8S=1.33 for the oldest Kubernetes)
	@tests/control-plane/setup.sh test
	@tests/control-plane/build.sh all >/dev/null
	cargo test
	cargo test --quiet $(BENCH)

chart: ## Render the Helm chart, and install it on a real control plane
	@tests/control-plane/setup.sh demo
	@tests/control-plane/build.sh helm >/dev/null
	cargo test --test chart

gitops: ## Deliver by Flux, Argo CD, kubectl and Helm beside a running daemon, 20 rounds each
	@tests/control-plane/setup.sh demo
	@tests/control-plane/build.sh gitops >/dev/null
	cargo test --test gitops

monitoring: ## Make each alert fire and resolve on real replicas, by a real Prometheus (3 min)
	@tests/control-plane/setup.sh monitoring
	@tests/control-plane/build.sh control-plane >/dev/null
	cargo test --test monitoring

install: ## Install in each documented way on a fresh cluster, with a stopwatch
	@tests/control-plane/setup.sh demo
	@tests/control-plane/build.sh gitops >/dev/null
	cargo test --test install

playground: ## Open a shell in a real cluster with three databases to break
	@tests/control-plane/setup.sh demo
	@tests/control-plane/build.sh gitops >/dev/null
	@cargo test --quiet --test install --no-run
	@trap '' INT; cargo test --quiet --test install -- --playground

chaos: ## Inject random faults for MINUTES=10 with SEED=n, and judge by the API's history
	@tests/control-plane/setup.sh demo
	@tests/control-plane/build.sh control-plane >/dev/null
	cargo test --test chaos --no-run
	@trap '' INT; cargo test --quiet --test chaos -- --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

lint: ## Check the format, clippy's lints and rustdoc's links; a warning is an error
	@tests/control-plane/setup.sh lint
	cargo fmt --check
# cargo fmt does not see modules that a macro declares.
	find src -name '*.rs' -exec rustfmt --check --edition 2024 {} +
	cargo clippy --all-targets -- -D warnings
	cargo clippy --test chart --test gitops --test install --test monitoring --test demo \
		--test chaos --test cluster_bench --test package -- -D warnings
	cargo fmt --check --manifest-path benches/Cargo.toml
	cargo clippy $(BENCH) --all-targets -- -D warnings
	@tests/supply-chain/workflows.sh
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

manifests: ## Write deploy/install.yaml, which is deploy/base in one file
	@tests/control-plane/build.sh control-plane >target/control-plane
	@. target/control-plane && KUBEBUILDER_ASSETS=$$KUBEBUILDER_ASSETS packaging/manifests.sh \
		>target/install.yaml
	mv target/install.yaml deploy/install.yaml

image: ## Build the static program and its image without Docker: target/package/image
	@tests/control-plane/setup.sh image
	@program=$$(packaging/build.sh amd64) && \
		packaging/image.sh "$$program" amd64 target/package/image/amd64

image-arm64: ## Build the image for arm64 too, and run it under emulation
	@tests/control-plane/setup.sh release
	@program=$$(packaging/build.sh arm64) && \
		packaging/image.sh "$$program" arm64 target/package/image/arm64
	cargo test --test package -- image

reproduce: ## Build program and image twice, in two places, and compare the bytes
	@tests/control-plane/setup.sh image
	@packaging/reproduce.sh

# The architectures of a release, and the name under which its image will be found.
ARCHITECTURES ?= amd64 arm64
export IMAGE ?=

release: ## Make the files of a release in dist/ (ARCHITECTURES=amd64, IMAGE=ghcr.io/OWNER/NAME)
	@tests/control-plane/setup.sh release
	@packaging/release.sh $(ARCHITECTURES)

package: reproduce ## Build twice, make the release for amd64, run the image and check the files
	@$(MAKE) --no-print-directory release ARCHITECTURES=amd64
	cargo test --test package

docs: ## Build the documentation as a book into target/docs/book
	@tests/control-plane/setup.sh lint
	@tests/docs/build.sh

# The known vulnerabilities (advisories) are a database that is fetched from GitHub.
CHECKS ?= licenses bans sources advisories

deny: ## Check licences, bans, sources and vulnerabilities (CHECKS=licenses checks parts)
	@tests/supply-chain/deny.sh $(CHECKS)

build: ## Build the daemon for production: target/release/external-endpoints
	cargo build --release

setup: ## Install missing Debian packages if you are root; otherwise print the command
	@tests/control-plane/setup.sh

control-plane: setup ## Build Kubernetes for the tests once (5 minutes), or use KUBEBUILDER_ASSETS
	@tests/control-plane/build.sh
