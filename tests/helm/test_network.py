"""Which flows the policies allow, read as a cluster reads them; and the ways in from outside."""

from typing import Any

import pytest

from tests.helm.chart import CHART, Object, Rendered, render

PRODUCTION, RESTRICTED, ROUTES = (CHART / "ci" / f"{name}.yaml" for name in ("production", "restricted", "gateway-api"))
BUNDLED = {"store": {"type": "s3"}, "minio": {"server": {"enabled": True}}}


def labels_of(component: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "seedvr2", "app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": component}


def selects(selector: Object, labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


def allowed(rendered: Rendered, *, to: str, port: int, by: str | None = None, namespace: dict[str, str] | None = None) -> bool:
    """Whether pods of ``by`` (None: pods of another namespace with these labels) may open a connection to pods of ``to``."""
    incoming = _rules(rendered, to, "ingress")
    entry = any(_matches(rule, "from", labels_of(by) if by else None, namespace, port) for rule in incoming)
    if by is None:
        return entry
    return entry and any(_matches(rule, "to", labels_of(to), None, port) for rule in _rules(rendered, by, "egress"))


def _rules(rendered: Rendered, component: str, direction: str) -> list[Object]:
    policies = [
        each["spec"] for each in rendered.all("NetworkPolicy") if selects(each["spec"]["podSelector"], labels_of(component))
    ]
    assert policies, f"nothing limits {component}"
    assert all(each["policyTypes"] == ["Ingress", "Egress"] for each in policies)
    return [rule for each in policies for rule in each.get(direction, [])]


def _matches(rule: Object, peers: str, labels: dict[str, str] | None, namespace: dict[str, str] | None, port: int) -> bool:
    if not any(each["port"] == port for each in rule["ports"]):
        return False
    if peers not in rule:
        return True
    return any(_is_peer(each, labels, namespace) for each in rule[peers])


def _is_peer(peer: Object, labels: dict[str, str] | None, namespace: dict[str, str] | None) -> bool:
    if "namespaceSelector" in peer:
        return namespace is not None and selects(peer["namespaceSelector"], namespace)
    return labels is not None and "podSelector" in peer and selects(peer["podSelector"], labels)


NEEDED = [("ui", "gateway", 50051), ("gateway", "inference", 50061), ("gateway", "s3", 8333), ("bucket", "s3", 8333),
          ("test", "gateway", 50051), ("test", "ui", 7860), ("test", "s3", 8333)]  # fmt: skip
NEEDLESS = [("ui", "inference", 50061), ("ui", "s3", 8333), ("inference", "s3", 8333), ("inference", "gateway", 50051),
            ("bucket", "gateway", 50051), ("ui", "s3", 9333), ("gateway", "s3", 8888)]  # fmt: skip


@pytest.mark.parametrize(("by", "to", "port"), NEEDED)
def test_the_flows_that_are_needed_are_allowed(by: str, to: str, port: int):
    assert allowed(render(BUNDLED), by=by, to=to, port=port)


@pytest.mark.parametrize(("by", "to", "port"), NEEDLESS)
def test_other_flows_are_not_allowed(by: str, to: str, port: int):
    narrowed = {"networkPolicy": {"clientsFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]}}
    assert not allowed(render(BUNDLED | narrowed), by=by, to=to, port=port)


def test_everyone_is_limited_and_workers_that_fetch_nothing_reach_nobody():
    rendered = render()
    for component in ("ui", "gateway", "inference", "anything-new"):
        _rules(rendered, component, "ingress")
    assert _rules(rendered, "inference", "egress") == []


def test_who_was_listed_comes_in_and_nobody_else():
    rendered = render({}, RESTRICTED)
    ingress, other = {"kubernetes.io/metadata.name": "ingress"}, {"kubernetes.io/metadata.name": "other"}
    assert allowed(rendered, to="ui", port=7860, namespace=ingress)
    assert not allowed(rendered, to="ui", port=7860, namespace=other)
    assert not allowed(rendered, to="gateway", port=50051, namespace=other)
    assert allowed(rendered, to="gateway", port=50051, namespace={"seedvr2.io/client": "true"})
    assert not allowed(rendered, to="gateway", port=50052, namespace={"seedvr2.io/client": "true"}), "the HTTP API is off"
    assert allowed(rendered, to="inference", port=9102, namespace={"kubernetes.io/metadata.name": "monitoring"})
    assert not allowed(rendered, to="inference", port=50061, namespace=ingress)


@pytest.mark.parametrize(
    ("endpoint", "port"), [("https://s3.example", 443), ("http://s3.example", 80), ("https://s3.example:9000", 9000)]
)
def test_the_gateway_reaches_the_store_at_its_port(endpoint: str, port: int):
    rendered = render(
        {
            "store": {"type": "s3"},
            "minio": {"endpoint": endpoint},
            "networkPolicy": {"modelsTo": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
        }
    )
    for component in ("gateway", "bucket"):
        anywhere = [each["port"] for rule in _rules(rendered, component, "egress") if "to" not in rule for each in rule["ports"]]
        assert port in anywhere


def test_a_worker_with_traces_reaches_the_collector_and_names():
    egress = _rules(render({}, RESTRICTED), "inference", "egress")
    assert [[port["port"] for port in rule["ports"]] for rule in egress] == [[53, 53], [4317]]


def test_policies_can_be_left_to_others():
    assert not render({"networkPolicy": {"enabled": False}}).all("NetworkPolicy")


def backend(ingress: Object) -> Any:
    return ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]


def test_an_ingress_leads_to_the_page_and_another_one_to_the_gateway():
    rendered = render({}, PRODUCTION)
    page, grpc = rendered.get("Ingress", "ui"), rendered.get("Ingress", "gateway")
    rest = rendered.get("Ingress", "gateway-rest")
    assert backend(rest) == {"name": "demo-seedvr2-gateway", "port": {"name": "rest"}}
    assert "rest" in {port["name"] for port in rendered.get("Service", "gateway")["spec"]["ports"]}
    assert backend(page) == {"name": "demo-seedvr2-ui", "port": {"name": "http"}}
    assert backend(grpc) == {"name": "demo-seedvr2-gateway", "port": {"name": "grpc"}}
    assert page["spec"]["tls"] == [{"hosts": ["video.example"], "secretName": "video-tls"}]
    assert grpc["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"] == "GRPCS"


def test_the_class_of_an_ingress_is_the_clusters_unless_it_is_said():
    ingress = render({"ingress": {"enabled": True}}).get("Ingress", "ui")
    assert "ingressClassName" not in ingress["spec"]
    assert "annotations" not in ingress["metadata"]


def test_routes_lead_to_services_and_ports_that_exist():
    rendered = render({}, ROUTES)
    http, grpc = rendered.get("HTTPRoute", "ui"), rendered.get("GRPCRoute", "gateway")
    for route, service in ((http, "ui"), (grpc, "gateway")):
        (leads,) = route["spec"]["rules"][0]["backendRefs"]
        found = rendered.get("Service", service)
        assert leads == {"name": found["metadata"]["name"], "port": found["spec"]["ports"][0]["port"]}
        assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "gateways", "sectionName": "https"}]
    assert http["spec"]["rules"][0]["timeouts"] == {"request": "0s"}
    (leads,) = rendered.get("HTTPRoute", "gateway-rest")["spec"]["rules"][0]["backendRefs"]
    assert leads["port"] in {port["port"] for port in rendered.get("Service", "gateway")["spec"]["ports"]}
    services = [match["method"]["service"] for match in grpc["spec"]["rules"][0]["matches"]]
    assert services[:2] == ["seedvr2.v1.Gateway", "grpc.health.v1.Health"]
    assert not rendered.all("Ingress")


def test_the_example_for_production_speaks_as_the_pods_behind_do_and_keeps_browsers_at_one_page():
    rendered = render(None, CHART / "ci/production.yaml")
    assert "tls" in {volume["name"] for volume in rendered.pods()["demo-seedvr2-gateway"]["spec"]["volumes"]}
    notes = {
        name: rendered.get("Ingress", name)["metadata"]["annotations"] for name in ("ui", "gateway", "gateway-rest")
    }  # fmt: skip
    prefix = "nginx.ingress.kubernetes.io"
    assert (notes["gateway"][f"{prefix}/backend-protocol"], notes["gateway-rest"][f"{prefix}/backend-protocol"]) == (
        "GRPCS",
        "HTTPS",
    )
    assert rendered.get("Deployment", "ui")["spec"]["replicas"] > 1
    assert notes["ui"][f"{prefix}/affinity"] == "cookie"
