# The targets for working with this checkout; a bare `make` lists them.
.POSIX:
.PHONY: help tools build test lint soak model fuzz deny reproducible bench demo demo-stop screenshots compose-up compose-down compose-test clean-room clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 22

tools: ## provide .tools/bin/envoy (Envoy 1.40)
	@scripts/envoy-tool

build: ## build dist/latchkey and dist/latchkey_filter.wasm (release)
	@scripts/build

test: tools build ## run every test but those in containers: Rust, wasm in Node, end to end in a real Envoy
	@scripts/test

lint: ## check format, clippy, the house style and the scripts
	@scripts/lint

soak: tools build ## load two Envoys for SOAK_SECONDS (an hour) during changes; check every verdict, and that memory stays flat
	@scripts/soak

bench: tools build ## measure CPU, memory and time, compared with Envoy's own api_key_auth and the disk
	@command -v wrk >/dev/null || scripts/debian-packages "the load generator" wrk
	@tests/bench/bench

model: ## run a million random sequences of changes and faults (MODEL_CASES) over control plane and filter
	@scripts/model

fuzz: ## run each fuzz target for a minute (FUZZ_SECONDS)
	@scripts/fuzz

deny: ## check the dependencies' licenses and sources
	@scripts/deny

reproducible: ## build the filter from two folders, and compare the bytes
	@scripts/reproducible

demo: tools build ## run the control plane, a real Envoy and an upstream on this machine, and print curl commands
	@scripts/demo

demo-stop: ## stop what `make demo` started
	@scripts/demo stop

screenshots: tools build ## write pictures of every page of the console to target/screenshots
	@scripts/browser
	@cargo run --quiet -p latchkey-end-to-end --bin latchkey-screenshots

compose-up: tools build ## run everything in containers: control plane, two Envoys, an upstream; PROFILE=postgres: two control planes over PostgreSQL
	@scripts/compose up

compose-down: ## stop and remove what `make compose-up` started, including its keys
	@scripts/compose down

compose-test: tools build ## test that stack under load, while its parts are disconnected, killed, replaced and restarted
	@scripts/test-compose

clean-room: ## run README's commands in a minimal Debian container
	@scripts/clean-room

clean: ## remove build results (.tools is kept)
	rm -rf dist target
