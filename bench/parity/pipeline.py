"""Goldens of what stands around the model: sizes, padding, fading, colours, rounding, and a port's whole flow."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bench.parity.measure import Folder, Pair, Row, Tolerance, agree, compare
from services.common.sizes import OutputSize, area_rule, round_down, round_up, short_side_rule
from services.inference.gpu.model.alpha import edges, enlarge_alpha, guided_filter
from services.inference.gpu.model.batches import batch_spans, cross_fade, fade_weights
from services.inference.gpu.model.colour.histogram import match_histogram
from services.inference.gpu.model.colour.spaces import rgb_to_hsv, rgb_to_lab
from services.inference.gpu.model.colour.statistics import (
    transfer_adain,
    transfer_hsv,
    transfer_lab,
    transfer_wavelet_adaptive,
)
from services.inference.gpu.model.colour.wavelet import transfer_wavelet
from services.inference.gpu.model.frames import (
    crop,
    crop_to_multiple,
    mirror_append,
    mirror_prepend,
    mirror_to_valid,
    normalise,
    pad_black,
    quantise_on_device,
    repeat_last,
    resize,
    scale,
)

MARK = "resize"
"""A file that such a folder has."""

LEFT_OUT = {
    "port_u8": "the port cuts where the released scripts and this service round",
    "small.content_soft_low": "a step inside of the wavelet transfer, which is computed in another order here",
    "small.official_wavelet": "without the port's cap on blurs of small frames, which the service keeps",
}
"""What is not compared, by a part of its name, and why."""

WEIGHTS: tuple[str, ...] = ()
"""Files that are no results."""

Transfer = Callable[[Tensor, Tensor], Tensor]
"""Restored and source frames, (T, 3, H, W) in [-1, 1], to the first with the second's colours."""

_CLOSE = Tolerance(atol=1e-5)
_BY_RANK = Tolerance(atol=1e-4, outliers=0.005, worst=0.01)
_BY_THRESHOLD = Tolerance(atol=1e-4, outliers=0.002, worst=1.0)

COLOURS: dict[str, tuple[Transfer, Tolerance]] = {
    "wavelet": (transfer_wavelet, _CLOSE),
    "adain": (transfer_adain, _CLOSE),
    "lab": (transfer_lab, _BY_RANK),
    "hsv": (transfer_hsv, _BY_RANK),
    "wavelet_adaptive": (transfer_wavelet_adaptive, _BY_RANK),
}
"""Colour transfers over several frames together, by the goldens' names, and how close they should come."""

_COLOUR_FILES = ("color", "colour")


def rows(folder: Folder) -> Iterator[Row]:
    """All cases that the folder has."""
    yield from _resizing(folder)
    yield from _padding(folder)
    yield from _fading(folder)
    yield _rounding(folder)
    yield from _colours(folder)
    if folder.has("alpha"):
        yield from _transparency(folder)
    if folder.has("assembly"):
        yield from (_assembled(folder, case) for case in folder.table("assembly"))


def _size(height_and_width: list[int]) -> OutputSize:
    return OutputSize(height_and_width[1], height_and_width[0])


def _resizing(folder: Folder) -> Iterator[Row]:
    golden, tables = folder.tensors("resize"), folder.table("resize")
    for case in tables["cases"]:
        if f"{case['name']}.in_u8" in golden:
            yield _resized(golden, case)
    for name in [key[:-3] for key in golden if key.endswith(".in")]:
        expected = golden[f"{name}.resized"]
        yield compare(name, [Pair(resize(golden[f"{name}.in"], *expected.shape[-2:]), expected.clamp(0, 1))], _CLOSE)
    areas = [(row, area_rule(*_size(row["size"]), row["res"][0] * row["res"][1])) for row in tables["area_table"]]
    cropped = [(round_down(size, 16), _size(row["cropped"])) for row, size in areas]
    yield agree("sizes by the area rule", [(size, _size(row["resized"])) for row, size in areas] + cropped)
    sides = [
        (row, short_side_rule(*_size(row["size"]), row["resolution"], row["max_resolution"])) for row in tables["side_table"]
    ]
    padded = [(round_up(size, 16), _size(row["padded"])) for row, size in sides]
    yield agree("sizes by the short-side rule", [(round_down(size, 2), _size(row["true"])) for row, size in sides] + padded)


def _resized(golden: Mapping[str, Tensor], case: dict[str, Any]) -> Row:
    name, (height, width) = case["name"], case["resized"]
    frames = golden[f"{name}.in_u8"] / 255
    scaled = resize(_sided(frames, case) if case["kind"] == "port_side" else frames, height, width)
    fitted = crop_to_multiple(scaled, 16) if case["kind"] == "official_area" else pad_black(scaled, 16)
    out = normalise(fitted).transpose(0, 1)
    return compare(name, [Pair(scaled, golden[f"{name}.resized"].clamp(0, 1)), Pair(out, golden[f"{name}.out"])], _CLOSE)


def _padding(folder: Folder) -> Iterator[Row]:
    tables = folder.table("temporal_padding")
    rules: dict[str, Callable[[dict[str, Any]], list[int]]] = {
        "official": lambda entry: repeat_last(entry["t"], 4, entry["sp"]),
        "port_auto": lambda entry: mirror_to_valid(entry["t"]),
        "port_count": lambda entry: mirror_append(entry["t"], entry["count"]),
        "port_prepend": lambda entry: mirror_prepend(entry["t"], entry["count"]),
    }
    for name, rule in rules.items():
        yield agree(f"padding in time, {name}", [(rule(entry), entry["frames"]) for entry in tables[name]])


def _fading(folder: Folder) -> Iterator[Row]:
    golden = folder.tensors("blend")
    for name in [key[:-4] for key in golden if key.endswith(".cur")]:
        faded = cross_fade(golden[f"{name}.prev"], golden[f"{name}.cur"])
        weights = Pair(fade_weights(len(faded)), golden[f"{name}.w_prev"])
        yield compare(f"cross-fade over {name[1:]}", [Pair(faded, golden[f"{name}.out"]), weights], _CLOSE)


def _rounding(folder: Folder) -> Row:
    golden = folder.tensors("quantise")
    mine = quantise_on_device(golden["decoded"], 8)
    return agree("rounding to 8 bits", [(mine.tolist(), golden["official_u8"].tolist())])


def _colours(folder: Folder) -> Iterator[Row]:
    golden = folder.tensors(next(name for name in _COLOUR_FILES if folder.has(name)))
    for size in ("small", "large"):
        for name, (transfer, tolerance) in COLOURS.items():
            soft = "_soft" if tolerance is _BY_RANK else ""
            mine = transfer(golden[f"{size}.content{soft}"], golden[f"{size}.style{soft}"])
            yield compare(f"{name} {size}", [Pair(mine, golden[f"{size}.{name}"])], tolerance)
        adain = transfer_adain(golden[f"{size}.content"], golden[f"{size}.style"])
        yield compare(f"adain {size}, released scripts", [Pair(adain, golden[f"{size}.official_adain"])], _CLOSE)
    rgb = (golden["small.style_soft"] + 1) / 2
    yield compare("Lab", [Pair(rgb_to_lab(rgb), golden["small.style_soft_lab"])], Tolerance(atol=2e-4, rtol=1e-5))
    yield compare("HSV", [Pair(rgb_to_hsv(rgb), golden["small.style_soft_hsv"])], _CLOSE)
    for counts in ("same", "other"):
        matched = match_histogram(golden["hist.src"], golden[f"hist.ref_{counts}"])
        yield compare(f"histogram, {counts} count", [Pair(matched, golden[f"hist.out_{counts}"])], _CLOSE)
    if "large.official_wavelet" in golden:
        # On large frames the released scripts' rule is the same, but for the values that leave the range.
        mine = transfer_wavelet(golden["large.content"], golden["large.style"])
        yield compare("wavelet large, released scripts", [Pair(mine, golden["large.official_wavelet"].clamp(-1, 1))], _CLOSE)


def _transparency(folder: Folder) -> Iterator[Row]:
    """Away from the border: there the port counts what lies outside, and the service doesn't."""
    golden = folder.tensors("alpha")
    for name, radius in (("grad", 3), ("mask", 2)):
        alpha, restored = golden[f"{name}.alpha"], golden[f"{name}.rgb_decoded"]
        guide = (restored + 1) / 2
        grey = guide.mean(1, keepdim=True)
        yield compare(f"edges, {name}", [Pair(edges(guide), golden[f"{name}.edges"])], _BY_THRESHOLD)
        smooth = guided_filter(grey, resize(alpha, *grey.shape[-2:]), 2)
        yield compare(f"guided filter, {name}", [_inside(smooth, golden[f"{name}.guided_r2"], 2)], Tolerance(atol=1e-4))
        mine = enlarge_alpha(alpha, restored)
        yield compare(f"transparency, {name}", [_inside(mine, golden[f"{name}.alpha_out"], radius)], _BY_THRESHOLD)


def _inside(mine: Tensor, expected: Tensor, radius: int) -> Pair:
    part = (..., slice(2 * radius, -2 * radius), slice(2 * radius, -2 * radius))
    return Pair(mine[part], expected[part])


def _assembled(folder: Folder, case: dict[str, Any]) -> Row:
    """A port's flow with a stand-in for the model: batches, fading, colours, trimming."""
    golden, name, prepended = folder.tensors("assembly"), case["name"], case["prepend_frames"]
    source = golden[f"{name}.in_u8"].permute(0, 3, 1, 2)[:, :3] / 255
    source = source[mirror_prepend(len(source), prepended)] if prepended else source
    assembled, fresh = _flow(source, case)
    pairs = [Pair(assembled.permute(0, 2, 3, 1), golden[f"{name}.assembled"])]
    colour = case["color_correction"]
    if colour == "none" or colour in COLOURS:
        parts = [assembled[first:end] for first, end in fresh]
        if colour != "none":
            transfer = COLOURS[colour][0]
            parts = [transfer(part, _fitted(source[first:end], case)) for part, (first, end) in zip(parts, fresh, strict=True)]
        final = torch.cat(parts).clamp(-1, 1) * 0.5 + 0.5
        pairs.append(Pair(final[prepended:].permute(0, 2, 3, 1), golden[f"{name}.final"][..., :3]))
    spans = [list(span) for span in fresh]
    row = compare(f"assembly {name}", pairs, COLOURS.get(colour, (None, _CLOSE))[1])
    return row._replace(passed=row.passed and spans == case["appended_spans"])


def _flow(source: Tensor, case: dict[str, Any]) -> tuple[Tensor, list[tuple[int, int]]]:
    """(T, 3, H, W) frames in [-1, 1], and which of them each batch added."""
    size, overlap = case["batch_size"], case["temporal_overlap"]
    done, fresh = torch.empty(0), []
    for index, (first, end) in enumerate(batch_spans(len(source), size, overlap)):
        indices = list(range(end - first))
        if case["uniform_batch_size"] and index and len(indices) < size:
            indices = mirror_append(len(indices), size - len(indices))
        indices = [indices[i] for i in mirror_to_valid(len(indices))]
        restored = 0.9 * _fitted(source[first:end][indices], case)[: end - first] + 0.05 * index
        shared = overlap if index else 0
        if shared:
            done[-shared:] = cross_fade(done[-shared:], restored[:shared])
        fresh.append((first + shared, end))
        done = torch.cat([done, restored[shared:]]) if index else restored
    return done, fresh


def _fitted(frames: Tensor, case: dict[str, Any]) -> Tensor:
    """Resized and cut to the true size, in [-1, 1]; padding would be cut off again."""
    height, width = frames.shape[-2:]
    size = short_side_rule(width, height, case["resolution"], case["max_resolution"])
    return normalise(crop(resize(_sided(frames, case), size.height, size.width), *case["true_size"]))


def _sided(frames: Tensor, case: dict[str, Any]) -> Tensor:
    """Frames whose longest side is too long yet: where the port limits that, it resizes twice, and the service once."""
    height, width = frames.shape[-2:]
    size = short_side_rule(width, height, case["resolution"])
    return scale(frames, size.height, size.width) if 0 < case["max_resolution"] < max(size) else frames
