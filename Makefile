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
test: debian tools npm lint check-generated breaking test-python test-examples test-bench ## the default suite: installs what it needs, then all checks and tests
	go test -race -timeout 20m ./...

.PHONY: test-busy
test-busy: ## the default suite at a load of 10, under nohup, beside a server on the default address
	tools/busy.sh

PYTHON_TESTS := PYLOKD=$(CURDIR)/.tools/pylokd PYTHONPATH=$(CURDIR)/python PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -W error::ResourceWarning -m unittest

.PHONY: test-python
test-python: debian .tools/pylokd ## python/: its types, and its tests against real daemons
	cd python && mypy
	cd python && $(PYTHON_TESTS) discover --top-level-directory .

.PHONY: test-examples
test-examples: debian tools npm .tools/pylokd ## examples/, each against a real daemon
	cd examples && PATH=$(CURDIR)/.tools:$$PATH $(PYTHON_TESTS) test_examples

# A module of its own, which go test ./... does not look into. A first build takes some
# minutes.
.PHONY: test-bench
test-bench: debian ## bench/: go vet, and a tiny run of everything that it measures
	go vet -C bench ./...
	go test -C bench ./...

.PHONY: .tools/pylokd
.tools/pylokd:
	go build -o $@ ./cmd/pylokd

.PHONY: build
build: ## the programs, into bin/
	go build -o bin/ ./cmd/...

.PHONY: generate
generate: debian tools npm ## gen/ from proto/
	$(BUF) generate

.PHONY: check-generated
check-generated: debian tools npm ## gen/ is what proto/ generates
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(BUF) generate -o "$$fresh"; \
	diff -r -x __pycache__ "$$fresh/gen" gen || { echo "gen/ is not what proto/ generates: run \`make generate\` and commit the result." >&2; exit 1; }

.PHONY: lint
lint: tools ## buf lint, gofmt, go vet, and whether the client builds on other systems
	$(BUF) lint
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "run \`gofmt -w\` on:" $$unformatted >&2; exit 1; }
	go vet ./...
	for system in darwin windows; do GOOS=$$system go build -o /dev/null ./cmd/pylok; done

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

# PyYAML is the other reader of lock files: tests hold our files to it. The power-cut
# test makes file systems. bench/ measures Redis too. docs/security.md has openssl and
# curl. The rest is for python/ and what is generated for it.
DEBIAN := python3-yaml python3-grpcio python3-protobuf python3-setuptools python3-wheel mypy openssl curl \
	protobuf-compiler protobuf-compiler-grpc e2fsprogs mount redis-server

.PHONY: debian
debian:
	@missing=; for package in $(DEBIAN); do \
		[ "$$(dpkg-query --show --showformat '$${db:Status-Status}' $$package 2>/dev/null)" = installed ] || missing+=" $$package"; \
	done; \
	[ -z "$$missing" ] || { \
		echo "installing the Debian packages$$missing"; \
		root=; [ "$$(id -u)" = 0 ] || root=sudo; \
		$$root apt-get update; \
		$$root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $$missing; \
	}

.PHONY: npm
npm: tools/node_modules/.package-lock.json examples/typescript/node_modules/.package-lock.json
%/node_modules/.package-lock.json: %/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js 20 or later." >&2; exit 1; }
	@echo "installing the npm packages of $*"
	npm ci --prefix $* --no-audit --no-fund --ignore-scripts
	@touch $@
