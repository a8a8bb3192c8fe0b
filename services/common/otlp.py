"""Spans to an OpenTelemetry collector, by OTLP over gRPC. Needs services/common/requirements-tracing.txt."""

import logging
import threading
from dataclasses import dataclass
from typing import Any

from services.common.errors import SettingsError
from services.common.settings import setting
from services.common.tracing import FinishedSpan, Recorder, TraceContext

PREFIX = "SEEDVR2_TRACING"
_log = logging.getLogger(__name__)
# A service that stops waits no longer for a collector that is away.
_LAST_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingSettings:
    """Where spans are sent, by every service; each field is a setting."""

    endpoint: str = setting("", "OpenTelemetry collector that takes OTLP by gRPC, http(s)://host:port; empty: no spans are sent")
    sample_ratio: float = setting(1.0, "part of the traces that begin here whose spans are sent, 0 to 1")
    timeout_s: float = setting(10.0, "seconds that the collector has to take a batch; what it doesn't take is dropped")

    def __post_init__(self) -> None:
        if not 0 <= self.sample_ratio <= 1:
            raise ValueError(f"sample_ratio is {self.sample_ratio}; it lies between 0 and 1")
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint is {self.endpoint!r}; it begins with http:// or https://")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s is {self.timeout_s}; it must be above 0")


def open_recorder(settings: TracingSettings, service: str, version: str) -> Recorder | None:
    """Whoever takes the spans of this process; None where nobody shall.

    Raises:
        SettingsError: the packages that send them are not installed.
    """
    if not settings.endpoint:
        return None
    try:
        return _Otlp(settings, service, version)
    except ImportError as error:
        raise SettingsError(
            f"{PREFIX}_ENDPOINT is set, but {error.name} is not installed: pip install -r "
            "services/common/requirements-tracing.txt, or build the image with TRACING=1; or leave the endpoint empty."
        ) from error


class _Otlp:
    """Sends spans in batches, from a thread."""

    def __init__(self, settings: TracingSettings, service: str, version: str) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self.sample_ratio = settings.sample_ratio
        insecure = settings.endpoint.startswith("http://")
        self._exporter: Any = OTLPSpanExporter(endpoint=settings.endpoint, insecure=insecure, timeout=settings.timeout_s)
        self._batches: Any = BatchSpanProcessor(self._exporter)
        self._resource = Resource.create({"service.name": f"seedvr2-{service}", "service.version": version})
        self._scope = InstrumentationScope("seedvr2", version)

    def record(self, span: FinishedSpan) -> None:
        """See :class:`Recorder`."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanKind, Status, StatusCode

        parent = _context(span.context, span.parent_id) if span.parent_id else None
        status = Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET)
        self._batches.on_end(
            ReadableSpan(
                name=span.name, context=_context(span.context, span.context.span_id), parent=parent, resource=self._resource,
                attributes=dict(span.attributes), kind=SpanKind[span.kind.upper()], status=status, start_time=span.start_ns,
                end_time=span.end_ns, instrumentation_scope=self._scope,
            )
        )  # fmt: skip

    def close(self) -> None:
        """See :class:`Recorder`; what can't be sent within two seconds is lost."""
        sending = threading.Thread(target=self._batches.shutdown, daemon=True)
        sending.start()
        sending.join(_LAST_S)
        if sending.is_alive():
            _log.warning("the last spans are lost: the collector doesn't take them")
            self._exporter.shutdown()


def _context(context: TraceContext, span_id: str) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    return SpanContext(
        trace_id=int(context.trace_id, 16), span_id=int(span_id, 16), is_remote=False,
        trace_flags=TraceFlags(int(context.sampled)),
        trace_state=TraceState.from_header([context.state] if context.state else []),
    )  # fmt: skip
