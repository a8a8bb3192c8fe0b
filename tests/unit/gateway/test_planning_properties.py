"""What holds for every plan, whatever the request and the source are."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st

from services.common.encoders import HARDWARE_ENCODERS
from services.common.errors import InvalidOption
from services.common.plan import Plan, plan_from_json, plan_to_json
from services.gateway import codec
from services.gateway.job_request import JobRequest
from services.gateway.jobs import PlanSummary
from services.gateway.options import check_request
from services.gateway.planning import Offer, frame_range, make_plan, output_size
from services.gateway.source import SourceIndex, SourceInfo
from tests.unit.gateway.examples import LIMITS, MODEL, OFFER, info
from tests.unit.gateway.strategies import TIME_BASES, cuts_in, indexes, requests

_ASPECTS = st.sampled_from([Fraction(1), Fraction(4, 3), Fraction(1, 16), Fraction(16), Fraction(12, 11)])


@st.composite
def sources(draw: st.DrawFn) -> SourceInfo:
    """A source of any size and shape that is taken here."""
    return info(
        width=draw(st.integers(16, 1600)), height=draw(st.integers(16, 1200)), sample_aspect_ratio=draw(_ASPECTS),
        rotation=draw(st.sampled_from((0, 90, 180, 270))), time_base=draw(TIME_BASES), bits=draw(st.sampled_from((8, 10))),
        alpha=draw(st.booleans()),
    )  # fmt: skip


def planned_or_refused(
    request: JobRequest, source: SourceInfo, index: SourceIndex, offer: Offer, cuts: Sequence[int] = ()
) -> tuple[Plan, PlanSummary] | InvalidOption:
    try:
        return make_plan(request, source, index, "cd" * 32, offer, LIMITS, cuts)
    except InvalidOption as refusal:
        return refusal


@st.composite
def plans(draw: st.DrawFn) -> tuple[JobRequest, SourceInfo, SourceIndex, Plan, PlanSummary]:
    """A request that can be met, and its plan."""
    request, source, index = draw(requests()), draw(sources()), draw(indexes())
    check_request(request)
    model = replace(MODEL, context_frames=draw(st.sampled_from((0, 4, 8))), colours=())
    offer = replace(OFFER, model=model, encoders=HARDWARE_ENCODERS, megapixels_per_second=draw(st.sampled_from((0.0, 0.5, 50.0))))
    request = replace(request, colour="")
    made = planned_or_refused(request, source, index, offer, draw(cuts_in(index.frames)))
    assume(isinstance(made, tuple))
    return request, source, index, *made


Planned = tuple[JobRequest, SourceInfo, SourceIndex, Plan, PlanSummary]


@given(plans())
def test_spans_and_segments_hold_exactly_the_frames_that_were_asked_for(planned: Planned):
    request, source, index, plan, _ = planned
    first, end = frame_range(request, source, index)
    assert [i for span in plan.spans for i in range(span.first, span.end)] == list(range(first, end))
    assert [i for segment in plan.segments for i in range(segment.first, segment.end)] == list(range(first, end))


@given(plans())
def test_where_frames_are_counted_a_span_begins_at_a_keyframe_or_brings_along_what_follows_one(planned: Planned):
    _, _, index, plan, _ = planned
    if index.by_order:
        keyframes = {k.frame for k in index.keyframes}
        assert all(span.first - span.context in keyframes for span in plan.spans)


@given(plans())
def test_context_is_of_frames_that_the_source_has(planned: Planned):
    assert all(0 <= span.context <= span.first for span in planned[3].spans)


@given(plans())
def test_a_plan_and_its_summary_say_the_same_and_the_plan_is_read_back(planned: Planned):
    _, source, index, plan, summary = planned
    assert plan_from_json(plan_to_json(plan)) == plan
    assert (summary.frames, summary.first_frame) == (plan.frames, plan.first)
    assert (summary.spans, summary.segments) == (len(plan.spans), len(plan.segments))
    assert (summary.width, summary.height) == (plan.restore.width, plan.restore.height)
    ticks = index.end_of(plan.end - 1) - index.pts[plan.first]
    assert summary.duration_s == float(ticks * source.time_base)


@given(requests(), sources(), st.sampled_from((1, 2)))
def test_a_result_fits_its_box_and_the_limits_and_its_sides_are_whole_steps(request: JobRequest, source: SourceInfo, step: int):
    try:
        width, height = output_size(request, source, LIMITS, step)
    except InvalidOption:
        return
    assert width % step == height % step == 0
    assert min(width, height) >= 16
    assert width * height <= LIMITS.max_output_pixels
    if request.box is not None:
        shown = (height, width) if source.codec.rotation in (90, 270) else (width, height)
        assert shown[0] <= request.box[0]
        assert shown[1] <= request.box[1]


@given(indexes(), TIME_BASES, st.integers(0, 10**10), st.none() | st.integers(1, 10**10))
def test_a_range_in_time_is_of_the_frames_that_begin_in_it(index: SourceIndex, base: Fraction, start: int, length: int | None):
    stop = None if length is None else start + length
    at = [(pts - index.pts[0]) * base * 10**9 for pts in index.pts]
    wanted = [i for i, ns in enumerate(at) if ns >= start and (stop is None or ns < stop)]
    try:
        first, end = frame_range(JobRequest(upload_id="u", time_ns=(start, stop)), info(time_base=base), index)
    except InvalidOption:
        assert wanted == []
    else:
        assert list(range(first, end)) == wanted


@given(requests(), sources(), indexes())
def test_what_is_refused_names_the_field_that_is_wrong(request: JobRequest, source: SourceInfo, index: SourceIndex):
    made = planned_or_refused(request, source, index, replace(OFFER, encoders=HARDWARE_ENCODERS))
    if isinstance(made, InvalidOption):
        assert made.field.startswith("request.")
        assert made.message.endswith(".")


@given(requests())
def test_a_request_is_the_same_after_it_went_over_the_wire(request: JobRequest):
    assert codec.decode_request(codec.encode_request(request)) == request
