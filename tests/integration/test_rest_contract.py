"""The HTTP API does what its OpenAPI document says, whatever it is sent: schemathesis against a real gateway with a worker."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.clips import make
from tests.integration.processes import echo_worker, gateway, running

pytestmark = pytest.mark.integration

_SETTINGS = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway that runs beside the tests, in an event loop of its own."""
    directory, found, stop = tmp_path_factory.mktemp("contract"), dict[str, str](), asyncio.Event()
    loop, started = asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        worker = echo_worker(directory / "worker")
        async with running(worker):
            process = gateway(directory / "gateway", worker, rest_address="127.0.0.1:0")
            async with running(process):
                found["address"] = f"http://{process.ready['rest_address']}"
                await asyncio.to_thread(_fill, found["address"], directory)
                started.set()
                await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait(60)
    yield found["address"]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def _fill(address: str, directory: Path) -> None:
    """Uploads that jobs can be created of."""
    clip = make.video(directory / "clip.mp4", frames=8)
    begun = requests.post(f"{address}/v1/uploads", json={"id": "holiday", "filename": "a.mp4"}, timeout=20)
    begun.raise_for_status()
    headers = {"Upload-Offset": "0", "Upload-Complete": "?1"}
    url = f"{address}/v1/uploads/holiday"
    requests.patch(url, data=clip.read_bytes(), headers=headers, timeout=20).raise_for_status()


@pytest.fixture(scope="module")
def schema(address: str) -> Any:
    schemathesis.serializer("application/offset+octet-stream")(lambda context, value: bytes(context.case.body or b""))
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


def test_whatever_is_sent_is_answered_as_the_document_says(schema: Any, address: str) -> None:
    failures = [line for result in schema.get_all_operations() for line in _failures(result.ok(), address)]
    assert not failures, "\n\n".join(failures)


def _failures(operation: Any, address: str) -> list[str]:
    # No schema can say which uploads there are, how large they may be here, and what is not offered here (501).
    creates = operation.path in ("/v1/videos", "/v1/uploads") and operation.method == "post"
    excluded = [positive_data_acceptance, not_a_server_error] if creates else []

    @given(case=operation.as_strategy())
    @_SETTINGS
    def check(case: Any) -> None:
        answer = case.call(base_url=address, timeout=20)
        assert answer.status_code != 500
        case.validate_response(answer, excluded_checks=excluded)

    try:
        check()
    except (FailureGroup, AssertionError) as failure:
        return [f"{operation.method.upper()} {operation.path}: {failure}"]
    return []


def test_a_video_from_its_creation_to_its_end_is_as_the_document_says(schema: Any, address: str) -> None:
    def called(method: str, path: str, **request: Any) -> requests.Response:
        answer = requests.request(method, address + path.format(video_id=video_id), timeout=60, **request)
        schema[path][method].validate_response(answer)
        return answer

    video_id = ""
    video_id = called("POST", "/v1/videos", json={"upload_id": "holiday", "scale": 2, "labels": {"a": "b"}}).json()["id"]
    called("GET", "/v1/videos/{video_id}/events")
    assert called("GET", "/v1/videos/{video_id}").json()["status"] == "completed"
    assert called("GET", "/v1/videos/{video_id}/content", headers={"Range": "bytes=0-9"}).status_code == 206
    called("GET", "/v1/videos")
    called("GET", "/v1/models")
    assert called("POST", "/v1/videos/{video_id}/retry").status_code == 409
    assert called("DELETE", "/v1/videos/{video_id}").status_code == 200
