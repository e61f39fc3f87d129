#!/usr/bin/env bash
# Runs inside the virtual machine of vm-test.sh, as a unit of its systemd.
set -uo pipefail
export PATH=/opt/keelson:$PATH KUBECONFIG=/etc/keelson/admin.kubeconfig
fail() {
  echo "VM TEST FAILED: $1"
  ctl cluster status
  journalctl --no-pager -n 40 -u 'keelson-*'
  exit 1
}
until_true() { # SECONDS COMMAND…
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "not within time: $*"
    sleep 0.5
  done
}

[ "$(cat /proc/1/comm)" = systemd ] || fail "PID 1 is not systemd"
[ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] || fail "cgroups are not v2"
ctl cluster up || fail "cluster up"
ctl cluster status || fail "cluster status"
systemctl --quiet is-enabled keelson.target || fail "the target is not enabled"

mkdir /tmp/hello && cp /opt/keelson/keelson-hello /tmp/hello/hello
ctl image build /tmp/hello --tag localhost/keelson/hello:1 --entrypoint /hello --user 65534 --import || fail "image"
ctl apply -f /opt/keelson/manifests/demo || fail "apply"
ctl rollout status deployment/hello --timeout 120s || fail "rollout"
address=$(ctl get service hello -o 'jsonpath={.spec.clusterIP}')
until_true 20 curl --silent --fail --max-time 2 "http://$address/"
find /sys/fs/cgroup/kubepods -type d -name "pod*" | grep -q . || fail "pods have no cgroup"

for daemon in api-server node-agent containerd; do
  before=$(systemctl show --property=MainPID --value keelson-$daemon)
  kill -9 "$before"
  curl --silent --fail --max-time 2 "http://$address/" >/dev/null || fail "no answer while $daemon is down"
  until_true 20 systemctl --quiet is-active keelson-$daemon
  [ "$(systemctl show --property=MainPID --value keelson-$daemon)" != "$before" ] || fail "$daemon was not restarted"
done
until_true 30 ctl get nodes
ctl rollout status deployment/hello --timeout 60s || fail "pods after the crashes"

ctl cluster down --purge || fail "cluster down"
[ -z "$(systemctl list-unit-files --no-legend 'keelson*')" ] || fail "units are left"
grep -ls '^keelson-' /proc/[0-9]*/comm && fail "daemons are left"
echo "VM TEST PASSED"
