# Functions and variables of the scripts in this directory, which source it.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/.build # build output; safe to delete
cluster_dir=${BINDER_CLUSTER_DIR:-$root/.cluster}
kubeconfig=$cluster_dir/kubeconfig

# go_modules lists the modules with Go code.
# shellcheck disable=SC2034 # used by the scripts that source this
go_modules=(. bench cluster e2e tools)
# go_tags selects the files that ordinary builds exclude.
# shellcheck disable=SC2034
go_tags=integration,e2e,faults,record

# The start time of the first script. Scripts that it runs use it, too.
export BINDER_BEGAN=${BINDER_BEGAN:-$EPOCHSECONDS}

# say prints a line of progress with the time since the start.
say() {
  local elapsed=$((EPOCHSECONDS - BINDER_BEGAN))
  printf '%s [%d:%02d] %s\n' '==' $((elapsed / 60)) $((elapsed % 60)) "$*" >&2
}

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# need fails unless all the given programs are installed.
need() {
  local program
  for program; do
    command -v "$program" >/dev/null || die "$program is not installed"
  done
}

cluster() { go -C "$root/cluster" run . "$@"; }
kubectl() { "$cluster_dir/bin/kubectl" --kubeconfig "$kubeconfig" "$@"; }

cluster_runs() {
  [[ -x $cluster_dir/bin/kubectl && -f $kubeconfig ]] &&
    kubectl get --raw=/readyz --request-timeout=5s >/dev/null 2>&1
}

# build_tools builds the pinned development tools and testsum into $build/bin.
build_tools() {
  mkdir -p "$build/bin"
  go -C "$root/tools" build -o "$build/bin/" tool
  go -C "$root/tools" build -o "$build/bin/" ./testsum
}

# wait_for <seconds> <what> <command…> runs the command every half second until
# it succeeds. It exits with an error after the given time.
wait_for() {
  local timeout=$1 what=$2 began=$SECONDS reported=$SECONDS
  shift 2
  until "$@"; do
    ((SECONDS - began < timeout)) || die "$what: timed out after ${timeout}s"
    if ((SECONDS - reported >= 5)); then
      reported=$SECONDS
      say "still waiting for $what"
    fi
    sleep 0.5
  done
}
