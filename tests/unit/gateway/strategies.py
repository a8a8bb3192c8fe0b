"""Whatever a request, a source and its cuts may be, for hypothesis."""

import itertools
from collections.abc import Sequence
from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from services.common.colours import COLOURS
from services.common.encoders import ENCODERS
from services.common.formats import FORMATS
from services.gateway.job_request import JobRequest
from services.gateway.jobs import PlanSummary, Result
from services.gateway.source import Keyframe, SourceIndex

_IDS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
_TEXT = st.text(max_size=20)
_SIZES = st.integers(1, 1 << 16)
_SECONDS = st.floats(0, 1e6)

_TARGETS: SearchStrategy[dict[str, object]] = st.one_of(
    st.just({}),
    st.builds(lambda scale: {"scale": scale}, st.floats(0.1, 16)),
    st.builds(lambda side: {"short_side": side}, st.integers(16, 5000)),
    st.builds(lambda box: {"box": box}, st.tuples(st.integers(16, 9000), st.integers(16, 9000))),
)


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, object]:
    """No range, one in frames, or one in time; all that :func:`check_request` lets pass."""
    first, length = draw(st.integers(0, 300)), draw(st.integers(1, 300))
    kind = draw(st.sampled_from(("", "frames", "open frames", "time", "open time")))
    ns = 10**7
    return {
        "": {},
        "frames": {"frames": (first, first + length)},
        "open frames": {"frames": (first, 0)},
        "time": {"time_ns": (first * ns, (first + length) * ns)},
        "open time": {"time_ns": (first * ns, None)},
    }[kind]


@st.composite
def requests(draw: st.DrawFn) -> JobRequest:
    """A request that can be used, as far as it alone can tell."""
    return JobRequest(
        upload_id=draw(_IDS),
        model=draw(st.sampled_from(("", "nano"))),
        pool=draw(_TEXT),
        seed=draw(st.none() | st.integers(0, 2**64 - 1)),
        colour=draw(st.sampled_from(("", *COLOURS))),
        preview=draw(st.booleans()),
        container=draw(st.sampled_from(("", *FORMATS))),
        crf=draw(st.none() | st.integers(0, 51)),
        encoder=draw(st.sampled_from(["", *ENCODERS])),
        input_noise=draw(st.floats(0, 1)),
        latent_noise=draw(st.floats(0, 1)),
        labels=tuple(sorted(draw(st.dictionaries(_TEXT, _TEXT, max_size=4)).items())),
        **draw(_TARGETS),
        **draw(ranges()),
    )


SUMMARIES = st.builds(
    PlanSummary, model=_TEXT, pool=_TEXT, fingerprint=_TEXT, source_width=_SIZES, source_height=_SIZES, width=_SIZES,
    height=_SIZES, frames=_SIZES, first_frame=_SIZES, spans=_SIZES, segments=_SIZES, duration_s=_SECONDS,
    predicted_s=st.none() | _SECONDS, container=st.sampled_from(FORMATS), warnings=st.lists(_TEXT, max_size=3).map(tuple),
)  # fmt: skip
"""What people want to know of a plan."""

RESULTS = st.builds(
    Result, filename=_TEXT, media_type=_TEXT, size_bytes=_SIZES, sha256=_TEXT, width=_SIZES, height=_SIZES, frames=_SIZES,
    duration_s=_SECONDS, elapsed_s=_SECONDS, stage_seconds=st.dictionaries(_TEXT, _SECONDS, max_size=3),
)  # fmt: skip
"""A joined file."""


@st.composite
def indexes(draw: st.DrawFn) -> SourceIndex:
    """Frames at any distance from each other, keyframes anywhere, the first frame's among them."""
    steps = draw(st.lists(st.integers(1, 40), min_size=1, max_size=60))
    stamps = list(itertools.accumulate(steps[1:], initial=draw(st.integers(-1000, 1000))))
    keys = sorted(draw(st.sets(st.integers(0, len(stamps) - 1), max_size=12)) | {0})
    return SourceIndex(
        pts=tuple(stamps), last_duration=steps[-1], by_order=draw(st.booleans()),
        keyframes=tuple(Keyframe(packet=k, frame=k, pts=stamps[k], dts=stamps[k]) for k in keys),
    )  # fmt: skip


TIME_BASES: SearchStrategy[Fraction] = st.sampled_from([Fraction(1, 25), Fraction(1, 1000), Fraction(1001, 30000)])
"""Seconds a tick."""


def cuts_in(frames: int) -> SearchStrategy[Sequence[int]]:
    """Frames that begin a shot, ascending."""
    return st.sets(st.integers(0, max(0, frames - 1)), max_size=20).map(sorted)
