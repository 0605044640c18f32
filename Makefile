SHELL := /bin/bash
.DEFAULT_GOAL := help

BUF         := go run github.com/bufbuild/buf/cmd/buf@v1.75.0
STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
BUILDFLAGS  := -trimpath -buildvcs=false -ldflags "-s -w -X main.buildVersion=$(VERSION)"
export CGO_ENABLED ?= 0

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

.PHONY: build
build: ## build bin/synapse-doctor
	go build $(BUILDFLAGS) -o bin/ ./cmd/synapse-doctor

.PHONY: postgres
postgres: ## install Debian's PostgreSQL and sources of locales where they are missing
	@if ! { [ -n "$$PGTEST_BINDIR" ] || ls /usr/lib/postgresql/*/bin/initdb || command -v initdb; } >/dev/null 2>&1; then \
		echo "no PostgreSQL server binaries: installing Debian's package (its default cluster is not made)"; \
		run=; [ "$$(id -u)" = 0 ] || run=sudo; \
		$$run mkdir -p /etc/postgresql-common; \
		[ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' | $$run tee /etc/postgresql-common/createcluster.conf >/dev/null; \
		$$run apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -qq --no-install-recommends \
			-o Dpkg::Options::=--force-confold postgresql >/dev/null; \
	fi
	@if [ ! -e /usr/share/i18n/locales/en_US ]; then \
		echo "no sources of locales: installing Debian's package (no locale is generated)"; \
		run=; [ "$$(id -u)" = 0 ] || run=sudo; \
		$$run apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -qq --no-install-recommends locales >/dev/null; \
	fi
	@if [ -n "$$SYNAPSE_DOCTOR_DATA" ] && ! command -v zstd >/dev/null; then \
		echo "no zstd, in which the real homeserver's SQLite database is packed: installing Debian's package"; \
		run=; [ "$$(id -u)" = 0 ] || run=sudo; \
		$$run apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -qq --no-install-recommends zstd >/dev/null; \
	fi

.PHONY: postgres-matrix
postgres-matrix: postgres ## install PostgreSQL 14, 16, 17 and 18 beside it, for tests that run on each
	@core/pgtest/install-matrix.sh

.PHONY: pgbouncer
pgbouncer: ## install Debian's PgBouncer, where that is possible: without it two tests are skipped
	@if [ "$$(id -u)" = 0 ] && ! command -v pgbouncer >/dev/null; then \
		apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends pgbouncer >/dev/null || true; \
	fi

.PHONY: python-grpc
python-grpc: ## install what plugins in Python run with, where that is possible: without it their tests are skipped
	@if [ "$$(id -u)" = 0 ] && ! /usr/bin/python3 -I -c 'import grpc, google.protobuf, psycopg2' 2>/dev/null; then \
		apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-grpcio python3-psycopg2 openssl >/dev/null || true; \
	fi

.PHONY: demo
demo: build postgres ## examine, mend and examine again a sick homeserver that is made for it
	go run ./cmd/demo -doctor bin/synapse-doctor

.PHONY: test
test: postgres pgbouncer python-grpc ## run the tests
	go test -timeout 25m ./...

.PHONY: test-matrix
test-matrix: postgres-matrix ## run the database tests on every PostgreSQL: Debian's and those of postgres-matrix
	@failed=; for b in {/usr/lib,/var/cache/synapse-doctor-test,"$${XDG_CACHE_HOME:-$$HOME/.cache}"/synapse-doctor-test}/postgresql/*/bin; do \
		[ -x "$$b/postgres" ] || continue; echo "== $$("$$b/postgres" --version)"; \
		PGTEST_BINDIR=$$b go test -count=1 ./core/pgtest ./core/pgdb ./core/engine ./checks/... || failed="$$failed $$b"; done; \
		[ -z "$$failed" ] || { echo "failed on:$$failed"; exit 1; }

# These checks do one thing after the other; the goroutines around them are the engine's, whose own tests are among the rest.
SEQUENTIAL := checks/(database|encoding|ident|keepalives|schema|sequence|tuning|version)$$
RACE ?= $(shell go list ./... | grep -vE '$(SEQUENTIAL)')

.PHONY: test-race
test-race: postgres pgbouncer python-grpc ## run the tests under the race detector, on one major of PostgreSQL; RACE=./... for all packages
	CGO_ENABLED=1 go test -race -short -vet=off -timeout 25m $(RACE)

.PHONY: debootstrap
debootstrap: ## install what the real Synapse is installed with, where that is possible
	@if [ "$$(id -u)" = 0 ] && [ -z "$$SYNAPSE_DOCTOR_SYNAPSE" ] && ! command -v debootstrap >/dev/null; then \
		apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq debootstrap >/dev/null || true; \
	fi

.PHONY: test-synapse
test-synapse: postgres debootstrap ## mend databases of a real Synapse and start it on them (root, Debian's archive)
	go test -count=1 -timeout 30m -tags synapse ./cmd/synapse-doctor -run Synapse -v

.PHONY: bench
bench: build postgres python-grpc ## time whole checks against psql, one more plugin, and the long work of locale against pg_amcheck, pg_dump and reindexdb
	go run ./cmd/bench -doctor bin/synapse-doctor

.PHONY: pgloader
pgloader: ## install Debian's pgloader, where that is possible: without it bench-port leaves it out
	@if [ "$$(id -u)" = 0 ] && ! command -v pgloader >/dev/null; then \
		apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends pgloader >/dev/null || true; \
	fi

.PHONY: bench-port
bench-port: build postgres pgloader ## time the port from SQLite against pgloader and the limit; BENCH="-script -size 0.2" for Synapse's script and a size in GB
	go run ./cmd/bench -doctor bin/synapse-doctor -port $(BENCH)

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, buf lint
	@out=$$(gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$')); [ -z "$$out" ] || { echo "not gofmt'ed:"; echo "$$out"; exit 1; }
	go vet ./... && go vet -tags synapse ./cmd/synapse-doctor
	$(STATICCHECK) ./... && $(STATICCHECK) -tags synapse ./cmd/synapse-doctor
	$(BUF) lint

.PHONY: generate
generate: ## make the protobuf code, the example's go.mod and what plugin new writes anew
	$(BUF) generate
	cd plugins/examples/published-rooms && go mod tidy
	go test -count=1 ./cmd/synapse-doctor -run 'Kit|ANewGoPlugin' -update-kit

.PHONY: catalog
catalog: ## record what a new release of Synapse makes: DSN='host=… dbname=…' of a fresh schema, VERSION=1.161
	@go run ./cmd/catalog -dsn "$(DSN)" -version "$(if $(filter command line environment,$(origin VERSION)),$(VERSION))"

.PHONY: freeze
freeze: ## record the protocol as it is: from then on verify keeps plugins that were made with it working
	$(BUF) build --exclude-source-info -o proto/v1.binpb

.PHONY: verify
verify: ## fail when generated code is stale, or the protocol breaks plugins that are out in the world
	@$(BUF) breaking --against proto/v1.binpb || { echo "plugins that were made with version 1 would break: only ever add to it"; exit 1; }
	@old=$$(mktemp -d) && trap 'rm -rf "$$old"' EXIT && cp -r proto plugins/examples cmd/synapse-doctor/templates "$$old/" && $(MAKE) -s generate && \
		diff -r "$$old/proto" proto && diff -r "$$old/examples" plugins/examples && diff -r "$$old/templates" cmd/synapse-doctor/templates || \
		{ echo "generated code was stale; it has been made anew: commit it"; exit 1; }

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
