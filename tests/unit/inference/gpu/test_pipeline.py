import gc
import itertools
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from services.common.colours import COLOURS
from services.common.errors import GpuOutOfMemory, InvalidOption, InvalidVideo, JobCancelled, ModelBroken
from services.inference.gpu.model.colour.wavelet import transfer_wavelet
from services.inference.gpu.model.frames import Frames, normalise, pad_to_multiple, quantise, repeat_last, resize, to_unit
from services.inference.gpu.model.sampler import NOISES, condition, latent_noise
from services.inference.gpu.model.vae import VaeState
from services.inference.gpu.model.weights import Model
from services.inference.gpu.pipeline import STAGES, RestoreSettings, SpanRestorer, measure_speed, self_test
from tests.unit.inference.gpu.goldens import CPU, nano, random_model

WIDTH, HEIGHT = 36, 26


@cache
def _model(temporal_factor: int) -> Model:
    return random_model(temporal_factor=temporal_factor)


def _clip(frames: int, *, width: int = WIDTH, height: int = HEIGHT, dtype: type = np.uint8) -> Frames:
    generator = np.random.default_rng(frames)
    coarse = generator.integers(0, np.iinfo(dtype).max, (frames, 3, 4, 3)).astype(dtype)
    return np.repeat(np.repeat(coarse, -(-height // 3), axis=1), -(-width // 4), axis=2)[:, :height, :width]


def _settings(**changes: object) -> RestoreSettings:
    return RestoreSettings(**{"width": WIDTH, "height": HEIGHT, "seed": 7, "first_frame": 100} | changes)  # type: ignore[arg-type]


def _restorer(
    model: Model,
    settings: RestoreSettings | None = None,
    *,
    on_stage: Callable[[str, float, int], None] = lambda *_: None,
    checkpoint: Callable[[], None] = lambda: None,
) -> SpanRestorer:
    return SpanRestorer(model, settings or _settings(), on_stage=on_stage, checkpoint=checkpoint)


def _run(restorer: SpanRestorer, clip: Frames, step: int = 1000) -> Iterator[Frames]:
    for first in range(0, len(clip), step):
        yield from restorer.push(clip[first : first + step])
    yield from restorer.finish()


def _restore(model: Model, clip: Frames, settings: RestoreSettings | None = None, step: int = 1000) -> Frames:
    return np.concatenate(list(_run(_restorer(model, settings), clip, step)))


@cache
def _in_one_push(temporal_factor: int, frames: int) -> Frames:
    return _restore(_model(temporal_factor), _clip(frames))


def _close(a: Frames, b: Frames) -> bool:
    difference = np.abs(a.astype(int) - b.astype(int))
    return a.shape == b.shape and difference.max() <= 1 and bool((difference > 0).mean() <= 0.002)


@pytest.mark.parametrize("temporal_factor", [1, 4])
@pytest.mark.parametrize("frames", range(1, 11))
def test_as_many_frames_come_out_as_went_in(temporal_factor: int, frames: int) -> None:
    restored = _restore(_model(temporal_factor), _clip(frames))
    assert restored.shape == (frames, HEIGHT, WIDTH, 3)
    assert restored.dtype == np.uint8


def test_nothing_pushed_gives_nothing_back() -> None:
    assert list(_run(_restorer(_model(4)), _clip(1)[:0])) == []


@pytest.mark.parametrize("temporal_factor", [1, 4])
@pytest.mark.parametrize("step", [1, 2, 3, 5, 16])
def test_where_pushes_are_cut_changes_no_byte(temporal_factor: int, step: int) -> None:
    model, clip = _model(temporal_factor), _clip(23)
    assert np.array_equal(_restore(model, clip, step=step), _in_one_push(temporal_factor, 23))


@pytest.mark.parametrize("colour", COLOURS)
def test_where_pushes_are_cut_changes_no_byte_of_any_colour_mode(colour: str) -> None:
    model, clip, settings = _model(4), _clip(14), _settings(colour=colour)
    whole = _restore(model, clip, settings)
    for step in (1, 5):
        assert np.array_equal(_restore(model, clip, settings, step=step), whole)


@pytest.mark.parametrize("noise", ["input_noise", "latent_noise"])
def test_where_pushes_are_cut_changes_no_byte_of_noisy_input(noise: str) -> None:
    model, clip, settings = _model(4), _clip(14), _settings(**{noise: 0.5})
    whole = _restore(model, clip, settings)
    assert not np.array_equal(whole, _in_one_push(4, 14))
    for step in (1, 5):
        assert np.array_equal(_restore(model, clip, settings, step=step), whole)


@pytest.mark.parametrize(("frames", "step"), [(1, 1), (9, 2), (9, 100)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_goes_along_and_changes_no_colour(frames: int, step: int, dtype: type) -> None:
    clip = _clip(frames, dtype=dtype)
    alpha = np.zeros((*clip.shape[:3], 1), dtype)
    alpha[:, 5:20, 8:30] = np.iinfo(dtype).max
    depth = np.iinfo(dtype).bits
    found = _restore(_model(4), np.concatenate([clip, alpha], axis=-1), _settings(alpha=True, bit_depth=depth), step)
    assert found.shape == (frames, HEIGHT, WIDTH, 4)
    assert np.array_equal(found[..., :3], _restore(_model(4), clip, _settings(bit_depth=depth)))
    assert found[:, 9:16, 14:24, 3].min() > 0.95 * np.iinfo(dtype).max
    assert found[:, :2, :, 3].max() < 0.05 * np.iinfo(dtype).max


def test_a_model_that_can_take_more_steps_takes_them() -> None:
    able = replace(_model(4), spec=replace(_model(4).spec, max_steps=4))
    clip = _clip(6)
    assert not np.array_equal(_restore(able, clip, _settings(steps=4)), _restore(able, clip))


def test_a_model_of_one_step_refuses_more() -> None:
    with pytest.raises(InvalidOption) as refusal:
        _restorer(_model(4), _settings(steps=2))
    assert refusal.value.field == "steps"


@pytest.mark.parametrize(("temporal_factor", "frames"), [(1, 1), (1, 4), (1, 8), (4, 2), (4, 13), (4, 22), (4, 30)])
@pytest.mark.parametrize("colour", ["wavelet", "none"])
def test_the_stages_are_the_documented_ones(temporal_factor: int, frames: int, colour: str) -> None:
    model, clip, settings = _model(temporal_factor), _clip(frames), _settings(colour=colour)
    expected = _by_the_book(model, clip, settings)
    assert _close(_restore(model, clip, settings), expected)


def _by_the_book(model: Model, clip: Frames, settings: RestoreSettings) -> Frames:
    """The whole span at once: one pass of the encoder, one of the decoder, a window after the other between them."""
    factor = model.spec.vae.temporal_factor
    source = normalise(resize(to_unit(clip, CPU), settings.height, settings.width))
    padded = pad_to_multiple(source, model.spec.size_multiple)[repeat_last(len(clip), factor)]
    low_quality = model.vae.encode(padded, VaeState())
    shape = (low_quality.shape[1], low_quality.shape[2], low_quality.shape[3])
    noise = torch.stack([latent_noise(settings.seed, settings.first_frame + i * factor, shape) for i in range(len(low_quality))])
    inputs = torch.cat([noise, condition(low_quality)], dim=-1)
    windows = [
        (first, stop, model.dit(inputs[first:stop], model.text, torch.tensor(1000.0))) for first, stop in _cover(model, inputs)
    ]
    decoded = model.vae.decode(_stitched(noise, windows), VaeState())[: len(clip), :, : settings.height, : settings.width]
    return quantise(transfer_wavelet(decoded, source) if settings.colour == "wavelet" else decoded, settings.bit_depth)


def _cover(model: Model, inputs: torch.Tensor) -> list[tuple[int, int]]:
    """Full windows, each sharing latents with the one before; the last one ends with the stream."""
    count, length = len(inputs), model.spec.window_latents
    starts = range(0, max(1, count - model.spec.overlap_latents), length - model.spec.overlap_latents)
    return [(max(0, min(start, count - length)), min(start + length, count)) for start in starts]


def _stitched(noise: torch.Tensor, windows: list[tuple[int, int, torch.Tensor]]) -> torch.Tensor:
    """Half of each window where two windows meet: the model shares one latent."""
    clean = torch.zeros_like(noise)
    end = 0
    for first, stop, velocity in windows:
        restored = noise[first:stop] - velocity
        if end:
            clean[end - 1] = (clean[end - 1] + restored[end - 1 - first]) / 2
        clean[end:stop] = restored[end - first :]
        end = stop
    return clean


@pytest.mark.parametrize("temporal_factor", [1, 4])
def test_slices_change_rounding_only(temporal_factor: int) -> None:
    model, clip = _model(temporal_factor), _clip(23)
    expected = _restore(model, clip, _settings(slice_latents=1))
    assert all(_close(_restore(model, clip, _settings(slice_latents=count)), expected) for count in (2, 3, 7))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 8},
        {"first_frame": 101},
        {"window_latents": 2},
        {"window_latents": 4, "overlap_latents": 2},
        {"noise": NOISES[1]},
    ],
)
def test_seed_position_noise_and_window_decide_the_result(changes: dict[str, object]) -> None:
    model, clip = _model(4), _clip(18)
    expected = _restore(model, clip)
    assert np.array_equal(_restore(model, clip), expected)
    assert not np.array_equal(_restore(model, clip, _settings(**changes)), expected)


@pytest.mark.parametrize("size", [(50, 34), (72, 52), (18, 20)])
def test_frames_come_out_in_the_size_asked_for(size: tuple[int, int]) -> None:
    restored = _restore(_model(4), _clip(3), _settings(width=size[0], height=size[1]))
    assert restored.shape == (3, size[1], size[0], 3)


def test_sixteen_bits_go_in_and_out() -> None:
    clip = _clip(3)
    coarse = _restore(_model(1), clip)
    fine = _restore(_model(1), clip.astype(np.uint16) * 257, _settings(bit_depth=16))
    assert fine.dtype == np.uint16
    assert np.abs(fine / 257.0 - coarse).max() <= 0.51


@pytest.mark.parametrize("temporal_factor", [1, 4])
def test_memory_does_not_grow_with_the_span(temporal_factor: int) -> None:
    model, clip = _model(temporal_factor), _clip(12)
    restorer, held, waiting = _restorer(model), [], 0
    longest_wait = (model.spec.window_latents + model.spec.slice_latents) * temporal_factor
    tracemalloc.start()
    for _ in range(5):
        waiting += len(clip) - sum(len(frames) for frames in restorer.push(clip))
        assert waiting <= longest_wait
        held.append(_held_bytes())
    tracemalloc.stop()
    assert held[-1] - held[1] < clip.nbytes // 2


def _held_bytes() -> int:
    """Of all tensors and arrays of this process."""
    gc.collect()
    # Sparse ones, which other tests may have left, have no storage to ask.
    tensors = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor) and x.layout is torch.strided]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage() for x in tensors}
    return tracemalloc.get_traced_memory()[0] + sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("temporal_factor", [1, 4])
@pytest.mark.parametrize("cuts", [(104,), (101, 102, 117), (100, 109, 120)])
@pytest.mark.parametrize("step", [1, 5, 1000])
def test_a_shot_is_restored_as_if_it_stood_alone(temporal_factor: int, cuts: tuple[int, ...], step: int) -> None:
    model, clip = _model(temporal_factor), _clip(22)
    shots = itertools.pairwise(sorted({100, *cuts, 122}))
    alone = [_restore(model, clip[first - 100 : stop - 100], _settings(first_frame=first)) for first, stop in shots]
    assert np.array_equal(_restore(model, clip, _settings(cuts=cuts), step), np.concatenate(alone))


def test_a_cut_changes_the_frames_after_it_only() -> None:
    model, clip = _model(4), _clip(22)
    before, after = (_restore(model, clip, _settings(cuts=cuts)) for cuts in ((), (109,)))
    assert not np.array_equal(before[9:], after[9:])
    assert np.array_equal(after[:9], _restore(model, clip[:9]))


def _distance_after_a_border(model: Model, border: int, context: int) -> float:
    """Levels, over the first frames of a span that begins there, from the same frames of a span that goes on."""
    clip, first = _clip(40), border - context
    begun = _restore(model, clip[first:], _settings(first_frame=100 + first))[context : context + 8]
    return float(np.abs(begun.astype(int) - _in_one_push(model.spec.vae.temporal_factor, 40)[border : border + 8]).mean())


@pytest.mark.parametrize(("temporal_factor", "border"), [(1, 21), (4, 20)])
def test_context_brings_a_span_near_to_one_that_goes_on(temporal_factor: int, border: int) -> None:
    cold, warm = (_distance_after_a_border(_model(temporal_factor), border, context) for context in (0, 8))
    assert warm < cold / 3


@pytest.mark.parametrize(("border", "context"), [(20, 6), (21, 8)])
def test_context_is_of_no_use_where_latents_lose_their_phase(border: int, context: int) -> None:
    cold, aligned, shifted = (_distance_after_a_border(_model(4), b, c) for b, c in ((20, 0), (20, 8), (border, context)))
    assert aligned < cold < shifted


def test_two_spans_take_turns_on_one_model() -> None:
    model, clips = _model(4), [_clip(14), _clip(15)]
    alone = [_restore(model, clip, step=4) for clip in clips]
    runs = [_run(_restorer(model), clip, 4) for clip in clips]
    turns: list[list[Frames]] = [[], []]
    while runs[0] or runs[1]:
        for index, run in enumerate(runs):
            if run is not None and (frames := next(run, None)) is not None:
                turns[index].append(frames)
            else:
                runs[index] = None  # type: ignore[call-overload]
    assert all(np.array_equal(np.concatenate(turn), expected) for turn, expected in zip(turns, alone, strict=True))


@pytest.mark.parametrize("park", [False, True])
def test_a_span_that_stands_aside_for_another_wherever_it_can_loses_nothing(park: bool) -> None:
    model, clip, other = _model(4), _clip(23), _clip(9)
    restored, pauses = list[Frames](), itertools.count()

    def let_another_go_first() -> None:
        if next(pauses) % 2:
            with restorer.aside():
                restored.append(_restore(model, other))

    restorer = SpanRestorer(
        model, _settings(park=park), on_stage=lambda *_: None, checkpoint=lambda: None, pause=let_another_go_first
    )
    whole = np.concatenate(list(_run(restorer, clip, step=5)))
    assert np.array_equal(whole, _in_one_push(4, 23))
    assert len(restored) >= 3
    assert all(np.array_equal(each, _in_one_push(4, 9)) for each in restored)


def test_work_can_be_cancelled_wherever_it_looks_and_the_model_stays_usable() -> None:
    model, clip = _model(4), _clip(14)
    expected = _restore(model, clip)
    looks = 0

    def count() -> None:
        nonlocal looks
        looks += 1

    list(_run(_restorer(model, checkpoint=count), clip))
    windows, slices = 2, 3
    assert looks == windows * (1 + model.spec.dit.blocks) + 2 * slices
    for stop_at in range(looks):
        with pytest.raises(JobCancelled):
            list(_run(_restorer(model, checkpoint=_raise_at(stop_at, JobCancelled("enough"))), clip))
    assert np.array_equal(_restore(model, clip), expected)


def _raise_at(call: int, error: Exception) -> Callable[[], None]:
    calls = iter(range(1_000_000))

    def checkpoint() -> None:
        if next(calls) == call:
            raise error

    return checkpoint


def test_running_out_of_memory_names_the_stage_and_leaves_the_model_usable() -> None:
    model, clip = _model(4), _clip(9)
    expected = _restore(model, clip)
    in_a_block = 3
    with pytest.raises(GpuOutOfMemory, match=r"dit of 9 frames at 36x26"):
        list(_run(_restorer(model, checkpoint=_raise_at(in_a_block, torch.OutOfMemoryError("full"))), clip))
    assert np.array_equal(_restore(model, clip), expected)


def test_every_stage_reports_its_frames_and_time() -> None:
    frames: Counter[str] = Counter()
    seconds: Counter[str] = Counter()

    def on_stage(stage: str, took_s: float, count: int) -> None:
        frames[stage] += count
        seconds[stage] += took_s  # type: ignore[assignment]

    list(_run(_restorer(_model(1), on_stage=on_stage), _clip(8)))
    assert frames == dict.fromkeys(STAGES, 8)
    assert all(seconds[stage] > 0 for stage in STAGES)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"overlap_latents": 2}, "overlap_latents"),
        ({"overlap_latents": 2, "window_latents": 3}, "overlap_latents"),
        ({"overlap_latents": -1, "window_latents": 3}, "overlap_latents"),
        ({"noise": "white"}, "noise"),
        ({"colour": "sepia"}, "colour"),
        ({"bit_depth": 10}, "bit_depth"),
        ({"input_noise": 1.5}, "input_noise"),
        ({"latent_noise": float("nan")}, "latent_noise"),
        ({"width": 0}, "width"),
        ({"window_latents": -1}, "window_latents"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidOption) as refusal:
        _settings(**changes)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    "frames",
    [_clip(2, dtype=np.uint16), _clip(2)[0], _clip(2)[..., :2], _clip(2, width=40)],
    ids=["type", "axes", "grey", "size"],
)
def test_frames_unlike_the_others_are_refused(frames: Frames) -> None:
    restorer = _restorer(_model(4))
    list(restorer.push(_clip(3)))
    with pytest.raises(InvalidVideo):
        list(restorer.push(frames))


def test_pixels_that_are_no_numbers_are_an_error_not_a_black_frame() -> None:
    model = random_model(temporal_factor=1)
    model.vae.decoder.conv_out.bias[0] = torch.nan
    with pytest.raises(ModelBroken, match="not numbers"):
        self_test(model)


@pytest.mark.parametrize("temporal_factor", [1, 4])
def test_a_model_that_works_passes_its_self_test(temporal_factor: int) -> None:
    assert self_test(_model(temporal_factor)) > 0


def test_the_speed_of_a_model_is_measured_before_its_first_span() -> None:
    assert measure_speed(_model(4)) > 0


def test_nano_restores_a_noisy_clip() -> None:
    model, (width, height) = nano(), (160, 96)
    y, x = np.mgrid[:height, :width]
    clean = np.stack([_picture(x + 3 * t, y + t) for t in range(6)])
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    restored = _restore(model, noisy, _settings(width=width, height=height))
    assert _psnr(restored, clean) > _psnr(noisy, clean) + 4


def _picture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    waves = [
        128 + 60 * np.sin(x / a) * np.cos(y / b) + 30 * (((x // 24) + (y // 24)) % 2) for a, b in ((17, 23), (29, 13), (11, 31))
    ]
    return np.stack(waves, axis=-1)


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("step", [1, 7])
def test_nano_gives_the_same_bytes_however_frames_arrive(step: int) -> None:
    model, clip = nano(), _clip(11, width=64, height=48)
    settings = _settings(width=64, height=48, window_latents=4)
    assert np.array_equal(_restore(model, clip, settings, step), _restore(model, clip, settings))
