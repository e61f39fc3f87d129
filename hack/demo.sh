#!/usr/bin/env bash
# Deploys the demo app and shows how to reach it: demo.sh BIN-FOLDER CLUSTER-ROOT
set -euo pipefail
bin=$1 root=${2%/}
cd "$(dirname "$0")/.."
export KUBECONFIG=$root/etc/keelson/admin.kubeconfig
ctl=$bin/ctl

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
install -m 755 "$bin/keelson-hello" "$folder/hello"
"$ctl" image build "$folder" --tag localhost/keelson/hello:1 --entrypoint /hello --user 65534 --import --root "$root/" >/dev/null

"$ctl" apply -f manifests/demo
"$ctl" rollout status deployment/hello --timeout 60s
ip=$("$ctl" get service hello -o jsonpath='{.spec.clusterIP}')
port=$("$ctl" get service hello -o jsonpath='{.spec.ports[0].nodePort}')
node=$("$ctl" get nodes -o jsonpath='{.items[0].status.addresses[0].address}')

echo
for _ in 1 2 3; do
  printf 'curl http://%s/  →  ' "$ip"
  curl --silent --show-error --fail --retry 10 --retry-all-errors --retry-delay 1 --max-time 5 "http://$ip/"
done
cat <<END

The cluster runs. Try:
  curl http://$ip/            the Service's cluster address
  curl http://$node:$port/    its node port
  export PATH=$bin:\$PATH KUBECONFIG=$KUBECONFIG
  ctl get pods -A -o wide     (kubectl works the same)
  make down                   stops and removes it
END
