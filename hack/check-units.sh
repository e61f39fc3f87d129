#!/usr/bin/env bash
# Holds the systemd units to systemd's own check. Where the daemons are not installed, /bin/true stands for them.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v systemd-analyze >/dev/null || { echo "error: systemd-analyze is missing; apt-get install systemd" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp manifests/systemd/* "$folder"
sed -i -E 's#^(ExecStart=)/usr/(local/)?bin/[^ ]+#\1/bin/true#' "$folder"/*.service
output=$(systemd-analyze verify "$folder"/*.service "$folder"/*.target 2>&1) || { echo "$output" >&2; exit 1; }
# It warns with exit code 0, too.
if grep -F "$folder" <<<"$output"; then exit 1; fi
