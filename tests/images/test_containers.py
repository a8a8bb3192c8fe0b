"""The images as containers: what they may, how they end, and a clip that is restored across three of them."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.measure import read_frames
from services.common.client import GatewayClient
from tests.e2e.demo_clips import FRAMES, HEIGHT, WIDTH, bad_clip
from tests.e2e.page_fixtures import browse
from tests.images.podman import Container, inspect, podman, start, stop

TAG = os.environ.get("SEEDVR2_TEST_IMAGES", "")
pytestmark = [
    pytest.mark.images,
    pytest.mark.skipif(not TAG, reason="tests containers of images that scripts/images_test.sh builds"),
]
SERVICES = ("ui", "gateway", "inference-cpu")
STORE = "seedvr2-test-store"


def image(service: str) -> str:
    return f"localhost/seedvr2-{service}:{TAG}"


@pytest.fixture(scope="module")
def inference() -> Iterator[Container]:
    settings = {"SEEDVR2_INFERENCE_POOL": "a", "SEEDVR2_INFERENCE_TORCH_THREADS": 2}
    yield start(image("inference-cpu"), "seedvr2-test-inference", settings=settings)
    stop("seedvr2-test-inference")


@pytest.fixture(scope="module")
def gateway(inference: Container) -> Iterator[Container]:
    settings = {"SEEDVR2_GATEWAY_WORKERS": f"a={inference.host}:50061"}
    yield start(image("gateway"), "seedvr2-test-gateway", settings=settings, volumes={"/data": STORE})
    stop("seedvr2-test-gateway")
    podman("volume", "rm", "--force", STORE)


@pytest.fixture(scope="module")
def ui(gateway: Container) -> Iterator[Container]:
    settings = {"SEEDVR2_UI_GATEWAY_ADDRESS": f"{gateway.host}:50051"}
    yield start(image("ui"), "seedvr2-test-ui", settings=settings)
    stop("seedvr2-test-ui")


@pytest.mark.timeout(600)
async def test_a_person_restores_a_clip_across_three_containers(
    tmp_path: Path, ui: Container, gateway: Container, inference: Container
):
    inference.wait_well("grpc://127.0.0.1:50061/seedvr2.v1.Worker")
    gateway.wait_well("grpc://127.0.0.1:50051/seedvr2.v1.Gateway")
    ui.wait_well("http://127.0.0.1:7860/readyz")
    async with browse(f"http://{ui.host}:7860", accept_downloads=True) as browsed:
        await browsed.open()
        await browsed.choose(bad_clip(tmp_path / "bad.mp4"))
        await browsed.page.click("#start:not([disabled])")
        await browsed.wait_text("#progress", f"{FRAMES} frames restored")
        async with browsed.page.expect_download() as coming:
            await browsed.page.click("#download")
        await (await coming.value).save_as(tmp_path / "restored.mp4")
    assert read_frames(tmp_path / "restored.mp4").shape == (FRAMES, 2 * HEIGHT, 2 * WIDTH, 3)


async def test_a_program_on_this_machine_reaches_the_gateway(gateway: Container):
    gateway.wait_well("grpc://127.0.0.1:50051")
    async with asyncio.timeout(60), GatewayClient(f"{gateway.host}:50051") as client:
        assert (await client.cluster_status()).version


def test_the_command_line_is_in_the_gateway_as_a_client(gateway: Container):
    gateway.wait_well("grpc://127.0.0.1:50051")
    assert gateway.run("seedvr2", "jobs", "list").returncode == 0
    refused = gateway.run("seedvr2", "models", "fetch", "seedvr2-3b")
    assert refused.returncode == 2
    assert "where the inference service is installed" in refused.stderr


def test_the_inference_image_fetches_models_and_has_one_embedded(inference: Container):
    listed = inference.run("seedvr2", "models", "list")
    assert listed.returncode == 0, listed.stderr
    assert "ready" in next(line for line in listed.stdout.splitlines() if line.startswith("nano"))
    verified = inference.run("python", "-m", "services.inference.models", "fetch", "nano")
    assert verified.returncode == 0, verified.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_containers_have_no_root_no_capability_and_write_to_volumes_alone(service: str, request: pytest.FixtureRequest):
    container = request.getfixturevalue(service.removesuffix("-cpu"))
    facts = "id -u; id -g; grep -E 'CapEff|NoNewPrivs' /proc/self/status"
    said = container.run("sh", "-c", f"{facts}; touch /app/x /x || true; touch /tmp/x && echo wrote")
    assert said.stdout.split() == ["10001", "10001", "CapEff:", "0000000000000000", "NoNewPrivs:", "1", "wrote"]
    assert said.stderr.count("Read-only file system") == 2


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_without_its_surroundings_ends_in_order(service: str):
    name = f"seedvr2-test-alone-{service}"
    container = start(image(service), name, settings={}, volumes={"/data": STORE} if service == "gateway" else {})
    container.wait_said('"listening"')
    assert stop(name) == 0


def test_a_gateway_that_can_not_write_its_store_says_so():
    container = start(image("gateway"), "seedvr2-test-unwritable", settings={})
    podman("wait", container.name)
    assert "/data/store" in container.log
    assert stop(container.name) == 2


@pytest.mark.parametrize("service", SERVICES)
def test_a_misspelt_setting_is_refused_in_a_sentence(service: str):
    variable = f"SEEDVR2_{service.removesuffix('-cpu').upper()}_POOOL"
    name = f"seedvr2-test-misspelt-{service}"
    container = start(image(service), name, settings={variable: "a"})
    podman("wait", name)
    assert f"{variable} is not a setting" in container.log
    assert stop(name) == 2


@pytest.mark.parametrize("service", SERVICES)
def test_images_say_what_they_are(service: str):
    config = inspect(image(service))["Config"]
    labels = config["Labels"]
    assert config["User"] == "10001:10001"
    assert labels["org.opencontainers.image.title"] == f"seedvr2-{service.removesuffix('-cpu')}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"]
    assert inspect(image(service))["Healthcheck"]["Test"][:4] == ["CMD", "python", "-m", "services.common.check"]


@pytest.mark.parametrize("service", ["ui", "gateway"])
def test_ui_and_gateway_have_no_torch(service: str, request: pytest.FixtureRequest):
    said = request.getfixturevalue(service).run("python", "-c", "import torch")
    assert "No module named 'torch'" in said.stderr
