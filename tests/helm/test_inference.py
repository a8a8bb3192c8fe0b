"""Pools: what a worker gets, how long it may take, and how it ends."""

import pytest

from tests.helm.chart import CHART, Object, Refused, container, render, variables

MULTI_GPU, PRODUCTION = (CHART / "ci" / f"{name}.yaml" for name in ("multi-gpu", "production"))


def pool(**values: object) -> Object:
    """The deployment of a single pool with these values."""
    made = render({"inference": {"pools": [{"name": "a", **values}]}, "models": {"volume": {"type": "claim"}}})
    return made.get("Deployment", "inference-a")


def worker(deployment: Object) -> Object:
    return container(deployment["spec"]["template"], "inference")


def test_each_rank_gets_a_gpu_of_its_own():
    box = worker(pool(gpus=4, sequence=2))
    assert box["resources"]["limits"]["nvidia.com/gpu"] == 4
    said = variables(box)
    assert (said["SEEDVR2_INFERENCE_RANKS"], said["SEEDVR2_INFERENCE_SEQUENCE"]) == ("4", "2")
    assert said["SEEDVR2_INFERENCE_DEVICE"] == "cuda"
    assert box["image"] == "seedvr2-inference:0.1.0"


def test_a_pool_without_gpus_runs_on_cpus_with_the_small_image():
    box = worker(pool())
    assert not [name for name in box["resources"]["limits"] if "nvidia" in name]
    assert variables(box)["SEEDVR2_INFERENCE_DEVICE"] == "cpu"
    assert box["image"] == "seedvr2-inference-cpu:0.1.0"


def test_a_pool_may_have_another_release_of_the_image():
    given = {
        "cpuImage": {"digest": f"sha256:{'0' * 64}"},
        "pools": [{"name": "blue"}, {"name": "green", "image": {"tag": "0.2.0"}}],
    }
    rendered = render({"inference": given})
    images = {name: worker(rendered.get("Deployment", f"inference-{name}"))["image"] for name in ("blue", "green")}
    assert images == {"blue": f"seedvr2-inference-cpu@sha256:{'0' * 64}", "green": "seedvr2-inference-cpu:0.2.0"}


def test_parts_of_gpus_are_asked_for_by_their_name():
    deployment = render({}, MULTI_GPU).get("Deployment", "inference-mig")
    limits = worker(deployment)["resources"]["limits"]
    assert limits["nvidia.com/mig-3g.40gb"] == 1
    assert "nvidia.com/gpu" not in limits


def test_parts_of_gpus_can_not_be_joined():
    with pytest.raises(Refused, match="NCCL can't join parts of GPUs"):
        pool(gpus=2, gpuResource="nvidia.com/mig-3g.40gb")


def test_a_sequence_that_does_not_divide_the_gpus_is_refused():
    with pytest.raises(Refused, match="sequence 3 does not divide its 4 GPUs"):
        pool(gpus=4, sequence=3)


def test_ranks_have_memory_in_common():
    volumes = pool(gpus=8, shm="16Gi")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}} in volumes
    assert {"name": "shm", "mountPath": "/dev/shm"} in worker(pool(gpus=8))["volumeMounts"]


def test_pools_are_told_apart_by_label_service_and_setting():
    rendered = render({}, PRODUCTION)
    for name, model in (("3b", "seedvr2-3b"), ("7b", "seedvr2-7b")):
        deployment, service = (rendered.get(kind, f"inference-{name}") for kind in ("Deployment", "Service"))
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert service["metadata"]["labels"]["seedvr2.io/pool"] == name
        assert service["spec"]["selector"].items() <= labels.items()
        assert service["spec"]["selector"]["seedvr2.io/pool"] == name
        said = variables(worker(deployment))
        assert (said["SEEDVR2_INFERENCE_POOL"], said["SEEDVR2_INFERENCE_MODEL"]) == (name, model)


def test_gateways_see_each_worker_and_only_those_that_are_ready():
    spec = render().get("Service", "inference-cpu")["spec"]
    assert spec["clusterIP"] == "None"
    assert spec["publishNotReadyAddresses"] is False
    assert [port["name"] for port in spec["ports"]] == ["grpc"]


def test_a_pools_values_are_laid_over_the_defaults_even_zeros():
    values = {
        "inference": {
            "defaults": {"nodeSelector": {"a": "1"}, "replicas": 3, "settings": {"dtype": "float32"}},
            "pools": [{"name": "x", "replicas": 0, "nodeSelector": {"b": "2"}, "settings": {"queue_spans": 2}}, {"name": "y"}],
        }
    }
    rendered = render(values)
    x, y = (rendered.get("Deployment", f"inference-{name}") for name in "xy")
    assert (x["spec"]["replicas"], y["spec"]["replicas"]) == (0, 3)
    assert x["spec"]["template"]["spec"]["nodeSelector"] == {"a": "1", "b": "2"}
    assert y["spec"]["template"]["spec"]["nodeSelector"] == {"a": "1"}
    said = variables(worker(x))
    assert (said["SEEDVR2_INFERENCE_DTYPE"], said["SEEDVR2_INFERENCE_QUEUE_SPANS"]) == ("float32", "2")


def test_a_worker_has_the_time_that_it_needs_to_start():
    box = worker(pool(startupSeconds=1800))
    probe = box["startupProbe"]
    assert probe["grpc"] == {"port": 50063}
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 1800
    assert variables(box)["SEEDVR2_INFERENCE_RANK_START_S"] == "1800"


def test_a_worker_whose_ranks_start_anew_is_taken_out_but_not_killed():
    box = worker(pool())
    assert box["readinessProbe"]["grpc"] == {"port": 50063}
    assert box["livenessProbe"]["grpc"] == {"port": 50063, "service": "seedvr2.live"}


def test_a_span_in_hand_can_end_before_its_worker_does():
    values = {"inference": {"pools": [{"name": "a", "drainSeconds": 900}]}}
    rendered = render(values)
    spec = rendered.get("Deployment", "inference-a")["spec"]["template"]["spec"]
    said = variables(spec["containers"][0])
    longest_span_s = float(
        variables(container(rendered.pods()["demo-seedvr2-gateway"], "gateway"))["SEEDVR2_GATEWAY_SPAN_WORK_S"]
    )
    assert spec["terminationGracePeriodSeconds"] > float(said["SEEDVR2_INFERENCE_DRAIN_S"]) == 900 > longest_span_s > 0


def test_an_upgrade_needs_no_spare_gpu_and_can_begin():
    rolling = pool()["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 0, "maxUnavailable": 1}
    with pytest.raises(Refused, match="an upgrade could not begin"):
        pool(maxUnavailable=0)


def test_a_chart_of_a_newer_version_alone_restarts_no_worker():
    labels = pool()["spec"]["template"]["metadata"]["labels"]
    assert not {"helm.sh/chart", "app.kubernetes.io/version"} & labels.keys()


def test_where_workers_run_is_said_once_for_all_or_for_each():
    spec = render({}, PRODUCTION).get("Deployment", "inference-7b")["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert spec["priorityClassName"] == "seedvr2-worker"
    assert (
        render({}, MULTI_GPU).get("Deployment", "inference-7b-8gpu")["spec"]["template"]["spec"]["runtimeClassName"] == "nvidia"
    )


def test_workers_are_spread_by_their_own_pool():
    (spread,) = pool()["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["labelSelector"]["matchLabels"]["seedvr2.io/pool"] == "a"


def test_everything_that_a_pod_may_need_can_be_added():
    extra = {
        "extraEnv": [{"name": "NCCL_DEBUG", "value": "INFO"}],
        "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "extraContainers": [{"name": "beside", "image": "beside:1"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
    }
    template = pool(**extra)["spec"]["template"]
    box = container(template, "inference")
    assert variables(box)["NCCL_DEBUG"] == "INFO"
    assert box["envFrom"] == extra["extraEnvFrom"]
    assert extra["extraVolumeMounts"][0] in box["volumeMounts"]
    assert extra["extraVolumes"][0] in template["spec"]["volumes"]
    assert container(template, "beside")["image"] == "beside:1"
    assert template["metadata"]["annotations"]["a"] == "b"
    assert template["metadata"]["labels"]["c"] == "d"


def test_two_pools_need_two_names():
    with pytest.raises(Refused, match="two pools with the name a"):
        render({"inference": {"pools": [{"name": "a"}, {"name": "a"}]}})
