"""Traces: which work belongs to which request, across processes. The one place that decides whether spans are sent anywhere.

The context of a trace is W3C's (https://www.w3.org/TR/trace-context): it comes in with a call, goes out with every call that is
made meanwhile, is kept with a job, and is in every log line. Spans are recorded by whoever :func:`start_recording` was given;
without one, which is the default, contexts travel all the same.
"""

import contextlib
import contextvars
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

REQUEST_ID, TRACEPARENT, TRACESTATE = "x-request-id", "traceparent", "tracestate"
"""Names of what carries it, in small letters as gRPC has them."""

_SAMPLED = 1
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE = re.compile(r"[ -~]{0,512}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext:
    """Where in a trace we are."""

    trace_id: str
    """32 hexadecimal digits."""

    span_id: str
    """16 of them."""

    sampled: bool = False
    """Whoever began the trace wants its spans recorded."""

    state: str = ""
    """What other systems want passed on."""

    @property
    def traceparent(self) -> str:
        """As a header has it."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSpan:
    """Some work, from its beginning to its end."""

    name: str
    """What kind of work."""

    context: TraceContext
    """Its own."""

    parent_id: str
    """Span that it is a part of; empty: none."""

    kind: str
    """server, client or internal."""

    start_ns: int
    """Since 1970."""

    end_ns: int
    """Since 1970."""

    attributes: Mapping[str, str | int | float]
    """More about it."""

    error: str
    """What went wrong; empty: nothing."""


class Recorder(Protocol):
    """Takes spans."""

    @property
    def sample_ratio(self) -> float:
        """Part of the traces that begin here whose spans are recorded, 0 to 1."""

    def record(self, span: FinishedSpan) -> None:
        """Take one; never blocks."""

    def close(self) -> None:
        """Send what is left."""


@dataclass(slots=True)
class Span:
    """Work that goes on."""

    context: TraceContext
    """Its own."""

    attributes: dict[str, str | int | float] = field(default_factory=dict)
    """May be added to."""

    error: str = ""
    """What went wrong; empty: nothing."""


_current: contextvars.ContextVar[TraceContext | None] = contextvars.ContextVar("trace", default=None)
_request: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
_recorders: list[Recorder] = []


@contextlib.contextmanager
def start_recording(recorder: Recorder | None) -> Iterator[None]:
    """Give spans to ``recorder`` inside the block; None: to nobody."""
    if recorder is None:
        yield
        return
    _recorders.append(recorder)
    try:
        yield
    finally:
        _recorders.remove(recorder)
        recorder.close()


def current() -> TraceContext | None:
    """Where this task is; None outside of every trace."""
    return _current.get()


def request_id() -> str:
    """Of the request that this task works for; empty: none."""
    return _request.get()


def trace_ids() -> dict[str, str]:
    """What log lines of this task carry."""
    context, request = _current.get(), _request.get()
    ids = {"request_id": request} if request else {}
    return ids | ({"trace_id": context.trace_id, "span_id": context.span_id} if context else {})


def outgoing() -> tuple[tuple[str, str], ...]:
    """What calls that this task makes carry."""
    context = _current.get()
    state = ((TRACESTATE, context.state),) if context and context.state else ()
    trace = ((TRACEPARENT, context.traceparent), *state) if context else ()
    request = ((REQUEST_ID, _request.get()),) if _request.get() else ()
    return (*request, *trace)


def parse(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """The context that headers tell; None where they tell none that can be used."""
    match = _TRACEPARENT.fullmatch(traceparent.strip())
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]) or not (int(match[2], 16) and int(match[3], 16)):
        return None
    state = tracestate if _TRACESTATE.fullmatch(tracestate) else ""
    return TraceContext(trace_id=match[2], span_id=match[3], sampled=bool(int(match[4], 16) & _SAMPLED), state=state)


def checked_request_id(request: str) -> str:
    """The id that came with a request, or another one where it can't be used."""
    return request if _REQUEST_ID.fullmatch(request) else secrets.token_hex(8)


def enter(parent: TraceContext | None, request: str = "") -> TraceContext:
    """Let this task, and those that it starts from now on, work in a trace and for a request; returns its own span's context.

    Args:
        parent: what came in; None: a trace begins.
        request: its id as it came in; one that can't be used is replaced.
    """
    _request.set(checked_request_id(request))
    context = _child(parent)
    _current.set(context)
    return context


@contextlib.contextmanager
def working_for(parent: TraceContext | None, request: str) -> Iterator[None]:
    """Work inside the block for a request of long ago, in its trace."""
    tokens = _current.set(parent), _request.set(request)
    try:
        yield
    finally:
        _request.reset(tokens[1])
        _current.reset(tokens[0])


@contextlib.contextmanager
def span(name: str, *, kind: str = "internal", **attributes: str | int | float) -> Iterator[Span]:
    """Record the block as a span below the current one; calls in it carry it."""
    parent = _current.get()
    working, started = Span(_child(parent), dict(attributes)), time.time_ns()
    token = _current.set(working.context)
    try:
        yield working
    except BaseException as error:
        working.error = working.error or type(error).__name__
        raise
    finally:
        _current.reset(token)
        finish(name, working, parent, started, kind=kind)


def finish(name: str, working: Span, parent: TraceContext | None, start_ns: int, *, kind: str = "internal") -> None:
    """Record a span that ends now."""
    _record(
        FinishedSpan(
            name=name, context=working.context, parent_id=parent.span_id if parent else "", kind=kind, start_ns=start_ns,
            end_ns=time.time_ns(), attributes=working.attributes, error=working.error,
        )
    )  # fmt: skip


def note_span(name: str, start_ns: int, end_ns: int, **attributes: str | int | float) -> None:
    """Record work that somebody else did for the current span."""
    parent = _current.get()
    if parent is not None:
        _record(
            FinishedSpan(
                name=name, context=_child(parent), parent_id=parent.span_id, kind="internal", start_ns=start_ns, end_ns=end_ns,
                attributes=attributes, error="",
            )
        )  # fmt: skip


def _record(finished: FinishedSpan) -> None:
    if finished.context.sampled:
        for recorder in _recorders:
            recorder.record(finished)


def _child(parent: TraceContext | None) -> TraceContext:
    if parent is not None:
        return replace(parent, span_id=secrets.token_hex(8))
    ratio = max((recorder.sample_ratio for recorder in _recorders), default=0.0)
    # The id's last digits are random enough, and every service would decide the same.
    trace_id = secrets.token_hex(16)
    return TraceContext(trace_id=trace_id, span_id=secrets.token_hex(8), sampled=int(trace_id[-8:], 16) < ratio * (1 << 32))
