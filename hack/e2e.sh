#!/usr/bin/env bash
# The end-to-end tests: a cluster of its own beside any other, real containers, stock clients. e2e.sh BIN-FOLDER [pytest args]
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" -ne 0 ]; then
  echo "error: the end-to-end tests start containers and packet rules; run them as root" >&2
  exit 1
fi
tools=$(hack/tools.sh)
export KEELSON_BIN=$1 KUBECTL=$tools/kubectl
shift
exec "$tools/pytest" -q -x --tb=short -p no:cacheprovider tests/e2e "$@"
