#!/usr/bin/env bash
# Deploys the service on a local cluster and launches a notebook, as binder-web
# does. Each further run launches another notebook.
#
# Programs can parse the last three lines of the output:
#   API http://127.0.0.1:<port>
#   KEY <API key>
#   URL <address of the notebook>
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

namespace=binder
api_port=8084
proxy_port=8000
template=jupyter

# deploy applies manifests/local. The image's tag never changes, so deploy adds
# the archive's checksum to the pods' annotations: a new image starts a rollout,
# and an unchanged one does not.
deploy() {
  local overlay=$build/demo sum
  sum=$(sha256sum <"$cluster_dir/images/service.tar" | cut -d' ' -f1)
  mkdir -p "$overlay"
  cat >"$overlay/kustomization.yaml" <<EOF
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - $(realpath --relative-to="$overlay" "$root/manifests/local")
patches:
  - target:
      kind: Deployment
    patch: |
      - op: add
        path: /spec/template/metadata/annotations/binder-project.org~1image-sum
        value: "$sum"
EOF
  kubectl apply --server-side --force-conflicts -k "$overlay" >/dev/null
}

# ensure_keys creates the API key, and the secret that ids are made with, if there is
# none.
ensure_keys() {
  kubectl apply --server-side --force-conflicts -f "$root/manifests/base/controller/namespace.yaml" >/dev/null
  local name
  for name in api-key secret; do
    if ! kubectl -n $namespace get secret binder-$name >/dev/null 2>&1; then
      say "creating the Secret $namespace/binder-$name"
      kubectl -n $namespace create secret generic binder-$name \
        --from-literal=$name="$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')" >/dev/null
    fi
  done
}

# api_answers sends a request without the key, so it expects a 403.
api_answers() {
  node -e "fetch('http://127.0.0.1:$api_port/applications/', { signal: AbortSignal.timeout(3000) })
    .then((answer) => process.exit(answer.status === 403 ? 0 : 1), () => process.exit(1))"
}

need go node
bash "$root/hack/client.sh"
if cluster_runs; then
  say "the cluster is running"
else
  say "starting the cluster (the first run builds Kubernetes, which takes about ten minutes)"
  cluster up
fi
bash "$root/hack/images.sh"

say "applying manifests/local"
ensure_keys
deploy
if ! kubectl -n $namespace rollout status deployment/binder-deploy-kubernetes --timeout=120s >&2; then
  kubectl -n $namespace get pods,events >&2
  die "the service did not start: see above"
fi
wait_for 60 "the API on port $api_port (if the port is in use, kubectl -n $namespace get events says so)" api_answers

say "launching a notebook with binder-client"
key=$(kubectl -n $namespace get secret binder-api-key --output=jsonpath='{.data.api-key}' | base64 -d | head -n 1)
launched=$(API_KEY=$key node "$root/hack/client/launch.js" 127.0.0.1 $api_port $template tree)
read -r id url <<<"$launched"

cat <<EOF

The notebook is running. Now try:

  open it in a browser       $url
  launch one with a link     http://127.0.0.1:$proxy_port/launch/$template?path=tree
  get its status             curl http://127.0.0.1:$api_port/applications/$template/$id
  list all                   curl -H 'Authorization: $key' http://127.0.0.1:$api_port/applications/
  stop it                    curl -X DELETE -H 'Authorization: $key' http://127.0.0.1:$api_port/applications/$template/$id
  watch the pods             $cluster_dir/bin/kubectl --kubeconfig $kubeconfig -n binder-instances get pods --show-labels --watch
  launch another             make demo
  stop everything            make demo-down

API http://127.0.0.1:$api_port
KEY $key
URL $url
EOF
