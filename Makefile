# Keelson. `make up` raises a cluster with a demo app, `make test` runs every test; `make help` lists the rest.

CARGO ?= cargo
BIN   := $(CURDIR)/target/release
CTL   := $(BIN)/ctl
ROOT  ?= /
UP_FLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help up down demo build guest deps dev-deps test test-unit test-e2e test-vm fuzz check bench history install clean

help: ## what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: deps build ## a running cluster and a demo app that answers
	@$(CTL) cluster up --root $(ROOT) $(UP_FLAGS)
	@$(MAKE) --no-print-directory demo

demo: ## the demo app, on the cluster that runs
	@hack/demo.sh $(BIN) $(ROOT)

down: ## stop and remove what `make up` started, and nothing else
	@if [ -x $(CTL) ]; then $(CTL) cluster down --root $(ROOT); else echo "nothing was built here, so nothing runs"; fi

build: guest ## release binaries
	@$(CARGO) build --release --locked --workspace --bins --exclude keelson-api-server
	@$(CARGO) build --profile server --locked --workspace --bin keelson-api-server
	@ln -f target/server/keelson-api-server $(BIN)/keelson-api-server

guest: ## what runs inside containers: static, so that an image needs no base
	@hack/build-guest.sh release

deps: ## the programs that a node needs, from the distribution
	@hack/install-deps.sh run

dev-deps: ## those, and the tests' peers
	@hack/install-deps.sh run test

test: dev-deps test-unit test-e2e ## every test (debug binaries)

test-unit:
	@$(CARGO) nextest run --locked --workspace --no-fail-fast

test-e2e:
	@hack/build-guest.sh dev
	@$(CARGO) build --locked --bins
	@hack/e2e.sh $(CURDIR)/target/debug

test-vm: build ## a cluster under systemd and cgroups v2, in a virtual machine
	@hack/vm-test.sh $(BIN)

fuzz: ## what strangers send: MUTATIONS (default a million) of each input's corpus, by a new seed
	@KEELSON_FUZZ_MUTATIONS=$${MUTATIONS:-1000000} KEELSON_FUZZ_SEED=$$(date +%s) \
	  $(CARGO) nextest run --cargo-profile fuzz --locked --no-fail-fast -p keelson-fuzz --config-file hack/fuzz.toml

check: ## formatting, lints, licences, units
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@hack/deny.sh
	@hack/check-units.sh

bench: build ## the budgets' figures, against KUBECONFIG (default: this machine's cluster)
	@$(BIN)/keelson-bench --help >/dev/null && $(BIN)/keelson-bench all

history: build ## an hour of random faults against API servers, and a check of what their clients saw
	@$(BIN)/keelson-chaos --seconds $${FOR:-3600}

install: build ## binaries into PREFIX/bin (default /usr/local), systemd units into /etc/systemd/system
	@hack/install.sh $(BIN) $${PREFIX:-/usr/local}

clean: ## build products
	@$(CARGO) clean
