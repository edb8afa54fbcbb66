#!/usr/bin/env bash
# Builds the images that the local cluster runs and loads them into it. What has
# not changed since it was last loaded into this cluster is left as it is.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cluster_runs || die "the cluster is not running: make cluster-up"

say "building the images"
cluster image all

# By the cluster's own id, so that nothing is taken for loaded into a new one.
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
