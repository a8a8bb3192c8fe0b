"""What pods of the chart may, and who may reach them."""

import re
from pathlib import Path

import pytest
import yaml

from tests.helm.chart import CI_VALUES, Object, container, render

EVERY_CI = pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
CREDENTIALS = {"minio": {"endpoint": "https://s3.example", "accessKey": "the-access-key", "secretKey": "the-secret-key"}}
VOLUME_KINDS = {"configMap", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"}
"""Kinds of volumes that the restricted standard allows."""


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]


@EVERY_CI
def test_every_pod_keeps_to_the_restricted_standard(values: Path):
    for name, pod in render({}, values).pods().items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for box in containers(pod):
            context = box["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
        kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
        # A cache on the node is what its values ask for, and what the README says of it.
        assert kinds <= VOLUME_KINDS | ({"hostPath"} if values.stem == "multi-gpu" else set()), name


@EVERY_CI
def test_only_gateways_get_a_token_and_it_opens_slices_and_leases_alone(values: Path):
    rendered = render({}, values)
    with_token = {name for name, pod in rendered.pods().items() if pod["spec"]["automountServiceAccountToken"]}
    assert with_token == {"demo-seedvr2-gateway"}
    assert all(each["automountServiceAccountToken"] is False for each in rendered.all("ServiceAccount"))
    role = rendered.get("Role", "gateway")
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    (said,) = re.findall(r"^rules:\n(?:[ -].*\n)+", page, re.MULTILINE)
    assert role["rules"] == yaml.safe_load(said)["rules"], "what gateways need is said in docs/cluster.md"
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {"endpointslices", "leases"}
    assert "*" not in str(role["rules"])
    assert not rendered.all("ClusterRole")


@EVERY_CI
def test_every_container_says_what_it_needs(values: Path):
    for name, pod in render({}, values).pods().items():
        for box in containers(pod):
            assert {"cpu", "memory"} <= box["resources"]["requests"].keys(), name
            assert "memory" in box["resources"]["limits"], name


def test_credentials_are_in_secrets_and_files_alone():
    rendered = render({"store": {"type": "s3"}, **CREDENTIALS})
    for each in rendered.objects:
        if each["kind"] != "Secret":
            assert "the-access-key" not in str(each)
            assert "the-secret-key" not in str(each)
    assert rendered.get("Secret", "s3")["stringData"] == {"access-key": "the-access-key", "secret-key": "the-secret-key"}
    box = container(rendered.pods()["demo-seedvr2-gateway"], "gateway")
    assert {"name": "s3", "mountPath": "/run/seedvr2/s3", "readOnly": True} in box["volumeMounts"]


def test_an_existing_secret_is_used_and_none_is_made():
    rendered = render({
        "store": {"type": "s3"},
        "minio": {"endpoint": "https://s3.example", "existingSecret": "mine", "accessKeyKey": "user", "secretKeyKey": "password"},
    })  # fmt: skip
    assert [each["metadata"]["name"] for each in rendered.all("Secret")] == ["demo-seedvr2-ui"]
    volumes = {each["name"]: each for each in rendered.get("Deployment", "gateway")["spec"]["template"]["spec"]["volumes"]}
    assert volumes["s3"]["secret"]["secretName"] == "mine"
    assert volumes["s3"]["secret"]["items"] == [{"key": "user", "path": "access-key"}, {"key": "password", "path": "secret-key"}]


def test_without_keys_the_pods_own_role_counts():
    values = {"store": {"type": "s3"}, "minio": {"endpoint": "https://s3.example"}}
    rendered = render(values)
    assert [each["metadata"]["name"] for each in rendered.all("Secret")] == ["demo-seedvr2-ui"]
    assert "SEEDVR2_S3_ACCESS_KEY_FILE" not in str(rendered.get("Deployment", "gateway"))


def test_generated_keys_are_long_and_never_the_same():
    values = {"store": {"type": "s3"}, "minio": {"server": {"enabled": True}}}
    keys = [render({**values, "commonLabels": {"n": str(n)}}).get("Secret", "s3")["stringData"]["secret-key"] for n in range(2)]
    assert keys[0] != keys[1]
    assert all(len(key) == 40 for key in keys)


def test_a_component_may_have_another_context_even_a_laxer_one():
    pod = render({"ui": {"securityContext": {"readOnlyRootFilesystem": False}, "podSecurityContext": {"runAsUser": 4711}}}).pods()
    spec = pod["demo-seedvr2-ui"]["spec"]
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is False
    assert spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    assert spec["securityContext"]["runAsUser"] == 4711


def test_an_account_that_exists_is_used():
    rendered = render({"gateway": {"serviceAccount": {"create": False, "name": "mine"}}})
    assert rendered.pods()["demo-seedvr2-gateway"]["spec"]["serviceAccountName"] == "mine"
    assert rendered.get("RoleBinding", "gateway")["subjects"][0]["name"] == "mine"
    assert "mine" not in {each["metadata"]["name"] for each in rendered.all("ServiceAccount")}


@EVERY_CI
def test_whatever_keeps_running_is_watched_while_it_starts_serves_and_lives(values: Path):
    rendered = render({}, values)
    for each in [*rendered.all("Deployment"), *rendered.all("StatefulSet")]:
        (box, *_) = each["spec"]["template"]["spec"]["containers"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= box.keys(), each["metadata"]["name"]
