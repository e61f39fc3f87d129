#!/usr/bin/env bash
# Licences, bans and sources of every dependency.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$(hack/tools.sh):$PATH
cargo deny --log-level error check bans licenses sources
