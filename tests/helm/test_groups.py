"""Workers of several pods: what leaders and hosts are, who finds them, and whom they reach."""

import re
from typing import Any

import pytest

from services.common.settings import read_settings
from services.inference.hosts.addresses import MEETING_PORT, PORT, host_addresses
from services.inference.hosts.settings import PREFIX, RankHostSettings
from services.inference.settings import InferenceSettings
from tests.helm.chart import CHART, Object, Refused, Rendered, container, render, variables

MULTI_NODE = CHART / "ci" / "multi-node.yaml"
CLAIM = {"models": {"volume": {"type": "claim"}}}


def pool(**values: object) -> Rendered:
    """A single pool of workers of two pods, with these values."""
    return render({"inference": {"pools": [{"name": "a", "nodes": 2, **values}]}, **CLAIM})


def group(rendered: Rendered, name: str = "a") -> Object:
    return rendered.get("LeaderWorkerSet", f"group-{name}")["spec"]


def leader(spec: Object) -> Object:
    return container(spec["leaderWorkerTemplate"]["leaderTemplate"], "inference")


def host(spec: Object) -> Object:
    return container(spec["leaderWorkerTemplate"]["workerTemplate"], "inference")


def labels(rendered: Rendered, role: str, name: str = "a", **more: str) -> dict[str, str]:
    """Of the leader's or a worker's pod, with those that the controller adds."""
    template = group(rendered, name)["leaderWorkerTemplate"][f"{role}Template"]
    return {**template["metadata"]["labels"], "leaderworkerset.sigs.k8s.io/group-index": "0", **more}


def test_a_worker_of_one_pod_needs_no_controller_of_groups():
    rendered = render({"inference": {"pools": [{"name": "a"}]}})
    assert rendered.all("LeaderWorkerSet") == []
    assert rendered.get("Deployment", "inference-a")
    assert "seedvr2.io/role" not in rendered.get("Service", "inference-a")["spec"]["selector"]


def test_a_worker_of_several_pods_is_a_group_of_that_size():
    rendered = render({}, MULTI_NODE)
    assert [each["metadata"]["name"] for each in rendered.all("Deployment") if "inference" in each["metadata"]["name"]] == [
        "demo-seedvr2-inference-3b"
    ]
    spec = group(rendered, "7b-16gpu")
    assert (spec["replicas"], spec["leaderWorkerTemplate"]["size"]) == (2, 2)
    assert spec["startupPolicy"] == "LeaderCreated", "a leader is ready only when its hosts are there"
    assert spec["leaderWorkerTemplate"]["restartPolicy"] == "None"
    assert spec["rolloutStrategy"]["rollingUpdateConfiguration"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_leader_and_hosts_are_programs_that_take_their_variables():
    spec = group(render({}, MULTI_NODE), "7b-16gpu")
    own = read_settings(InferenceSettings, "SEEDVR2_INFERENCE", variables(leader(spec)))
    other = read_settings(RankHostSettings, PREFIX, variables(host(spec)))
    assert host(spec)["command"] == ["python", "-m", "services.inference.hosts"]
    assert "command" not in leader(spec)
    assert (own.ranks, own.sequence, own.pool, other.pool) == (8, 0, "7b-16gpu", "7b-16gpu")
    assert other.address == f"0.0.0.0:{PORT}"
    assert other.drain_s > own.drain_s, "a host stays until its leader's spans have ended"


def test_names_that_leaders_derive_are_those_that_the_controller_gives():
    rendered = pool()
    name = rendered.get("LeaderWorkerSet", "group-a")["metadata"]["name"]
    given = {"LWS_LEADER_ADDRESS": f"{name}-1.{name}.video", "LWS_GROUP_SIZE": "2"}
    assert host_addresses((), "", given).hosts == (f"{name}-1-1.{name}.video:{PORT}",)
    assert group(rendered)["networkConfig"] == {"subdomainPolicy": "Shared"}
    assert name not in {each["metadata"]["name"] for each in rendered.all("Service")}, "the controller makes one of that name"


@pytest.mark.parametrize("role", ["leader", "worker"])
def test_every_pod_of_a_group_has_gpus_memory_models_and_time_alike(role: str):
    template = group(pool(gpus=4, model="seedvr2-7b", shm="8Gi", drainSeconds=900))["leaderWorkerTemplate"][f"{role}Template"]
    box = container(template, "inference")
    assert box["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}} in template["spec"]["volumes"]
    assert container(template, "models")["command"] == ["seedvr2", "models", "fetch", "seedvr2-7b"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in box["volumeMounts"]
    drain_s = float(next(value for name, value in variables(box).items() if name.endswith("_DRAIN_S")))
    assert template["spec"]["terminationGracePeriodSeconds"] > drain_s >= 900


def test_a_leader_that_waits_for_its_hosts_is_not_killed_for_it():
    spec = group(pool())
    for box in (leader(spec), host(spec)):
        assert box["startupProbe"]["grpc"] == {"port": 50063, "service": "seedvr2.live"}
        assert box["livenessProbe"]["grpc"] == {"port": 50063, "service": "seedvr2.live"}
        assert box["readinessProbe"]["grpc"] == {"port": 50063}


def test_gateways_find_leaders_and_never_hosts():
    rendered = pool()
    selector = rendered.get("Service", "inference-a")["spec"]["selector"]
    assert selector.items() <= labels(rendered, "leader").items()
    assert not selector.items() <= labels(rendered, "worker").items()
    assert "grpc" in {port["name"] for port in leader(group(rendered))["ports"]}


def test_evictions_and_scrapes_see_every_pod_of_a_group():
    rendered = render({}, MULTI_NODE)
    for role in ("leader", "worker"):
        found = labels(rendered, role, "7b-16gpu")
        for kind, name in (("PodDisruptionBudget", "inference-7b-16gpu"), ("PodMonitor", "inference")):
            assert rendered.get(kind, name)["spec"]["selector"]["matchLabels"].items() <= found.items()
    for box in (leader(group(rendered, "7b-16gpu")), host(group(rendered, "7b-16gpu"))):
        assert "metrics" in {port["name"] for port in box["ports"]}


def reaches(rendered: Rendered, by: dict[str, str], to: dict[str, str], port: int) -> bool:
    """Whether a pod may open a connection to another one."""

    def rules(pod: dict[str, str], direction: str) -> list[Object]:
        specs = [each["spec"] for each in rendered.all("NetworkPolicy")]
        return [rule for each in specs if selects(each["podSelector"], pod) for rule in each.get(direction, [])]

    out = any(matches(rule, rule.get("to"), to, port) for rule in rules(by, "egress"))
    return out and any(matches(rule, rule.get("from"), by, port) for rule in rules(to, "ingress"))


def matches(rule: Object, peers: Any, pod: dict[str, str], port: int) -> bool:
    ports = rule["ports"]
    if not any(each["port"] <= port <= each.get("endPort", each["port"]) and each["protocol"] == "TCP" for each in ports):
        return False
    return peers is None or any("podSelector" in peer and selects(peer["podSelector"], pod) for peer in peers)


def selects(selector: Object, pod: dict[str, str]) -> bool:
    return selector["matchLabels"].items() <= pod.items()


@pytest.mark.parametrize("port", [PORT, MEETING_PORT, 43210])
def test_ranks_are_reached_from_their_own_group_alone(port: int):
    rendered = pool(replicas=2)
    first, second = labels(rendered, "leader"), labels(rendered, "worker")
    elsewhere = labels(rendered, "worker", **{"leaderworkerset.sigs.k8s.io/group-index": "1"})
    gateway = rendered.pods()["demo-seedvr2-gateway"]["metadata"]["labels"]
    assert reaches(rendered, first, second, port)
    assert reaches(rendered, second, first, port)
    assert not reaches(rendered, first, elsewhere, port)
    assert not reaches(rendered, elsewhere, first, port)
    assert not reaches(rendered, gateway, second, port)


def test_gateways_reach_leaders_and_workers_of_one_pod_reach_nobody():
    rendered = pool()
    gateway = rendered.pods()["demo-seedvr2-gateway"]["metadata"]["labels"]
    assert reaches(rendered, gateway, labels(rendered, "leader"), 50061)
    alone = render({}, MULTI_NODE)
    single = alone.get("Deployment", "inference-3b")["spec"]["template"]["metadata"]["labels"]
    assert not reaches(alone, single, labels(alone, "leader", "7b-16gpu"), MEETING_PORT)


def policies(rendered: Rendered) -> list[str]:
    names = [each["metadata"]["name"] for each in rendered.all("NetworkPolicy")]
    return [name.removeprefix("demo-seedvr2-group-a") for name in names if name.startswith("demo-seedvr2-group-a")]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"replicas": 2}, [".0", ".1"]),
        ({"replicas": 1, "maxSurge": 1}, [".0", ".1"]),
        ({"autoscaling": {"type": "hpa", "max": 3}}, [".0", ".1", ".2"]),
        ({"replicas": None}, [""]),
        ({"replicas": 4, "maxSurge": "50%"}, [""]),
    ],
)
def test_every_group_that_there_can_be_has_a_policy_or_all_have_one(values: Object, names: list[str]):
    assert policies(pool(**values)) == names


def test_groups_are_scaled_as_a_whole():
    rendered = render({}, MULTI_NODE)
    target = rendered.get("ScaledObject", "inference-7b-scaled")["spec"]["scaleTargetRef"]
    whole = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet"}
    assert target == {**whole, "name": "demo-seedvr2-group-7b-scaled"}
    assert "replicas" not in group(rendered, "7b-scaled")
    target = pool(autoscaling={"type": "hpa"}).get("HorizontalPodAutoscaler", "inference-a")["spec"]["scaleTargetRef"]
    assert target == {**whole, "name": "demo-seedvr2-group-a"}


def test_pods_of_a_group_show_each_other_certificates_where_workers_have_some():
    spec = group(render({}, MULTI_NODE), "7b-16gpu")
    said, other = variables(leader(spec)), variables(host(spec))
    assert (
        said["SEEDVR2_INFERENCE_RANK_HOSTS_CA_FILE"] == other["SEEDVR2_RANK_HOST_TLS_CLIENT_CA_FILE"] == "/run/seedvr2/tls/ca.crt"
    )
    assert said["SEEDVR2_INFERENCE_RANK_HOSTS_SERVER_NAME"] == "seedvr2-worker"
    assert {"name": "tls", "mountPath": "/run/seedvr2/tls", "readOnly": True} in host(spec)["volumeMounts"]
    assert not [name for name in variables(host(group(pool()))) if "TLS" in name]


def test_what_a_user_adds_goes_to_every_pod_but_the_workers_settings_to_the_leader():
    added = {"extraEnv": [{"name": "NCCL_DEBUG", "value": "INFO"}], "settings": {"dtype": "float16", "log_level": "DEBUG"}}
    spec = group(pool(**added))
    for box in (leader(spec), host(spec)):
        assert variables(box)["NCCL_DEBUG"] == "INFO"
    assert variables(leader(spec))["SEEDVR2_INFERENCE_DTYPE"] == "float16"
    assert variables(host(spec))["SEEDVR2_RANK_HOST_LOG_LEVEL"] == "DEBUG"
    assert not [name for name in variables(host(spec)) if name.startswith("SEEDVR2_INFERENCE")]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gpus": 4, "sequence": 2}, "the GPUs of all 2 nodes share a span; leave sequence 0"),
        ({"gpus": 1, "gpuResource": "nvidia.com/mig-3g.40gb"}, "NCCL can't join parts of GPUs, on several nodes neither"),
        ({"settings": {"rank_hosts": "b:50062"}}, "settings.rank_hosts follows from nodes; leave it out"),
        ({"nodes": 0}, "minimum"),
        ({"leaderWorkerSet": {"restartPolicy": "Always"}}, "restartPolicy"),
        ({"leaderWorkerSet": {"size": 2}}, "size"),
    ],
)
def test_what_can_not_work_is_refused(values: Object, words: str):
    with pytest.raises(Refused, match=re.escape(words)):
        pool(**values)


def test_a_name_that_the_controller_could_not_label_its_pods_with_is_refused():
    pools = [{"name": "twelve-gpus", "nodes": 2}]
    with pytest.raises(Refused, match="too long a name for a LeaderWorkerSet"):
        render({"fullnameOverride": "a-name-that-is-rather-long-indeed", "inference": {"pools": pools}})
