"""The Python client, which nobody here wrote: create, page through, watch, patch, delete."""

import pytest
from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException


@pytest.fixture(scope="module")
def core(cluster):
    return client.CoreV1Api(config.new_client_from_config(str(cluster.kubeconfig)))


@pytest.fixture
def namespace(core):
    name = core.create_namespace({"metadata": {"generateName": "python-"}}).metadata.name
    yield name
    core.delete_namespace(name)


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"set": "x"}), data=data)


def test_create_list_by_pages_and_delete(core, namespace):
    for i in range(25):
        core.create_namespaced_config_map(namespace, config_map(f"c{i:02}", index=str(i)))
    names, token, pages = [], None, 0
    while True:
        page = core.list_namespaced_config_map(namespace, limit=10, _continue=token, label_selector="set=x")
        names += [item.metadata.name for item in page.items]
        pages, token = pages + 1, page.metadata._continue
        if not token:
            break
    assert (names, pages) == ([f"c{i:02}" for i in range(25)], 3)
    core.delete_collection_namespaced_config_map(namespace, label_selector="set=x")
    assert core.list_namespaced_config_map(namespace, label_selector="set=x").items == []


def test_a_watch_sees_every_change_in_order(core, namespace):
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, config_map("w", k="1"))
    core.patch_namespaced_config_map("w", namespace, {"data": {"k": "2"}})
    core.delete_namespaced_config_map("w", namespace)
    stream = watch.Watch().stream(core.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=20)
    seen = []
    for event in stream:
        if event["object"].metadata.name == "w":
            seen.append((event["type"], event["object"].data["k"]))
        if len(seen) == 3:
            break
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]


def test_a_stale_update_is_a_conflict(core, namespace):
    created = core.create_namespaced_config_map(namespace, config_map("stale", k="1"))
    core.patch_namespaced_config_map("stale", namespace, {"data": {"k": "2"}})
    created.data["k"] = "3"
    with pytest.raises(ApiException) as refused:
        core.replace_namespaced_config_map("stale", namespace, created)
    assert refused.value.status == 409
