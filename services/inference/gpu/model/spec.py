"""What each model is made of. Sizes and rules only: no torch, so that any process can read it."""

from dataclasses import dataclass

TEXT_KEY = "pos_emb"
"""Name of the text embedding in its file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DitSpec:
    """The diffusion transformer."""

    width: int
    """Channels of a token, video and text alike."""

    heads: int
    """Attention heads; each is ``width / heads`` wide."""

    blocks: int
    """Transformer blocks; even ones use regular windows, odd ones shifted windows."""

    split_blocks: int
    """The first blocks, which have separate weights for video and text; later ones share one set."""

    mlp_width: int
    """Hidden channels of the MLP."""

    window_counts: tuple[int, int, int]
    """Windows (time, height, width) that a clip of 30 latents of a 720p frame is cut into."""

    output_norm: bool
    """Whether a norm and a modulation stand before the last projection."""

    rope_width: int
    """Channels of a head that the rotary embedding divides among the three axes."""

    text_width: int
    """Channels of the text embedding as it is stored."""

    gated_mlp: bool = True
    """Whether the MLP is gated and without biases; otherwise it is one GELU between two projections with biases."""

    pixel_rotary: bool = False
    """Whether positions run from -1 to 1 over each window, for video only; otherwise they count, text first."""

    bare_last_text: bool = True
    """Whether the last block takes its text without shift and scale; its weights must then be shared."""

    latent_channels: int = 16
    """Channels of a latent, of the noise and of the velocity."""

    patch: int = 2
    """Latent rows and columns that make a token."""

    timestep_width: int = 256
    """Channels of the timestep's sinusoid."""

    norm_eps: float = 1e-5
    """Added to the mean square in every norm."""

    def __post_init__(self) -> None:
        if self.bare_last_text and self.split_blocks >= self.blocks:
            raise ValueError("bare_last_text needs a last block with shared weights: fewer split_blocks than blocks")

    @property
    def head_width(self) -> int:
        """Channels of a head."""
        return self.width // self.heads

    @property
    def input_channels(self) -> int:
        """Noisy latent, low-quality latent and mask."""
        return 2 * self.latent_channels + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeSpec:
    """The causal video autoencoder."""

    channels: tuple[int, ...]
    """Of each resolution level; between two levels height and width are halved."""

    blocks_per_level: int
    """Residual blocks of an encoder level; a decoder level has one more."""

    latent_channels: int
    """Channels of a latent; the encoder gives twice as many (mean and log-variance)."""

    norm_groups: int
    """Groups of every group norm."""

    temporal_levels: int
    """How many of the resampling steps, counted from the latent, also halve time."""

    causal_first_conv: bool
    """Whether the first convolution of a residual block spans three frames, as the second always does."""

    mid_attention: bool
    """Whether the middle block attends over each frame."""

    scaling_factor: float
    """The transformer sees latents multiplied by this."""

    norm_eps: float = 1e-6
    """Added to the variance in every norm."""

    @property
    def spatial_factor(self) -> int:
        """Pixels, along each side, for a latent position."""
        return int(2 ** (len(self.channels) - 1))

    @property
    def temporal_factor(self) -> int:
        """Frames for a latent; the first latent of a stream codes one frame alone."""
        return int(2**self.temporal_levels)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model set: transformer, autoencoder and how they are used."""

    name: str
    """As users write it."""

    dit: DitSpec
    """The transformer."""

    vae: VaeSpec
    """The autoencoder."""

    text_tokens: int
    """Rows of the positive text embedding."""

    window_latents: int
    """Latents that the transformer takes at a time unless a plan says otherwise."""

    overlap_latents: int
    """Latents that consecutive windows share unless a plan says otherwise."""

    context_frames: int
    """Frames that warm the state up where a span begins without a cut; a multiple of the temporal factor."""

    max_steps: int = 1
    """Steps from noise to the result that the model can take. SeedVR2 is distilled to one, and to no guidance."""

    slice_latents: int
    """Latents that the autoencoder takes at a time; changes speed and memory only."""

    @property
    def size_multiple(self) -> int:
        """Frame sides are padded to multiples of this."""
        return self.vae.spatial_factor * self.dit.patch


_SEEDVR2_VAE = VaeSpec(
    channels=(128, 256, 512, 512),
    blocks_per_level=2,
    latent_channels=16,
    norm_groups=32,
    temporal_levels=2,
    causal_first_conv=True,
    mid_attention=True,
    scaling_factor=0.9152,
)

_SEEDVR2_3B = DitSpec(
    width=2560,
    heads=20,
    blocks=32,
    split_blocks=10,
    mlp_width=6912,
    window_counts=(4, 3, 3),
    output_norm=True,
    rope_width=128,
    text_width=5120,
)

_SEEDVR2_7B = DitSpec(
    width=3072,
    heads=24,
    blocks=36,
    split_blocks=36,
    mlp_width=12288,
    window_counts=(4, 3, 3),
    output_norm=False,
    rope_width=64,
    text_width=5120,
    gated_mlp=False,
    pixel_rotary=True,
    bare_last_text=False,
)


def _released(name: str, dit: DitSpec) -> ModelSpec:
    """A published SeedVR2: all are used alike and have one autoencoder."""
    return ModelSpec(
        name=name,
        dit=dit,
        vae=_SEEDVR2_VAE,
        text_tokens=58,
        window_latents=21,
        overlap_latents=2,
        context_frames=24,
        slice_latents=1,
    )


SPECS = {
    spec.name: spec
    for spec in (
        ModelSpec(
            name="nano",
            dit=DitSpec(
                width=192,
                heads=6,
                blocks=8,
                split_blocks=2,
                mlp_width=512,
                window_counts=(8, 6, 10),
                output_norm=False,
                rope_width=32,
                text_width=64,
            ),
            vae=VaeSpec(
                channels=(16, 32, 64),
                blocks_per_level=1,
                latent_channels=16,
                norm_groups=1,
                temporal_levels=0,
                causal_first_conv=False,
                mid_attention=False,
                scaling_factor=1.0,
            ),
            text_tokens=8,
            window_latents=8,
            overlap_latents=0,
            context_frames=4,
            slice_latents=2,
        ),
        _released("seedvr2-3b", _SEEDVR2_3B),
        _released("seedvr2-7b", _SEEDVR2_7B),
        _released("seedvr2-7b-sharp", _SEEDVR2_7B),
    )
}
"""Every model, by name."""
