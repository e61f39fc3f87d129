"""One cluster for the whole run: below a temporary root, on ports and networks of its own."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import pytest

BIN = pathlib.Path(os.environ["KEELSON_BIN"])
KUBECTL = os.environ["KUBECTL"]
HELLO = "localhost/keelson/hello:1"


def eventually(what, probe, seconds=60):
    """Waits until probe() returns something true and returns it; fails with the last state seen."""
    deadline = time.monotonic() + seconds
    last = None
    while time.monotonic() < deadline:
        try:
            last = probe()
            if last:
                return last
        except (AssertionError, OSError, subprocess.SubprocessError, KeyError, IndexError) as error:
            last = error
        time.sleep(0.1)
    pytest.fail(f"{what}: not within {seconds} s; last: {last!r}")


class Cluster:
    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.kubeconfig = self.root / "etc/keelson/admin.kubeconfig"
        self.env = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.root / "cache")}

    def ctl(self, *args, check=True, **kwargs):
        return self._run([str(BIN / "ctl"), *args], check, **kwargs)

    def kubectl(self, *args, check=True, **kwargs):
        return self._run([KUBECTL, *args], check, **kwargs)

    def _run(self, command, check, stdin=None, timeout=120):
        done = subprocess.run(command, env=self.env, input=stdin, text=True, capture_output=True, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def popen(self, *args, **kwargs):
        return subprocess.Popen(
            [KUBECTL, *args], env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs
        )

    def get(self, *args):
        return json.loads(self.kubectl("get", *args, "-o", "json").stdout)

    def apply(self, manifest):
        return self.kubectl("apply", "-f", "-", stdin=manifest if isinstance(manifest, str) else json.dumps(manifest))

    def up(self):
        self.ctl(
            "cluster", "up", "--root", str(self.root), "--name", "e2e", "--api-port", "27443", "--port-offset", "3000",
            "--pod-cidr", "10.245.0.0/16", "--service-cidr", "10.97.0.0/16",
        )

    def pid(self, component):
        return int((self.root / f"run/keelson/{component}.pid").read_text().split()[0])

    def pods(self, selector, namespace="default"):
        return self.get("pods", "-n", namespace, "-l", selector)["items"]

    def running(self, selector, count, namespace="default"):
        def ready():
            pods = [p for p in self.pods(selector, namespace) if "deletionTimestamp" not in p["metadata"]]
            up = [
                p for p in pods
                if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))
            ]
            return up if len(up) == len(pods) == count else None

        return eventually(f"{count} ready pods of {selector}", ready)


@pytest.fixture(scope="session")
def cluster():
    root = tempfile.mkdtemp(prefix="keelson-e2e-")
    cluster = Cluster(root)
    try:
        cluster.up()
        image(cluster, HELLO, {"hello": BIN / "keelson-hello"}, "/hello")
        busybox(cluster)
        yield cluster
    finally:
        down = cluster.ctl("cluster", "down", "--root", root, "--purge", check=False)
        if os.environ.get("KEELSON_KEEP"):
            print(f"kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
        assert down.returncode == 0, down.stderr


def image(cluster, tag, files, entrypoint):
    with tempfile.TemporaryDirectory() as folder:
        for name, source in files.items():
            target = pathlib.Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
            target.chmod(0o755)
        cluster.ctl(
            "image", "build", folder, "--tag", tag, "--entrypoint", entrypoint, "--import", "--root", str(cluster.root)
        )


def busybox(cluster):
    """Debian's static busybox, with its applets, as localhost/busybox:1."""
    with tempfile.TemporaryDirectory() as folder:
        binaries = pathlib.Path(folder) / "bin"
        binaries.mkdir()
        (pathlib.Path(folder) / "tmp").mkdir(mode=0o1777)
        shutil.copy("/bin/busybox", binaries / "busybox")
        for applet in subprocess.check_output(["/bin/busybox", "--list"], text=True).split():
            if applet != "busybox":
                (binaries / applet).symlink_to("busybox")
        cluster.ctl(
            "image", "build", folder, "--tag", "localhost/busybox:1", "--entrypoint", "/bin/sh", "--import",
            "--root", str(cluster.root),
        )
