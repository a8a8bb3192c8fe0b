"""The images as containers: what they may, how they end, and a clip that is restored across three of them."""

import asyncio
import contextlib
import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.measure import read_frames
from services.common.client import GatewayClient
from tests.e2e.demo_clips import FRAMES, HEIGHT, WIDTH, bad_clip
from tests.e2e.page_fixtures import browse
from tests.images.podman import STANDIN, Container, inspect, podman, run_once, start, stop

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
    inference.wait_well("grpc://127.0.0.1:50063/seedvr2.v1.Worker")
    gateway.wait_well("grpc://127.0.0.1:50053/seedvr2.v1.Gateway")
    ui.wait_well("http://127.0.0.1:7860/readyz")
    await restore(f"http://{ui.host}:7860", tmp_path)


async def restore(page: str, directory: Path) -> None:
    """What a person does: choose a clip, start, wait, download."""
    async with browse(page, accept_downloads=True) as browsed:
        await browsed.open()
        await browsed.choose(bad_clip(directory / "bad.mp4"))
        await browsed.page.click("#start:not([disabled])")
        await browsed.wait_text("#progress", f"{FRAMES} frames restored")
        async with browsed.page.expect_download() as coming:
            await browsed.page.click("#download")
        await (await coming.value).save_as(directory / "restored.mp4")
    assert read_frames(directory / "restored.mp4").shape == (FRAMES, 2 * HEIGHT, 2 * WIDTH, 3)


@pytest.mark.timeout(600)
async def test_a_person_restores_a_clip_that_is_kept_in_a_bucket(tmp_path: Path, bucket: dict[str, str], inference: Container):
    scratch = {"SEEDVR2_S3_SCRATCH_DIRECTORY": "/tmp/scratch"}
    prepared = run_once(image("gateway"), settings=bucket | scratch, command=("python", "-m", "services.gateway.store.bucket"))
    assert prepared.returncode == 0, prepared.stderr
    settings = {**bucket, "SEEDVR2_GATEWAY_WORKERS": f"a={inference.host}:50061"}
    gateway = start(image("gateway"), "seedvr2-test-s3-gateway", settings=settings, volumes={"/data": "seedvr2-test-scratch"})
    page = start(image("ui"), "seedvr2-test-s3-ui", settings={"SEEDVR2_UI_GATEWAY_ADDRESS": f"{gateway.host}:50051"})
    try:
        inference.wait_well("grpc://127.0.0.1:50063/seedvr2.v1.Worker")
        page.wait_well("http://127.0.0.1:7860/readyz")
        await restore(f"http://{page.host}:7860", tmp_path)
        assert gateway.run("sh", "-c", "test ! -e /data/store/owners").returncode == 0, "artifacts are in a directory"
    finally:
        stop(page.name)
        stop(gateway.name)
        podman("volume", "rm", "--force", "seedvr2-test-scratch")


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings of an S3 server, which runs in a container, too."""
    identities = tmp_path / "s3.json"
    key, secret = "someone", "a-long-secret-key"
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    user = {"name": "a", "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
    identities.write_text(json.dumps({"identities": [user]}))
    options = ("-ip=127.0.0.1", "-ip.bind=0.0.0.0", "-dir=/data", "-s3.config=/s3.json", "-s3.iam=false", "-webdav=false")
    volumes = {"/usr/local/bin/weed": Path(sys.executable).parent / "weed", "/s3.json": identities, "/data": "seedvr2-test-s3"}
    server = start(STANDIN, "seedvr2-test-s3", settings={}, volumes=volumes, command=("weed", "mini", *options))
    wait_page(f"http://{server.host}:8333/healthz", server)
    yield {
        "SEEDVR2_S3_ENDPOINT": f"http://{server.host}:8333", "SEEDVR2_S3_BUCKET": "videos",
        "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret,
    }  # fmt: skip
    stop(server.name)
    podman("volume", "rm", "--force", "seedvr2-test-s3")


def wait_page(url: str, container: Container) -> None:
    """Return once a page answers with 200."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        assert time.monotonic() < deadline, container.log
        time.sleep(0.2)


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
