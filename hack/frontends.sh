#!/usr/bin/env bash
# Installs published clients of BinderHub in e2e/frontends: binderhub-client by its lock file,
# and the files of thebe that pages load. Thebe's package brings all that it needs in its own
# files; what it names as dependencies are hundreds of packages that it was built from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../e2e/frontends"

thebe=thebe@0.9.3
thebe_integrity=sha512-Rb/7kVhtlffXra3kIe7OuIGE7awsm2/fGWxw21DiNfnWLnUQiDl9AWqYdshPwZPG/5DzLpsJRPix2xtCPtJmQQ==

installed=node_modules/.installed
wanted=$(cat package-lock.json; echo "$thebe $thebe_integrity")
if [[ -f $installed && $(<"$installed") == "$wanted" ]]; then
  exit 0
fi
if ! command -v npm >/dev/null; then
  echo "npm is not installed, and the clients of BinderHub need it: apt-get install nodejs npm" >&2
  exit 1
fi
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
archive=node_modules/thebe.tgz
mv "$(npm pack --silent "$thebe")" "$archive"
integrity=$(node --print '"sha512-" + require("crypto").createHash("sha512").update(require("fs").readFileSync(process.argv[1])).digest("base64")' "$archive")
if [[ $integrity != "$thebe_integrity" ]]; then
  echo "the archive of $thebe is $integrity, not $thebe_integrity" >&2
  exit 1
fi
tar --extract --gzip --file "$archive" --directory node_modules --transform 's,^package,thebe,' package/lib
printf '%s\n' "$wanted" >"$installed"
