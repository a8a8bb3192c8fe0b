"""How much memory a span takes on a rank's device, said before it runs. Arithmetic over a model's spec, without torch.

What a rank holds at a time is the largest of four moments, each beside the weights: the encoder or the decoder in the middle
of a slice (``footprint.py`` follows their layers), the transformer in the middle of a window, and the colours of a slice. What
doesn't change pixels (see :class:`Setting`) is chosen here too: the fastest that fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.common.errors import GpuOutOfMemory
from services.inference.gpu import footprint
from services.inference.gpu.model.spec import ModelSpec
from services.inference.messages import Passes

_ALLOCATOR_SHARE = 0.06
"""Of what is allocated, lost between allocations."""

_GPU_WORKSPACE_BYTES = 400 << 20
"""Of cuDNN and cuBLAS, and of fused kernels' code."""

_HOST_BASE_BYTES = 380 << 20
"""Of a process with PyTorch in it, where the device is the host."""

_HOST_COPIES = 1.8
"""oneDNN reorders inputs and outputs of a convolution to a layout of its own; on a CPU these come on top."""

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
_FP32 = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a rank may choose by itself, because no pixel depends on it."""

    slice_latents: int
    """Latents that the autoencoder takes at a time."""

    offload: bool = False
    """The transformer's blocks wait in host memory and come two ahead of their turn."""

    park: bool = False
    """The state of the encoder waits in host memory while the decoder works, and the other way round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What computes."""

    dtype: str
    """Compute type, which the weights have too."""

    passes: Passes
    """How the passes between products are computed: fused, plain, or stacked as on a CPU."""

    ranks: int = 1
    """Devices that share a span: each takes its part of the rows of frames and of the tokens."""

    @property
    def on_host(self) -> bool:
        """Whether the device is the host."""
        return self.passes == "stacked"

    @property
    def item_bytes(self) -> int:
        """Of a number."""
        return _ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a span asks for, and what of it changes pixels and so stands in its plan."""

    width: int
    """Of the restored frames, pixels."""

    height: int
    """Of the restored frames, pixels."""

    source_pixels: int = 0
    """Of a frame that comes in; 0: as many as of one that goes out."""

    window_latents: int = 0
    """Latents that the transformer takes at a time; 0: the model's own choice."""

    bit_depth: int = 8
    """Of the frames that come in and go out."""

    tile_size: int = 0
    """Side of an autoencoder's tile in pixels; 0: not tiled."""

    tile_overlap: int = 0
    """Pixels that neighbouring tiles share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Bytes on one rank's device."""

    weights: int
    """Parameters, and what fused kernels derive from them."""

    encode: int
    """Beside the weights, in the middle of an encoder slice."""

    denoise: int
    """Beside the weights, in the middle of a window."""

    decode: int
    """Beside the weights, in the middle of a decoder slice."""

    colour: int
    """Beside the weights, while colours are transferred."""

    base: int
    """What is there without any tensor."""

    @property
    def allocated(self) -> int:
        """The most that tensors take at a time."""
        return self.weights + max(self.encode, self.denoise, self.decode, self.colour)

    @property
    def needed(self) -> int:
        """Memory that must be free, or the rank's own, for this to fit."""
        return round(self.allocated * (1 + _ALLOCATOR_SHARE)) + self.base


def predict(spec: ModelSpec, machine: Machine, workload: Workload, setting: Setting) -> Prediction:
    """The peak of a span that is longer than a window."""
    item = machine.item_bytes
    size = _Size.of(spec, machine, workload)
    vae = footprint.Vae(spec.vae, machine.passes, item, setting.slice_latents, machine.ranks)
    window = workload.window_latents or spec.window_latents
    encoder, decoder = vae.encoder(*size.work), vae.decoder(*size.work)
    states = (encoder.state * size.tiled, decoder.state * size.tiled)
    kept_encoder, kept_decoder = (0, 0) if setting.park else states
    held = window * size.positions * spec.vae.latent_channels * _FP32 * 2
    if machine.on_host:
        held += spec.vae.temporal_factor * (window + setting.slice_latents) * size.source_bytes
        encoder, decoder = (part.scaled(_HOST_COPIES) for part in (encoder, decoder))
    frames = setting.slice_latents * spec.vae.temporal_factor
    tokens = footprint.Tokens(spec.dit, window, size.rows, size.columns, spec.text_tokens, machine.ranks)
    prepared = frames * (3 * size.source_bytes + 9 * _FP32 * size.pixels)
    return Prediction(
        weights=vae.weights() + footprint.dit_weights(spec, machine.passes, item, offload=setting.offload),
        encode=round(states[0] + kept_decoder + max(encoder.work, prepared) + held + frames * 3 * size.pixels * item),
        denoise=round((0 if setting.park else sum(states)) + tokens.work(machine.passes, item) + 3 * held),
        decode=round(states[1] + kept_encoder + decoder.work + held + frames * 3 * size.pixels * (item + 1)),
        colour=round(max(states) + min(kept_encoder, kept_decoder) + held + prepared + frames * 3 * size.pixels * (item + 16)),
        base=_HOST_BASE_BYTES if machine.on_host else _GPU_WORKSPACE_BYTES,
    )


def settings_of(spec: ModelSpec, machine: Machine) -> tuple[Setting, ...]:
    """What a rank can choose from, the fastest first, the leanest last."""
    # Ranks that share a slice have enough to do, and exchange borders half as often, where it has a latent for every two of them.
    lengths = {max(spec.slice_latents, machine.ranks // 2), spec.slice_latents, 1}
    slices = tuple(Setting(slice_latents=latents) for latents in sorted(lengths, reverse=True))
    if machine.on_host:
        # What waits in host memory would wait where it is.
        return slices
    return (*slices, Setting(slice_latents=1, offload=True), Setting(slice_latents=1, offload=True, park=True))


def choose(
    spec: ModelSpec, machine: Machine, workload: Workload, available_bytes: int, *, settings: Sequence[Setting] = ()
) -> Setting:
    """The fastest setting that fits; ``settings``: those that are left to choose from, all by default.

    Raises:
        GpuOutOfMemory: none does, by prediction.
    """
    for setting in settings or settings_of(spec, machine):
        if predict(spec, machine, workload, setting).needed <= available_bytes:
            return setting
    least = predict(spec, machine, workload, settings_of(spec, machine)[-1]).needed
    raise GpuOutOfMemory(
        f"Frames of {workload.width}×{workload.height} need {gigabytes(least)} of memory with {spec.name} at the least, and a "
        f"device of this worker has {gigabytes(available_bytes)} for it. Choose a smaller result, or workers with more memory."
    )


def least_bytes(spec: ModelSpec, machine: Machine) -> int:
    """What a device must have free to be of any use to the model."""
    return predict(spec, machine, Workload(width=64, height=64), settings_of(spec, machine)[-1]).needed


def largest_pixels(spec: ModelSpec, machine: Machine, available_bytes: int) -> int:
    """Pixels of the largest frame of about 16:9 that fits the memory; 0 where none does."""
    leanest, unit = settings_of(spec, machine)[-1], spec.size_multiple

    def workload(rows: int) -> Workload:
        return Workload(width=-(-rows * 16 // 9) * unit, height=rows * unit)

    def fits(rows: int) -> bool:
        return predict(spec, machine, workload(rows), leanest).needed <= available_bytes

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return workload(low).width * workload(low).height


def line(spec: ModelSpec, machine: Machine) -> tuple[int, float]:
    """Bytes needed by the fastest setting as a straight line over pixels: at none, and for each. Right within a few percent."""
    fastest = settings_of(spec, machine)[0]
    (few, low), (many, high) = ((w * h, predict(spec, machine, Workload(width=w, height=h), fastest).needed) for w, h in _ENDS)
    slope = (high - low) / (many - few)
    return round(low - slope * few), slope


_ENDS = ((640, 352), (1920, 1088))


def gigabytes(count: float) -> str:
    """For people."""
    return f"{count / 1e9:.1f} GB"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """A workload's frames as one rank works on them."""

    rows: int
    """Of latents, whole frame."""

    columns: int
    """Of latents."""

    work: tuple[int, int]
    """Height and width in pixels of what the autoencoder takes at a time."""

    tiled: float
    """How often a frame's state is held, because tiles overlap."""

    pixels: int
    """Of a padded frame."""

    source_bytes: int
    """Of a frame that comes in, as whole numbers and as fp32, a third."""

    @property
    def positions(self) -> int:
        """Of a latent."""
        return self.rows * self.columns

    @classmethod
    def of(cls, spec: ModelSpec, machine: Machine, workload: Workload) -> "_Size":
        factor = spec.vae.spatial_factor
        height, width = (-(-side // spec.size_multiple) * spec.size_multiple for side in (workload.height, workload.width))
        # A rank takes its share of the rows, and a border of its neighbours' on either side.
        share = height if machine.ranks == 1 else min(height, -(-height // factor // machine.ranks) * factor + 2 * factor)
        tile, overlap = workload.tile_size, workload.tile_overlap
        work, tiled = (share, width), 1.0
        if tile and (tile < height or tile < width):
            work = min(tile, share), min(tile, width)
            tiled = _covered(share, tile, overlap) * _covered(width, tile, overlap) / (work[0] * work[1])
        source = workload.source_pixels or workload.width * workload.height
        return cls(
            rows=height // factor, columns=width // factor, work=work, tiled=tiled, pixels=height * width,
            source_bytes=source * (workload.bit_depth // 8 + _FP32),
        )  # fmt: skip


def _covered(side: int, tile: int, overlap: int) -> int:
    """Pixels of all tiles along an axis together."""
    if tile >= side:
        return side
    return side + overlap * -(-(side - tile) // max(1, tile - overlap))
