"""Whatever the values, what comes out are objects that Kubernetes takes."""

import json
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest

from tests.helm.chart import CHART, CI_VALUES, HELMS, NEWEST, OLDEST, Object, Refused, Rendered, render, run

CUSTOM = json.loads((Path(__file__).parent / "schemas" / "custom.json").read_text())
EVERY_CI = pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
GROUPS = CHART / "ci" / "multi-node.yaml"
EVERY_HELM = pytest.mark.parametrize("helm", HELMS)
IMAGE_VOLUMES = "restricted"
"""Values that need a newer Kubernetes than the oldest one."""


@EVERY_HELM
@EVERY_CI
def test_lint_has_nothing_to_say(values: Path, helm: str):
    assert "0 chart(s) failed" in run(helm, "lint", "--strict", str(CHART), files=(values,))


@pytest.mark.parametrize("kubernetes", [OLDEST, NEWEST])
@EVERY_CI
def test_kubernetes_takes_every_object(values: Path, kubernetes: str):
    if kubernetes == OLDEST and values.stem == IMAGE_VOLUMES:
        with pytest.raises(Refused, match=r"needs Kubernetes 1\.31"):
            render({}, values, kubernetes=kubernetes)
        return
    objects = render({}, values, kubernetes=kubernetes).objects
    assert len(objects) > 10
    for each in objects:
        check(each, kubernetes)


def check(found: Object, kubernetes: str) -> None:
    """Raise where an object is not as its schema says."""
    kind = f"{found['apiVersion']} {found['kind']}"
    if kind not in CUSTOM["kinds"]:
        kubernetes_validate.validate(found, kubernetes, strict=True)
        return
    jsonschema.validate(found["spec"], {"$defs": CUSTOM["$defs"], **CUSTOM["kinds"][kind]})
    jsonschema.validate(found["metadata"], {"$defs": CUSTOM["$defs"], "$ref": "#/$defs/metadata"})
    for template in Rendered((found,)).pods().values():
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **template}, kubernetes, strict=True)


@EVERY_CI
def test_both_helms_render_the_same(values: Path):
    new, old = (render({}, values, helm=helm).objects for helm in HELMS)
    secret = {each["metadata"]["name"] for each in new if each["kind"] == "Secret"}
    assert [each for each in new if each["metadata"]["name"] not in secret] == [
        each for each in old if each["metadata"]["name"] not in secret
    ]


@EVERY_CI
def test_no_object_has_the_name_of_another_one_of_its_kind(values: Path):
    names = [(each["kind"], each["metadata"]["name"]) for each in render({}, values).objects]
    assert len(set(names)) == len(names)


def test_an_object_of_another_shape_would_be_noticed():
    service = render().get("Service", "ui")
    with pytest.raises(kubernetes_validate.ValidationError):
        check({**service, "spec": {**service["spec"], "sesionAffinity": "None"}}, NEWEST)
    group = render({}, GROUPS).get("LeaderWorkerSet", "group-7b-16gpu")
    wrong = json.loads(json.dumps(group).replace("failureThreshold", "failureTreshold"))
    with pytest.raises(kubernetes_validate.ValidationError):
        check(wrong, NEWEST)
    with pytest.raises(jsonschema.ValidationError):
        check({**group, "spec": {**group["spec"], "template": {}}}, NEWEST)
    monitor = render({"metrics": {"podMonitor": {"enabled": True}}}).get("PodMonitor", "inference")
    with pytest.raises(jsonschema.ValidationError):
        check({**monitor, "spec": {**monitor["spec"], "endpoints": []}}, NEWEST)
