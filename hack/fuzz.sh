#!/usr/bin/env bash
# Runs every fuzz target of the root module, one after the other, each for $FUZZTIME
# (10s). Stops at the first that fails, and says where its input is. That file belongs
# into the repository with the mend: go test then runs it every time, as it runs the
# seeds. What else is found is kept in Go's cache, and the next run begins with it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

need go
fuzztime=${FUZZTIME:-10s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# list_packages prints the packages of the root module that may have fuzz targets. Building
# the tests of all others would take minutes.
list_packages() {
  grep -rl --include='*_test.go' --exclude-dir='.*' "${go_modules[@]/#/--exclude-dir=}" '^func Fuzz' -- * | xargs -r -n 1 dirname | sort -u | sed 's#^#./#'
}

# list_targets <packages…> prints a line "package target" for each fuzz target.
list_targets() {
  go test -vet=off -list '^Fuzz' "$@" | awk '/^Fuzz/ {names[n++] = $1} /^ok / {for (i = 0; i < n; i++) print $2, names[i]; n = 0}'
}

mapfile -t packages < <(list_packages)
((${#packages[@]} > 0)) || die "no fuzz target is found"
say "building the tests of ${#packages[@]} packages, to list their fuzz targets"
mapfile -t targets < <(list_targets "${packages[@]}")
((${#targets[@]} > 0)) || die "the fuzz targets cannot be listed"

i=0
for target in "${targets[@]}"; do
  read -r package name <<<"$target"
  i=$((i + 1))
  # The first target of a package is silent until the package is built again, with all
  # that it imports, in a way that tells the fuzzer what a run has reached.
  say "fuzzing $i/${#targets[@]}: $name of $package"
  if ! go test -run '^$' -fuzz "^$name\$" -fuzztime "$fuzztime" "$package" 2>&1 | tee "$log"; then
    input=$(grep -o 'testdata/fuzz/[^ ]*' "$log" | head -1 || true)
    [[ -n $input ]] || die "$name fails: see above"
    die "$name fails: its input is in $(go list -f '{{.Dir}}' "$package")/$input"
  fi
done
say "nothing found in ${#targets[@]} fuzz targets"
