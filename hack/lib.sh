# What the scripts beside this one share; they source it.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/.build # what is built here; nothing in it is kept
cluster_dir=${BINDER_CLUSTER_DIR:-$root/.cluster}
kubeconfig=$cluster_dir/kubeconfig

# go_modules are the modules that hold Go code.
# shellcheck disable=SC2034 # read by those who source this
go_modules=(. cluster e2e tools)
# go_tags select the files that ordinary builds leave out.
# shellcheck disable=SC2034
go_tags=integration,e2e

# When the first of the scripts began: those that it runs count from then, too.
export BINDER_BEGAN=${BINDER_BEGAN:-$EPOCHSECONDS}

# say prints a line of progress, with the time since then.
say() {
  local elapsed=$((EPOCHSECONDS - BINDER_BEGAN))
  printf '%s [%d:%02d] %s\n' '==' $((elapsed / 60)) $((elapsed % 60)) "$*" >&2
}

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# need checks that programs are installed.
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

# build_tools builds the pinned development tools, and our own, into $build/bin.
build_tools() {
  mkdir -p "$build/bin"
  go -C "$root/tools" build -o "$build/bin/" tool
  go -C "$root/tools" build -o "$build/bin/" ./testsum
}

# wait_for tries a command every half second: wait_for <seconds> <what> <command…>
wait_for() {
  local patience=$1 what=$2 began=$SECONDS said=$SECONDS
  shift 2
  until "$@"; do
    ((SECONDS - began < patience)) || die "$what: not within ${patience}s"
    if ((SECONDS - said >= 5)); then
      said=$SECONDS
      say "still waiting: $what"
    fi
    sleep 0.5
  done
}
