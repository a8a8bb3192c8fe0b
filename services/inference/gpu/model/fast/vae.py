"""The autoencoder on a GPU: channels innermost from end to end, and no pass over memory that isn't needed.

Between two convolutions there is one pass for statistics and one that norms, activates and writes straight behind the past
frames that the next convolution sees. Biases wait for the pass that follows; residuals are added where statistics are taken. A
stream's first frame sees nothing but itself, so it goes through a 2-D network whose weights are the sums over time; an image
is such a frame. Results equal those of ``vae.py`` up to rounding.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.inference.gpu.model.fast.ops import FrameOps, Partials
from services.inference.gpu.model.fast.upsample import Merged, merge
from services.inference.gpu.model.vae import (
    Attention,
    Conv,
    Decoder,
    Encoder,
    GroupNorm,
    MidBlock,
    ResnetBlock,
    Upsampler,
    Vae,
    VaeState,
)

_SCORE_BYTES = 1 << 28
"""Of attention scores in memory at a time."""

_THIN = 8
"""Fewer channels than this leave tensor cores idle; taps in space stand in for them."""

_ALIGNED = 32
"""Channels are filled up to a multiple of this where taps become channels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Weights:
    """A convolution's weights, laid out for use. Biases are left to the pass that follows."""

    moving: Tensor
    """(O, C, taps, kh, kw)."""

    still: Tensor
    """(O, C, kh, kw): all taps on one frame."""

    padding: int
    """Zeros around each frame."""

    pixels: str = ""
    """Taps in space turned into channels, because there are few others: ``in`` or ``out``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Upscale:
    """An upsampler's merged weights for each place in a stream."""

    first: Merged
    """For the first frame."""

    second: Merged | None
    """For the frame after it, where time is doubled too."""

    later: Merged
    """For all others."""

    past: int
    """Frames of the past that an output sees."""


@dataclass(slots=True, eq=False)
class _Frames:
    """Frames on the residual stream. Whoever takes them gets the only reference, so that memory is free once they are used."""

    x: Tensor | None
    """(T, H, W, C)."""

    partials: Partials | None = None
    """Their statistics, where a norm comes next."""

    room: Tensor | None = None
    """What ``x`` is the end of, if that has two frames more and may be used up."""

    def take(self) -> tuple[Tensor, Partials | None, Tensor | None]:
        """Everything; nothing stays."""
        if self.x is None:
            raise RuntimeError("frames are taken once")
        taken = self.x, self.partials, self.room
        self.x = self.partials = self.room = None
        return taken


class FastVae:
    """Encoder and decoder of one :class:`Vae`, whose parameters must not change any more."""

    def __init__(self, vae: Vae, ops: FrameOps) -> None:
        self._vae = vae
        self._ops = ops
        self._upscales = {module: _merge(module) for module in vae.modules() if isinstance(module, Upsampler)}
        apart = {conv for up in self._upscales for conv in (up.upscale_conv, up.conv)}
        convs = (module for module in vae.modules() if isinstance(module, Conv) and module not in apart)
        self._weights = {conv: _lay_out(conv) for conv in convs}

    def moments(self, frames: Tensor, state: VaeState) -> Tensor:
        """As :meth:`Vae.moments`."""
        return _joined([self._encode(part, state) for part in _parts(frames, state)])

    def decode(self, latents: Tensor, state: VaeState) -> Tensor:
        """(L, C, h, w) unscaled latents to (T, 3, H, W); otherwise as :meth:`Vae.decode`."""
        return _joined([self._decode(part, state) for part in _parts(latents, state)])

    def _encode(self, frames: Tensor, state: VaeState) -> Tensor:
        encoder = self._vae.encoder
        stream = self._enter(encoder.conv_in, frames, state)
        levels: Any = encoder.down_blocks
        for block in levels:
            down = block.downsamplers[0].conv if len(block.downsamplers) else None
            stream = self._resnets(block.resnets, stream, state, before=down)
            if down is not None:
                stream = self._downsample(down, stream, state)
        return self._leave(encoder, self._mid(encoder.mid_block, stream, state), state)

    def _decode(self, latents: Tensor, state: VaeState) -> Tensor:
        decoder = self._vae.decoder
        stream = self._mid(decoder.mid_block, self._enter(decoder.conv_in, latents, state), state)
        levels: Any = decoder.up_blocks
        for block in levels:
            up = block.upsamplers[0] if len(block.upsamplers) else None
            stream = self._resnets(block.resnets, stream, state, before=up)
            if up is not None:
                stream = self._upsample(up, stream, state)
        return self._leave(decoder, stream, state)

    def _enter(self, conv: Conv, frames: Tensor, state: VaeState) -> _Frames:
        """(T, c, H, W) input through the first convolution."""
        weights = self._weights[conv]
        count, _, height, width = frames.shape
        inputs, new = self._open(conv, (count, height, width, weights.still.shape[1]), state)
        if weights.pixels == "in":
            _neighbourhoods(frames, new)
        else:
            new.copy_(frames.permute(0, 2, 3, 1))
        return self._finish(self._convolve(conv, inputs, state), conv.bias)

    def _leave(self, net: Encoder | Decoder, stream: _Frames, state: VaeState) -> Tensor:
        """The last norm and convolution; (T, O, H, W)."""
        conv = net.conv_out
        y = self._norm_and_convolve(net.conv_norm_out, conv, stream, state)
        state.started, state.settled = True, state.started
        if self._weights[conv].pixels == "out":
            return self._ops.collect(y, conv.bias)
        return y.add_(conv.bias).permute(0, 3, 1, 2)

    def _mid(self, block: MidBlock, stream: _Frames, state: VaeState) -> _Frames:
        resnets: Any = block.resnets
        attentions: Any = block.attentions
        stream = self._resnet(resnets[0], stream, state)
        for attention in attentions:
            stream = self._attend(attention, stream)
        return self._resnet(resnets[1], stream, state)

    def _resnets(self, blocks: Any, stream: _Frames, state: VaeState, before: Upsampler | Conv | None) -> _Frames:
        for block in blocks[:-1]:
            stream = self._resnet(block, stream, state)
        return self._resnet(blocks[-1], stream, state, before)

    def _resnet(self, block: ResnetBlock, stream: _Frames, state: VaeState, before: Upsampler | Conv | None = None) -> _Frames:
        """``before``: the resampler that comes next; the result is then all of its input, and isn't measured."""
        x, partials, room = stream.take()
        skip: Tensor = x
        bias: Tensor = block.conv2.bias
        if block.conv_shortcut is None:
            room = None
        else:
            skip = functional.linear(x, block.conv_shortcut.weight.flatten(1))
            bias = bias.float() + block.conv_shortcut.bias
        stream = _Frames(x, partials, room)
        del x, room
        h = self._norm_and_convolve(block.norm1, block.conv1, stream, state)
        stream = _Frames(h, self._ops.measure(h))
        del h
        y = self._norm_and_convolve(block.norm2, block.conv2, stream, state, pending=block.conv1.bias)
        if before is None:
            return self._finish(y, bias, skip)
        inputs, new = self._open_resampler(before, y.shape, state)
        self._ops.finish(y, bias, skip, new, measure=False)
        return _Frames(inputs)

    def _finish(self, y: Tensor, bias: Tensor, skip: Tensor | None = None) -> _Frames:
        return _Frames(y, self._ops.finish(y, bias, skip, y, measure=True))

    def _norm_and_convolve(
        self, norm: GroupNorm, conv: Conv, stream: _Frames, state: VaeState, pending: Tensor | None = None
    ) -> Tensor:
        """Norm, SiLU and a convolution without its bias; ``pending`` is the bias that the input still lacks."""
        x, partials, room = stream.take()
        affine = self._fold(norm, partials, pending)
        inputs, new = self._open(conv, x.shape, state, room)
        # The kernel writes the tail on the way, unless the tail keeps a frame that it doesn't see.
        tail = state.tails[conv] if len(new) > 1 and len(inputs) > len(new) else None
        self._ops.normalise(x, affine, new, tail, silu=True)
        del x, room, new
        return self._convolve(conv, inputs, state, kept=tail is not None)

    def _fold(self, norm: GroupNorm, partials: Partials | None, pending: Tensor | None = None) -> Tensor:
        if partials is None:
            raise RuntimeError("frames before a norm are measured")
        spec = self._vae.spec
        return self._ops.fold(partials, norm.weight, norm.bias, pending, spec.norm_groups, spec.norm_eps)

    def _open(self, conv: Conv, shape: tuple[int, ...], state: VaeState, room: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Input of a convolution, the past in place, and the part of it that is still to be written."""
        past = conv.weight.shape[2] - 1 if state.started else 0
        inputs = conv.weight.new_empty((past + shape[0], *shape[1:])) if room is None else room[2 - past :]
        if past:
            inputs[:past] = state.tails[conv]
        return inputs, inputs[past:]

    def _convolve(self, conv: Conv, inputs: Tensor, state: VaeState, *, kept: bool = False) -> Tensor:
        weights, past = self._weights[conv], conv.weight.shape[2] - 1
        if past and not kept:
            _keep(conv, inputs, past, state)
        weight = weights.moving if past and state.started else weights.still
        return _convolve(inputs, weight, padding=weights.padding)

    def _open_resampler(self, module: Upsampler | Conv, shape: torch.Size, state: VaeState) -> tuple[Tensor, Tensor]:
        """The same for a resampler. A downsampler's input has a row and a column of zeros more."""
        count, height, width, channels = shape
        if isinstance(module, Upsampler):
            weight, past, border = module.conv.weight, self._upscales[module].past, 0
        else:
            weight, past, border = module.weight, module.weight.shape[2] // 2, 1
        past = past if state.started else 0
        inputs = weight.new_empty((past + count, height + border, width + border, channels))
        inputs[past:, height:] = 0
        inputs[past:, :, width:] = 0
        if past:
            inputs[:past] = state.tails[module]
        return inputs, inputs[past:, :height, :width]

    def _downsample(self, conv: Conv, stream: _Frames, state: VaeState) -> _Frames:
        inputs, _, _ = stream.take()
        weights, temporal = self._weights[conv], conv.weight.shape[2] > 1
        if temporal:
            _keep(conv, inputs, 1, state)
        weight = weights.moving if temporal and state.started else weights.still
        return self._finish(_convolve(inputs, weight, stride=2), conv.bias)

    def _upsample(self, up: Upsampler, stream: _Frames, state: VaeState) -> _Frames:
        """Frames of twice the height and width, with two spare ones in front."""
        inputs, _, _ = stream.take()
        upscale = self._upscales[up]
        _keep(up, inputs, upscale.past, state)
        past = upscale.past if state.started else 0
        parts = _by_place(upscale, inputs, state)
        made = sum((len(rows) - past) * len(merged.bias) for merged, rows in parts)
        _, height, width, channels = inputs.shape
        room = inputs.new_empty((2 + made, 2 * height, 2 * width, channels))
        x, start = room[2:], 0
        partials = self._ops.allot(x, 4)
        for merged, rows in parts:
            some = slice(start, start + (len(rows) - past) * len(merged.bias))
            self._spread(merged, rows, x[some], partials.of(some))
            start = some.stop
        return _Frames(x, partials, room)

    def _spread(self, merged: Merged, inputs: Tensor, out: Tensor, partials: Partials) -> None:
        for row, weights in enumerate(merged.weights):
            for column, weight in enumerate(weights):
                self._ops.spread(_convolve(inputs, weight, padding=1), row, column, merged.bias, out, partials)

    def _attend(self, attention: Attention, stream: _Frames) -> _Frames:
        x, partials, _ = stream.take()
        rows = torch.empty_like(x)
        self._ops.normalise(x, self._fold(attention.group_norm, partials), rows, None, silu=False)
        rows = rows.flatten(1, 2)
        q, k, v = (project(rows) for project in (attention.to_q, attention.to_k, attention.to_v))
        for frame in range(len(rows)):
            self._attend_frame(q[frame], k[frame], v[frame], rows[frame])
        out: Any = attention.to_out[0]
        return self._finish(functional.linear(rows, out.weight).view(x.shape), out.bias, x)

    def _attend_frame(self, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        """PyTorch's fused kernels don't take a head this wide; two products with fp32 scores between beat its fallback."""
        step = max(_SCORE_BYTES // (4 * len(k)), 1)
        for start in range(0, len(q), step):
            rows = slice(start, start + step)
            weights = torch.empty((len(q[rows]), len(k)), dtype=q.dtype, device=q.device)
            self._ops.softmax(_scores(q[rows], k), q.shape[1] ** -0.5, weights)
            torch.mm(weights, v, out=out[rows])


def _parts(x: Tensor, state: VaeState) -> list[Tensor]:
    """A stream's first frame or latent goes alone."""
    return [x] if state.started or len(x) == 1 else [x[:1], x[1:]]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _keep(key: nn.Module, inputs: Tensor, past: int, state: VaeState) -> None:
    """Keep the last frames for the next slice; the first frame stands for all that never were before it."""
    if state.started:
        state.tails[key].copy_(inputs[-past:])
    else:
        state.tails[key] = inputs.expand(past, -1, -1, -1).clone()


def _by_place(upscale: _Upscale, inputs: Tensor, state: VaeState) -> list[tuple[Merged, Tensor]]:
    """Which frames go through which weights."""
    if not state.started:
        return [(upscale.first, inputs)]
    if upscale.second is None or state.settled:
        return [(upscale.later, inputs)]
    parts = [(upscale.second, inputs[: upscale.past + 1]), (upscale.later, inputs[1:])]
    return parts if len(inputs) > upscale.past + 1 else parts[:1]


def _convolve(inputs: Tensor, weight: Tensor, *, padding: int = 0, stride: int = 1) -> Tensor:
    """(T, H, W, C) to (T', H', W', O), no padding in time; a weight without taps in time takes each frame by itself."""
    if weight.ndim == 4:
        y = functional.conv2d(inputs.permute(0, 3, 1, 2), weight, padding=padding, stride=stride)
        return y.permute(0, 2, 3, 1).contiguous()
    frames = inputs.permute(3, 0, 1, 2).unsqueeze(0)
    y = functional.conv3d(frames, weight, padding=(0, padding, padding), stride=stride)
    return y.squeeze(0).permute(1, 2, 3, 0).contiguous()


def _neighbourhoods(frames: Tensor, out: Tensor) -> None:
    """(T, c, H, W) to (T, H, W, 9 · c and more): each position's 3x3 surroundings, zero beyond the border, then zeros."""
    around = functional.pad(frames, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
    filled = 9 * frames.shape[1]
    out[..., :filled].view(*out.shape[:3], -1, 3, 3).copy_(around.permute(0, 2, 3, 1, 4, 5))
    out[..., filled:] = 0


def _lay_out(conv: Conv) -> _Weights:
    weight: Tensor = conv.weight
    pixels = ""
    if weight.shape[-1] == 3 and min(weight.shape[:2]) < _THIN:
        pixels = "in" if weight.shape[1] < weight.shape[0] else "out"
        weight = _taps_to_channels(weight, pixels)
    exact = torch.promote_types(weight.dtype, torch.float32)
    still = weight.sum(2, dtype=exact).to(weight.dtype)
    return _Weights(
        moving=weight.contiguous(memory_format=torch.channels_last_3d),
        still=still.contiguous(memory_format=torch.channels_last),
        padding=weight.shape[-1] // 2,
        pixels=pixels,
    )


def _taps_to_channels(weight: Tensor, pixels: str) -> Tensor:
    """(O, C, taps, 3, 3) to (O, 9 · C, taps, 1, 1) or (9 · O, C, taps, 1, 1), filled up with zeros."""
    if pixels == "in":
        flat = weight.permute(0, 1, 3, 4, 2).flatten(1, 3)
        flat = functional.pad(flat, (0, 0, 0, -flat.shape[1] % _ALIGNED))
    else:
        flat = weight.permute(0, 3, 4, 1, 2).flatten(0, 2)
        flat = functional.pad(flat, (0, 0, 0, 0, 0, -flat.shape[0] % _ALIGNED))
    return flat[..., None, None]


def _merge(up: Upsampler) -> _Upscale:
    upscale, conv = up.upscale_conv, up.conv
    doubled = upscale.weight.shape[0] == 8 * conv.weight.shape[0]

    def at(place: str) -> Merged:
        return merge(upscale.weight, upscale.bias, conv.weight, conv.bias, place=place, dtype=conv.weight.dtype)

    return _Upscale(first=at("first"), second=at("second") if doubled else None, later=at("later"), past=1 if doubled else 2)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    """q · kᵀ in fp32 at least."""
    if q.device.type == "cuda" and q.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(q, k.t(), out_dtype=torch.float32)
    return torch.mm(q, k.t()) if q.dtype == torch.float64 else torch.mm(q.float(), k.t().float())
