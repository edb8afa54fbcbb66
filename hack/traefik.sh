#!/usr/bin/env bash
# Builds Traefik into .build/bin, for the end-to-end test of the Gateway. Two of its modules
# are changed in copies, by what is in e2e/traefik: lego loses its DNS providers, and with
# them some nine hundred packages, and go-http-auth gets what Traefik's fork of it has more.
# The compiler does not optimize, which is faster.
#
# After a change of versions in e2e/traefik/go.mod, run "hack/traefik.sh tidy".
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

module=$root/e2e/traefik
work=$build/traefik
lego=github.com/go-acme/lego/v5
auth=github.com/abbot/go-http-auth

# copy <module> <directory> copies a module from Go's module cache.
copy() {
  go -C "$module" mod download "$1"
  cp -r "$(go -C "$module" list -m -f '{{.Dir}}' "$1")" "$work/$2"
  chmod -R u+w "$work/$2"
}

rm -rf "$work"
mkdir -p "$build/bin" "$work"
copy "$lego" lego
copy "$auth" auth
rm -r "$work/lego/providers/dns"
cp -r "$module/." "$work/"
go -C "$work" mod edit -replace="$lego=./lego" -replace="$auth=./auth"

if [[ ${1:-} == tidy ]]; then
  version=$(go -C "$module" list -m -f '{{.Replace.Version}}' "$auth")
  go -C "$work" mod tidy
  go -C "$work" mod edit -dropreplace="$lego" -replace="$auth=$auth@$version"
  cp "$work"/go.{mod,sum} "$module/"
  go -C "$module" mod download "$lego" "$auth" # adds their sums
else
  CGO_ENABLED=0 go -C "$work" build -gcflags='all=-N -l' -ldflags='-s -w' -o "$build/bin/traefik" github.com/traefik/traefik/v3/cmd/traefik
fi
