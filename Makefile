# Targets of more than a few lines are scripts in hack/.

SHELL := /bin/bash
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# Where a release's image is pushed: set it.
IMAGE ?= registry.example.com/binder-deploy-kubernetes

.DEFAULT_GOAL := help
.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the service into .build/bin
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o .build/bin/binder-deploy-kubernetes .

.PHONY: demo
demo: ## Run the service on a local cluster and launch a notebook
	@hack/demo.sh

.PHONY: demo-down
demo-down: cluster-down ## Stop the demo's cluster

.PHONY: test
test: ## Run all tests: unit, API server, end to end (starts a cluster if none runs)
	@hack/test.sh

.PHONY: test-long
test-long: ## Run all tests without shortening any
	@LONG=1 hack/test.sh

.PHONY: test-faults
test-faults: ## Break things under load, on the local cluster: three to five hours (SHORT=1: minutes)
	@hack/test-faults.sh

.PHONY: test-unit
test-unit: ## Run the tests that need no cluster
	go test -race ./...
	go test -run '^TestBytesHeld$$' .
	go -C cluster test -race ./...
	go -C e2e test -race ./...
	go -C bench test -race ./...
	go -C tools test -race ./...

.PHONY: fuzz
fuzz: export FUZZTIME ?= 10s
fuzz: ## Run every fuzz target, each for FUZZTIME (10s)
	@hack/fuzz.sh

.PHONY: bench
bench: ## Measure the service beside its peers and write bench/RESULTS.md (RUN=proxy: one row)
	@hack/bench.sh

.PHONY: lint
lint: ## Run gofmt, go vet, staticcheck, go mod tidy, deadcode, shellcheck and actionlint
	@hack/lint.sh

.PHONY: vulnerabilities
vulnerabilities: ## Look for known vulnerabilities that the service's code reaches (needs the network)
	go -C tools build -o ../.build/bin/ golang.org/x/vuln/cmd/govulncheck
	.build/bin/govulncheck ./...

.PHONY: fmt
fmt: ## Format the Go code
	gofmt -w $$(git ls-files --cached --others --exclude-standard '*.go')

.PHONY: manifests
manifests: ## Check the manifests and the chart: types, RBAC, pod security, network policy
	go -C tools test -count=1 ./chart
	go -C e2e test -count=1 -run 'TestManifests|TestInstancesReach|TestTheServiceRefuses|TestChart' .

.PHONY: chart
chart: ## Generate the Helm chart's templates and README from the manifests and values
	go -C tools run ./chart ..

.PHONY: cluster-up
cluster-up: ## Start the local cluster (the first run builds Kubernetes)
	@go -C cluster run . up

.PHONY: cluster-down
cluster-down: ## Stop the local cluster
	@go -C cluster run . down

.PHONY: cluster-status
cluster-status: ## Show the state of the local cluster
	@go -C cluster run . status

release_command = @go -C tools run ./release --version='$(VERSION)' --image='$(IMAGE)'

.PHONY: release
release: ## Build binaries, image and manifests of VERSION into .build/release
	$(release_command) build

.PHONY: release-check
release-check: ## Build the release twice, compare the builds, and check every file
	$(release_command) check

.PHONY: release-push
release-push: ## Push the image in .build/release to IMAGE
	$(release_command) push

.PHONY: release-notes
release-notes: ## Print the changelog's section of VERSION
	$(release_command) notes
