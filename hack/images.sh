#!/usr/bin/env bash
# Builds the images of the local cluster and loads them. Images that have not
# changed since they were loaded are skipped.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cluster_runs || die "the cluster is not running: make cluster-up"

say "building the images"
cluster image all

# The file's name has the cluster's id: a new cluster has no loaded images.
loaded=$cluster_dir/images/loaded-$(kubectl get namespace kube-system --output=jsonpath='{.metadata.uid}')
touch "$loaded"
changed=()
for image in "$cluster_dir"/images/*.tar; do
  sha256sum "$image" | grep --quiet --line-regexp --fixed-strings --file=- "$loaded" || changed+=("$image")
done
if ((${#changed[@]} > 0)); then
  say "loading ${changed[*]##*/}"
  cluster load "${changed[@]}"
  sha256sum "$cluster_dir"/images/*.tar >"$loaded"
fi
