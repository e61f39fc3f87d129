"""kill -9 of every daemon, the API server in the middle of a thousand creates included. Last, for its violence."""

import os
import signal
import threading

import pytest
from kubernetes import client, config

from conftest import HELLO, eventually
from test_walk import fetch

DAEMONS = ["api-server", "scheduler", "controller-manager", "node-agent", "net-proxy", "dns", "containerd"]


@pytest.fixture(scope="module")
def url(cluster):
    cluster.kubectl("create", "deployment", "steady", f"--image={HELLO}", "--replicas=2", "--port=8080")
    cluster.kubectl("expose", "deployment", "steady", "--port=80", "--target-port=8080")
    cluster.running("app=steady", 2)
    address = f"http://{cluster.get('service', 'steady')['spec']['clusterIP']}/"
    eventually("it answers", lambda: fetch(address))
    return address


@pytest.mark.parametrize("daemon", DAEMONS)
def test_pods_serve_while_a_killed_daemon_comes_back(cluster, url, daemon):
    before = {p["metadata"]["name"]: p["status"]["containerStatuses"][0]["restartCount"]
              for p in cluster.running("app=steady", 2)}
    pid = cluster.pid(daemon)
    os.kill(pid, signal.SIGKILL)
    assert fetch(url)
    eventually(f"{daemon} is back", lambda: cluster.pid(daemon) != pid)
    assert fetch(url)
    # The whole chain works again: a new pod starts and serves, the old ones were not restarted.
    eventually("the API server answers", lambda: cluster.kubectl("scale", "deployment/steady", "--replicas=3"))
    pods = cluster.running("app=steady", 3)
    new = next(p for p in pods if p["metadata"]["name"] not in before)
    eventually("the new pod is reached", lambda: new["metadata"]["name"] in {fetch(url) for _ in range(20)})
    cluster.kubectl("scale", "deployment/steady", "--replicas=2")
    cluster.running("app=steady", 2)
    for pod in pods:
        name = pod["metadata"]["name"]
        if name in before:
            assert pod["status"]["containerStatuses"][0]["restartCount"] == before[name]


def test_no_acknowledged_write_is_lost(cluster):
    core = client.CoreV1Api(config.new_client_from_config(str(cluster.kubeconfig)))
    acknowledged, lock = [], threading.Lock()

    def create(start):
        for i in range(start, 1000, 4):
            name = f"write-{i:04}"
            try:
                core.create_namespaced_config_map("default", {"metadata": {"name": name}}, _request_timeout=10)
            except Exception:  # in the moment of the kill: not acknowledged, so nothing was promised
                continue
            with lock:
                acknowledged.append(name)
                if len(acknowledged) == 400:
                    os.kill(cluster.pid("api-server"), signal.SIGKILL)

    threads = [threading.Thread(target=create, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    items = eventually("the API server answers", lambda: cluster.get("configmaps")["items"])
    present = {item["metadata"]["name"] for item in items}
    assert len(acknowledged) >= 400 and set(acknowledged) <= present, set(acknowledged) - present


def test_up_adopts_what_an_earlier_supervisor_left(cluster, url):
    pids = {daemon: cluster.pid(daemon) for daemon in DAEMONS}
    for line in os.popen("pgrep -f 'cluster supervise --root " + str(cluster.root) + "'").read().split():
        os.kill(int(line), signal.SIGKILL)
    cluster.up()
    assert {daemon: cluster.pid(daemon) for daemon in DAEMONS} == pids
    assert fetch(url)
