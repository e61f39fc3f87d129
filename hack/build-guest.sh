#!/usr/bin/env bash
# Builds what runs inside containers as static binaries, beside the daemons: build-guest.sh release|dev
set -euo pipefail
cd "$(dirname "$0")/.."
profile=$1
folder=$([ "$profile" = dev ] && echo debug || echo "$profile")
# Flags of their own, hence a target folder of their own: the daemons' builds stay cached.
RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" \
  cargo build --locked --quiet --profile "$profile" --package keelson-guest --target-dir target/guest
mkdir -p "target/$folder"
for binary in pause hello; do
  install -m 755 "target/guest/$folder/$binary" "target/$folder/keelson-$binary"
done
