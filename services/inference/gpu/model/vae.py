"""The causal video autoencoder: frames to latents and back, a slice at a time.

Frames stand where a batch usually does: (T, C, H, W), channels last, which is what 2-D and 3-D kernels both like. Norms and
attention see one frame each. Time is coupled in two places only, and both keep what the next slice needs in a
:class:`VaeState`: causal convolutions, and the upsampler's dropped first half. So slices of any length give what one pass over
the whole clip would give.
"""

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.inference.gpu.model.kernels import Kernels, Padding, Strides, group_norm_silu
from services.inference.gpu.model.spec import VaeSpec
from services.inference.gpu.parallel.frames import RowShare
from services.inference.gpu.parallel.mesh import Mesh

if TYPE_CHECKING:
    from services.inference.gpu.model.fast.vae import FastVae


class VaeState:
    """What an encoder or decoder carries from slice to slice of one stream."""

    def __init__(self) -> None:
        self.started = False
        """Whether a slice went before."""
        self.settled = False
        """Whether two did: the second one's past is a single frame still."""
        self.tails: dict[nn.Module, Tensor] = {}
        """Last input frames of each causal convolution."""
        self.share = RowShare(Mesh.solo())
        """The rows that this rank has of the stream's frames."""


class Conv(nn.Module):
    """A convolution; over three frames, it is causal: it sees the frame's past only."""

    def __init__(self, cin: int, cout: int, kernel: tuple[int, int, int], kernels: Kernels, *, strides: Strides = (1, 1)):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(cout, cin, *kernel))
        self.bias = nn.Parameter(torch.empty(cout))
        self._taps = kernel[0]
        self._strides = strides
        # Strided convolutions look at a row below and a column to the right instead of all around.
        self._padding = kernel[2] // 2 if strides[1] == 1 else 0
        self._convolve_time = kernels.convolve_time

    def forward(self, x: Tensor, state: VaeState) -> Tensor:
        """(T, cin, H, W) to (T', cout, H', W')."""
        x, padding = self._surround(x, state.share)
        if self._taps == 1:
            return functional.conv2d(x, self.weight[:, :, 0], self.bias, stride=self._strides[1], padding=padding)
        past = state.tails.get(self)
        if past is None:
            past = torch.cat([x[:1]] * (self._taps - 1))
        kept = self._taps - self._strides[0]
        # Cloned, because a view would keep the whole slice in memory.
        state.tails[self] = (torch.cat([past, x]) if len(x) < kept else x)[-kept:].clone()
        return self._convolve_time(past, x, self.weight, self.bias, self._strides, padding)

    def _surround(self, x: Tensor, share: RowShare) -> tuple[Tensor, Padding]:
        """With the rows of other ranks around, and the zeros that are still to be added."""
        if self._strides[1] > 1:
            x = functional.pad(x, (0, 1, 0, 1))
            share.fill_below(x.permute(0, 2, 3, 1))
            return x, (0, 0)
        spare = min(share.spare, self._padding)
        if spare:
            x = functional.pad(x, (0, 0, spare, spare))
            share.fill_around(x.permute(0, 2, 3, 1))
        return x, (self._padding - spare, self._padding)


class GroupNorm(nn.Module):
    """Group norm of each frame by itself."""

    def __init__(self, channels: int, spec: VaeSpec) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self._groups, self._eps = spec.norm_groups, spec.norm_eps

    def forward(self, x: Tensor, state: VaeState, *, silu: bool = True) -> Tensor:
        """(T, C, H, W) to the same, with SiLU unless told otherwise."""
        return group_norm_silu(x, self.weight, self.bias, self._groups, self._eps, silu=silu, share=state.share)


class ResnetBlock(nn.Module):
    """Two convolutions beside a skip connection."""

    def __init__(self, cin: int, cout: int, spec: VaeSpec, kernels: Kernels) -> None:
        super().__init__()
        self.norm1 = GroupNorm(cin, spec)
        self.conv1 = Conv(cin, cout, (3 if spec.causal_first_conv else 1, 3, 3), kernels)
        self.norm2 = GroupNorm(cout, spec)
        self.conv2 = Conv(cout, cout, (3, 3, 3), kernels)
        self.conv_shortcut = Conv(cin, cout, (1, 1, 1), kernels) if cin != cout else None

    def forward(self, x: Tensor, state: VaeState) -> Tensor:
        """(T, cin, H, W) to (T, cout, H, W)."""
        h: Tensor = self.conv1(self.norm1(x, state), state)
        h = self.conv2(self.norm2(h, state), state)
        return h.add_(x if self.conv_shortcut is None else self.conv_shortcut(x, state))


class Attention(nn.Module):
    """One head over the positions of each frame."""

    def __init__(self, channels: int, spec: VaeSpec) -> None:
        super().__init__()
        self.group_norm = GroupNorm(channels, spec)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor, state: VaeState) -> Tensor:
        """(T, C, H, W) to the same, the input added."""
        rows = self.group_norm(x, state, silu=False).permute(0, 2, 3, 1).flatten(1, 2)
        k, v = (state.share.join(project(rows), x.shape[3], dim=1).unsqueeze(1) for project in (self.to_k, self.to_v))
        q = self.to_q(rows).unsqueeze(1)
        attended = self.to_out[0](functional.scaled_dot_product_attention(q, k, v).squeeze(1))
        residual: Tensor = attended.view(x.shape[0], *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
        return x + residual


class MidBlock(nn.Module):
    """What stands at the lowest resolution: residual block, attention if any, residual block."""

    def __init__(self, channels: int, spec: VaeSpec, kernels: Kernels) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, spec)] if spec.mid_attention else [])
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, spec, kernels) for _ in range(2))

    def forward(self, x: Tensor, state: VaeState) -> Tensor:
        """(T, C, h, w) to the same."""
        for module in (self.resnets[0], *self.attentions, self.resnets[1]):
            x = module(x, state)
        return x


class Downsampler(nn.Module):
    """Halves height and width, and time where the level does."""

    def __init__(self, channels: int, kernels: Kernels, *, temporal: bool) -> None:
        super().__init__()
        kernel, strides = ((3, 3, 3), (2, 2)) if temporal else ((1, 3, 3), (1, 2))
        self.conv = Conv(channels, channels, kernel, kernels, strides=strides)

    def forward(self, x: Tensor, state: VaeState) -> Tensor:
        """(T, C, H, W) to (T or T/2 rounded up, C, H/2, W/2)."""
        y: Tensor = self.conv(x, state)
        return y


class Upsampler(nn.Module):
    """Doubles height and width, and time where the level does."""

    def __init__(self, channels: int, kernels: Kernels, *, temporal: bool) -> None:
        super().__init__()
        self._frames = 2 if temporal else 1
        self.conv = Conv(channels, channels, (3, 3, 3), kernels)
        self.upscale_conv = Conv(channels, 4 * self._frames * channels, (1, 1, 1), kernels)

    def forward(self, x: Tensor, state: VaeState) -> Tensor:
        """(T, C, h, w) to (T, 2T or 2T - 1, C, 2h, 2w): the stream's first frame stays one frame."""
        x = self._spread(self.upscale_conv(x, state))
        if self._frames == 2 and not state.started:
            x = torch.cat([x[:1], x[2:]])
        y: Tensor = self.conv(x, state)
        return y

    def _spread(self, x: Tensor) -> Tensor:
        frames, _, height, width = x.shape
        # Channels are (row, column, frame, channel), the last fastest.
        cells = x.permute(0, 2, 3, 1).reshape(frames, height, width, 2, 2, self._frames, -1)
        spread = cells.permute(0, 5, 1, 3, 2, 4, 6).reshape(frames * self._frames, 2 * height, 2 * width, -1)
        return spread.permute(0, 3, 1, 2)


class DownBlock(nn.Module):
    """One resolution level of the encoder."""

    def __init__(self, level: int, spec: VaeSpec, kernels: Kernels) -> None:
        super().__init__()
        cin, cout = spec.channels[max(level - 1, 0)], spec.channels[level]
        last = len(spec.channels) - 1
        self.resnets = nn.ModuleList(
            ResnetBlock(cin if i == 0 else cout, cout, spec, kernels) for i in range(spec.blocks_per_level)
        )
        temporal = level >= last - spec.temporal_levels
        self.downsamplers = nn.ModuleList([Downsampler(cout, kernels, temporal=temporal)] if level < last else [])

    def forward(self, x: Tensor, state: VaeState) -> Tensor:
        """(T, cin, H, W) to the next level's size."""
        for module in (*self.resnets, *self.downsamplers):
            x = module(x, state)
        return x


class UpBlock(nn.Module):
    """One resolution level of the decoder, counted from the latent."""

    def __init__(self, level: int, spec: VaeSpec, kernels: Kernels) -> None:
        super().__init__()
        channels = spec.channels[::-1]
        cin, cout = channels[max(level - 1, 0)], channels[level]
        self.resnets = nn.ModuleList(
            ResnetBlock(cin if i == 0 else cout, cout, spec, kernels) for i in range(spec.blocks_per_level + 1)
        )
        temporal, last = level < spec.temporal_levels, len(channels) - 1
        self.upsamplers = nn.ModuleList([Upsampler(cout, kernels, temporal=temporal)] if level < last else [])

    def forward(self, x: Tensor, state: VaeState) -> Tensor:
        """(T, cin, h, w) to the next level's size."""
        for module in (*self.resnets, *self.upsamplers):
            x = module(x, state)
        return x


class Encoder(nn.Module):
    """Frames to moments."""

    def __init__(self, spec: VaeSpec, kernels: Kernels) -> None:
        super().__init__()
        first, last = spec.channels[0], spec.channels[-1]
        self.conv_in = Conv(3, first, (3, 3, 3), kernels)
        self.down_blocks = nn.ModuleList(DownBlock(level, spec, kernels) for level in range(len(spec.channels)))
        self.mid_block = MidBlock(last, spec, kernels)
        self.conv_norm_out = GroupNorm(last, spec)
        self.conv_out = Conv(last, 2 * spec.latent_channels, (3, 3, 3), kernels)

    def forward(self, x: Tensor, state: VaeState) -> Tensor:
        """One slice."""
        x = self.conv_in(x, state)
        for block in (*self.down_blocks, self.mid_block):
            x = block(x, state)
        x = self.conv_out(self.conv_norm_out(x, state), state)
        state.started = True
        return x


class Decoder(nn.Module):
    """Latents to frames."""

    def __init__(self, spec: VaeSpec, kernels: Kernels) -> None:
        super().__init__()
        first, last = spec.channels[-1], spec.channels[0]
        self.conv_in = Conv(spec.latent_channels, first, (3, 3, 3), kernels)
        self.up_blocks = nn.ModuleList(UpBlock(level, spec, kernels) for level in range(len(spec.channels)))
        self.mid_block = MidBlock(first, spec, kernels)
        self.conv_norm_out = GroupNorm(last, spec)
        self.conv_out = Conv(last, 3, (3, 3, 3), kernels)

    def forward(self, x: Tensor, state: VaeState) -> Tensor:
        """One slice."""
        x = self.conv_in(x, state)
        for block in (self.mid_block, *self.up_blocks):
            x = block(x, state)
        x = self.conv_out(self.conv_norm_out(x, state), state)
        state.started = True
        return x


def posterior(moments: Tensor) -> tuple[Tensor, Tensor]:
    """(L, 2 · C, h, w) moments to mean and standard deviation, (L, C, h, w) each.

    The service goes on with the mean; the released scripts draw from the whole distribution.
    """
    mean, log_variance = moments.chunk(2, dim=1)
    return mean, log_variance.clamp(-30.0, 20.0).div(2).exp()


class Vae(nn.Module):
    """Encoder and decoder."""

    def __init__(self, spec: VaeSpec, kernels: Kernels, mesh: Mesh | None = None) -> None:
        """Ranks of the ``mesh`` share each clip; without one, this process works alone."""
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec, kernels)
        self.decoder = Decoder(spec, kernels)
        self._fused = kernels.fused
        # Frames of a job have one size, with tiles a few.
        self._share = lru_cache(maxsize=16)(lambda rows, factor: RowShare.of(rows, factor, mesh or Mesh.solo()))

    @cached_property
    def _fast(self) -> "FastVae":
        """Made at the first use, when the parameters are in their place."""
        # Imported here, because Triton is there only where there is a GPU.
        from services.inference.gpu.model.fast.frame_kernels import TritonFrameOps
        from services.inference.gpu.model.fast.vae import FastVae

        return FastVae(self, TritonFrameOps())

    def moments(self, frames: Tensor, state: VaeState) -> Tensor:
        """Mean and log-variance of the posterior of one slice.

        Args:
            frames: (T, 3, H, W), RGB in [-1, 1]. With temporal factor f, T is 1 plus a multiple of f for a stream's first
                slice and a multiple of f for the others.
            state: of this stream; changed.

        Returns:
            (L, 2 · latent channels, h, w): means and log-variances, see :func:`posterior`.
        """
        state.share = share = self._share(frames.shape[2], self.spec.spatial_factor)
        own = share.own(frames, self.spec.spatial_factor)
        if self._fused:
            return share.join(self._fast.moments(own, state), 1)
        return share.join(self.encoder(own.contiguous(memory_format=torch.channels_last), state), 1)

    def encode(self, frames: Tensor, state: VaeState) -> Tensor:
        """Frames to latents. Arguments as for :meth:`moments`, result as of :meth:`as_latents`."""
        return self.as_latents(self.moments(frames, state))

    def as_latents(self, moments: Tensor) -> Tensor:
        """(L, 2 · C, h, w) moments to (L, h, w, C): their mean as the transformer sees it, fp32, scaled."""
        mean = moments[:, : self.spec.latent_channels]
        return mean.permute(0, 2, 3, 1).float() * self.spec.scaling_factor

    def decode(self, latents: Tensor, state: VaeState) -> Tensor:
        """One slice of latents to frames.

        Args:
            latents: (L, h, w, C), scaled as :meth:`encode` gives them; any L.
            state: of this stream; changed.

        Returns:
            (T, 3, H, W), RGB in [-1, 1] with some overshoot; a stream's first latent gives one frame, others f.
        """
        z = (latents / self.spec.scaling_factor).to(self.decoder.conv_in.weight.dtype)
        state.share = share = self._share(latents.shape[1], 1)
        own = share.own(z.permute(0, 3, 1, 2), 1)
        frames: Tensor = self._fast.decode(own, state) if self._fused else self.decoder(own, state)
        return share.join(frames, self.spec.spatial_factor)
