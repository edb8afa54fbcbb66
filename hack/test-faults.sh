#!/usr/bin/env bash
# Runs the fault suite on the local cluster, and starts the cluster if none runs. With SHORT=1,
# only its short form; FAULTS='the node' makes only the faults whose names match, and ROUNDS=1
# each of them once. BINDER_FAULTS_SEED repeats the timing of another run. The table is written
# to .build/faults.md as well.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need go node npm
build_tools
cluster up >/dev/null # even if it runs: the suite uses the program that this installs
bash "$root/hack/images.sh"
short=()
[[ ${SHORT:-} != 1 ]] || short=(-short)
mkdir -p "$build"
export BINDER_E2E_KUBECONFIG=$kubeconfig BINDER_FAULTS_REPORT=$build/faults.md BINDER_FAULTS_ROUNDS=${ROUNDS:-}
# Without the race detector, which the short form in make test has: the load shares the
# machine with the cluster.
go -C "$root/e2e" test -count=1 -v -tags faults "${short[@]}" -timeout=6h -run "^Test(SecondNode|Faults)\$/(${FAULTS:-})" ./faults
