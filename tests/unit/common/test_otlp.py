import asyncio
import socket
import sys
import threading

import pytest

from services.common import tracing
from services.common.errors import SettingsError
from services.common.otlp import TracingSettings, open_recorder
from tests.otlp_receiver import receiving


async def test_spans_arrive_at_a_collector_as_they_were():
    async with receiving() as (receiver, endpoint):
        recorder = open_recorder(TracingSettings(endpoint=endpoint), "gateway", "1.2")
        parent = tracing.parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "v=1")

        def work() -> None:
            with (
                tracing.start_recording(recorder),
                tracing.working_for(parent, ""),
                pytest.raises(ValueError, match="x"),
                tracing.span("outer", kind="server", frames=3, job_id="j"),
            ):
                with tracing.span("inner"):
                    pass
                raise ValueError("x")

        await asyncio.to_thread(work)
        (service, inner), (_, outer) = sorted(receiver.spans, key=lambda each: each[1].name)
    assert service == "seedvr2-gateway"
    assert {span.trace_id.hex() for span in (inner, outer)} == {"0af7651916cd43dd8448eb211c80319c"}
    assert (outer.parent_span_id.hex(), inner.parent_span_id) == ("b7ad6b7169203331", outer.span_id)
    assert (outer.kind, outer.status.message, outer.trace_state) == (outer.SPAN_KIND_SERVER, "ValueError", "v=1")
    values = {a.key: a.value.int_value or a.value.string_value for a in outer.attributes}
    assert values == {"frames": 3, "job_id": "j"}
    assert outer.start_time_unix_nano <= inner.start_time_unix_nano <= inner.end_time_unix_nano <= outer.end_time_unix_nano


def test_a_collector_that_is_away_keeps_nobody_from_ending():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        recorder = open_recorder(TracingSettings(endpoint=endpoint, timeout_s=600), "gateway", "1")

        def work() -> None:
            with tracing.start_recording(recorder), tracing.span("lost"):
                pass

        ending = threading.Thread(target=work, daemon=True)
        ending.start()
        # The library itself would wait for half a minute.
        ending.join(20)
        assert not ending.is_alive()


def test_without_an_endpoint_nobody_takes_spans():
    assert open_recorder(TracingSettings(), "gateway", "1") is None


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"is not installed: pip install -r services/common/requirements-tracing\.txt"):
        open_recorder(TracingSettings(endpoint="http://127.0.0.1:1"), "gateway", "1")


@pytest.mark.parametrize("wrong", [{"sample_ratio": 1.1}, {"endpoint": "127.0.0.1:4317"}, {"timeout_s": 0.0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TracingSettings(**wrong)
