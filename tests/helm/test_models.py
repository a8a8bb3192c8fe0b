"""How models get to workers."""

import pytest

from tests.helm.chart import Object, Refused, container, render, variables


def pods(volume: Object, *, model: str = "seedvr2-3b", pool: Object | None = None, **models: object) -> Object:
    values = {
        "inference": {"pools": [{"name": "a", "model": model, "gpus": 1, **(pool or {})}]},
        "models": {"volume": volume, **models},
    }
    return render(values).get("Deployment", "inference-a")["spec"]["template"]


def volume_of(template: Object) -> Object:
    return next(each for each in template["spec"]["volumes"] if each["name"] == "models")


def mount_of(box: Object) -> Object:
    return next(each for each in box["volumeMounts"] if each["name"] == "models")


def test_an_init_container_fetches_onto_a_claim_that_workers_only_read():
    template = pods({"type": "claim"})
    fetch = container(template, "models")
    assert fetch["command"] == ["seedvr2", "models", "fetch", "seedvr2-3b"]
    assert fetch["image"] == container(template, "inference")["image"]
    assert variables(fetch)["SEEDVR2_MODELS_DIRECTORY"] == "/models"
    assert volume_of(template)["persistentVolumeClaim"] == {"claimName": "demo-seedvr2-models"}
    assert mount_of(fetch)["readOnly"] is False
    assert mount_of(container(template, "inference"))["readOnly"] is True
    assert variables(container(template, "inference"))["SEEDVR2_INFERENCE_MODEL_DIRECTORY"] == "/models"


def test_the_claim_is_for_many_nodes_and_stays_when_the_release_goes():
    claim = render({"models": {"volume": {"type": "claim", "storageClass": "shared", "size": "40Gi"}}}).get(
        "PersistentVolumeClaim", "models"
    )
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["spec"]["storageClassName"] == "shared"
    assert claim["spec"]["resources"]["requests"]["storage"] == "40Gi"
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_claim_that_exists_can_have_the_models_already():
    template = pods({"type": "existingClaim", "existingClaim": "mine", "subPath": "seedvr2"}, fetch={"enabled": False})
    assert "initContainers" not in template["spec"]
    assert volume_of(template)["persistentVolumeClaim"] == {"claimName": "mine"}
    assert mount_of(container(template, "inference"))["subPath"] == "seedvr2"
    with pytest.raises(Refused, match="existingClaim"):
        pods({"type": "existingClaim"})


def test_models_can_be_cached_on_each_node():
    template = pods({"type": "hostPath", "hostPath": "/cache"})
    assert volume_of(template)["hostPath"] == {"path": "/cache", "type": "Directory"}
    assert container(template, "models")


def test_models_can_be_images():
    reference = "registry.example/models/seedvr2-3b@sha256:" + "0" * 64
    template = pods({"type": "image"}, pool={"modelImage": reference})
    assert volume_of(template)["image"] == {"reference": reference, "pullPolicy": "IfNotPresent"}
    assert mount_of(container(template, "inference"))["mountPath"] == "/models/seedvr2-3b"
    assert "initContainers" not in template["spec"]
    with pytest.raises(Refused, match="name the pool's modelImage"):
        pods({"type": "image"})


def test_the_embedded_model_needs_nothing():
    template = pods({"type": "none"}, model="nano")
    assert "initContainers" not in template["spec"]
    assert not [each for each in template["spec"]["volumes"] if each["name"] == "models"]


def test_a_model_that_comes_from_nowhere_is_refused():
    with pytest.raises(Refused, match="seedvr2-3b has to come from somewhere"):
        pods({"type": "none"})


def test_the_hubs_token_is_a_file_that_the_fetch_alone_sees():
    template = pods({"type": "claim"}, fetch={"existingSecret": "hub", "tokenKey": "hf"})
    fetch = container(template, "models")
    assert variables(fetch)["SEEDVR2_MODELS_TOKEN_FILE"] == "/run/seedvr2/hub/token"
    assert "hub" in {each["name"] for each in fetch["volumeMounts"]}
    assert "hub" not in {each["name"] for each in container(template, "inference")["volumeMounts"]}
    hub = next(each for each in template["spec"]["volumes"] if each["name"] == "hub")
    assert hub["secret"] == {"secretName": "hub", "defaultMode": 0o440, "items": [{"key": "hf", "path": "token"}]}


def test_without_a_network_the_fetch_only_looks():
    template = pods({"type": "claim"}, fetch={"settings": {"offline": True}})
    assert variables(container(template, "models"))["SEEDVR2_MODELS_OFFLINE"] == "true"
