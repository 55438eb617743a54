# Everything that people and CI run. `make help` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BUF := .tools/buf
FUZZTIME ?= 10s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

.PHONY: test
test: debian tools lint check-generated breaking ## the default suite: installs what it needs, then all checks and tests
	go test -race -timeout 20m ./...

.PHONY: build
build: ## the programs, into bin/
	go build -o bin/ ./cmd/...

.PHONY: generate
generate: tools ## gen/ from proto/
	$(BUF) generate

.PHONY: check-generated
check-generated: tools ## gen/ is what proto/ generates
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(BUF) generate -o "$$fresh"; \
	diff -r "$$fresh/gen" gen || { echo "gen/ is not what proto/ generates: run \`make generate\` and commit the result." >&2; exit 1; }

.PHONY: lint
lint: tools ## buf lint, gofmt, go vet
	$(BUF) lint
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "run \`gofmt -w\` on:" $$unformatted >&2; exit 1; }
	go vet ./...

.PHONY: breaking
breaking: tools ## the contract breaks no promise of the one before
	@tools/breaking.sh

.PHONY: bench
bench: ## all benchmarks
	go test -run '^$$' -bench . -benchmem -timeout 60m ./...

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (default 10s)
	go test -list '^Fuzz' ./... | \
	awk '/^Fuzz/ { names[++n] = $$1 } /^ok/ { while (n) print $$2, names[n--] }' | \
	while read -r package name; do \
		echo "$$package $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null; \
	done

# The tools have a module of their own, so that what they pull in is no dependency
# of the product.
.PHONY: tools
tools: .tools/built ## buf and grpcurl of the pinned versions, into .tools/
.tools/built: tools/go.mod
	@echo "installing buf and grpcurl into .tools/ (a first build takes some minutes)"
	cd tools && GOBIN=$(CURDIR)/.tools go install tool
	@touch $@

# PyYAML is the other reader of lock files: tests hold our files to it.
.PHONY: debian
debian:
	@/usr/bin/python3 -c 'import yaml' 2>/dev/null || { \
		echo "installing the Debian package python3-yaml"; \
		root=; [ "$$(id -u)" = 0 ] || root=sudo; \
		$$root apt-get update; \
		$$root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-yaml; \
	}
