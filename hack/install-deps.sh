#!/usr/bin/env bash
# Installs what is missing of the Debian packages that a node ("run") or the tests ("test") need.
# Does nothing, and needs neither root nor network, where everything is there already.
set -euo pipefail

declare -A packages=(
  [run]="containerd runc containernetworking-plugins nftables iproute2 conntrack protobuf-compiler libprotobuf-dev gcc make"
  [vm]="debootstrap qemu-system-x86 e2fsprogs"
  [test]="etcd-server busybox-static docker-registry curl python3 python3-venv"
)

missing=()
for set in "$@"; do
  for package in ${packages[$set]}; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
done
[ ${#missing[@]} -eq 0 ] && exit 0

echo "installing: ${missing[*]}"
if [ "$(id -u)" -ne 0 ]; then
  echo "error: not root; run: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
# A service that a package would start (containerd, etcd, a registry) is not wanted: Keelson runs its own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
