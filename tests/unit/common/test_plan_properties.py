"""What holds for every layout of a video, whatever its length, its cuts and the limits are."""

import dataclasses
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.common.plan import Plan, RestorePlan, Span, lay_out_spans, plan_from_json, plan_to_json

_RESTORE = RestorePlan(
    model="nano", model_hash="m", fingerprint="f", dtype="float32", weight_format="float16", width=64, height=48, seed=1,
    encoder_options=(("crf", "14"),),
)  # fmt: skip


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of lay_out_spans."""
    first, latent = draw(st.integers(0, 1000)), draw(st.sampled_from((1, 4, 8)))
    end = first + draw(st.integers(1, 800))
    return {
        "first": first, "end": end, "span_frames": draw(st.integers(1, 300)), "segment_frames": draw(st.integers(1, 100)),
        "cuts": draw(st.lists(st.integers(first - 5, end + 5), max_size=30)), "latent_frames": latent,
        "context_frames": latent * draw(st.integers(0, 5)),
    }  # fmt: skip


def laid_out(layout: dict[str, Any]) -> tuple[Span, ...]:
    values = dict(layout)
    return lay_out_spans(values.pop("first"), values.pop("end"), **values)


def inner_cuts(layout: dict[str, Any]) -> list[int]:
    return sorted({c for c in layout["cuts"] if layout["first"] < c < layout["end"]})


def plan_of(layout: dict[str, Any], **changes: Any) -> Plan:
    plan = Plan(
        source_sha256="s", source_width=32, source_height=24, first=layout["first"], end=layout["end"], restore=_RESTORE,
        spans=laid_out(layout), container="mp4",
    )  # fmt: skip
    return dataclasses.replace(plan, **changes)


def covers(parts: list[tuple[int, int]], first: int, end: int) -> bool:
    """Whether [first, end) is divided into parts, none of them empty."""
    borders = [first, *(stop for _, stop in parts)]
    return [start for start, _ in parts] == borders[:-1] and borders[-1] == end and all(a < b for a, b in parts)


@given(layouts())
def test_spans_divide_the_range_and_segments_divide_each_span(layout: dict[str, Any]):
    spans = laid_out(layout)
    assert covers([(s.first, s.end) for s in spans], layout["first"], layout["end"])
    assert [s.index for s in spans] == list(range(len(spans)))
    for span in spans:
        assert covers([(s.first, s.end) for s in span.segments], span.first, span.end)
        # Only the last segment of a span is shorter.
        assert {s.end - s.first for s in span.segments[:-1]} <= {layout["segment_frames"]}
        assert span.segments[-1].end - span.segments[-1].first <= layout["segment_frames"]


@given(layouts())
def test_no_span_is_longer_than_allowed_or_than_one_latent(layout: dict[str, Any]):
    assert max(s.frames for s in laid_out(layout)) <= max(layout["span_frames"], layout["latent_frames"])


@given(layouts())
def test_every_cut_begins_a_span_or_a_shot_inside_of_one_and_nothing_else_does(layout: dict[str, Any]):
    spans = laid_out(layout)
    inside = [c for s in spans for c in s.cuts]
    assert sorted({s.first for s in spans} & set(inner_cuts(layout)) | set(inside)) == inner_cuts(layout)
    assert all(s.first < c < s.end for s in spans for c in s.cuts)
    assert inside == sorted(set(inside))


_SHARED = {"first": 0, "end": 5, "span_frames": 5, "segment_frames": 5, "cuts": [1], "latent_frames": 4, "context_frames": 4}


@given(layouts())
@example(_SHARED)
def test_context_stays_inside_the_shot_and_is_whole_latents_of_it(layout: dict[str, Any]):
    shots = [layout["first"], *inner_cuts(layout)]
    for span in laid_out(layout):
        shot = max(s for s in shots if s <= span.first)
        assert span.context == min(layout["context_frames"], span.first - shot)
        assert (span.first - shot) % layout["latent_frames"] == 0


@given(layouts(), st.randoms(use_true_random=False))
def test_the_order_of_cuts_and_cuts_given_twice_change_nothing(layout: dict[str, Any], random: Any):
    cuts = layout["cuts"] * 2
    random.shuffle(cuts)
    assert laid_out({**layout, "cuts": cuts}) == laid_out(layout)


@given(layouts())
def test_a_plan_is_read_back_as_it_was_written_with_the_same_keys(layout: dict[str, Any]):
    plan = plan_of(layout)
    again = plan_from_json(plan_to_json(plan))
    assert again == plan
    assert [again.span_key(s) for s in again.spans] == [plan.span_key(s) for s in plan.spans]


@given(layouts())
def test_no_two_spans_have_the_same_key(layout: dict[str, Any]):
    plan = plan_of(layout)
    assert len({plan.span_key(s) for s in plan.spans}) == len(plan.spans)


@given(layouts(), st.data())
def test_a_spans_key_does_not_depend_on_the_rest_of_the_plan(layout: dict[str, Any], data: st.DataObject):
    plan = plan_of(layout)
    span = data.draw(st.sampled_from(plan.spans))
    alone = dataclasses.replace(plan, spans=(dataclasses.replace(span, index=0),), container="mkv", pool="other", end=span.end)
    assert alone.span_key(alone.spans[0]) == plan.span_key(span)


@given(layouts(), st.sampled_from(("seed", "width", "height", "steps", "tile_size", "window_latents")))
def test_a_spans_key_depends_on_what_decides_its_pixels(layout: dict[str, Any], field: str):
    plan = plan_of(layout)
    changed = dataclasses.replace(_RESTORE, **{field: getattr(_RESTORE, field) + 1})
    assert plan.span_key(plan.spans[0]) != plan_of(layout, restore=changed).span_key(plan.spans[0])


@given(layouts(), st.integers(-5, 0), st.sampled_from(("length", "span_frames", "segment_frames")))
def test_what_can_not_be_laid_out_is_refused(layout: dict[str, Any], size: int, which: str):
    wrong = {"length": {"end": layout["first"] + size}}.get(which, {which: size})
    with pytest.raises(ValueError, match="no spans"):
        laid_out(layout | wrong)
