"""What a worker says about itself."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.common.encoders import EVERYWHERE


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerModel:
    """A model that a worker has loaded."""

    name: str
    """Name in the model list."""

    title: str
    """For people."""

    hash: str
    """SHA-256 over its files."""

    dtype: str
    """Compute type."""

    weight_format: str
    """How its weights are stored."""

    size_multiple: int
    """Frame sides are padded to multiples of this."""

    temporal_factor: int
    """Frames a latent."""

    window_latents: int
    """Latents that the transformer takes at a time."""

    overlap_latents: int
    """Latents that consecutive windows share."""

    parameters: int
    """Number of weights."""

    colours: tuple[str, ...]
    """Colour modes that it offers, the default first."""

    context_frames: int = 0
    """Frames that warm the state up after a span border that is no cut."""

    max_steps: int = 1
    """Steps from noise to the result that it can take."""

    max_output_pixels: int = 0
    """Pixels of the largest frame that fits a device, by prediction; 0: not known."""

    memory_base_bytes: int = 0
    """Device memory that a span takes by prediction, whatever its size; 0: not known."""

    memory_bytes_per_pixel: float = 0.0
    """The same for each pixel of an output frame, where the device has enough; where not, workers make do with less."""

    detail: str = ""
    """What to expect of it, a sentence for people."""


INSTALLED_STATES = ("ready", "foreign", "fetching", "incomplete", "broken", "absent")
"""How a model is in a model directory, the best first. ``foreign``: files without a record, put there by someone else;
``fetching``: a process downloads it; ``incomplete``: a download was begun; ``broken``: something that its record lists is
missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """A model of this software and how it is in a model directory."""

    name: str
    """Of the model."""

    title: str
    """For people."""

    state: str
    """How it is: one of ``INSTALLED_STATES``."""

    size_bytes: int = 0
    """Of its files, where it is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """A worker's answer to Status."""

    worker_id: str
    """Unique for each start of the process."""

    pool: str
    """Its pool's name."""

    state: str
    """starting, ready, busy, draining or broken."""

    models: tuple[WorkerModel, ...]
    """What it serves."""

    fingerprint: str
    """Hash of ``facts``: workers with the same one give the same bytes."""

    facts: dict[str, str] = field(default_factory=dict)
    """Code version, device, dtype, kernels, encoder, threads."""

    encoders: tuple[str, ...] = ()
    """FFmpeg's names of the video encoders that open there, beside those that every worker has."""

    ranks: int = 1
    """Processes with a device each."""

    slots: int = 1
    """Spans that it takes at a time."""

    free_slots: int = 1
    """Of these, free now."""

    megapixels_per_second: float = 0.0
    """Measured speed in output megapixels; 0: not measured yet."""

    memory_bytes: int = 0
    """Of one device, or of the host where there is none."""

    checks: dict[str, str] = field(default_factory=dict)
    """What each rank found out about its device: by rank and check, ok or failed, and the details."""

    detail: str = ""
    """Why it is broken, or what it is waiting for."""

    version: str = ""
    """Of this software."""

    installed: tuple[ModelState, ...] = ()
    """What is in its model directory; empty until it has looked."""


def has_encoder(encoders: Iterable[str], wanted: Iterable[str]) -> bool:
    """Whether a worker that names ``encoders`` has any of those that are ``wanted``."""
    return not (EVERYWHERE | set(encoders)).isdisjoint(wanted)
