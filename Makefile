# The project's verbs. The work is done by cargo, xtask/ and scripts/; this file only names it.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# `--workspace` makes every verb build dependencies with the same features, so none is built twice.
BUILD := $(CARGO) build --workspace --locked
# PROFILE=release puts optimised programs into the clusters.
E2E := $(TARGET)/debug/kind-e2e --programs $(TARGET)/$(or $(PROFILE),debug)
XTASK := $(BUILD) --quiet --bin xtask && $(TARGET)/debug/xtask

.DEFAULT_GOAL := help
.PHONY: help setup setup-build build demo test e2e e2e-up e2e-env e2e-down e2e-programs deb sim tidy fix docs bench-smoke bench-far bench-store bench-scale fuzz-smoke soak

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: ## Install what is missing for building and testing, and say why
	@scripts/setup.sh build test deb

setup-build:
	@scripts/setup.sh build

build: setup-build ## Build every program, for debugging
	$(BUILD) --bins

deb: setup-build ## Make the Debian package into target/deb; PROFILE=debug is built sooner
	@scripts/setup.sh deb
	$(BUILD) $(if $(filter debug,$(PROFILE)),,--release) --bin fedgate-federation --bin fedgate-gateway --bin fedctl
	@packaging/deb.sh $(TARGET)/$(or $(PROFILE),release) $(TARGET)/deb

demo: setup-build ## Build and run four clusters on this machine, with three faults
	$(BUILD) --bin fedctl
	@exec $(TARGET)/debug/fedctl demo up

test: setup ## Check format and lints, run all tests, count them
	@$(XTASK) check

e2e-programs: setup-build
	@scripts/setup.sh e2e deb
	$(BUILD) --bin kind-e2e
	$(BUILD) $(if $(filter release,$(PROFILE)),--release) --bin fedgate-federation --bin fedgate-gateway --bin fedctl

e2e: e2e-programs ## Test the charts, run suites on real clusters: all, or TEST=name, KEEP=1 to look at what it leaves
	@kind-e2e/scripts/charts.sh
	@exec $(E2E) run $(TEST) $(if $(KEEP),--keep)

e2e-up: e2e-programs ## Make three kind clusters with our images in them, from nothing but packages
	@exec $(E2E) up

e2e-env: ## Make two kind clusters, print what a shell evals: docs/guide/two-kind-clusters.md
	@$(MAKE) --silent e2e-programs >&2
	@exec $(E2E) env $(CLUSTERS)

e2e-down: ## Remove the clusters, and the Docker engine if e2e-up started it
	@kind-e2e/scripts/down.sh

sim: setup-build ## Simulate the store: SEEDS=1000 runs so many seeds, SEED=42 prints the trace of one
	SEEDS=$(or $(SEEDS),1000) SEED=$(SEED) $(CARGO) test -p federation --locked --test sim -- \
		$(if $(SEED),--exact invariants_hold) --nocapture

tidy: ## Check the project's own rules only
	@$(XTASK) tidy

fix: ## Format the code and apply what clippy can mend
	$(CARGO) clippy --workspace --all-targets --locked --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all

docs: ## Write the generated pages under docs/reference/
	@$(XTASK) gen

bench-smoke: setup-build ## Measure a pair of gateways beside a direct connection
	$(BUILD) --release --bins
	@$(TARGET)/release/bench smoke
	@$(TARGET)/release/bench wan

bench-far: setup-build ## Measure HTTP, PostgreSQL and Redis over long paths that lose packets, beside TCP
	$(BUILD) --release --bins
	@$(TARGET)/release/bench far

bench-store: setup-build ## Measure the store of three clusters: joins, changes, writes, leaders that die
	$(BUILD) --release --bins
	@$(TARGET)/release/bench store

bench-scale: setup-build ## Measure a federation of 1,000 simulated clusters, and the store beside etcd
	$(BUILD) --release --bins
	@$(TARGET)/release/bench scale
	@$(TARGET)/release/bench etcd --etcd "$$(scripts/etcd.sh)"

soak: setup ## Run long versions of tests into docs/reference/soak.md: all, or PIECE=rolling SECONDS=600 COUNT=1000
	$(BUILD) $(if $(filter debug,$(PROFILE)),,--release) --bins
	@exec $(TARGET)/$(or $(PROFILE),release)/soak $(or $(PIECE),all) $(if $(COUNT),$(or $(SECONDS),9000) $(COUNT),$(SECONDS))

fuzz-smoke: setup-build ## Fuzz every decoder for a short time
	@scripts/fuzz-smoke.sh
