"""What upstream refuses is refused with the same reason and code, and the server goes on."""

import json
import ssl
import subprocess
import urllib.error
import urllib.request

import pytest

from conftest import eventually

DEPLOYMENT = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "bad"},
    "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
}


def changed(path, value):
    deployment = json.loads(json.dumps(DEPLOYMENT))
    target = deployment
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return deployment


@pytest.fixture(scope="module")
def request_(cluster):
    """Sends one raw request: (code, Status)."""
    view = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json").stdout)
    server = view["clusters"][0]["cluster"]["server"]
    admin = ssl.create_default_context()
    admin.check_hostname, admin.verify_mode = False, ssl.CERT_NONE
    nobody = ssl.create_default_context()
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    import base64
    import tempfile
    with tempfile.NamedTemporaryFile() as pem:
        user = view["users"][0]["user"]
        pem.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
        pem.flush()
        admin.load_cert_chain(pem.name)

    def send(method, path, body=None, token=None, content_type="application/json"):
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(server + path, data=data, method=method)
        request.add_header("Content-Type", content_type)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, context=nobody if token else admin, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    return send


DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def refused(answer, code, reason, *words):
    status_code, status = answer
    assert (status_code, status["kind"], status.get("reason"), status["code"]) == (code, "Status", reason, code), status
    for word in words:
        assert word in status["message"], status["message"]


def test_an_unknown_field_under_strict_validation(request_):
    body = changed(["spec", "replicaz"], 1)
    refused(request_("POST", DEPLOYMENTS + "?fieldValidation=Strict", body), 400, "BadRequest",
            'strict decoding error: unknown field "spec.replicaz"')


def test_a_negative_replica_count(request_):
    refused(request_("POST", DEPLOYMENTS, changed(["spec", "replicas"], -1)), 422, "Invalid",
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0")


def test_a_selector_that_misses_the_template(request_):
    body = changed(["spec", "selector", "matchLabels"], {"a": "c"})
    refused(request_("POST", DEPLOYMENTS, body), 422, "Invalid", "`selector` does not match template `labels`")


def test_a_duplicate_name(request_):
    body = {"metadata": {"name": "twice"}}
    path = "/api/v1/namespaces/default/configmaps"
    assert request_("POST", path, body)[0] == 201
    refused(request_("POST", path, body), 409, "AlreadyExists", 'configmaps "twice" already exists')


def test_a_stale_resource_version(request_):
    path = "/api/v1/namespaces/default/configmaps"
    assert request_("POST", path, {"metadata": {"name": "old"}})[0] == 201
    body = {"metadata": {"name": "old", "resourceVersion": "1"}, "data": {"a": "b"}}
    refused(request_("PUT", path + "/old", body), 409, "Conflict", "the object has been modified")


def test_a_forbidden_user(cluster):
    done = cluster.kubectl("get", "secrets", "--as", "jane", check=False)
    assert done.returncode == 1
    assert 'User "jane" cannot list resource "secrets" in API group "" in the namespace "default"' in done.stderr


def test_a_user_may_what_a_role_adds_to_the_role_that_is_bound(cluster):
    cluster.kubectl("create", "clusterrole", "things-viewer", "--verb=list", "--resource=secrets")
    cluster.kubectl("create", "rolebinding", "joan-views", "--clusterrole=view", "--user=joan")
    listing = ("get", "secrets", "--as", "joan")
    assert cluster.kubectl(*listing, check=False).returncode == 1
    cluster.kubectl("label", "clusterrole", "things-viewer", "rbac.authorization.k8s.io/aggregate-to-view=true")
    eventually("joan lists secrets", lambda: cluster.kubectl(*listing, check=False).returncode == 0)
    cluster.kubectl("delete", "clusterrole/things-viewer", "rolebinding/joan-views")
    eventually("joan does not any more", lambda: cluster.kubectl(*listing, check=False).returncode == 1)


def test_a_malformed_token(request_):
    refused(request_("GET", "/api/v1/pods", token="not.a.token"), 401, "Unauthorized", "Unauthorized")


def test_a_body_of_five_megabytes(cluster):
    # Through kubectl: the server answers before it has read everything, which not every client waits for.
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"a": "x" * (5 << 20)}}
    done = cluster.kubectl("create", "-f", "-", stdin=json.dumps(body), check=False)
    assert done.returncode == 1 and "(RequestEntityTooLarge)" in done.stderr, done.stderr[-500:]


def test_truncated_json(request_):
    refused(request_("POST", DEPLOYMENTS, b'{"metadata": {"name": "cut"'), 400, "BadRequest")


def test_an_unknown_media_type(request_):
    refused(request_("POST", DEPLOYMENTS, b"<xml/>", content_type="application/xml"), 415, "UnsupportedMediaType")


def test_a_manifest_that_is_no_yaml(cluster):
    done = cluster.kubectl("apply", "-f", "-", stdin="a: [1\nb", check=False)
    assert done.returncode == 1
    done = cluster.ctl("apply", "-f", "-", stdin="a: [1\nb", check=False)
    assert done.returncode == 1 and "yaml" in done.stderr.lower(), done.stderr


def test_the_server_is_unharmed(cluster, request_):
    assert request_("GET", DEPLOYMENTS)[0] == 200
    assert subprocess.run(["kill", "-0", str(cluster.pid("api-server"))]).returncode == 0
