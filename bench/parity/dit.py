"""Goldens of the transformer and its sampler."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.parity.measure import Folder, Pair, Row, Tolerance, agree, compare, thinned
from services.inference.gpu.model.dit import Clip, Dit, sinusoid
from services.inference.gpu.model.kernels import Packing
from services.inference.gpu.model.rope import axis_frequencies, rotate, text_turns, video_turns
from services.inference.gpu.model.sampler import (
    Guidance,
    VelocityAt,
    condition,
    euler_step,
    guide,
    noise_low_quality,
    predict_ends,
    resolution_shift,
    sample,
    shift_timestep,
    trailing_timesteps,
)
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.windows import cut_grid, list_windows, window_size
from tests.unit.inference.gpu.goldens import KERNELS, TINY_DITS, tiny_dit

MARK = "tiny_3b_weights"
"""A file that such a folder has."""

LEFT_OUT = {
    "reference_packed": "the reference's own mistake, kept to recognise it",
    "v.bf16attn": "the reference with rounded attention",
    "v.autocast_bf16": "the reference in half precision",
}
"""What is not compared, by a part of its name, and why."""

WEIGHTS = ("tiny_3b_weights", "tiny_7b_weights")
"""Files that are no results."""

_VELOCITY = Tolerance(atol=2e-5, rtol=1e-4)
_STAGES = Tolerance(atol=5e-5, rtol=1e-4)
_PARTS = Tolerance(atol=1e-5, rtol=1e-5)
_HALF = Tolerance(relative=2e-2)
_RULES = ("3b", "7b")
_PIPELINES: dict[str, tuple[int, dict[str, float] | None]] = {
    "x0.steps1": (1, None),
    "x0.steps4": (4, None),
    "x0.steps3.cfg2": (3, {"scale": 2.0}),
    "x0.steps3.cfg2.partial0.5.rescale0.7": (3, {"scale": 2.0, "partial": 0.5, "rescale": 0.7}),
}


def rows(folder: Folder) -> Iterator[Row]:
    """All cases."""
    yield _configurations(folder)
    yield from (_manifest(folder, rules) for rules in _RULES)
    yield _windows(folder)
    yield from _rotary(folder)
    yield from _times(folder)
    yield from _sampling(folder)
    for rules in _RULES:
        for case in ("image", "video5", "wide"):
            yield from _stages(folder, rules, case)
        yield from _pair(folder, rules)
        yield from _pipelines(folder, rules)
        yield _half_precision(folder, rules)


def _configurations(folder: Folder) -> Row:
    pairs: list[tuple[Any, Any]] = []
    for rules, spec in TINY_DITS.items():
        config = folder.table("configs")[f"tiny_{rules}"]
        mine = (spec.width, spec.heads, spec.head_width, spec.blocks, spec.split_blocks, spec.mlp_width, spec.rope_width)
        names = ("width", "heads", "head_dim", "layers", "split_layers", "mlp_hidden", "rope_dim")
        pairs.append((mine, tuple(config[name] for name in names)))
    return agree("sizes of the small models", pairs)


def _manifest(folder: Folder, rules: str) -> Row:
    manifest = folder.table(f"manifest_{rules}")
    with torch.device("meta"):
        dit = Dit(SPECS[f"seedvr2-{rules}"].dit, KERNELS)
    shapes = [(key, list(value.shape)) for key, value in dit.state_dict().items()]
    parameters = sum(parameter.numel() for parameter in dit.parameters())
    pairs = [(shapes, list(manifest["shapes"].items())), (parameters, manifest["num_parameters"])]
    return agree(f"{rules} keys, shapes, order; parameters", pairs)


def _windows(folder: Folder) -> Row:
    pairs: list[tuple[Any, Any]] = []
    for entry in folder.table("windows"):
        time, height, width = entry["grid"]
        pairs.append((list(window_size((time, height, width), (4, 3, 3))), entry["window"]))
        for method, shifted in (("regular", False), ("shifted", True)):
            windows = list_windows(cut_grid((time, height, width), (4, 3, 3), shifted=shifted))
            pairs.append(([[*window.time, *window.height, *window.width] for window in windows], entry[method]))
    return agree("windows of 60 grids", pairs)


def _rotary(folder: Folder) -> Iterator[Row]:
    golden = folder.tensors("rope")
    for rules, rope_width in (("3b", 128), ("7b", 64)):
        pixel = rules == "7b"
        pairs = [Pair(axis_frequencies(rope_width, pixel=pixel), golden[f"{rules}.freqs"])]
        for name in ("win0", "win1", "win2"):
            cuts, words = [[(0, int(length))] for length in golden[f"{name}.shape"]], int(golden[f"{name}.text_len"])
            turns = {
                "vid": video_turns(cuts, words, rope_width, 128, pixel=pixel),
                "text": text_turns(words, rope_width, 128, pixel=pixel),
            }
            pairs.append(Pair(rotate(golden[f"{name}.q"].clone(), turns["vid"]), golden[f"{name}.{rules}.q_rot"]))
            pairs.append(_turned(turns["vid"], golden[f"{name}.{rules}.angles_vid"]))
            if not pixel:
                rotated = rotate(golden[f"{name}.text_q"].clone(), turns["text"])
                pairs.append(Pair(rotated, golden[f"{name}.{rules}.text_q_rot"]))
                pairs.append(_turned(turns["text"], golden[f"{name}.{rules}.angles_text"]))
        yield compare(f"{rules} rotary embedding", pairs, _PARTS)


def _turned(turns: Tensor, angles: Tensor) -> Pair:
    """Turns against angles, of which each stands twice."""
    expected = torch.polar(torch.ones_like(angles[:, ::2]), angles[:, ::2])
    return Pair(torch.view_as_real(turns[:, : expected.shape[1]]), torch.view_as_real(expected))


def _times(folder: Folder) -> Iterator[Row]:
    golden, schedule = folder.tensors("timestep_embedding"), folder.table("schedule")
    yield compare("sinusoid", [Pair(sinusoid(golden["t"], 256), golden["sinusoid"])], Tolerance(atol=1e-4))
    for key, shift in (("trailing_timesteps", 1.0), ("trailing_timesteps_shift3", 3.0)):
        pairs = [Pair(_vector(trailing_timesteps(int(steps), shift)), _vector(times)) for steps, times in schedule[key].items()]
        yield compare(key.replace("_", " "), pairs, Tolerance(rtol=1e-6))
    for key in ("intended", "as_called"):
        pairs = [_noised_time(entry, key) for entry in schedule["condition_noise_timestep"]]
        yield compare(f"time of condition noise, {key.replace('_', ' ')}", pairs, Tolerance(atol=1e-3))


def _noised_time(entry: dict[str, Any], key: str) -> Pair:
    time, height, width = entry["latent_thw"]
    latent = (time, height, width) if key == "intended" else (height, width, 16)
    shift = resolution_shift(latent, spatial_factor=8, temporal_factor=4)
    return Pair(_vector([shift_timestep(1000 * scale, shift) for scale in entry["scale"]]), _vector(entry[key]))


def _vector(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _sampling(folder: Folder) -> Iterator[Row]:
    golden = folder.tensors("sampler")
    x_t, velocity, steps = golden["x_t"], golden["v"], list(zip(golden["t"].tolist(), golden["s"].tolist(), strict=True))
    ends = [predict_ends(x_t, velocity, t) for t, _ in steps]
    pairs = [
        Pair(torch.stack([clean for clean, _ in ends]), golden["x0_hat"]),
        Pair(torch.stack([noise for _, noise in ends]), golden["xT_hat"]),
        Pair(torch.stack([euler_step(x_t, velocity, t, s) for t, s in steps]), golden["x_s"]),
    ]
    yield compare("Euler steps", pairs, Tolerance(atol=1e-6, rtol=1e-6))
    low_quality, noise = golden["cond.lq"], golden["cond.noise"]
    noised = torch.stack([noise_low_quality(low_quality, noise, t) for t in golden["cond.t"].tolist()])
    at_100 = condition(noise_low_quality(low_quality, noise, 100.0))
    pairs = [Pair(noised, golden["cond.lq_noised"]), Pair(at_100, golden["cond.condition_at_t100"])]
    yield compare("condition noise", pairs, Tolerance(atol=1e-6, rtol=1e-6))
    guided = [key for key in golden if key.startswith("cfg.scale")]
    yield compare("guidance", [Pair(_guided(golden, key), golden[key]) for key in guided], _PARTS)


def _guided(golden: Any, key: str) -> Tensor:
    scale, rescale = key.removeprefix("cfg.scale").split(".rescale")
    return guide(golden["cfg.pos"], golden["cfg.neg"], float(scale), float(rescale))


def clip_of(folder: Folder, case: str) -> Clip:
    """What a case gives the transformer."""
    inputs = folder.tensors("inputs")
    x = torch.cat([inputs[f"{case}.noise"], condition(inputs[f"{case}.lq"])], dim=-1)
    return Clip(x, inputs[f"{case}.txt"], inputs[f"{case}.timestep"][0])


class _Recorder:
    """A small transformer whose intermediate results are kept, by the goldens' names, one for each clip of the call."""

    def __init__(self, folder: Folder, rules: str) -> None:
        self.seen: dict[str, list[Tensor]] = defaultdict(list)
        self._words = 0
        self.dit = tiny_dit(rules, replace(KERNELS, attend=self._attend), folder.path)
        self._keep_output(self.dit.emb_in, "emb", lambda output: output[None])
        self._keep_output(self.dit.vid_in, "vid_in")
        self._keep_output(self.dit.txt_in, "txt_in")
        for index, block in enumerate(self.dit.blocks):
            self._watch(block, f"block{index}")

    def _watch(self, block: Any, name: str) -> None:
        block.register_forward_hook(self._keep_both(name))
        block.attn.register_forward_pre_hook(lambda _, inputs: self._enter(inputs, name))
        block.attn.register_forward_hook(self._keep_both(f"{name}.attn_out"))
        for mlp in {block.mlp.video, block.mlp.text}:
            mlp.register_forward_hook(self._mlp(name))

    def _enter(self, streams: Any, name: str) -> None:
        self._words = len(streams[1])
        self._keep(streams, f"{name}.attn_in")

    def _keep(self, streams: Any, name: str) -> None:
        self.seen[f"{name}.vid"].append(streams[0].clone())
        self.seen[f"{name}.txt"].append(streams[1].clone())

    def _keep_both(self, name: str) -> Callable[..., None]:
        return lambda _, inputs, outputs: self._keep(outputs, name)

    def _keep_output(self, module: nn.Module, name: str, change: Callable[[Tensor], Tensor] = lambda output: output) -> None:
        module.register_forward_hook(lambda _, inputs, output: self.seen[name].append(change(output).clone()))

    def _mlp(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            stream = "txt" if len(output) == self._words else "vid"
            self.seen[f"{name}.mlp_in.{stream}"].append(inputs[0].clone())
            self.seen[f"{name}.mlp_out.{stream}"].append(output.clone())

        return keep

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
        out = KERNELS.attend(q, k, v, packing)
        for name, value in (("q", q), ("k", k), ("v", v), ("o", out)):
            self.seen[f"block0.packed_{name}"].append(value.clone())
        self.seen["block0.cu_seqlens"].append(packing.borders)
        return out


def _stages(folder: Folder, rules: str, case: str) -> Iterator[Row]:
    golden, recorder = folder.tensors(f"tiny_{rules}_{case}"), _Recorder(folder, rules)
    velocity = recorder.dit(*clip_of(folder, case))
    stride = int(golden["token_stride"])
    pairs = []
    for name in golden:
        if name in recorder.seen:
            mine = recorder.seen[name][0]
            pairs.append(Pair(mine[::stride] if name.endswith(("vid", "vid_in")) else mine, golden[name]))
    yield compare(f"tiny {rules} {case}, stages", pairs, _STAGES)
    yield compare(f"tiny {rules} {case}, velocity", [Pair(thinned(velocity, golden["v"]), golden["v"])], _VELOCITY)


def _pair(folder: Folder, rules: str) -> Iterator[Row]:
    golden, recorder = folder.tensors(f"tiny_{rules}_pair"), _Recorder(folder, rules)
    velocities = recorder.dit.velocities([clip_of(folder, "pair0"), clip_of(folder, "pair1")])
    stride, pairs = int(golden["token_stride"]), []
    for name in golden:
        clip, _, stage = name.removeprefix("sample").partition(".")
        if name.startswith("sample"):
            mine = recorder.seen[stage][int(clip)]
            pairs.append(Pair(mine[::stride] if stage.endswith("vid") else mine, golden[name]))
    yield compare(f"tiny {rules} pair in one call, stages", pairs, _STAGES)
    ends = [Pair(velocity, golden[f"v{index}"]) for index, velocity in enumerate(velocities)]
    yield compare(f"tiny {rules} pair in one call, velocities", ends, _VELOCITY)


def _pipelines(folder: Folder, rules: str) -> Iterator[Row]:
    golden, inputs, dit = folder.tensors(f"tiny_{rules}_pipeline"), folder.tensors("inputs"), tiny_dit(rules, folder=folder.path)
    conditioned = condition(inputs["image.lq"])

    def velocity_by(text: Tensor) -> VelocityAt:
        return lambda x, t: dit(torch.cat([x, conditioned], dim=-1), text, torch.tensor(t))

    for name, (steps, options) in _PIPELINES.items():
        guidance = None if options is None else Guidance(negative_at=velocity_by(inputs["image.neg_txt"]), **options)
        restored = sample(velocity_by(inputs["image.txt"]), inputs["image.noise"], steps, guidance=guidance)
        yield compare(f"tiny {rules} {name}", [Pair(restored, golden[name])], _VELOCITY)


def _half_precision(folder: Folder, rules: str) -> Row:
    dit, clip = tiny_dit(rules, folder=folder.path).to(torch.bfloat16), clip_of(folder, "image")
    velocity = dit(clip.x.bfloat16(), clip.text.bfloat16(), clip.timestep)
    return compare(f"tiny {rules} image in bf16", [Pair(velocity, folder.tensors(f"tiny_{rules}_image")["v"])], _HALF)
