#!/usr/bin/env bash
# Measures the service beside its peers and writes bench/RESULTS.md. It installs what the
# peers need, builds the service, and starts the local cluster if none runs; a cluster that
# it starts is stopped at the end.
#
# RUN=<expression> runs the rows whose names match, and writes no files. bench/README.md
# says what the rows are.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

started=false # whether this script started the cluster

# install_packages installs the peers that Debian has.
install_packages() {
  local missing=()
  command -v wrk >/dev/null || missing+=(wrk)
  command -v nginx >/dev/null || missing+=(nginx-light)
  ((${#missing[@]} > 0)) || return 0
  say "installing ${missing[*]}"
  [[ $EUID == 0 ]] || die "not root, so install them yourself: apt-get install ${missing[*]}"
  (
    # Debian would start nginx as a service. The benchmark starts its own.
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
      trap 'rm -f "$policy"' EXIT
      printf '#!/bin/sh\nexit 101\n' >"$policy"
      chmod +x "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
  )
}

# install_chp installs configurable-http-proxy, unless the lock file's version is there.
install_chp() {
  local dir=$root/bench/peer/chp
  cmp --silent "$dir/package-lock.json" "$dir/node_modules/.installed-lock.json" && return
  say "installing configurable-http-proxy"
  (cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  cp "$dir/package-lock.json" "$dir/node_modules/.installed-lock.json"
}

start_cluster() {
  if ! cluster_runs; then
    say "starting the cluster (the first run builds Kubernetes, which takes about ten minutes)"
    started=true
    cluster up
  fi
  say "building and loading the image of the warm and cold launches"
  cluster image pause echo
  cluster load "$cluster_dir/images/pause.tar" "$cluster_dir/images/echo.tar"
}

stop_cluster() {
  if $started; then
    say "stopping the cluster"
    cluster down || say "the cluster did not stop: run make cluster-down to try again"
  fi
}

need go node npm
install_packages
install_chp
say "building the service"
make --no-print-directory -C "$root" build
mkdir -p "$build/bin"
go -C "$root/bench" build -o "$build/bin/bench" .

arguments=(--root="$root" --cluster="$cluster_dir" --run="${RUN:-}")
if [[ -z ${RUN:-} ]]; then
  arguments+=(--results="$root/bench/RESULTS.md" --picture="$root/docs/scale.svg")
fi
trap stop_cluster EXIT
start_cluster
! $started || arguments+=(--leave) # they go with the cluster
"$build/bin/bench" "${arguments[@]}"
