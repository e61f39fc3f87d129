#!/usr/bin/env bash
# Installs the binaries and the systemd units: install.sh BIN-FOLDER PREFIX
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1 prefix=$2
install -d "$prefix/bin"
for binary in ctl keelson-api-server keelson-scheduler keelson-controller-manager keelson-node-agent keelson-net-proxy keelson-dns \
  keelson-pause; do
  install -m 755 "$bin/$binary" "$prefix/bin/"
done
if [ -d /etc/systemd/system ]; then
  for unit in manifests/systemd/*; do
    sed "s#/usr/local/bin#$prefix/bin#g" "$unit" >"/etc/systemd/system/$(basename "$unit")"
  done
  if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
fi
