"""Pools that grow with what waits, and what Prometheus finds."""

import re

import pytest
from prometheus_client import CollectorRegistry

from services.common.metrics import GatewayMetrics
from tests.helm.chart import CHART, Object, Refused, container, render, variables

MULTI_GPU, PRODUCTION = (CHART / "ci" / f"{name}.yaml" for name in ("multi-gpu", "production"))
KEDA = {"type": "keda", "prometheusAddress": "http://prometheus:9090"}


def pool(**scaling: object) -> Object:
    return {"inference": {"pools": [{"name": "a", "autoscaling": scaling}]}}


def test_keda_counts_the_queued_megapixels_of_a_pool():
    spec = render({}, PRODUCTION).get("ScaledObject", "inference-7b")["spec"]
    assert spec["scaleTargetRef"] == {"name": "demo-seedvr2-inference-7b"}
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["query"] == 'sum(seedvr2_queued_megapixels{namespace="video",pool="7b"}) or vector(0)'
    assert trigger["metadata"]["threshold"] == "2500"
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 4)


def test_a_pool_can_be_empty_until_something_waits():
    spec = render({}, PRODUCTION).get("ScaledObject", "inference-3b")["spec"]
    assert spec["minReplicaCount"] == 0
    assert spec["triggers"][0]["metadata"]["activationThreshold"] == "0"


def test_a_new_pool_that_may_be_empty_stays_until_its_first_worker_has_said_what_it_serves():
    def initial_s(**scaling: object) -> float:
        return float(render(pool(**KEDA, **scaling)).get("ScaledObject", "inference-a")["spec"]["initialCooldownPeriod"])

    assert initial_s(min=0) > startup_s(pool(**KEDA, min=0))
    assert initial_s(min=0, initialCooldownSeconds=99) == 99


def test_jobs_wait_until_the_first_worker_of_an_empty_pool_has_started():
    def wait_s(values: Object) -> float:
        gateway = container(render(values).pods()["demo-seedvr2-gateway"], "gateway")
        return float(variables(gateway).get("SEEDVR2_GATEWAY_WORKER_WAIT_S", 0))

    assert wait_s(pool(**KEDA, min=0)) > startup_s(pool(**KEDA, min=0))
    assert wait_s(pool(**KEDA, min=1)) == 0, "the gateway's own default"


def startup_s(values: Object) -> float:
    """How long a worker may take to start."""
    probe = container(render(values).pods()["demo-seedvr2-inference-a"], "inference")["startupProbe"]
    return float(probe["periodSeconds"] * probe["failureThreshold"])


def test_workers_stay_longer_than_it_takes_to_load_a_model():
    rendered = render(pool(**KEDA))
    assert rendered.get("ScaledObject", "inference-a")["spec"]["cooldownPeriod"] >= 1800


def test_a_missing_measurement_takes_no_worker_away():
    spec = render(pool(**KEDA, fallbackReplicas=2)).get("ScaledObject", "inference-a")["spec"]
    assert spec["fallback"] == {"failureThreshold": 4, "replicas": 2, "behavior": "currentReplicasIfHigher"}
    assert "fallback" not in render(pool(**KEDA, fallbackReplicas=0)).get("ScaledObject", "inference-a")["spec"]


@pytest.mark.parametrize("values", [pool(**KEDA), pool(type="hpa")])
def test_an_upgrade_leaves_the_number_to_who_scales(values: Object):
    assert "replicas" not in render(values).get("Deployment", "inference-a")["spec"]


def test_an_autoscaler_of_kubernetes_takes_the_same_metric():
    spec = render({}, MULTI_GPU).get("HorizontalPodAutoscaler", "inference-7b-8gpu")["spec"]
    external = spec["metrics"][0]["external"]
    assert external["metric"] == {"name": "seedvr2_queued_megapixels", "selector": {"matchLabels": {"pool": "7b-8gpu"}}}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 2)


@pytest.mark.parametrize(
    ("scaling", "words"), [({"type": "keda"}, "prometheusAddress"), ({"type": "hpa", "min": 0}, "only KEDA scales to none")]
)
def test_what_can_not_work_is_refused(scaling: Object, words: str):
    with pytest.raises(Refused, match=words):
        render(pool(**scaling))


def test_the_metric_that_pools_grow_by_is_one_that_gateways_have():
    query = render(pool(**KEDA)).get("ScaledObject", "inference-a")["spec"]["triggers"][0]["metadata"]["query"]
    (name,) = re.findall(r"seedvr2_\w+", query)
    registry = CollectorRegistry()
    GatewayMetrics(registry)
    assert name in {metric.name for metric in registry.collect()}


def test_monitors_name_ports_that_exist():
    rendered = render({}, PRODUCTION)
    for name in ("gateway", "ui"):
        (endpoint,) = rendered.get("ServiceMonitor", name)["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in rendered.get("Service", name)["spec"]["ports"]}
    (endpoint,) = rendered.get("PodMonitor", "inference")["spec"]["podMetricsEndpoints"]
    ports = rendered.pods()["demo-seedvr2-inference-3b"]["spec"]["containers"][0]["ports"]
    assert endpoint["port"] in {port["name"] for port in ports}


def test_a_monitor_of_the_gateway_does_not_scrape_it_twice():
    rendered = render({}, PRODUCTION)
    selector = rendered.get("ServiceMonitor", "gateway")["spec"]["selector"]["matchLabels"]
    scraped = [
        each["metadata"]["name"]
        for each in rendered.all("Service")
        if selector.items() <= each["metadata"]["labels"].items()
        and "metrics" in {port["name"] for port in each["spec"]["ports"]}
    ]
    assert scraped == ["demo-seedvr2-gateway"]
