#!/usr/bin/env bash
# Installs the published binder-client in hack/client. Does nothing if the
# version of the lock file is already installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/client"

installed=node_modules/.installed-lock.json
if cmp --silent package-lock.json "$installed"; then
  exit 0
fi
if ! command -v npm >/dev/null; then
  echo "npm is not installed, and binder-client needs it: apt-get install nodejs npm" >&2
  exit 1
fi
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
cp package-lock.json "$installed"
