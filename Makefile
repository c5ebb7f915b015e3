# `make` or `make help` lists what can be made.

CARGO   ?= cargo
APXS    ?= $(shell command -v apxs || command -v apxs2)
INSTALL ?= install
DESTDIR ?=

target = $(or $(CARGO_TARGET_DIR),target)
module = $(target)/release/libmod_websocket.so

.PHONY: help build run test conformance hostile docker-test bench fuzz lint deb deb-test test-trixie install uninstall clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## The module, optimised: target/release/libmod_websocket.so
	$(CARGO) build --release --locked

run: ## The demo site on http://localhost:9998/ (PORT=…), until Ctrl-C; installs what is missing
	@apache-conf/demo/run

test: ## All checks and tests, as CI runs them; installs what is missing
	@tests/run

conformance: build ## All cases of the Autobahn suite, some minutes; `make test` runs a share of them
	@tests/conformance/run

hostile: build ## What is done to a server on purpose: TIME=1800 seconds, SCENARIO=… alone; `make test` runs a share of it
	@tests/hostile/run --time '$(or $(TIME),1800)' $(SCENARIO)

docker-test: ## Both images of the Dockerfile, built from source and tried; `make test` tries one with the module it has built
	@tests/container/run

bench: build ## CPU time, latency and memory beside other servers: tables, JSON and a plot; 40 minutes, installs the servers
	@scripts/need-packages bench apache2-utils php-fpm nodejs node-ws websocketd nginx-light libnginx-mod-nchan g++ libssl-dev
	-CARGO_TARGET_DIR='$(abspath $(target))' benches/peers/uwebsockets/build
	$(CARGO) bench --locked --bench echo --bench neighbours --bench handshake --bench fanout --bench publish --bench proxy --bench site --bench application --bench engine_late
	$(CARGO) bench --locked --bench plot

fuzz: ## Fuzzing with a nightly Rust: TIME=60 seconds each target, or TARGET=… alone; installs cargo-fuzz
	@fuzz/run '$(or $(TIME),60)' '$(TARGET)'

# --all-targets leaves out what `cargo test` leaves out.
lint: ## Formatting, clippy, and links in docs
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) clippy --test conformance --test hostile --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --document-private-items --lib --locked
	CARGO_TARGET_DIR='$(abspath $(target))' $(CARGO) clippy --all-targets --locked --manifest-path fuzz/Cargo.toml -- -D warnings

deb: ## A package for Debian, in target/deb; installs what it needs
	@scripts/make-deb

deb-test: deb ## Installs, upgrades and purges it in chroots of Debian 12 and 13, as root
	@tests/package/run

test-trixie: ## The integration tests in a chroot of Debian 13, as root, half an hour; FILTER=… for some of them
	@tests/in-chroot trixie tests/run httpd $(FILTER)

install: ## Puts the built module, and on Debian its configuration, into httpd's directories (DESTDIR=…, APXS=…)
	@scripts/install-module install '$(module)' '$(DESTDIR)' '$(APXS)' '$(INSTALL)'

uninstall: ## Takes them away again
	@scripts/install-module uninstall '$(module)' '$(DESTDIR)' '$(APXS)' '$(INSTALL)'

clean: ## Removes everything that was built
	$(CARGO) clean
	$(CARGO) clean --manifest-path fuzz/Cargo.toml
