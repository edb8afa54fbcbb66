#!/usr/bin/env bash
# All tests: those of the modules, with the race detector; those that need an API
# server; and those of the service on a local cluster, from outside. Closes with
# "N passed, N failed".
#
# A cluster that is running is left running; one that this starts is taken down
# again, unless KEEP_CLUSTER=1. With CI=true a test that was skipped or could not
# be run is a failure; else it is named at the end.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

results=$build/results
not_run=$results/not-run.txt
measurements=$results/measurements.txt # figures that tests leave to be read
started=false # whether the cluster is ours to take down

# run_tests <name> <module> <format> <go test flags…> leaves $results/<name>.json.
# It does not fail when tests do: that is for testsum, after all have run.
run_tests() {
  local name=$1 module=$2 format=$3
  shift 3
  say "testing: $name"
  env -C "$root/$module" "$build/bin/gotestsum" --format="$format" --format-hide-empty-pkg \
    --jsonfile "$results/$name.json" -- "$@" || say "$name: there are failures"
}

# tests_with_tag <module> <tag> prints the tests that only the tag selects.
tests_with_tag() {
  LC_ALL=C comm -13 <(list_tests "$1" none) <(list_tests "$1" "$2")
}

list_tests() {
  go -C "$root/$1" test -tags "$2" -list '^(Test|Fuzz|Example)' ./... | grep -E '^(Test|Fuzz|Example)' | LC_ALL=C sort -u || true
}

# only makes a -run pattern of names.
only() { printf '^(%s)$' "$(paste -sd'|' -)"; }

start_cluster() {
  if cluster_runs; then
    say "the cluster is running, and will be left running"
  else
    say "starting the cluster (the first time builds Kubernetes, which takes some ten minutes)"
    started=true
    cluster up || return
  fi
  bash "$root/hack/images.sh"
}

stop_cluster() {
  if $started && [[ ${KEEP_CLUSTER:-} != 1 ]]; then
    say "taking the cluster down (KEEP_CLUSTER=1 keeps it)"
    cluster down || say "the cluster did not go down: make cluster-down tries again"
  fi
}

test_on_cluster() {
  local name
  name=$(tests_with_tag . integration | only)
  export BINDER_TEST_KUBECONFIG=$kubeconfig BINDER_E2E_KUBECONFIG=$kubeconfig
  export BINDER_E2E_MEASUREMENTS=$measurements
  run_tests integration . testname -race -count=1 -timeout=10m -tags integration -run "$name" ./...
  name=$(tests_with_tag e2e e2e | only)
  run_tests e2e e2e testname -race -count=1 -timeout=20m -tags e2e -run "$name" ./...
}

need go node npm
rm -rf "$results"
mkdir -p "$results"
: >"$not_run"
say "building the tools"
build_tools

for module in "${go_modules[@]}"; do
  name=${module/#./root}
  run_tests "unit-$name" "$module" pkgname-and-test-fails -race -timeout=10m ./...
done

trap stop_cluster EXIT
if start_cluster; then
  test_on_cluster
else
  say "there is no cluster here: the tests that need one are not run"
  { tests_with_tag . integration; tests_with_tag e2e e2e; } >"$not_run"
fi
trap - EXIT
stop_cluster

if [[ -s $measurements ]]; then
  printf '\nMeasured in this run, on this machine:\n'
  cat "$measurements"
fi
strict=
[[ ${CI:-} != true ]] || strict=-strict
"$build/bin/testsum" $strict -not-run "$not_run" "$results"/*.json
