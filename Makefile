# The developer's day on one page. Every target goes through .ci/env, which provides what is missing.
#
# Two profiles, each compiled once: `dev` for tests, the server they start, the simulator and the
# demo (optimised, with debug assertions); `release` for `make run` and `make bench`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test demo bench sim docs fmt lint build

PORT ?= 6379
DIR ?= ./data
SEED ?= 1
BENCH ?= commands
target := $(or $(CARGO_TARGET_DIR),target)

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 8

run: ## One node on 127.0.0.1 (PORT=6379 DIR=./data)
	@. .ci/env; cargo build --release --locked -p lattis-server
	@exec $(target)/release/lattis-server --port $(PORT) --dir $(DIR)

# `--all-targets` compiles the server and all tests with one set of features: what `cargo test
# --workspace` then finds ready.
build:
	@. .ci/env tests; cargo build --workspace --all-targets --locked

test: ## All that continuous integration runs
	@echo "==== format and lints"; $(MAKE) --no-print-directory lint
	@echo "==== tests"; $(MAKE) --no-print-directory build
	@. .ci/env tests; cargo test --workspace --locked
	@echo "==== planted bugs"; .ci/planted
	@echo "==== demo"; $(target)/debug/demo

demo: ## Three nodes, a partition, one state again
	@. .ci/env; cargo build --workspace --bins --locked; $(target)/debug/demo

bench: ## Benchmarks beside Redis (BENCH="commands --quick", peers, bindings, collections, expiry, ...)
	@. .ci/env tests; cargo build --release --locked -p lattis-server -p lattis-tests --bins
	@$(target)/release/bench $(BENCH)

sim: ## Replays one seed of the simulator (SEED=n)
	@cargo run --locked -q -p lattis-tests --bin sim -- $(SEED)

docs: ## Generates docs/commands.md from the command table
	@cargo run --locked -q -p lattis-tests --bin commands

fmt: ## Formats the Rust
	@cargo fmt --all

lint: ## Format check and clippy, warnings refused
	@cargo fmt --all --check
	@. .ci/env; cargo clippy --workspace --all-targets --locked -- -D warnings
	@. .ci/env; cargo clippy -p lattis-tests --all-targets --features planted --locked -- -D warnings
