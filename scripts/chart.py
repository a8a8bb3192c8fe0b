"""``python -m scripts.chart``: write what follows from the chart's values: its schema, and the table in its README."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import yaml

from services.common.otlp import TracingSettings
from services.gateway.buckets.settings import BucketSettings
from services.gateway.identity.settings import IdentitySettings
from services.gateway.settings import GatewaySettings
from services.gateway.store.s3.settings import S3Settings
from services.gateway.web.settings import WebSettings
from services.inference.delivery.settings import DeliverySettings
from services.inference.settings import InferenceSettings
from services.ui.settings import UiSettings

CHART = Path(__file__).parents[1] / "helm" / "seedvr2"
SETTINGS = {
    "identity.settings": IdentitySettings,
    "tracing.settings": TracingSettings,
    "ui.settings": UiSettings,
    "gateway.settings": GatewaySettings,
    "gateway.s3Settings": S3Settings,
    "gateway.webSettings": WebSettings,
    "gateway.bucketSettings": BucketSettings,
    "inference.defaults.settings": InferenceSettings,
    "models.fetch.settings": DeliverySettings,
}
"""Maps of settings, and the class that knows their names."""

Schema = dict[str, Any]
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_OBJECT = {"type": "object"}
_OBJECTS = {"type": "array", "items": {"type": "object"}}
_NUMBER_OR_PERCENT = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+%$"}]}
_COUNT = {"type": "integer", "minimum": 0}
_SECONDS = {"type": "number", "minimum": 0}
_SIZE = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?([KMGTPE]i?|[km])?$"}
_POOL_NAME = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$"}

BY_PATH: dict[str, Schema] = {
    "global": {"type": "object", "properties": {
        "imageRegistry": {"type": "string"}, "imagePullSecrets": {"type": "array", "items": {"type": "string"}},
    }},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "models.volume.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "store.type": {"enum": ["directory", "s3"]},
    "models.volume.type": {"enum": ["none", "claim", "existingClaim", "hostPath", "image"]},
    "inference.defaults.autoscaling.type": {"enum": ["none", "keda", "hpa"]},
    "minio.endpoint": {"type": "string", "pattern": "^(https?://[^/@]+/?)?$"},
    "minio.publicEndpoint": {"type": "string", "pattern": "^(https?://[^/@]+/?)?$"},
    "minio.prefix": {"type": "string", "pattern": "^([A-Za-z0-9_-][A-Za-z0-9._-]*/)*$"},
    "minio.bucket": {"type": "string", "minLength": 3, "maxLength": 63},
    "minio.encryption.type": {"enum": ["", "AES256", "aws:kms"]},
    "ui.rootPath": {"type": "string", "pattern": "^(/[A-Za-z0-9._~-]+)*$"},
    "inference.defaults.model": {"enum": ["nano", "seedvr2-3b", "seedvr2-7b", "seedvr2-7b-sharp"]},
    "inference.defaults.nodes": {"type": "integer", "minimum": 1, "maximum": 64},
    "inference.defaults.leaderWorkerSet.restartPolicy": {"enum": ["None", "RecreateGroupOnPodRestart"]},
    "inference.defaults.replicas": {"anyOf": [_COUNT, {"type": "null"}]},
    "ui.signIn.trustedProxies": {"type": "array", "items": {"type": "string"}},
    "ingress.tls": _OBJECTS,
    "ingress.grpc.tls": _OBJECTS,
    "ingress.rest.tls": _OBJECTS,
    "ingress.pathType": {"enum": ["Prefix", "Exact", "ImplementationSpecific"]},
    "extraObjects": {"type": "array", "items": {"type": ["object", "string"]}},
    "networkPolicy.apiServerPorts": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
}  # fmt: skip
"""Values that say less by their default than they may be."""

_NAMES: list[tuple[str, Schema]] = [
    ("commonLabels commonAnnotations annotations podAnnotations podLabels labels nodeSelector timeouts", _STRINGS),
    ("podSecurityContext securityContext affinity sessionPersistence extraPodSpec", _OBJECT),
    ("tolerations topologySpreadConstraints extraEnv extraEnvFrom extraVolumes extraVolumeMounts", _OBJECTS),
    ("parentRefs relabelings metricRelabelings extraGroups", _OBJECTS),
    ("pageFrom clientsFrom metricsFrom storeTo apiServerTo modelsTo gatewayTo tracingTo dnsTo", _OBJECTS),
    ("extraIngress extraEgress extraContainers extraInitContainers", _OBJECTS),
    ("imagePullSecrets hostnames accessModes disabled", {"type": "array", "items": {"type": "string"}}),
    ("maxSurge maxUnavailable", _NUMBER_OR_PERCENT),
    ("size uploadSpace tmp shm", _SIZE),
    ("digest", {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}),
    ("nodePort", {"type": ["integer", "null"]}),
    ("loadBalancerClass", {"type": ["string", "null"]}),
    ("resources", {
        "type": "object", "additionalProperties": False,
        "properties": {"requests": _OBJECT, "limits": _OBJECT, "claims": _OBJECTS},
    }),
]  # fmt: skip
BY_NAME: dict[str, Schema] = {name: schema for names, schema in _NAMES for name in names.split()}
"""The same for values that mean the same wherever they are."""

MEANINGS = {
    "annotations": "of the object",
    "labels": "more labels of the object",
    "type": "of the Service",
    "port": "of the Service",
    "nodePort": "of the Service, where its type has one",
    "loadBalancerClass": "of the Service, where its type has one",
    "registry": "of the image",
    "repository": "of the image",
    "tag": "of the image; empty: image.tag",
    "digest": "of the image; goes before the tag",
    "resources": "of the container",
    "create": "make one",
    "name": "of what is made, or of what is there",
    "maxUnavailable": "pods that may be missing",
    "enabled": "have it",
    "extraEnv": "more variables",
    "extraEnvFrom": "ConfigMaps and Secrets whose keys become variables",
    "extraVolumes": "more volumes",
    "extraVolumeMounts": "more mounts",
    "extraContainers": "containers beside it",
    "extraInitContainers": "containers that run before it",
    "extraPodSpec": "more of the pods' spec, for example hostAliases or dnsConfig",
    "podAnnotations": "of pods",
    "podLabels": "of pods",
    "podSecurityContext": "laid over that of all pods",
    "securityContext": "laid over that of all containers",
    "nodeSelector": "where pods may run",
    "tolerations": "where pods may run",
    "affinity": "where pods may run",
    "topologySpreadConstraints": "how pods are spread; the selector is added",
    "priorityClassName": "which pods go first",
    "schedulerName": "who places pods",
    "className": "of the Ingress",
    "host": "empty: any",
    "path": "where it is published",
    "pathType": "of the path",
    "tls": "as in an Ingress",
    "hostnames": "of the route",
    "interval": "between two scrapes",
    "relabelings": "of targets",
    "metricRelabelings": "of metrics",
}
"""What values mean that every chart has; all others have a comment in values.yaml."""


def main() -> None:
    """Write both files."""
    (CHART / "values.schema.json").write_text(schema_text())
    readme = CHART / "README.md"
    readme.write_text(with_table(readme.read_text()))


def schema_text() -> str:
    """values.schema.json."""
    schema = schema_of(values(), "")
    pools = schema["properties"]["inference"]["properties"]
    image = pools["image"]
    pools["pools"] = {
        "type": "array",
        "items": {
            "type": "object", "additionalProperties": False, "required": ["name"],
            "properties": {"name": _POOL_NAME, "image": image, **pools["defaults"]["properties"]},
        },
    }  # fmt: skip
    return (
        json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of seedvr2", **schema}, indent=2)
        + "\n"
    )


def schema_of(value: Any, path: str) -> Schema:
    """What a value at a path may be, from its default and from what is known besides."""
    name = path.rsplit(".", 1)[-1]
    if path in SETTINGS:
        return _settings_schema(SETTINGS[path])
    if path in BY_PATH:
        return BY_PATH[path]
    if name in BY_NAME:
        return BY_NAME[name]
    if isinstance(value, dict):
        properties = {each: schema_of(inner, f"{path}.{each}".lstrip(".")) for each, inner in value.items()}
        return {"type": "object", "additionalProperties": False, "properties": properties}
    return _scalar_schema(value, name)


def _scalar_schema(value: Any, name: str) -> Schema:
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return _SECONDS if name.endswith("Seconds") else _COUNT
    return {"type": "array" if isinstance(value, list) else "string"}


def _settings_schema(settings: Any) -> Schema:
    value = {"type": ["string", "number", "boolean", "array"]}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {field.name: value for field in dataclasses.fields(settings)},
    }


def values() -> dict[str, Any]:
    """values.yaml."""
    return dict(yaml.safe_load((CHART / "values.yaml").read_text()))


def comments() -> dict[str, str]:
    """What values.yaml says of its values, by path."""
    lines = re.findall(r"^ *# ([A-Za-z0-9]+(?:\.[A-Za-z0-9]+)*): (.*)$", (CHART / "values.yaml").read_text(), re.MULTILINE)
    return dict(lines)


def rows() -> list[tuple[str, Any, str]]:
    """Path, default and meaning of every value, in the order of values.yaml."""
    said = comments()
    return [(path, value, said.get(path) or MEANINGS.get(path.rsplit(".", 1)[-1], "")) for path, value in _leaves(values(), "")]


def _leaves(value: Any, path: str) -> list[tuple[str, Any]]:
    name = path.rsplit(".", 1)[-1]
    if not isinstance(value, dict) or not value or name in BY_NAME or path in SETTINGS:
        return [(path, value)]
    return [leaf for each, inner in value.items() for leaf in _leaves(inner, f"{path}.{each}".lstrip("."))]


def with_table(readme: str) -> str:
    """The chart's README with the table of values as it is now."""
    begin, end = "<!-- values -->\n", "<!-- end of values -->"
    lines = [f"| `{path}` | `{json.dumps(value)}` | {meaning} |".replace('`""`', "") for path, value, meaning in rows()]
    table = "\n".join(["| value | default | meaning |", "| --- | --- | --- |", *lines])
    before, _, rest = readme.partition(begin)
    return f"{before}{begin}{table}\n{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    main()
