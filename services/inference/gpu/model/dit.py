"""The diffusion transformer: from noise and a low-quality latent to a velocity.

Video tokens are 2x2 patches of latents, text tokens the rows of a fixed embedding. Clips of any sizes go through it, one or
several a call; nothing is padded.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.inference.gpu.model.attention import AttentionLayout, ByModality, RmsNorm, WindowAttention, lay_out
from services.inference.gpu.model.kernels import Kernels
from services.inference.gpu.model.offload import OffloadedBlocks
from services.inference.gpu.model.spec import DitSpec
from services.inference.gpu.model.windows import Grid
from services.inference.gpu.parallel.mesh import Mesh
from services.inference.gpu.parallel.sequence import join_parts, own_part

if TYPE_CHECKING:
    from services.inference.gpu.model.fast.dit import FastDit

Checkpoint = Callable[[], None]
"""Called where work can stop; raises to stop it."""


# Tokens act alone in the MLP. So many at a time keep its wide middle in a CPU's cache and small beside a GPU's memory.
_MLP_ROWS = 16384


class Affine(NamedTuple):
    """How half a block is modulated; (width,) each, fp32, the same for all tokens."""

    shift: Tensor
    """Added to the scaled input."""

    scale: Tensor
    """Multiplies the normed input; learned around 1."""

    gate: Tensor
    """Multiplies what is added to the residual stream."""


class Modulation(nn.Module):
    """Learned vectors that the timestep embedding is added to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for half in ("attn", "mlp"):
            for role in ("shift", "scale", "gate"):
                self.register_parameter(f"{half}_{role}", nn.Parameter(torch.empty(width)))

    def attention(self, emb: Tensor) -> Affine:
        """For the attention half; emb (width, 2, 3): half, then shift, scale, gate."""
        return self._affine("attn", emb[:, 0])

    def mlp(self, emb: Tensor) -> Affine:
        """For the MLP half."""
        return self._affine("mlp", emb[:, 1])

    def _affine(self, half: str, emb: Tensor) -> Affine:
        learned = [self.get_parameter(f"{half}_{role}").float() for role in ("shift", "scale", "gate")]
        return Affine(*(vector + emb[:, role] for role, vector in enumerate(learned)))


class SwiGlu(nn.Module):
    """The gated MLP."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj_in_gate = nn.Linear(width, hidden, bias=False)
        self.proj_out = nn.Linear(hidden, width, bias=False)
        self.proj_in = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, width) to the same."""
        y: Tensor = self.proj_out(functional.silu(self.proj_in_gate(x), inplace=True).mul_(self.proj_in(x)))
        return y


class GeluMlp(nn.Module):
    """The plain MLP."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(width, hidden)
        self.proj_out = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, width) to the same."""
        y: Tensor = self.proj_out(self.widen(x))
        return y

    def widen(self, x: Tensor) -> Tensor:
        """(tokens, width) to (tokens, hidden), activated where it lies."""
        y: Tensor = torch.ops.aten.gelu_(self.proj_in(x), approximate="tanh")
        return y


def make_mlp(spec: DitSpec) -> SwiGlu | GeluMlp:
    """The MLP of a model's blocks."""
    return (SwiGlu if spec.gated_mlp else GeluMlp)(spec.width, spec.mlp_width)


class TimestepEmbedding(nn.Module):
    """A timestep in [0, 1000] to what every block's modulation adds."""

    def __init__(self, spec: DitSpec) -> None:
        super().__init__()
        self.proj_in = nn.Linear(spec.timestep_width, spec.width)
        self.proj_hid = nn.Linear(spec.width, spec.width)
        self.proj_out = nn.Linear(spec.width, 6 * spec.width)

    def forward(self, timestep: Tensor) -> Tensor:
        """() to (6 · width,)."""
        wave = sinusoid(timestep, self.proj_in.in_features).to(self.proj_in.weight.dtype)
        emb: Tensor = self.proj_out(functional.silu(self.proj_hid(functional.silu(self.proj_in(wave)))))
        return emb


def sinusoid(timestep: Tensor, width: int) -> Tensor:
    """(…,) to (…, width) fp32: sines, then cosines. Half precision would lose all of it."""
    angles = timestep.float()[..., None] * _wave_frequencies(width // 2, timestep.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@lru_cache(maxsize=8)
def _wave_frequencies(count: int, device: torch.device) -> Tensor:
    # On the CPU everywhere: another exponential's last digit is an angle's fourth at time 1000.
    return torch.exp(-math.log(10000.0) * torch.arange(count, dtype=torch.float32) / count).to(device)


class Block(nn.Module):
    """Attention and MLP, each between a modulated norm and a gate."""

    def __init__(self, spec: DitSpec, kernels: Kernels, *, split: bool, last: bool) -> None:
        super().__init__()
        self.attn = WindowAttention(spec, kernels, split=split)
        self.mlp = ByModality(lambda: make_mlp(spec), split=split)
        self.ada = ByModality(lambda: Modulation(spec.width), split=split)
        self._last = last
        self._bare_text = last and spec.bare_last_text
        self._eps = spec.norm_eps
        self._rms_norm = kernels.rms_norm

    def forward(self, video: Tensor, text: Tensor, emb: Tensor, layout: AttentionLayout) -> tuple[Tensor, Tensor]:
        """Residual streams (L, width) and (l, width), overwritten; emb (width, 2, 3) fp32."""
        of_video, of_text = self.ada.video.attention(emb), self.ada.text.attention(emb)
        # In some models the last block was trained with its text not modulated on the way in.
        text_in = self._rms_norm(text, None, self._eps) if self._bare_text else self._enter(text, of_text)
        video_out, text_out = self.attn(self._enter(video, of_video), text_in, layout)
        video = self._mlp(video.addcmul_(video_out, of_video.gate), self.mlp.video, self.ada.video.mlp(emb))
        # Nothing comes after the last block that would read its text.
        if not self._last:
            text = self._mlp(text.addcmul_(text_out, of_text.gate), self.mlp.text, self.ada.text.mlp(emb))
        return video, text

    def _enter(self, x: Tensor, affine: Affine) -> Tensor:
        return modulate(self._rms_norm(x, None, self._eps), affine.shift, affine.scale)

    def _mlp(self, x: Tensor, mlp: SwiGlu | GeluMlp, affine: Affine) -> Tensor:
        for first in range(0, len(x), _MLP_ROWS):
            rows = x[first : first + _MLP_ROWS]
            rows.addcmul_(mlp(self._enter(rows, affine)), affine.gate)
        return x


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x · scale + shift in fp32, rounded once. Overwrites ``x``, which must be fresh: a norm's result is."""
    return torch.addcmul(shift, x, scale, out=x)


class OutputModulation(nn.Module):
    """Shift and scale before the last projection; uses the attention half of the timestep embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_shift = nn.Parameter(torch.empty(width))
        self.out_scale = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(L, width) to the same; emb (width, 2, 3)."""
        return modulate(x, self.out_shift.float() + emb[:, 0, 0], self.out_scale.float() + emb[:, 0, 1])


class Patches(nn.Module):
    """A projection of square patches; the channel is the fastest axis of a patch's features."""

    def __init__(self, features_in: int, features_out: int, patch: int, mesh: Mesh) -> None:
        super().__init__()
        self.proj = nn.Linear(features_in, features_out)
        self.patch = patch
        self.mesh = mesh


class PatchIn(Patches):
    """Latents to tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """(t, h, w, C) to (own part of t · h/2 · w/2, width)."""
        frames, height, width, channels = x.shape
        cells = x.reshape(frames, height // self.patch, self.patch, width // self.patch, self.patch, channels)
        tokens: Tensor = self.proj(own_part(cells.transpose(2, 3).flatten(3).flatten(0, 2), self.mesh))
        return tokens


class PatchOut(Patches):
    """Tokens to latents."""

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(own part of L, width) to (t, h, w, C)."""
        cells = join_parts(self.proj(tokens), math.prod(grid), self.mesh).view(*grid, self.patch, self.patch, -1)
        return cells.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class Clip(NamedTuple):
    """What the transformer takes of one clip."""

    x: Tensor
    """(t, h, w, 33): noisy latent, low-quality latent, mask; any t, even h and w."""

    text: Tensor
    """(l, text width), the stored embedding."""

    timestep: Tensor
    """(), in [0, 1000]."""


class Dit(nn.Module):
    """The whole transformer. Between the patches at both ends every rank has its own part of the video tokens."""

    def __init__(self, spec: DitSpec, kernels: Kernels, mesh: Mesh | None = None) -> None:
        """Ranks of the ``mesh`` share each clip; without one, this process works alone."""
        super().__init__()
        area, mesh = spec.patch**2, mesh or Mesh.solo()
        self.spec = spec
        self.vid_in = PatchIn(spec.input_channels * area, spec.width, spec.patch, mesh)
        self.txt_in = nn.Linear(spec.text_width, spec.width)
        self.emb_in = TimestepEmbedding(spec)
        self.blocks = nn.ModuleList(
            Block(spec, kernels, split=i < spec.split_blocks, last=i == spec.blocks - 1) for i in range(spec.blocks)
        )
        self.vid_out_norm = RmsNorm(spec.width, spec.norm_eps, kernels) if spec.output_norm else None
        self.vid_out_ada = OutputModulation(spec.width) if spec.output_norm else None
        self.vid_out = PatchOut(spec.width, spec.latent_channels * area, spec.patch, mesh)
        self._kernels = kernels
        self._mesh = mesh
        self._offloaded: OffloadedBlocks | None = None
        # Made once for a grid and used by all blocks; a job has one or two grids (the last window may be short).
        self._layouts = lru_cache(maxsize=4)(self._lay_out)

    def forward(self, x: Tensor, text: Tensor, timestep: Tensor, checkpoint: Checkpoint = lambda: None) -> Tensor:
        """Predict the velocity.

        Args:
            x: (t, h, w, 33): noisy latent, low-quality latent, mask; any t, even h and w.
            text: (l, text width), the stored embedding.
            timestep: (), in [0, 1000].
            checkpoint: called between blocks.

        Returns:
            (t, h, w, 16).
        """
        return self.velocities([Clip(x, text, timestep)], checkpoint)[0]

    def velocities(self, clips: Sequence[Clip], checkpoint: Checkpoint = lambda: None) -> list[Tensor]:
        """Predict the velocities of clips that may differ in size, text and time; each is as if it were alone.

        On the plain path a block's weights serve all clips before those of the next block are touched. With fused kernels clips
        go one after the other: by arithmetic, multiplying takes longer than reading the weights from some 250 tokens on.
        """
        layouts = [self._layouts(self._grid(clip), len(clip.text), clip.x.device) for clip in clips]
        if self._kernels.fused:
            return [self._fast(*clip, layout, checkpoint) for clip, layout in zip(clips, layouts, strict=True)]
        streams = [(self.vid_in(clip.x), self.txt_in(clip.text)) for clip in clips]
        embs = [self.emb_in(clip.timestep).float().view(-1, 2, 3) for clip in clips]
        for index, block in enumerate(self.blocks_in_turn()):
            checkpoint()
            of_clips = zip(streams, embs, layouts, strict=True)
            streams = [block(*stream, emb, layout[index % 2]) for stream, emb, layout in of_clips]
        ends = zip(clips, streams, embs, strict=True)
        return [self._leave(video, emb, self._grid(clip)) for clip, (video, _), emb in ends]

    def offload(self, *, wanted: bool) -> None:
        """Let the blocks wait in host memory between their turns, or have them all on the device. Changes no value."""
        if wanted and self._offloaded is None:
            self._offloaded = OffloadedBlocks(list(self.blocks), self.vid_in.proj.weight.device)
        elif not wanted and self._offloaded is not None:
            self._offloaded.restore()
            self._offloaded = None

    def blocks_in_turn(self) -> Iterator[Any]:
        """The blocks in order, each on the device until the next one is asked for."""
        return iter(self.blocks) if self._offloaded is None else self._offloaded.in_turn()

    def _grid(self, clip: Clip) -> Grid:
        frames, height, width, _ = clip.x.shape
        return frames, height // self.spec.patch, width // self.spec.patch

    def _leave(self, video: Tensor, emb: Tensor, grid: Grid) -> Tensor:
        if self.vid_out_norm is not None and self.vid_out_ada is not None:
            video = self.vid_out_ada(self.vid_out_norm(video), emb)
        velocity: Tensor = self.vid_out(video, grid)
        return velocity

    @cached_property
    def _fast(self) -> "FastDit":
        """Made at the first use, when the parameters are in their place."""
        # Imported here, because Triton is there only where there is a GPU.
        from services.inference.gpu.model.fast.dit import FastDit
        from services.inference.gpu.model.fast.token_kernels import TritonTokenOps

        return FastDit(self, TritonTokenOps(), self._kernels.attend)

    def _lay_out(self, grid: Grid, text_tokens: int, device: torch.device) -> tuple[AttentionLayout, AttentionLayout]:
        regular, shifted = (
            lay_out(self.spec, grid, text_tokens, shifted=odd, device=device, mesh=self._mesh) for odd in (False, True)
        )
        return regular, shifted
