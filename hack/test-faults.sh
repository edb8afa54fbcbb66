#!/usr/bin/env bash
# Runs the fault suite on the local cluster, and starts the cluster if none runs. With SHORT=1,
# only its short form. BINDER_FAULTS_SEED repeats the timing of another run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need go node npm
build_tools
cluster_runs || cluster up
bash "$root/hack/images.sh"
short=()
[[ ${SHORT:-} != 1 ]] || short=(-short)
BINDER_E2E_KUBECONFIG=$kubeconfig go -C "$root/e2e" test -count=1 -v -tags faults "${short[@]}" -timeout=6h -run '^TestFaults$' ./faults
