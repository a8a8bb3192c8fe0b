"""Goldens of the autoencoder."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.parity.measure import Folder, Pair, Row, Tolerance, agree, compare
from services.inference.gpu.model.kernels import group_norm_silu
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.tiling import TiledVae, Tiling, TilingState
from services.inference.gpu.model.vae import Conv, Downsampler, Upsampler, Vae, VaeState, posterior
from tests.unit.inference.gpu.goldens import KERNELS, TINY_VAE, full_vae, tiny_vae

MARK = "tiny_vae"
"""A file that such a folder has."""

LEFT_OUT = {
    "_bf16_cpu": "the reference in half precision",
}
"""What is not compared, by a part of its name, and why."""

WEIGHTS = ("tiny_vae",)
"""Files that are no results."""

_CLOSE = Tolerance(atol=5e-5)
_UNITS = ("conv_k333_s111", "conv_k111", "down_space", "down_spacetime", "up_space", "up_spacetime")


def rows(folder: Folder) -> Iterator[Row]:
    """All cases."""
    yield _configuration(folder)
    yield _manifest(folder)
    vae, golden = tiny_vae(folder.path), folder.tensors("encode_decode")
    for name in sorted(key[:-2] for key in golden if key.startswith("enc.") and key.endswith(".x")):
        yield _encoded(vae, golden, name)
    for name in sorted(key[:-2] for key in golden if key.startswith("dec.") and key.endswith(".z")):
        yield _decoded(vae, golden, name)
    yield _image(vae, golden)
    yield _posterior(golden)
    yield _stages(vae, folder.tensors("stages"))
    yield from (_unit(folder.tensors("units"), name) for name in _UNITS)
    yield _norm(folder.tensors("units"))
    for case in folder.table("tiling"):
        yield from _tiled(vae, folder.tensors("tiling"), case)
    if folder.has("full_config"):
        yield from _full_size(folder.tensors("full_config"))


def _configuration(folder: Folder) -> Row:
    config = folder.table("tiny_vae_config")
    mine = {
        "block_out_channels": list(TINY_VAE.channels),
        "layers_per_block": TINY_VAE.blocks_per_level,
        "latent_channels": TINY_VAE.latent_channels,
        "norm_num_groups": TINY_VAE.norm_groups,
        "norm_eps": TINY_VAE.norm_eps,
        "temporal_scale_num": TINY_VAE.temporal_levels,
    }
    return agree("sizes of the small model", [(value, config[name]) for name, value in mine.items()])


def _manifest(folder: Folder) -> Row:
    with torch.device("meta"):
        vae = Vae(SPECS["seedvr2-3b"].vae, KERNELS)
    shapes = [(key, list(value.shape)) for key, value in vae.state_dict().items()]
    return agree("keys, shapes, order", [(shapes, list(folder.table("manifest_vae")["tensors"].items()))])


def _frames_first(x: Tensor) -> Tensor:
    """(1, C, T, H, W) to (T, C, H, W)."""
    return x[0].transpose(0, 1)


def _batch_last(frames: Tensor) -> Tensor:
    """(T, C, H, W) to (1, C, T, H, W)."""
    return frames.transpose(0, 1)[None]


def _of_batch(step: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Each clip of (B, C, T, H, W) by itself."""
    return torch.cat([_batch_last(step(_frames_first(clip[None]))) for clip in batch])


def _in_slices(step: Callable[[Tensor, VaeState], Tensor], x: Tensor, length: int, lead: int) -> Tensor:
    """A first slice with ``lead`` more than the others."""
    state, rest = VaeState(), x[lead + length :]
    return torch.cat([step(part, state) for part in (x[: lead + length], *(rest.split(length) if len(rest) else ()))])


def _encoded(vae: Vae, golden: Mapping[str, Tensor], name: str) -> Row:
    def moments(length: int) -> Tensor:
        return _of_batch(lambda x: _in_slices(vae.moments, x, length, 1), golden[f"{name}.x"])

    whole = moments(len(golden[f"{name}.x"][0, 0]))
    deviations = _of_batch(lambda x: posterior(x)[1], whole)
    pairs = [Pair(whole, golden[f"{name}.moments"]), Pair(deviations, golden[f"{name}.std"])]
    sliced = [key for key in golden if key.startswith(f"{name}.moments_sliced")]
    pairs += [Pair(moments(int(key.rpartition("sliced")[2])), golden[key]) for key in sliced]
    return compare(name, pairs, _CLOSE)


def _decode(vae: Vae, z: Tensor, state: VaeState) -> Tensor:
    return vae.decode(z.permute(0, 2, 3, 1) * vae.spec.scaling_factor, state)


def _decoded(vae: Vae, golden: Mapping[str, Tensor], name: str) -> Row:
    def frames(latents: int) -> Tensor:
        return _of_batch(lambda z: _in_slices(lambda part, state: _decode(vae, part, state), z, latents, 1), golden[f"{name}.z"])

    pairs = [Pair(frames(len(golden[f"{name}.z"][0, 0])), golden[f"{name}.y"])]
    sliced = [key for key in golden if key.startswith(f"{name}.y_sliced")]
    pairs += [Pair(frames(int(key.rpartition("sliced")[2]) // 4), golden[key]) for key in sliced]
    return compare(name, pairs, _CLOSE)


def _image(vae: Vae, golden: Mapping[str, Tensor]) -> Row:
    latents = vae.encode(golden["image.x"], VaeState())
    mean = latents.permute(0, 3, 1, 2) / vae.spec.scaling_factor
    frames = vae.decode(latents, VaeState())
    return compare("image", [Pair(mean, golden["image.mean_squeezed"]), Pair(frames, golden["image.y_squeezed"])], _CLOSE)


def _posterior(golden: Mapping[str, Tensor]) -> Row:
    mean, deviation = posterior(_frames_first(golden["posterior.moments"]))
    found = {"mean": mean, "std": deviation, "logvar": 2 * deviation.log()}
    pairs = [Pair(value, _frames_first(golden[f"posterior.{name}"])) for name, value in found.items()]
    return compare("posterior", pairs, Tolerance(atol=5e-5, rtol=1e-5))


def _stages(vae: Vae, golden: Mapping[str, Tensor]) -> Row:
    seen: dict[str, Tensor] = {}
    # The outermost norms are recorded without the activation that is part of ours.
    watched = [(name, module) for name, module in vae.named_modules() if name in golden and not name.endswith("norm_out")]
    hooks = [module.register_forward_hook(_keep(seen, name)) for name, module in watched]
    hooks += [_norms(vae, part, seen) for part in ("encoder", "decoder")]
    seen["moments"] = vae.moments(_frames_first(golden["x"]), VaeState())
    seen["y"] = _decode(vae, _frames_first(golden["z"]), VaeState())
    for hook in hooks:
        hook.remove()
    pairs = [
        Pair(value, golden[name] if golden[name].ndim == 4 else _frames_first(golden[name]))
        for name, value in seen.items()
        if name in golden
    ]
    return compare("stages of one clip", pairs, _CLOSE)


def _keep(seen: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen[name] = output.clone()

    return keep


def _norms(vae: Vae, part: str, seen: dict[str, Tensor]) -> Any:
    """Evaluate a part's last norm once more, without its activation."""
    norm: Any = vae.get_submodule(f"{part}.conv_norm_out")

    def keep(module: nn.Module, inputs: Any) -> None:
        weights = norm.weight, norm.bias, vae.spec.norm_groups, vae.spec.norm_eps
        seen[f"{part}.conv_norm_out"] = group_norm_silu(inputs[0], *weights, silu=False)

    return norm.register_forward_pre_hook(keep)


def _unit(golden: Mapping[str, Tensor], name: str) -> Row:
    layer = _layer({key[len(name) + 1 :]: golden[key] for key in golden if key.startswith(f"{name}.")}, name)
    pairs = [Pair(layer(_frames_first(golden[f"{name}.in_all"]), VaeState()), _frames_first(golden[f"{name}.out_all"]))]
    for prefix in (f"{name}.", f"{name}.short."):
        state, index = VaeState(), 0
        while f"{prefix}in{index}" in golden:
            out = layer(_frames_first(golden[f"{prefix}in{index}"]), state)
            pairs.append(Pair(out, _frames_first(golden[f"{prefix}out{index}"])))
            state.started, index = True, index + 1
    return compare(f"layer {name}", pairs, _CLOSE)


def _layer(golden: Mapping[str, Tensor], name: str) -> nn.Module:
    layer: nn.Module
    if name.startswith("conv"):
        shape = golden["weight"].shape
        layer = Conv(shape[1], shape[0], (shape[2], shape[3], shape[4]), KERNELS)
    else:
        kind = Downsampler if name.startswith("down") else Upsampler
        layer = kind(4, KERNELS, temporal=name.endswith("time"))
    weights = {key: value for key, value in golden.items() if key.endswith(("weight", "bias"))}
    layer.requires_grad_(False).load_state_dict(
        {f"conv.{key}" if name.startswith("down") else key: value for key, value in weights.items()}
    )
    return layer


def _norm(golden: Mapping[str, Tensor]) -> Row:
    weight, bias = golden["groupnorm.weight"], golden["groupnorm.bias"]
    mine = _of_batch(lambda x: group_norm_silu(x, weight, bias, 2, 1e-6, silu=False), golden["groupnorm.in"])
    return compare("layer groupnorm", [Pair(mine, golden["groupnorm.out"])], _CLOSE)


def _tiled(vae: Vae, golden: Mapping[str, Tensor], case: dict[str, Any]) -> Iterator[Row]:
    axes = (Tiling(size=size, overlap=shared) for size, shared in zip(case["tile_size"], case["tile_overlap"], strict=True))
    tiled, name, state = TiledVae(vae, *axes), case["name"], TilingState()
    frames = _frames_first(golden[f"{name}.x"])
    moments = torch.cat([tiled.moments(part, state) for part in (frames[:1], *frames[1:].split(4)) if len(part)])
    yield compare(f"{name} encoded in tiles", [Pair(moments, _frames_first(golden[f"{name}.moments_tiled"]))], _CLOSE)
    z, state = _frames_first(golden[f"{name}.z"]), TilingState()
    decoded = torch.cat([tiled.decode(part.permute(0, 2, 3, 1) * vae.spec.scaling_factor, state) for part in z.split(1)])
    yield compare(f"{name} decoded in tiles", [Pair(decoded, _frames_first(golden[f"{name}.y_tiled"]))], _CLOSE)
    if f"{name}.moments_whole" in golden:
        pairs = [Pair(vae.moments(frames, VaeState()), _frames_first(golden[f"{name}.moments_whole"]))]
        if f"{name}.y_whole" in golden:
            pairs.append(Pair(_decode(vae, z, VaeState()), _frames_first(golden[f"{name}.y_whole"])))
        yield compare(f"{name} whole", pairs, _CLOSE)


def _full_size(golden: Mapping[str, Tensor]) -> Iterator[Row]:
    vae = full_vae()
    for name in sorted(key[:-2] for key in golden if key.endswith(".x")):
        moments = vae.moments(_frames_first(golden[f"{name}.x"]), VaeState())
        decoded = _decode(vae, _frames_first(golden[f"{name}.z"]), VaeState())
        pairs = [
            Pair(moments, _frames_first(golden[f"{name}.moments"])),
            Pair(decoded, _frames_first(golden[f"{name}.y"])),
        ]
        yield compare(f"real size {name}", pairs, _CLOSE)
