"""``python -m bench.seams [BAD:TRUTH …]``: what shows at the borders of windows, spans and chunks, as a table and a picture.

Measured with nano on small crops, one thread. The temporal error of a step from one frame to the next is the mean over pixels of
|(restored step) - (true step)| of the luma, in 8-bit levels: change that isn't in the film. The excess is that of a run with
borders, less that of a run without any, at the same step. A border's excess is the largest of the few steps in which two parts
meet; as many steps elsewhere tell what chance does. Block means of 16x16 pixels show the part that is a jump of brightness.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.seam_picture import Curve, draw
from bench.table import print_table
from demo.__main__ import CLIPS
from demo.measure import Frames, read_frames
from services.common.plan import lay_out_spans
from services.inference.delivery.catalogue import EMBEDDED_DIRECTORY
from services.inference.gpu.model.sampler import NOISES
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.weights import Model, load_model
from services.inference.gpu.pipeline import RestoreSettings, SpanRestorer

DEFAULT = f"{CLIPS / 'bunny_bad.mp4'}:{CLIPS / 'bunny_truth.mp4'}"
WIDTH, HEIGHT = 192, 112
LENGTHS, SHARED, CONTEXTS = (8, 16, 24), (0, 1, 2), (0, 1, 2, 4, 8)
AROUND_CUT = 12
_LUMA = (0.299, 0.587, 0.114)
_BLOCK = 16

Errors = NDArray[np.float64]
"""(T - 1,): of the step to each frame but the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A bad clip and what it should be, cut to the middle."""

    bad: Frames
    truth: Frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to restore a clip."""

    window: int = SPECS["nano"].window_latents
    """Latents of a window; 0: the whole clip is one."""

    shared: int = SPECS["nano"].overlap_latents
    """Latents that windows share."""

    span: int = 0
    """Frames of a span; 0: the whole clip is one."""

    context: int = 0
    """Frames of context."""

    noise: str = NOISES[0]
    """How it is drawn."""

    def borders(self, frames: int) -> list[tuple[int, int]]:
        """First and last step of each border's zone: the frames in which two parts meet, and one more."""
        if self.span:
            spans = lay_out_spans(0, frames, span_frames=self.span, segment_frames=1)
            return [(s.first, s.first + 1) for s in spans[1:]]
        step = self.window - self.shared
        starts = [min(start, frames - self.window) for start in range(step, frames - self.shared, step)] if self.window else []
        ends = [self.window, *(start + self.window for start in starts)]
        return [(end - self.shared, end + 1) for end in ends[: len(starts)]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one way gave on one clip."""

    errors: Errors
    """Temporal errors of pixels."""

    blocks: Errors
    """The same of block means."""

    psnr_db: float
    """Of the luma."""


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.seams", description=__doc__)
    parser.add_argument("clips", nargs="*", default=[DEFAULT], metavar="BAD:TRUTH", help="two videos of equal length each")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/seams.png"), help="where the picture goes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(SPECS["nano"], EMBEDDED_DIRECTORY / "nano", torch.device("cpu"), torch.float32)
    clips = [_clip(*map(Path, pair.split(":"))) for pair in arguments.clips]
    study = _Study(model, clips)
    study.windows()
    study.spans()
    study.noises()
    study.chunks()
    study.cuts()
    study.picture(arguments.picture)


class _Study:
    def __init__(self, model: Model, clips: Sequence[Clip]) -> None:
        self._model = model
        self._clips = clips
        self._known: dict[Way, list[Found]] = {}
        self._whole = Way(window=0, shared=0)

    def windows(self) -> None:
        """Lengths and shared latents."""
        ways = [
            Way(window=length, shared=shared) for length, shared in itertools.product(LENGTHS, SHARED) if 2 * shared <= length
        ]
        head = ("window", "shared", *_HEAD, "PSNR dB", "transformer work")
        rows = [
            (str(w.window), str(w.shared), *self._row(w, self._whole), f"{w.window / (w.window - w.shared):.2f}") for w in ways
        ]
        print_table("Borders of windows", head, [("whole clip", "", *self._row(self._whole, self._whole), "1.00"), *rows])

    def spans(self) -> None:
        """Context."""
        ways = [Way(span=self._half, context=context) for context in CONTEXTS]
        rows = [(str(way.context), *self._row(way, Way())) for way in ways]
        print_table(f"Borders of spans of {self._half} frames", ("context", *_HEAD, "PSNR dB"), rows)

    def noises(self) -> None:
        """A draw for each latent against one for all."""
        ways = [replace(way, noise=noise) for way in (self._whole, Way(), Way(window=16, shared=2)) for noise in NOISES]
        rows = [
            (way.noise, str(way.window or "whole clip"), str(way.shared), *self._row(way, replace(self._whole, noise=way.noise)))
            for way in ways
        ]
        print_table("Noise", ("noise", "window", "shared", *_HEAD, "PSNR dB"), rows)

    def chunks(self) -> None:
        """Frames that come singly against all at once."""
        clip = self._clips[0]
        single, whole = (_restore(self._model, clip.bad, _settings(Way(), len(clip.bad), 0), step) for step in (1, len(clip.bad)))
        largest = int(np.abs(single - whole.astype(int)).max())
        print(f"\nChunks of 1 frame and of {len(clip.bad)}: largest difference {largest} levels")

    def cuts(self) -> None:
        """A cut that is known against one that is missed, from each clip to the next."""
        pairs = list(zip(self._clips, [*self._clips[1:], _upside_down(self._clips[0])], strict=True))
        rows = [(name, *self._after_cut(pairs, cuts)) for name, cuts in (("missed", ()), ("known", (AROUND_CUT,)))]
        print_table("PSNR dB of frames after a cut", ("cut", "frame 1", "frame 2", "frames 3 and 4", "frames 5 to 12"), rows)

    def _after_cut(self, pairs: Sequence[tuple[Clip, Clip]], cuts: tuple[int, ...]) -> list[str]:
        found = []
        for before, after in pairs:
            bad = np.concatenate([before.bad[-AROUND_CUT:], after.bad[:AROUND_CUT]])
            restored = _restore(self._model, bad, replace(_settings(Way(), len(bad), 0), cuts=cuts), len(bad))
            error = (restored[AROUND_CUT:] @ np.array(_LUMA) - after.truth[:AROUND_CUT] @ np.array(_LUMA)) ** 2
            found.append([_psnr(error[part]) for part in (slice(0, 1), slice(1, 2), slice(2, 4), slice(4, AROUND_CUT))])
        return [f"{value:.2f}" for value in np.mean(found, axis=0)]

    def picture(self, path: Path) -> None:
        """Two panels: borders of windows, a border of spans."""
        window = [
            ("no shared latent", Way(window=16, shared=0)),
            ("1 shared", Way(window=16, shared=1)),
            ("2 shared", Way(window=16, shared=2)),
        ]
        context = [
            (f"context {c}" if c else "no context", Way(span=self._half, context=c)) for c in (0, 2, SPECS["nano"].context_frames)
        ]
        draw(
            path,
            [
                (
                    "Windows of 16 latents",
                    [Curve(name, self._excess(way, self._whole), way.borders(self._frames)) for name, way in window],
                ),
                ("Two spans", [Curve(name, self._excess(way, Way()), way.borders(self._frames)) for name, way in context]),
            ],
        )

    @property
    def _frames(self) -> int:
        return min(len(clip.bad) for clip in self._clips)

    @property
    def _half(self) -> int:
        return -(-self._frames // 2)

    def _found(self, way: Way) -> list[Found]:
        if way not in self._known:
            self._known[way] = [_measure(_in_spans(self._model, clip.bad, way), clip.truth) for clip in self._clips]
        return self._known[way]

    def _excess(self, way: Way, whole: Way) -> Errors:
        """Temporal error over that of a run without the border, mean over clips."""
        pairs = zip(self._found(way), self._found(whole), strict=True)
        return np.mean([(a.errors - b.errors)[: self._frames - 1] for a, b in pairs], axis=0)

    def _row(self, way: Way, whole: Way) -> tuple[str, ...]:
        sums = np.mean([_numbers(way, a, b) for a, b in zip(self._found(way), self._found(whole), strict=True)], axis=0)
        psnr_db = np.mean([found.psnr_db for found in self._found(way)])
        return (*(f"{value:.3f}" if np.isfinite(value) else "-" for value in sums), f"{psnr_db:.2f}")


_HEAD = ("error inside", "excess at borders", "elsewhere", "of block means", "elsewhere")


def _numbers(way: Way, found: Found, whole: Found) -> list[float]:
    """Those of _HEAD; borders, and places elsewhere, are averaged."""
    zones = [slice(first - 1, last) for first, last in way.borders(len(found.errors) + 1)]
    inside = np.ones(len(found.errors), bool)
    for zone in zones:
        inside[zone] = False
    numbers = [float(found.errors[inside].mean())]
    for excess in (found.errors - whole.errors, found.blocks - whole.blocks):
        numbers += [_mean_peak(excess, zones), _mean_peak(excess, _zones_inside(inside, zones))]
    return numbers


def _zones_inside(inside: NDArray[np.bool_], zones: Sequence[slice]) -> list[slice]:
    """Every run of steps that is as long as a border's, and touches none."""
    if not zones:
        return []
    length = zones[0].stop - zones[0].start
    return [slice(i, i + length) for i in range(len(inside) - length + 1) if inside[i : i + length].all()]


def _mean_peak(excess: Errors, zones: Sequence[slice]) -> float:
    peaks = [excess[zone].max() for zone in zones if len(excess[zone])]
    return float(np.mean(peaks)) if peaks else float("nan")


def _clip(bad: Path, truth: Path) -> Clip:
    bad_frames, true_frames = read_frames(bad), read_frames(truth)
    factor = true_frames.shape[1] // bad_frames.shape[1]
    count = min(len(bad_frames), len(true_frames))
    return Clip(bad=_middle(bad_frames[:count], factor), truth=_middle(true_frames[:count], 1))


def _middle(frames: Frames, factor: int) -> Frames:
    height, width = HEIGHT // factor, WIDTH // factor
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    return frames[:, top : top + height, left : left + width]


def _in_spans(model: Model, bad: Frames, way: Way) -> Frames:
    """Restored as a job would be, span by span."""
    spans = lay_out_spans(0, len(bad), span_frames=way.span or len(bad), segment_frames=1, context_frames=way.context)
    parts = []
    for span in spans:
        first = span.first - span.context
        settings = _settings(way, span.end - first, first)
        parts.append(_restore(model, bad[first : span.end], settings, len(bad))[span.context :])
    return np.concatenate(parts)


def _settings(way: Way, frames: int, first: int) -> RestoreSettings:
    return RestoreSettings(
        width=WIDTH, height=HEIGHT, seed=666, first_frame=first, noise=way.noise, window_latents=way.window or frames,
        overlap_latents=way.shared,
    )  # fmt: skip


def _restore(model: Model, frames: Frames, settings: RestoreSettings, step: int) -> Frames:
    restorer = SpanRestorer(model, settings, on_stage=lambda *_: None, checkpoint=lambda: None)
    pushes = (restorer.push(frames[i : i + step]) for i in range(0, len(frames), step))
    return np.concatenate([*itertools.chain.from_iterable(pushes), *restorer.finish()]).astype(np.uint8)


def _measure(restored: Frames, truth: Frames) -> Found:
    mine, true = restored @ np.array(_LUMA), truth @ np.array(_LUMA)
    change = np.diff(mine, axis=0) - np.diff(true, axis=0)
    blocks = change.reshape(len(change), HEIGHT // _BLOCK, _BLOCK, WIDTH // _BLOCK, _BLOCK).mean(axis=(2, 4))
    return Found(
        errors=np.abs(change).mean(axis=(1, 2)),
        blocks=np.abs(blocks).mean(axis=(1, 2)),
        psnr_db=_psnr((mine - true) ** 2),
    )


def _psnr(squares: NDArray[np.float64]) -> float:
    return float(10 * np.log10(255**2 / squares.mean())) if squares.any() else float("inf")


def _upside_down(clip: Clip) -> Clip:
    return Clip(bad=clip.bad[:, ::-1], truth=clip.truth[:, ::-1])


if __name__ == "__main__":
    main()
