#!/usr/bin/env bash
# Makes what compose.yaml mounts as secrets: a token for the API, and a certificate that names the hosts given.
# Usage: docker/setup.sh [HOST ...]     (always: localhost, and haproxy for containers)
# What is there already stays: remove a file to have it made anew, then `docker compose restart haproxy`.
set -euo pipefail

secrets=${SUFFUSE_SECRETS:-$(dirname "$0")/secrets}
hosts=("$@" localhost haproxy)
# The folder is closed to others. The files are not, since users inside containers have to read them.
mkdir -p "$secrets"
chmod 700 "$secrets"

if [[ ! -e $secrets/token ]]; then
  openssl rand -hex 32 >"$secrets/token"
  echo "made $secrets/token"
fi
# The same for clients of suffuse, as TorchServe would write it.
printf '{"inference": {"key": "%s"}}\n' "$(<"$secrets/token")" >"$secrets/key_file.json"
if [[ ! -e $secrets/site.pem ]]; then
  names=$(printf 'DNS:%s,' "${hosts[@]}")IP:127.0.0.1
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=${hosts[0]}" \
    -addext "subjectAltName=$names" -addext basicConstraints=critical,CA:TRUE \
    -keyout "$secrets/site.key" -out "$secrets/site.crt" 2>/dev/null
  cat "$secrets/site.crt" "$secrets/site.key" >"$secrets/site.pem"
  rm "$secrets/site.key"
  echo "made $secrets/site.pem; clients trust $secrets/site.crt"
fi
chmod 644 "$secrets"/*
