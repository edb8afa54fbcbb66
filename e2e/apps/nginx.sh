#!/bin/sh
# Starts nginx on a directory of files. The argument is the path that it serves, with
# a slash at the end.
set -eu
base=${1:-/}
mkdir -p /tmp/nginx "/tmp/files/a dir"
seq 1 100000 >/tmp/files/numbers.txt
echo inside >"/tmp/files/a dir/file.txt"
cat >/tmp/nginx.conf <<CONF
daemon off;
error_log stderr;
pid /tmp/nginx/pid;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/nginx/body;
  proxy_temp_path /tmp/nginx/proxy;
  fastcgi_temp_path /tmp/nginx/fastcgi;
  scgi_temp_path /tmp/nginx/scgi;
  uwsgi_temp_path /tmp/nginx/uwsgi;
  types { text/plain txt; }
  gzip on;
  gzip_types text/plain;
  server {
    listen ${PORT:-8888};
    location $base {
      alias /tmp/files/;
      autoindex on;
    }
  }
}
CONF
exec nginx -e stderr -c /tmp/nginx.conf
