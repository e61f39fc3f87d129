"""The README's walk, with the stock kubectl, against real containers."""

import collections
import contextlib
import datetime
import json
import os
import pty
import re
import signal
import subprocess
import threading
import urllib.request

from conftest import HELLO, KUBECTL, eventually

DEMO = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "containers": [
                    {
                        "name": "web",
                        "image": HELLO,
                        "env": [{"name": "VERSION", "value": "one"}],
                        "ports": [{"name": "http", "containerPort": 8080}],
                        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1},
                    }
                ]
            },
        },
    },
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {
        "type": "NodePort",
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
    },
}


def fetch(url):
    return urllib.request.urlopen(url, timeout=5).read().decode().strip()


def addresses(cluster):
    service = cluster.get("service", "web")
    node = cluster.get("nodes")["items"][0]["status"]["addresses"][0]["address"]
    return f"http://{service['spec']['clusterIP']}/", f"http://{node}:{service['spec']['ports'][0]['nodePort']}/"


def test_a_deployment_answers_behind_its_service(cluster):
    cluster.apply(DEMO)
    cluster.apply(SERVICE)
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    names = {p["metadata"]["name"] for p in cluster.running("app=web", 3)}
    for url in addresses(cluster):
        eventually(f"{url} answers", lambda url=url: fetch(url))
        seen = collections.Counter(fetch(url).split()[0] for _ in range(60))
        assert set(seen) == names, f"{url} spreads over all pods"


def test_kubectl_shows_it(cluster):
    table = cluster.kubectl("get", "deployments,services", "-o", "wide").stdout
    assert "deployment.apps/web" in table and "3/3" in table and "app=web" in table
    assert cluster.kubectl("get", "pods", "-l", "app=web", "-o", "name").stdout.count("pod/web-") == 3
    custom = cluster.kubectl("get", "deploy", "web", "-o", "custom-columns=N:.metadata.name,R:.spec.replicas").stdout
    assert custom.split() == ["N", "R", "web", "3"]
    described = cluster.kubectl("describe", "deployment", "web").stdout
    assert "ScalingReplicaSet" in described and "RollingUpdateStrategy" in described
    assert "replicas" in cluster.kubectl("explain", "deployment.spec").stdout
    resources = cluster.kubectl("api-resources", "-o", "name").stdout.split()
    assert {"pods", "deployments.apps", "endpointslices.discovery.k8s.io"} <= set(resources)


def test_logs_exec_and_port_forward(cluster):
    pod = cluster.running("app=web", 3)[0]["metadata"]["name"]
    assert "serving on port 8080" in cluster.kubectl("logs", pod).stdout
    cluster.apply({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shell", "labels": {"app": "shell"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "shell", "image": "localhost/busybox:1",
            "command": ["/bin/sh", "-c", "i=0; while sleep 0.2; do i=$((i+1)); echo line $i; done"]}]},
    })
    cluster.running("app=shell", 1)
    done = cluster.kubectl("exec", "-i", "shell", "--", "sh", "-c", "cat; echo to-stderr >&2; exit 7",
                           check=False, stdin="through stdin\n")
    assert (done.returncode, done.stdout) == (7, "through stdin\n"), done
    assert "to-stderr" in done.stderr
    follow = cluster.popen("logs", "-f", "shell")
    try:
        lines = [follow.stdout.readline().split()[0] for _ in range(5)]
        assert lines == ["line"] * 5
    finally:
        follow.kill()
    forward = cluster.popen("port-forward", f"pod/{pod}", "18080:8080")
    try:
        assert "Forwarding from" in forward.stdout.readline()
        assert fetch("http://127.0.0.1:18080/").startswith(pod)
    finally:
        forward.kill()


def test_exec_with_a_terminal(cluster):
    primary, secondary = pty.openpty()
    shell = subprocess.Popen([KUBECTL, "exec", "-it", "shell", "--", "sh"], env=cluster.env,
                             stdin=secondary, stdout=secondary, stderr=secondary, close_fds=True)
    os.close(secondary)
    os.write(primary, b"tty && echo answer $((40+2)); exit\n")
    output = b""
    try:
        while b"answer 42" not in output:
            output += os.read(primary, 4096)
        assert b"/dev/pts/" in output
        assert shell.wait(timeout=20) == 0
    finally:
        shell.kill()
        os.close(primary)


def chains_of_web():
    rules = subprocess.check_output(["nft", "-t", "list", "table", "ip", "keelson-e2e"], text=True)
    return re.findall(r"chain svc-default/web/tcp/http/\S+", rules)


def test_a_rolling_update_fails_no_request_and_can_be_undone(cluster):
    url = addresses(cluster)[0]
    stop, failures, versions = threading.Event(), [], set()

    def client():
        while not stop.is_set():
            try:
                versions.add(fetch(url).split()[1])
            except OSError as error:
                failures.append((datetime.datetime.now(datetime.UTC).isoformat(), error))

    threads = [threading.Thread(target=client) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        cluster.kubectl("set", "env", "deployment/web", "VERSION=two")
        cluster.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
        eventually("only the new version answers", lambda: fetch(url).endswith("two"))
        cluster.kubectl("rollout", "undo", "deployment/web")
        cluster.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, (failures, cluster.kubectl("get", "events,pods,endpointslices", "-o", "wide").stdout)
    assert versions == {"one", "two"}
    eventually("rules that lead nowhere are gone", lambda: len(chains_of_web()) == 1)
    history = cluster.kubectl("rollout", "history", "deployment/web").stdout
    assert history.split()[-4:-3] == ["2"] or "3" in history


def test_pause_and_resume(cluster):
    cluster.kubectl("rollout", "pause", "deployment/web")
    generation = cluster.get("deployment", "web")["status"]["observedGeneration"]
    cluster.kubectl("set", "env", "deployment/web", "VERSION=paused")
    deployment = eventually("the change is observed", lambda: (
        d := cluster.get("deployment", "web"))["status"]["observedGeneration"] > generation and d)
    assert deployment["status"].get("updatedReplicas", 0) == 0
    cluster.kubectl("rollout", "resume", "deployment/web")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    cluster.kubectl("rollout", "undo", "deployment/web")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=90s")


def test_scale_patch_edit_label_and_diff(cluster):
    cluster.kubectl("scale", "deployment/web", "--replicas=4")
    cluster.running("app=web", 4)
    for kind, patch in [
        ("strategic", {"spec": {"template": {"spec": {"containers": [{"name": "web", "imagePullPolicy": "Never"}]}}}}),
        ("merge", {"metadata": {"annotations": {"patched": "merge"}}}),
        ("json", [{"op": "replace", "path": "/spec/replicas", "value": 3}]),
    ]:
        cluster.kubectl("patch", "deployment", "web", "--type", kind, "-p", json.dumps(patch))
    deployment = cluster.get("deployment", "web")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert (container["imagePullPolicy"], container["image"]) == ("Never", HELLO)
    assert deployment["metadata"]["annotations"]["patched"] == "merge" and deployment["spec"]["replicas"] == 3
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    cluster.kubectl("label", "deployment", "web", "tier=front")
    cluster.kubectl("annotate", "deployment", "web", "patched-")
    cluster.env["EDITOR"] = "sed -i s/tier:.front/tier:\\ back/"
    cluster.kubectl("edit", "deployment", "web")
    metadata = cluster.get("deployment", "web")["metadata"]
    assert metadata["labels"]["tier"] == "back" and "patched" not in metadata["annotations"]
    changed = json.loads(json.dumps(DEMO))
    changed["spec"]["replicas"] = 5
    diff = cluster.kubectl("diff", "-f", "-", stdin=json.dumps(changed), check=False)
    assert diff.returncode == 1 and "+  replicas: 5" in diff.stdout, diff


def test_server_side_apply_finds_conflicts(cluster):
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}}
    apply = ("apply", "--server-side", "-f", "-", "--field-manager")
    cluster.kubectl(*apply, "one", stdin=json.dumps(settings))
    settings["data"]["a"] = "2"
    conflict = cluster.kubectl(*apply, "two", stdin=json.dumps(settings), check=False)
    assert conflict.returncode != 0 and 'conflict with "one"' in conflict.stderr and ".data.a" in conflict.stderr
    cluster.kubectl(*apply, "two", "--force-conflicts", stdin=json.dumps(settings))
    assert cluster.get("configmap", "settings")["data"] == {"a": "2"}


def test_watch_shows_changes(cluster):
    watch = cluster.popen("get", "configmaps", "-w", "-o", "name")
    try:
        cluster.kubectl("create", "configmap", "watched", "--from-literal=k=v")
        for line in watch.stdout:
            if line.strip() == "configmap/watched":
                break
    finally:
        watch.kill()


def test_a_killed_container_and_a_deleted_pod_come_back(cluster):
    pod = cluster.running("app=web", 3)[0]
    name, restarts = pod["metadata"]["name"], pod["status"]["containerStatuses"][0]["restartCount"]
    container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    for process in subprocess.run(["pgrep", "-f", "^/hello"], capture_output=True, text=True).stdout.split():
        # Others may be ending: those of an earlier test's pods.
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{process}/cgroup") as cgroup:
            if container in cgroup.read():
                os.kill(int(process), signal.SIGKILL)
    eventually("it runs again", lambda: (
        s := cluster.get("pod", name)["status"]["containerStatuses"][0])["restartCount"] == restarts + 1
        and "running" in s["state"])
    cluster.kubectl("delete", "pod", name, "--wait=false")
    others = eventually("another takes its place", lambda: (
        names := [p["metadata"]["name"] for p in cluster.running("app=web", 3)]) and name not in names and names)
    assert len(others) == 3


def test_dns_finds_services(cluster):
    ask = ("exec", "shell", "--", "nslookup")
    address = cluster.get("service", "web")["spec"]["clusterIP"]
    for name in ("web.default.svc.cluster.local", "kubernetes.default.svc.cluster.local"):
        eventually(f"{name} resolves", lambda name=name: "Address" in cluster.kubectl(*ask, name).stdout)
    assert address in cluster.kubectl(*ask, "web.default.svc.cluster.local").stdout
    answer = eventually("the short name works", lambda: cluster.kubectl(
        "exec", "shell", "--", "wget", "-qO-", "http://web/").stdout)
    assert answer.startswith("web-")


def test_deleting_cascades(cluster):
    cluster.kubectl("delete", "deployment", "web", "--cascade=orphan")
    assert len(cluster.get("replicasets", "-l", "app=web")["items"]) >= 1
    cluster.apply(DEMO)
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl("delete", "deployment", "web", "--cascade=foreground", "--timeout=60s")
    assert cluster.get("replicasets", "-l", "app=web")["items"] == []
    eventually("its pods are gone", lambda: not cluster.pods("app=web"))
