# Everything a developer runs. Tests send packets and touch firewalls, each in
# network namespaces it makes itself, and therefore need root.

SHELL      := /bin/bash
.SHELLFLAGS := -o pipefail -ec

BIN        := bin/netcap-guard
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS    := -s -w -X main.version=$(VERSION)
BACKEND    ?= nft
FUZZTIME   ?= 20s
SOAKTIME   ?= 10m
SOAKSTEPS  ?= 5000
CROSS      := linux/amd64 linux/arm64 darwin/arm64 windows/amd64
# The packages with goroutines of their own; the rest is plain code or waits
# for programs. Of backend/nft the tests of the monitor; the rest has no other.
RACE       ?= ./firewall/... ./engine/... ./capture ./backend ./internal/... ./cmd/...
RACE_NFT   ?= Watch|Damage|Listing|Close

LINT_VERSION := v2.15.0
TOOLS        := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/netcap-guard
GOLANGCI     ?= $(TOOLS)/golangci-lint-$(LINT_VERSION)/golangci-lint

ROOT       := $(shell test "$$(id -u)" = 0 && echo yes)
SUDO       := $(if $(ROOT),,sudo)

.PHONY: build demo test test-captures test-tshark race lint bench-replay bench-rules bench-packetpath bench-live fuzz soak cross clean need-root

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/netcap-guard

demo:
	@$(SUDO) .ci/tools ip nft iptables nmap nc ping
	@$(MAKE) --no-print-directory build
	@$(SUDO) $(BIN) demo --backend=$(BACKEND)

need-root:
	@test -n "$(ROOT)" || { echo "make test needs root (the tests run in network namespaces): sudo make test" >&2; exit 1; }

# What the tests run for real.
TEST_TOOLS := ip nft iptables nmap hydra sshd sftp tcpdump nc ping setpriv curl sqlmap dig dnsmasq dns2tcpc

test: need-root
	@.ci/tools $(TEST_TOOLS)
	NETCAP_GUARD_REQUIRE=1 go test ./...

# CAPTURES is the folder of captures with a manifest.tsv.
test-captures: need-root
	@test -n "$(CAPTURES)" || { echo "usage: make test-captures CAPTURES=DIR" >&2; exit 1; }
	@test -f "$(CAPTURES)/manifest.tsv" || { echo "no manifest.tsv in $(CAPTURES)" >&2; exit 1; }
	NETCAP_GUARD_REQUIRE=1 NETCAP_GUARD_CAPTURES=$(abspath $(CAPTURES)) go test -count=1 -v -run Captures \
	  $$(grep -rl --include='*_test.go' NETCAP_GUARD_CAPTURES . | xargs -n1 dirname | grep -v archtest | sort -u)

# Fields of HTTP, TLS, SSH and DNS beside those that tshark reads in the same
# captures: minutes, because tshark takes its time.
test-tshark: need-root
	@test -f "$(CAPTURES)/manifest.tsv" || { echo "usage: make test-tshark CAPTURES=DIR" >&2; exit 1; }
	@.ci/tools tshark
	NETCAP_GUARD_CAPTURES=$(abspath $(CAPTURES)) go test -count=1 -v -run '^TestAgainstTshark$$' -timeout 30m ./capture/stream

race: need-root
	NETCAP_GUARD_REQUIRE=1 CGO_ENABLED=1 go test -race -short $(RACE)
	NETCAP_GUARD_REQUIRE=1 CGO_ENABLED=1 go test -race -run '$(RACE_NFT)' ./backend/nft

$(TOOLS)/golangci-lint-$(LINT_VERSION)/golangci-lint:
	GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

lint: $(GOLANGCI)
	$(GOLANGCI) run ./...

# Nanoseconds a packet of netcap-guard -r and of tcpdump -r with a SYN filter,
# in turns on the same generated file.
bench-replay: build
	@$(SUDO) .ci/tools tcpdump
	go test -run '^$$' -bench '^BenchmarkReplay$$' -benchtime 1x ./capture/yardstick

# One block and 100,000, from the Manager's call to the kernel, in turns with
# nft, ipset and iptables doing the same.
bench-block: need-root
	@.ci/tools nft iptables ipset
	go test -run '^$$' -bench '^BenchmarkPeers(One|Bulk)$$' -benchtime 1x -timeout 20m ./firewall

# What a forwarded packet costs beside 100,000 blocks, in turns with no rules,
# an ipset and the chain of iptables.
bench-packetpath: need-root
	@.ci/tools ip nft iptables ipset
	go test -run '^$$' -bench '^BenchmarkPacketPath$$' -benchtime 1x -timeout 20m ./integration/netns

# CPU nanoseconds a packet with 5, 100 and 1,000 rules: indexed, native, in the
# expression VM, and tcpdump -r with one SYN filter; then the forged flood.
bench-rules: build
	@$(SUDO) .ci/tools tcpdump
	go test -run '^$$' -bench '^(BenchmarkRules|BenchmarkLoad1000)$$' -benchtime 1x ./capture/yardstick
	NETCAP_GUARD_FLOOD=3000000 go test -run '^TestForgedFlood$$' -count=1 -v ./engine

# Nanoseconds a packet from link layer to transport, beside gopacket's
# DecodingLayerArray in the same run: the generated mix, and with CAPTURES=DIR
# the captures below it.
bench-decode:
	NETCAP_GUARD_CAPTURES=$(if $(CAPTURES),$(abspath $(CAPTURES))) go test -run '^$$' -bench '^BenchmarkDecodeBeside$$' -benchtime 1x ./capture/yardstick
	go test -run '^$$' -bench . ./capture/stream

# What live capture costs and loses, beside gopacket's socket and tcpdump, and
# how soon a source is blocked.
bench-live: need-root
	@.ci/tools ip nft tcpdump
	go test -run '^$$' -bench '^Benchmark(Live|Reaction)$$' -benchtime 1x -timeout 20m ./integration/netns

# Every fuzz target of every package, FUZZTIME each.
fuzz: need-root
	@go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | while read -r pkg; do \
	  for target in $$(go test -list '^Fuzz' "$$pkg" | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$target"; \
	    NETCAP_GUARD_REQUIRE=1 go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s "$$pkg" || exit 1; \
	  done; \
	done

# A guard under attack for SOAKTIME on each backend; its memory must not grow.
# Random operations against a reference and the kernel, SOAKSTEPS on each
# backend (NETCAP_GUARD_MODEL_SEED repeats a run).
soak: need-root
	NETCAP_GUARD_REQUIRE=1 NETCAP_GUARD_MODEL_STEPS=$(SOAKSTEPS) go test -run '^TestModel(Memory|NFT|IPTables)$$' -count=1 -v -timeout 0 ./firewall
	NETCAP_GUARD_REQUIRE=1 NETCAP_GUARD_SOAKTIME=$(SOAKTIME) go test -tags soak -run '^TestSoak$$' -count=1 -v -timeout 0 ./integration/netns

cross:
	@for target in $(CROSS); do \
	  echo "== $$target"; \
	  export CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/}; \
	  go vet ./...; \
	  go build -trimpath -ldflags '$(LDFLAGS)' -o dist/netcap-guard-$$GOOS-$$GOARCH$$(go env GOEXE) ./cmd/netcap-guard; \
	done

clean:
	rm -rf bin dist
