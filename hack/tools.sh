#!/usr/bin/env bash
# Makes target/tools, a Python environment with what hack/requirements.txt pins, and prints its bin folder.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/tools
if ! cmp -s hack/requirements.txt "$tools/installed"; then
  mkdir -p target
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check -r hack/requirements.txt >&2
  cp hack/requirements.txt "$tools/installed"
fi
echo "$tools/bin"
