#!/bin/sh
# Starts code-server, which has relative addresses only. The terminal's text is in the
# page's elements if it is not drawn by the graphics processor.
set -eu
data=/tmp/code-server
mkdir -p $data/User /tmp/work
echo hello >/tmp/work/hello.txt
cat >$data/User/settings.json <<SETTINGS
{
  "telemetry.telemetryLevel": "off",
  "terminal.integrated.gpuAcceleration": "off",
  "workbench.startupEditor": "none"
}
SETTINGS
exec node node_modules/code-server/out/node/entry.js --bind-addr 0.0.0.0:${PORT:-8888} --auth none --user-data-dir $data \
  --disable-telemetry --disable-update-check --disable-workspace-trust --disable-getting-started-override /tmp/work
