"""From routes of the Gateway API to Envoy's configuration, as controllers that use Envoy make it. Pure."""

from typing import Any

from tests.integration.proxies.routes import Way, Ways

_OPTIONS = "upstreams.http.v3.HttpProtocolOptions"
_TYPES = "type.googleapis.com/envoy.extensions"
# Envoy's own, where a route says nothing; the API has no time for GRPCRoutes, and controllers set none.
_ROUTE_S, _IDLE_S = 15.0, 300.0
_KINDS = {("HTTPRoute", "ui"): "page", ("HTTPRoute", "gateway-rest"): "rest", ("GRPCRoute", "gateway"): "grpc"}


def envoy_configuration(routes: list[dict[str, Any]], ways: Ways, *, faster: float) -> dict[str, Any]:
    """The bootstrap configuration; every time is divided by ``faster``."""
    kinds = [(route, kind_of(route)) for route in routes]
    return {
        "static_resources": {
            "listeners": [_listener(route, kind, ways[kind], faster) for route, kind in kinds],
            "clusters": [_cluster(kind, ways[kind]) for _, kind in kinds],
        }
    }


def kind_of(route: dict[str, Any]) -> str:
    """Which way in a route is."""
    return _KINDS[route["kind"], str(route["metadata"]["name"]).partition("-seedvr2-")[2]]


def _listener(route: dict[str, Any], kind: str, way: Way, faster: float) -> dict[str, Any]:
    grpc = route["kind"] == "GRPCRoute"
    matches = [_grpc(rule, kind) if grpc else _http(rule, kind, faster) for rule in route["spec"]["rules"]]
    hosts = [{"name": kind, "domains": ["*"], "routes": [route for some in matches for route in some]}]
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": kind,
        "stream_idle_timeout": f"{_IDLE_S / faster:.3f}s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"}},
        ],
    }
    return {
        "name": kind,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": way.port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _http(rule: dict[str, Any], kind: str, faster: float) -> list[dict[str, Any]]:
    said = rule.get("timeouts", {}).get("request")
    timeout_s = _seconds(said) if said else _ROUTE_S
    return [
        {"match": {"prefix": match["path"]["value"]}, "route": {"cluster": kind, "timeout": f"{timeout_s / faster:.3f}s"}}
        for match in rule["matches"]
    ]


def _grpc(rule: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    services = [match["method"]["service"] for match in rule["matches"]]
    return [{"match": {"prefix": f"/{name}/", "grpc": {}}, "route": {"cluster": kind, "timeout": "0s"}} for name in services]


def _cluster(kind: str, way: Way) -> dict[str, Any]:
    host, port = way.backend.rsplit(":", 1)
    endpoint = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    cluster = {
        "name": kind,
        "type": "STATIC",
        "load_assignment": {"cluster_name": kind, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }
    if kind == "grpc":
        options = {
            "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    return cluster


def _seconds(text: str) -> float:
    """A duration of the Gateway API, as far as the chart's values use it: 0s, 30s, 5m, 1h."""
    return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]
