import asyncio
import logging

import pytest

from services.common import tracing
from services.common.tracing import FinishedSpan, TraceContext, parse

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Kept:
    """A recorder that keeps what it gets."""

    def __init__(self, sample_ratio: float = 1.0) -> None:
        self.sample_ratio = sample_ratio
        self.spans: list[FinishedSpan] = []
        self.closed = False

    def record(self, span: FinishedSpan) -> None:
        self.spans.append(span)

    def close(self) -> None:
        self.closed = True


def test_a_traceparent_is_read_and_written():
    context = parse(PARENT, "vendor=1")
    assert context == TraceContext(
        trace_id="0af7651916cd43dd8448eb211c80319c", span_id="b7ad6b7169203331", sampled=True, state="vendor=1"
    )
    assert context.traceparent == PARENT


@pytest.mark.parametrize(
    "header",
    [
        "", "00", PARENT.upper(), PARENT.replace("b7ad6b7169203331", "0" * 16),
        PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32), "ff" + PARENT[2:], PARENT + "-more",
    ],
)  # fmt: skip
def test_what_is_no_traceparent_begins_a_trace(header: str):
    assert parse(header) is None


def test_later_versions_of_the_header_are_read_as_far_as_they_are_known():
    context = parse("01" + PARENT[2:] + "-more")
    assert context is not None
    assert context.traceparent == PARENT


def test_a_state_that_cannot_be_passed_on_is_dropped():
    context = parse(PARENT, "a=1\n")
    assert context is not None
    assert context.state == ""


def test_spans_are_nested_and_calls_carry_the_innermost():
    recorder = Kept()
    working = tracing.working_for(parse(PARENT, "v=1"), "req")
    with tracing.start_recording(recorder), working, tracing.span("outer", job_id="j") as outer, tracing.span("inner") as inner:
        carried = dict(tracing.outgoing())
    assert carried == {"x-request-id": "req", "traceparent": inner.context.traceparent, "tracestate": "v=1"}
    first, second = recorder.spans
    assert (first.name, first.parent_id) == ("inner", outer.context.span_id)
    assert (second.name, second.parent_id, second.attributes) == ("outer", "b7ad6b7169203331", {"job_id": "j"})
    assert {span.context.trace_id for span in recorder.spans} == {"0af7651916cd43dd8448eb211c80319c"}
    assert first.start_ns <= first.end_ns
    assert recorder.closed
    assert tracing.outgoing() == ()


def test_an_error_is_told_and_passed_on():
    recorder = Kept()
    with tracing.start_recording(recorder), pytest.raises(ValueError, match="x"), tracing.span("work"):
        raise ValueError("x")
    assert recorder.spans[0].error == "ValueError"


def test_whoever_began_a_trace_decides_whether_it_is_recorded():
    recorder = Kept()
    with tracing.start_recording(recorder), tracing.working_for(parse(PARENT[:-1] + "0"), ""), tracing.span("work"):
        pass
    assert recorder.spans == []


@pytest.mark.parametrize(("ratio", "recorded"), [(0.0, 0), (1.0, 20)])
def test_of_traces_that_begin_here_a_part_is_recorded(ratio: float, recorded: int):
    recorder = Kept(ratio)
    with tracing.start_recording(recorder):
        for _ in range(20):
            with tracing.span("work"):
                pass
    assert len(recorder.spans) == recorded


def test_without_a_recorder_contexts_travel_all_the_same():
    with tracing.span("work") as working:
        assert dict(tracing.outgoing())["traceparent"] == working.context.traceparent
    assert not working.context.sampled


async def test_a_task_keeps_the_context_in_which_it_was_begun():
    with tracing.working_for(parse(PARENT), "req"):
        task = asyncio.create_task(asyncio.sleep(0, result=None))
        ids = asyncio.create_task(_ids())
    await task
    assert await ids == {"request_id": "req", "trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}


async def _ids() -> dict[str, str]:
    return tracing.trace_ids()


@pytest.mark.parametrize("request_id", ["", "two words", "x" * 129, "a\n"])
async def test_a_request_id_that_cannot_be_used_is_replaced(request_id: str):
    async def enter() -> str:
        tracing.enter(None, request_id)
        return tracing.request_id()

    found = await asyncio.create_task(enter())
    assert found != request_id
    assert len(found) == 16


def test_work_of_others_is_noted_below_the_current_span():
    recorder = Kept()
    with tracing.start_recording(recorder):
        tracing.note_span("nobody's", 1, 2)
        with tracing.span("work") as working:
            tracing.note_span("stage", 10, 20, frames=3)
    stage = recorder.spans[0]
    assert (stage.name, stage.start_ns, stage.end_ns, stage.parent_id) == ("stage", 10, 20, working.context.span_id)
    assert len(recorder.spans) == 2


def test_every_log_line_carries_the_ids(caplog: pytest.LogCaptureFixture):
    from services.common.logs import _JsonFormatter

    with tracing.working_for(parse(PARENT), "req"), caplog.at_level(logging.INFO):
        logging.getLogger("x").info("hello")
        line = _JsonFormatter("test").format(caplog.records[0])
    assert '"request_id": "req", "trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"' in line
