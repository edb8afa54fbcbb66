#!/usr/bin/env bash
# Installs the published binder-client beside the scripts that use it. Does
# nothing when the installed one is the one that the lock file names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/client"

installed=node_modules/.installed-lock.json
if cmp --silent package-lock.json "$installed"; then
  exit 0
fi
if ! command -v npm >/dev/null; then
  echo "npm is not installed, and binder-client is a Node.js package: apt-get install nodejs npm" >&2
  exit 1
fi
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
cp package-lock.json "$installed"
