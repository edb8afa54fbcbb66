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

# files_with_tag <module> <tag> lists the test files that are built with the tag only.
files_with_tag() {
  LC_ALL=C comm -13 <(test_files "$1" none) <(test_files "$1" "$2")
}

test_files() {
  # shellcheck disable=SC2016 # the variables are of go list's template
  local each='{{$d := .Dir}}{{range .TestGoFiles}}{{$d}}/{{.}} {{end}}{{range .XTestGoFiles}}{{$d}}/{{.}} {{end}}'
  go -C "$root/$1" list -tags "$2" -f "$each" ./... | tr -s ' ' '\n' | grep . | LC_ALL=C sort
}

# tests_of lists the tests in the files on its standard input.
tests_of() {
  xargs sed -nE 's/^func ((Test|Fuzz|Example)[A-Za-z0-9_]*)\(.*/\1/p' | grep -vx TestMain | LC_ALL=C sort -u
}

# run_tagged <tag> <module> <go test flags…> runs the tests that exist with the tag only. The
# module's other tests are neither run again nor built with the tag.
run_tagged() {
  local tag=$1 module=$2 files packages only
  shift 2
  files=$(files_with_tag "$module" "$tag")
  mapfile -t packages < <(xargs dirname <<<"$files" | sort -u)
  only=$(tests_of <<<"$files" | paste -sd'|' -)
  run_tests "$tag" "$module" testname -race -count=1 -tags "$tag" -run "^($only)\$" "$@" "${packages[@]}"
}

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
  export BINDER_TEST_KUBECONFIG=$kubeconfig BINDER_E2E_KUBECONFIG=$kubeconfig
  run_tagged integration . -timeout=10m
  say "building Traefik (the first time, that takes some minutes)"
  bash "$root/hack/traefik.sh" || say "Traefik was not built: TestGateway will fail"
  # One package after the other: pods that start beside a busy browser start late.
  BINDER_E2E_ALL=1 run_tagged e2e e2e -p=1 $short -timeout=45m
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
mapfile -t packages < <(cd "$root" && git grep -lE '^func Benchmark' -- ':(glob)*_test.go' ':(glob)internal/**/*_test.go' | xargs dirname | sort -u)
go -C "$root" test -race -run '^$' -bench . -benchtime 1x -timeout 5m "${packages[@]/#/./}" >"$results/benchmarks.txt" || {
  cat "$results/benchmarks.txt"
  die "a benchmark fails: see above"
}

trap stop_cluster EXIT
if start_cluster; then
  test_on_cluster
else
  say "no cluster: skipping the tests that need one"
  { files_with_tag . integration; files_with_tag e2e e2e; files_with_tag e2e faults; } | tests_of >"$not_run"
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
