"""What the model's layers hold while they work: parameters, the autoencoder's state, and the widest moments. Arithmetic only.

Each formula names what is alive where its layer is widest, in the order of ``model/vae.py``, ``model/dit.py`` and their twins
in ``model/fast``. A test counts what the code allocates and compares.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from services.inference.gpu.model.spec import DitSpec, ModelSpec, VaeSpec
from services.inference.messages import Passes

_PAST = 2
"""Frames before a slice that a convolution over three frames sees."""

_FUSED_INPUT = 32
"""Channels that fused kernels make of the three that come in."""

_REFERENCE_AREA = 45 * 80
"""Tokens of a latent that window counts are for."""

_BLOCKS_THERE = 3
"""Transformer blocks on the device while the others wait in host memory."""


@dataclass(frozen=True, slots=True)
class Part:
    """Encoder or decoder."""

    state: float
    """Bytes carried from slice to slice."""

    work: float
    """Bytes beside that, where a slice is widest."""

    def scaled(self, factor: float) -> "Part":
        """With so many times the working memory."""
        return replace(self, work=self.work * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """A residual block at work."""

    cin: int
    cout: int
    frames: int
    area: int
    """Positions of a frame."""
    roomy: bool = False
    """Its input has two spare frames, because fused kernels have just upsampled it."""
    behind: int = 0
    """Channels of what its level began with, which plain code holds until the level ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resampler:
    """A step between two levels."""

    channels: int
    frames: int
    """Of its input."""
    area: int
    """Of its input."""
    temporal: bool


@dataclass(frozen=True, slots=True)
class Vae:
    """An autoencoder whose slices have a number of latents."""

    spec: VaeSpec
    passes: Passes
    item: int
    latents: int
    ranks: int = 1

    def encoder(self, height: int, width: int) -> Part:
        """Over frames of a size."""
        blocks, downs = self._encoder_layers(height * width)
        state = sum(map(self._block_state, blocks)) + sum(d.channels * d.area for d in downs if d.temporal)
        first = _FUSED_INPUT if self.passes == "fused" else 3
        state += _PAST * (first * height * width + blocks[-1].cout * blocks[-1].area)
        return Part(state * self.item, max(self._enter_work(height * width), *(self._block_work(b) for b in blocks)))

    def decoder(self, height: int, width: int) -> Part:
        """Over frames of a size."""
        blocks, ups = self._decoder_layers(height * width)
        state = sum(map(self._block_state, blocks)) + sum(map(self._up_state, ups))
        state += _PAST * (self.spec.latent_channels * blocks[0].area + blocks[-1].cout * blocks[-1].area)
        work = max(*(self._block_work(b) for b in blocks), *(self._up_work(up) for up in ups))
        return Part(state * self.item, work)

    def weights(self) -> int:
        """Bytes of parameters, and of what fused kernels derive from them."""
        blocks, downs = self._encoder_layers(1)
        more, ups = self._decoder_layers(1)
        first, last, latent = self.spec.channels[0], self.spec.channels[-1], self.spec.latent_channels
        ends = 27 * (3 * first + 2 * latent * last + latent * last + 3 * first)
        taps = sum(map(self._block_weights, (*blocks, *more))) + sum((27 if d.temporal else 9) * d.channels**2 for d in downs)
        upscale = sum((8 if up.temporal else 4) * up.channels**2 + 27 * up.channels**2 for up in ups)
        attention = 2 * 4 * last**2 if self.spec.mid_attention else 0
        total = ends + taps + upscale + attention
        if self.passes == "fused":
            # All taps on one frame, and upsamplers merged for each place in a stream.
            total += (taps + ends) // 3 + sum((144 if up.temporal else 64) * up.channels**2 for up in ups)
        return total * self.item

    def _encoder_layers(self, pixels: int) -> tuple[list[_Block], list[_Resampler]]:
        spec, frames, area = self.spec, self.latents * self.spec.temporal_factor, pixels
        blocks, downs, last = list[_Block](), list[_Resampler](), len(self.spec.channels) - 1
        for level, cout in enumerate(spec.channels):
            inputs = [spec.channels[max(level - 1, 0)], *[cout] * (spec.blocks_per_level - 1)]
            blocks += [
                _Block(cin=cin, cout=cout, frames=frames, area=area, behind=inputs[0] if i else 0) for i, cin in enumerate(inputs)
            ]
            if level < last:
                temporal = level >= last - spec.temporal_levels
                downs.append(_Resampler(channels=cout, frames=frames, area=area, temporal=temporal))
                frames, area = frames // 2 if temporal else frames, max(1, area // 4)
        return blocks + self._mid(frames, area), downs

    def _decoder_layers(self, pixels: int) -> tuple[list[_Block], list[_Resampler]]:
        spec, channels, last = self.spec, self.spec.channels[::-1], len(self.spec.channels) - 1
        frames, area = self.latents, max(1, pixels // spec.spatial_factor**2)
        blocks, ups = self._mid(frames, area), list[_Resampler]()
        for level, cout in enumerate(channels):
            inputs = [channels[max(level - 1, 0)], *[cout] * spec.blocks_per_level]
            blocks += [
                _Block(cin=cin, cout=cout, frames=frames, area=area, roomy=self._roomy(level, i), behind=inputs[0] if i else 0)
                for i, cin in enumerate(inputs)
            ]
            if level < last:
                temporal = level < spec.temporal_levels
                ups.append(_Resampler(channels=cout, frames=frames, area=area, temporal=temporal))
                frames, area = frames * 2 if temporal else frames, area * 4
        return blocks, ups

    def _roomy(self, level: int, number: int) -> bool:
        """Whether the frames that a block takes have been upsampled with room; not where neighbours' rows must surround them."""
        return level > 0 and number == 0 and self.ranks == 1

    def _mid(self, frames: int, area: int) -> list[_Block]:
        last = self.spec.channels[-1]
        return [_Block(cin=last, cout=last, frames=frames, area=area)] * 2

    def _block_state(self, block: _Block) -> int:
        return _PAST * block.area * ((block.cin if self.spec.causal_first_conv else 0) + block.cout)

    def _block_weights(self, block: _Block) -> int:
        shortcut = block.cin * block.cout if block.cin != block.cout else 0
        return (27 if self.spec.causal_first_conv else 9) * block.cin * block.cout + 27 * block.cout**2 + shortcut

    def _up_state(self, up: _Resampler) -> int:
        if self.passes == "fused":
            return (1 if up.temporal else _PAST) * up.channels * up.area
        return _PAST * up.channels * 4 * up.area

    def _block_work(self, block: _Block) -> float:
        moments = self._fused_moments(block) if self.passes == "fused" else self._plain_moments(block)
        return block.area * max(moments)

    def _fused_moments(self, block: _Block) -> Iterator[float]:
        """Bytes a position: skip, input with its past, output of each convolution."""
        cin, cout, n, item = block.cin, block.cout, block.frames, self.item
        past = _PAST if self.spec.causal_first_conv else 0
        x = (n + _PAST if block.roomy else n) * cin
        if cin == cout:
            yield item * (x + (n + past) * cin + n * cout)
            yield item * (x + (n + _PAST) * cout + n * cout)
        else:
            if not block.roomy:
                yield item * (x + (n + past) * cin + n * cout)
            yield item * ((x if block.roomy else (n + past) * cin) + 2 * n * cout)
            yield item * (n * cout + (n + _PAST) * cout + n * cout)

    def _plain_moments(self, block: _Block) -> Iterator[float]:
        """Bytes a position: a norm's fp32 copies beside its input; a convolution's input twice and its output."""
        cin, cout, n, item = block.cin, block.cout, block.frames, self.item
        norm, held = n * (8 if item == 4 else 12), item * n * block.behind
        yield held + cin * (n * item + norm)
        yield held + item * n * cin + cout * (n * item + norm)
        for channels, past in ((cin, _PAST if self.spec.causal_first_conv else 0), (cout, _PAST)):
            copied = (3 * n if self.passes == "stacked" else n + _PAST) if past else 0
            yield held + item * (n * cin + (n + copied) * channels + n * cout)

    def _enter_work(self, area: int) -> float:
        """The encoder's first convolution."""
        frames, channels = self.latents * self.spec.temporal_factor, _FUSED_INPUT if self.passes == "fused" else 3
        return self.item * area * ((frames + _PAST) * channels + frames * (3 + self.spec.channels[0]))

    def _up_work(self, up: _Resampler) -> float:
        n = up.frames * (2 if up.temporal else 1)
        if self.passes == "fused":
            phase = up.frames * (2 if up.temporal else 1) * up.channels
            past = (1 if up.temporal else _PAST) + up.frames
            return self.item * up.area * (4 * (n + _PAST) * up.channels + past * up.channels + phase)
        copied = 3 * n if self.passes == "stacked" else n + _PAST
        return self.item * up.area * up.channels * (up.frames + 4 * (n + copied + n))


@dataclass(frozen=True, slots=True)
class Tokens:
    """A window of latents in the transformer."""

    spec: DitSpec
    latents: int
    rows: int
    columns: int
    text_tokens: int
    ranks: int

    def work(self, passes: Passes, item: int) -> float:
        """Bytes where a block is widest."""
        spec, video = self.spec, self.latents * self.rows * self.columns // self.spec.patch**2
        tokens, packed = video / self.ranks + self.text_tokens, video / self.ranks + self._repeated_text() / self.ranks
        if passes == "fused":
            # Residual stream, input, what attention and MLP gave; then the MLP's middle, or the way into windows.
            mlp = 5 * tokens * spec.width + (2 if spec.gated_mlp else 1) * tokens * spec.mlp_width
            attention = (4 + 3) * tokens * spec.width + 3 * packed * spec.width
            widest = max(mlp, attention)
        else:
            # Residual stream, input, projections, turned queries and keys; windows; their outputs; the way back.
            widest = (1 + 1 + 3 + 2 + 1) * tokens * spec.width + (3 + 1) * packed * spec.width
        if self.ranks > 1:
            # Projections on their way to the other ranks.
            widest += 3 * tokens * spec.width
        turns = 2 * tokens * (spec.head_width // 2 * 8 + 8) * (2 if passes == "fused" else 1)
        return item * widest + turns

    def _repeated_text(self) -> float:
        """Text rows of all windows: each window has them all."""
        spec = self.spec
        area = self.rows * self.columns / spec.patch**2
        finer: float = (area / _REFERENCE_AREA) ** 0.5
        across, down = (count * finer + 1 for count in spec.window_counts[1:])
        return (min(self.latents, spec.window_counts[0]) + 1) * across * down * self.text_tokens


def dit_weights(spec: ModelSpec, passes: Passes, item: int, *, offload: bool) -> int:
    """Bytes of the transformer's parameters on the device, and of what fused kernels derive from them."""
    dit, sets = spec.dit, [2 if i < spec.dit.split_blocks else 1 for i in range(spec.dit.blocks)]
    there = sum(sets) if not offload else min(_BLOCKS_THERE, dit.blocks) * max(sets)
    matrices = 4 * dit.width**2 + (3 if dit.gated_mlp else 2) * dit.width * dit.mlp_width
    vectors = sum(sets) * (6 * dit.width * 4 + (dit.width + 2 * dit.head_width) * item)
    area = dit.patch**2
    ends = dit.width * (dit.input_channels * area + dit.latent_channels * area + dit.text_width)
    time = dit.width * (dit.timestep_width + dit.width + 6 * dit.width)
    derived = dit.blocks * 12 * dit.width * 4 if passes == "fused" else 0
    return (there * matrices + ends + time + spec.text_tokens * dit.text_width) * item + vectors + derived
