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

from services.inference.gpu.model.fast.convolution import convolve, lay_out, neighbourhoods
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
from services.inference.gpu.parallel.frames import RowShare

_SCORE_BYTES = 1 << 28
"""Of attention scores in memory at a time."""


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
        self._weights = {conv: lay_out(conv) for conv in convs}

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
            neighbourhoods(frames, new, state.share)
        else:
            new.copy_(frames.permute(0, 2, 3, 1))
        return self._finish(self._convolve(conv, inputs, state), conv.bias)

    def _leave(self, net: Encoder | Decoder, stream: _Frames, state: VaeState) -> Tensor:
        """The last norm and convolution; (T, O, H, W)."""
        conv = net.conv_out
        y = self._norm_and_convolve(net.conv_norm_out, conv, stream, state)
        state.started, state.settled = True, state.started
        if self._weights[conv].pixels == "out":
            collected = self._ops.collect(y, conv.bias)
            return collected[:, :, state.share.spare : collected.shape[2] - state.share.spare]
        return y.add_(conv.bias).permute(0, 3, 1, 2)

    def _mid(self, block: MidBlock, stream: _Frames, state: VaeState) -> _Frames:
        resnets: Any = block.resnets
        attentions: Any = block.attentions
        stream = self._resnet(resnets[0], stream, state)
        for attention in attentions:
            stream = self._attend(attention, stream, state)
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
        past = inputs[len(inputs) - len(new) :]
        if isinstance(before, Upsampler):
            state.share.fill_around(past)
        else:
            state.share.fill_below(past[:, :, : new.shape[2]])
        return _Frames(inputs)

    def _finish(self, y: Tensor, bias: Tensor, skip: Tensor | None = None) -> _Frames:
        return _Frames(y, self._ops.finish(y, bias, skip, y, measure=True))

    def _norm_and_convolve(
        self, norm: GroupNorm, conv: Conv, stream: _Frames, state: VaeState, pending: Tensor | None = None
    ) -> Tensor:
        """Norm, SiLU and a convolution without its bias; ``pending`` is the bias that the input still lacks."""
        x, partials, room = stream.take()
        affine = self._fold(norm, partials, state, pending)
        inputs, new = self._open(conv, x.shape, state, room)
        # The kernel writes the tail on the way, unless the tail keeps a frame that it doesn't see.
        tail = state.share.inner(state.tails[conv]) if len(new) > 1 and len(inputs) > len(new) else None
        self._ops.normalise(x, affine, new, tail, silu=True)
        del x, room, new
        return self._convolve(conv, inputs, state, kept=tail is not None)

    def _fold(self, norm: GroupNorm, partials: Partials | None, state: VaeState, pending: Tensor | None = None) -> Tensor:
        if partials is None:
            raise RuntimeError("frames before a norm are measured")
        groups, eps, share = self._vae.spec.norm_groups, self._vae.spec.norm_eps, state.share
        if share.weights is None:
            return self._ops.fold(partials, norm.weight, norm.bias, pending, groups, eps)
        moments = share.gather(self._ops.summarise(partials, pending, groups))
        return self._ops.unite(moments, share.weights, norm.weight, norm.bias, pending, eps)

    def _open(self, conv: Conv, shape: tuple[int, ...], state: VaeState, room: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Input of a convolution, the past in place, and the part of it that is still to be written."""
        past = conv.weight.shape[2] - 1 if state.started else 0
        spare = min(state.share.spare, self._weights[conv].reach)
        count, height, width, channels = shape
        padded = (past + count, height + 2 * spare, width, channels)
        inputs = conv.weight.new_empty(padded) if room is None else room[2 - past :]
        if past:
            inputs[:past] = state.tails[conv]
        return inputs, inputs[past:, spare : spare + height]

    def _convolve(self, conv: Conv, inputs: Tensor, state: VaeState, *, kept: bool = False) -> Tensor:
        """``inputs`` as :meth:`_open` made them, filled; ``kept`` where their tail is in the state, but for spare rows."""
        weights, past = self._weights[conv], conv.weight.shape[2] - 1
        spare = min(state.share.spare, weights.reach)
        if spare:
            state.share.fill_around(inputs[past if state.started else 0 :])
        if kept:
            state.share.copy_spare(inputs[-past:], state.tails[conv])
        elif past:
            _keep(conv, inputs, past, state)
        weight = weights.moving if past and state.started else weights.still
        return convolve(inputs, weight, padding=(0 if spare else weights.padding, weights.padding))

    def _open_resampler(self, module: Upsampler | Conv, shape: torch.Size, state: VaeState) -> tuple[Tensor, Tensor]:
        """The same for a resampler. A downsampler's input has a row and a column of zeros more."""
        count, height, width, channels = shape
        if isinstance(module, Upsampler):
            weight, past, above, border = module.conv.weight, self._upscales[module].past, state.share.spare, 0
        else:
            weight, past, above, border = module.weight, module.weight.shape[2] // 2, 0, 1
        past = past if state.started else 0
        inputs = weight.new_empty((past + count, above + height + max(above, border), width + border, channels))
        inputs[past:, above + height :] = 0
        inputs[past:, :, width:] = 0
        if past:
            inputs[:past] = state.tails[module]
        return inputs, inputs[past:, above : above + height, :width]

    def _downsample(self, conv: Conv, stream: _Frames, state: VaeState) -> _Frames:
        inputs, _, _ = stream.take()
        weights, temporal = self._weights[conv], conv.weight.shape[2] > 1
        if temporal:
            _keep(conv, inputs, 1, state)
        weight = weights.moving if temporal and state.started else weights.still
        return self._finish(convolve(inputs, weight, stride=2), conv.bias)

    def _upsample(self, up: Upsampler, stream: _Frames, state: VaeState) -> _Frames:
        """Frames of twice the height and width, with two spare ones in front unless other ranks' rows must surround them."""
        inputs, _, _ = stream.take()
        upscale = self._upscales[up]
        _keep(up, inputs, upscale.past, state)
        past = upscale.past if state.started else 0
        parts = _by_place(upscale, inputs, state)
        made = sum((len(rows) - past) * len(merged.bias) for merged, rows in parts)
        _, height, width, channels = inputs.shape
        height -= 2 * state.share.spare
        ahead = 0 if state.share.spare else 2
        room = inputs.new_empty((ahead + made, 2 * height, 2 * width, channels))
        x, start = room[ahead:], 0
        partials = self._ops.allot(x, 4)
        for merged, rows in parts:
            some = slice(start, start + (len(rows) - past) * len(merged.bias))
            self._spread(merged, rows, x[some], partials.of(some), state.share)
            start = some.stop
        return _Frames(x, partials, room if ahead else None)

    def _spread(self, merged: Merged, inputs: Tensor, out: Tensor, partials: Partials, share: RowShare) -> None:
        for row, weights in enumerate(merged.weights):
            border = share.at_border(bottom=row == 1)
            for column, weight in enumerate(weights):
                phase = convolve(inputs, weight, padding=(1 - share.spare, 1))
                self._ops.spread(phase, row, column, merged.bias, out, partials, border=border)

    def _attend(self, attention: Attention, stream: _Frames, state: VaeState) -> _Frames:
        x, partials, _ = stream.take()
        rows = torch.empty_like(x)
        self._ops.normalise(x, self._fold(attention.group_norm, partials, state), rows, None, silu=False)
        rows = rows.flatten(1, 2)
        q = attention.to_q(rows)
        k, v = (state.share.join(project(rows), x.shape[2], dim=1) for project in (attention.to_k, attention.to_v))
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
