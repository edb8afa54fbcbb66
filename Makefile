# Thin on purpose: what takes more than a line is a script in hack/.

SHELL := /bin/bash
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

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
demo-down: cluster-down ## Take the demo's cluster down

.PHONY: test
test: ## Run all tests: unit, API server, end to end (starts a cluster if none runs)
	@hack/test.sh

.PHONY: test-unit
test-unit: ## Run the tests that need no cluster
	go test -race ./...
	go -C cluster test -race ./...
	go -C e2e test -race ./...
	go -C tools test -race ./...

.PHONY: lint
lint: ## Check formatting, go vet, staticcheck, tidiness and scripts
	@hack/lint.sh

.PHONY: fmt
fmt: ## Format the Go code
	gofmt -w *.go cluster e2e tools

.PHONY: manifests
manifests: ## Render the manifests and check them: types, rights, pod security, networks
	go -C e2e test -count=1 -run 'TestManifests|TestInstancesReach' .

.PHONY: cluster-up
cluster-up: ## Start the local cluster (the first time builds Kubernetes)
	@go -C cluster run . up

.PHONY: cluster-down
cluster-down: ## Stop the local cluster
	@go -C cluster run . down

.PHONY: cluster-status
cluster-status: ## Tell what of the local cluster runs
	@go -C cluster run . status
