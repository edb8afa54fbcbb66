#!/usr/bin/env bash
# Runs gofmt, go vet, staticcheck and go mod tidy on every module, deadcode on the
# root module, shellcheck on the scripts, and actionlint on the workflows. Prints the
# findings and fails if there are any.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

findings=0
# check runs a command and counts any output or failure as a finding. Go's
# messages about downloaded modules do not count.
check() {
  local output status=0
  output=$("$@" 2>&1) || status=$?
  output=$(grep -v '^go: downloading ' <<<"$output" || true)
  if ((status != 0)) || [[ -n $output ]]; then
    printf '%s:\n%s\n' "$*" "$output"
    findings=1
  fi
}

say "building the tools"
build_tools

for module in "${go_modules[@]}"; do
  say "checking module $module"
  mapfile -t files < <(git ls-files --cached --others --exclude-standard "$module/*.go" "$module/**/*.go" | sort -u)
  check gofmt -l "${files[@]}"
  check go -C "$module" vet -tags "$go_tags" ./...
  check env -C "$module" "$build/bin/staticcheck" -tags "$go_tags" ./...
  check go -C "$module" mod tidy -diff
done

say "looking for dead code"
check "$build/bin/deadcode" -test -tags "$go_tags" ./...
# Without tests, too: code that only tests use is dead, except for their fixtures.
check bash -c "'$build/bin/deadcode' ./... | grep -v ^internal/kubetest/ || true"

say "checking the scripts"
mapfile -t scripts < <(git ls-files --cached --others --exclude-standard 'hack/*.sh' .ci/run)
if command -v shellcheck >/dev/null; then
  check shellcheck --external-sources --source-path=SCRIPTDIR "${scripts[@]}"
elif [[ ${CI:-} == true ]]; then
  die "shellcheck is not installed"
else
  say "shellcheck is not installed: checking the scripts' syntax only (apt-get install shellcheck)"
  for script in "${scripts[@]}"; do
    check bash -n "$script"
  done
fi

say "checking the workflows"
check "$build/bin/actionlint"

((findings == 0)) || die "there are findings: see above"
say "nothing found"
