import dataclasses
import json
from typing import Any

import pytest

from services.common.errors import NewerRelease
from services.common.plan import Plan, RestorePlan, Segment, lay_out_spans, plan_from_json, plan_to_json

RESTORE = RestorePlan(
    model="nano", model_hash="m", fingerprint="f", dtype="float32", weight_format="float16", width=64, height=48, seed=1,
    encoder_options=(("crf", "14"),),
)  # fmt: skip


def _plan(**changes: object) -> Plan:
    spans = lay_out_spans(3, 103, span_frames=40, segment_frames=16)
    plan = Plan(
        source_sha256="s", source_width=32, source_height=24, first=3, end=103, restore=RESTORE, spans=spans, container="mp4"
    )
    return dataclasses.replace(plan, **changes)


@pytest.mark.parametrize(
    ("first", "end", "span_frames", "segment_frames"), [(0, 1, 1, 1), (5, 105, 40, 16), (0, 480, 480, 48), (7, 488, 480, 48)]
)
def test_spans_and_segments_cover_every_frame_once(first: int, end: int, span_frames: int, segment_frames: int):
    spans = lay_out_spans(first, end, span_frames=span_frames, segment_frames=segment_frames)
    assert [i for span in spans for i in range(span.first, span.end)] == list(range(first, end))
    for span in spans:
        assert span.frames <= span_frames
        assert [i for s in span.segments for i in range(s.first, s.end)] == list(range(span.first, span.end))
        assert all(s.end - s.first <= segment_frames for s in span.segments)


def test_spans_start_at_cuts_and_need_no_context_there():
    spans = lay_out_spans(0, 100, span_frames=30, segment_frames=30, cuts=[50, 0, 100, 200], context_frames=8)
    assert [(s.first, s.end, s.context) for s in spans] == [(0, 25, 0), (25, 50, 8), (50, 75, 0), (75, 100, 8)]


def _layout(cuts: list[int], **changes: int) -> list[tuple[int, int, int, tuple[int, ...]]]:
    spans = lay_out_spans(0, 100, **({"span_frames": 30, "segment_frames": 8} | changes), cuts=cuts)
    return [(s.first, s.end, s.context, s.cuts) for s in spans]


def test_short_shots_share_a_span_and_are_restored_apart_in_it():
    assert _layout([3, 6, 12, 30, 33, 60]) == [
        (0, 12, 0, (3, 6)),
        (12, 30, 0, ()),
        (30, 60, 0, (33,)),
        (60, 80, 0, ()),
        (80, 100, 0, ()),
    ]


def test_shots_of_a_single_frame_make_no_more_spans_than_segments():
    spans = lay_out_spans(0, 1000, span_frames=480, segment_frames=48, cuts=range(1000))
    assert all(s.frames >= 48 for s in spans[:-1])
    assert [c for s in spans for c in (s.first, *s.cuts)] == list(range(1000))


def test_a_span_that_shots_share_is_not_too_long():
    assert _layout([7, 40, 50], span_frames=35)[:3] == [(0, 7, 0, ()), (7, 40, 0, ()), (40, 50, 0, ())]


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("context", [0, 8])
def test_a_divided_shot_keeps_the_latents_that_its_first_frame_began(start: int, context: int):
    spans = lay_out_spans(
        start, start + 101, span_frames=30, segment_frames=8, cuts=[start + 10], context_frames=context, latent_frames=4
    )
    shot = [s for s in spans if s.first >= start + 10]
    assert len(shot) == 4
    assert all((s.first - s.context - start - 10) % 4 == 0 and s.frames <= 30 for s in shot)
    assert [s.context for s in shot] == [0, context, context, context]


def test_cuts_given_twice_in_any_order_or_outside_change_nothing():
    assert _layout([50, 3, 3, 12]) == _layout([-4, 0, 3, 12, 50, 100, 400])


def test_a_stretch_is_divided_evenly_so_that_no_span_is_tiny():
    assert [s.frames for s in lay_out_spans(0, 481, span_frames=480, segment_frames=48)] == [240, 241]


@pytest.mark.parametrize(
    "wrong", [{"first": 4, "end": 4}, {"first": 0, "end": 4, "span_frames": 0}, {"first": 0, "end": 4, "segment_frames": 0}]
)
def test_an_impossible_layout_is_refused(wrong: dict[str, int]):
    with pytest.raises(ValueError, match="no spans"):
        lay_out_spans(**({"span_frames": 5, "segment_frames": 5} | wrong))


def test_a_plan_survives_being_stored():
    assert plan_from_json(plan_to_json(_plan())) == _plan()


def test_a_plan_that_an_earlier_release_wrote_is_read():
    record = json.loads(plan_to_json(_plan()))
    for span in record["spans"]:
        assert span.pop("cuts") == []
    for name in ("input_noise", "latent_noise", "steps"):
        del record["restore"][name]
    assert plan_from_json(json.dumps(record).encode()) == _plan()


def test_a_plan_with_cuts_survives_being_stored():
    spans = lay_out_spans(3, 103, span_frames=40, segment_frames=16, cuts=[7, 30])
    assert spans[0].cuts == (7,)
    assert plan_from_json(plan_to_json(_plan(spans=spans))) == _plan(spans=spans)


def test_a_plan_of_another_schema_is_refused():
    with pytest.raises(NewerRelease, match="schema version 99"):
        plan_from_json(plan_to_json(_plan(schema_version=99)))


@pytest.mark.parametrize("path", [(), ("restore",), ("spans", 0), ("spans", 0, "segments", 0)])
def test_a_plan_with_what_this_release_does_not_know_is_not_carried_out(path: tuple[str | int, ...]):
    record: Any = json.loads(plan_to_json(_plan()))
    part = record
    for name in path:
        part = part[name]
    part["dithering"] = 1
    with pytest.raises(NewerRelease, match="a plan has dithering, which this release doesn't know"):
        plan_from_json(json.dumps(record).encode())


def test_the_span_key_changes_with_everything_that_decides_pixels_and_with_nothing_else():
    plan = _plan()
    span = plan.spans[0]
    key = plan.span_key(span)
    assert key == _plan(container="mkv", pool="p", end=200).span_key(span)
    others = [
        _plan(source_sha256="t").span_key(span),
        _plan(restore=dataclasses.replace(RESTORE, seed=2)).span_key(span),
        _plan(restore=dataclasses.replace(RESTORE, fingerprint="g")).span_key(span),
        plan.span_key(dataclasses.replace(span, context=1)),
        plan.span_key(dataclasses.replace(span, cuts=(5,))),
        plan.span_key(dataclasses.replace(span, segments=(Segment(first=span.first, end=span.end),))),
        plan.span_key(plan.spans[1]),
    ]
    assert len({key, *others}) == len(others) + 1


def test_segment_names_sort_as_their_frames_do():
    assert sorted([Segment(first=1000, end=1048).name, Segment(first=48, end=96).name]) == [
        "00000048-00000096.mp4",
        "00001000-00001048.mp4",
    ]
