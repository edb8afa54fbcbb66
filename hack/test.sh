#!/usr/bin/env bash
# Runs all tests: the unit tests of every module with the race detector, the
# integration tests against the local cluster's API server, the end-to-end tests of
# the service on that cluster, and a few faults on it. The last line of the output is
# "N passed, N failed", followed by ", N skipped" if tests were skipped.
#
# If a cluster is running, it stays running. A cluster that this script starts is
# stopped at the end, unless KEEP_CLUSTER=1. Tests that were skipped or not run
# are listed at the end. With CI=true they fail the run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

results=$build/results
not_run=$results/not-run.txt
measurements=$results/measurements.txt # figures that tests write for the reader
started=false # whether this script started the cluster
# short is go test's flag -short: some end-to-end tests then do less. LONG=1 runs them whole.
short=-short
[[ ${LONG:-} != 1 ]] || short=

# run_tests <name> <module> <format> <go test flags…> writes $results/<name>.json. hack/lint.sh
# vets all packages, so go test need not.
# It succeeds even if tests fail: testsum fails the run after all tests have run.
run_tests() {
  local name=$1 module=$2 format=$3
  shift 3
  say "testing: $name"
  env -C "$root/$module" "$build/bin/gotestsum" --format="$format" --format-hide-empty-pkg \
    --jsonfile "$results/$name.json" -- -vet=off "$@" || say "$name: there are failures"
}

# tests_with_tag <module> <tag> lists the tests that exist with the tag only.
tests_with_tag() {
  LC_ALL=C comm -13 <(list_tests "$1" none) <(list_tests "$1" "$2")
}

list_tests() {
  go -C "$root/$1" test -tags "$2" -list '^(Test|Fuzz|Example)' ./... | grep -E '^(Test|Fuzz|Example)' | LC_ALL=C sort -u || true
}

# only prints a -run pattern that matches the names on its standard input.
only() { printf '^(%s)$' "$(paste -sd'|' -)"; }

start_cluster() {
  if cluster_runs; then
    say "the cluster is running and will stay running"
  else
    say "starting the cluster (the first run builds Kubernetes, which takes about ten minutes)"
    started=true
    cluster up || return
  fi
  bash "$root/hack/images.sh" || die "the images were not built or not loaded: see above"
}

stop_cluster() {
  if $started && [[ ${KEEP_CLUSTER:-} != 1 ]]; then
    say "stopping the cluster (KEEP_CLUSTER=1 keeps it running)"
    cluster down || say "the cluster did not stop: run make cluster-down to try again"
  fi
}

test_on_cluster() {
  local name
  name=$(tests_with_tag . integration | only)
  export BINDER_TEST_KUBECONFIG=$kubeconfig BINDER_E2E_KUBECONFIG=$kubeconfig
  run_tests integration . testname -race -count=1 -timeout=10m -tags integration -run "$name" ./...
  say "building Traefik (the first time, that takes some minutes)"
  bash "$root/hack/traefik.sh" || say "Traefik was not built: TestGateway will fail"
  name=$(tests_with_tag e2e e2e | only)
  # One package after the other: pods that start beside a busy browser start late.
  BINDER_E2E_ALL=1 run_tests e2e e2e testname -race -count=1 -p=1 $short -timeout=45m -tags e2e -run "$name" ./...
  # The whole suite of faults takes hours: make test-faults.
  run_tests faults e2e testname -race -count=1 -short -timeout=20m -tags faults -run '^Test(SecondNode|Faults)$' ./faults
}

need git go node npm
rm -rf "$results"
mkdir -p "$results"
: >"$not_run"
export BINDER_E2E_MEASUREMENTS=$measurements
say "building the tools"
build_tools

for module in "${go_modules[@]}"; do
  name=${module/#./root}
  run_tests "unit-$name" "$module" pkgname-and-test-fails -race -timeout=10m ./...
done

# The race detector's stacks are larger, so what a connection holds is measured without it.
run_tests unit-held . pkgname-and-test-fails -count=1 -timeout=5m -run '^TestBytesHeld$' .

# A benchmark that nobody runs breaks unseen.
say "running every micro-benchmark once"
go -C "$root" test -race -run '^$' -bench . -benchtime 1x -timeout 5m ./... >"$results/benchmarks.txt" || {
  cat "$results/benchmarks.txt"
  die "a benchmark fails: see above"
}

trap stop_cluster EXIT
if start_cluster; then
  test_on_cluster
else
  say "no cluster: skipping the tests that need one"
  { tests_with_tag . integration; tests_with_tag e2e e2e; tests_with_tag e2e faults; } >"$not_run"
fi
trap - EXIT
stop_cluster

if [[ -s $measurements ]]; then
  printf '\nMeasurements of this run on this machine:\n'
  cat "$measurements"
fi
strict=
[[ ${CI:-} != true ]] || strict=-strict
"$build/bin/testsum" $strict -not-run "$not_run" "$results"/*.json
