"""What somebody asked for. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What somebody asked for, as it came."""

    upload_id: str = ""
    """Source: an upload."""

    object_uri: str = ""
    """Source: an object of a bucket."""

    https_url: str = ""
    """Source: something on the web."""

    model: str = ""
    """Empty: the default."""

    pool: str = ""
    """Empty: any."""

    scale: float | None = None
    """Output size by the source's."""

    short_side: int | None = None
    """Output size by its shorter side, in pixels."""

    box: tuple[int, int] | None = None
    """Output size that fits inside (width, height), in pixels."""

    frames: tuple[int, int] | None = None
    """Source frames [first, end); end 0: to the last one."""

    time_ns: tuple[int, int | None] | None = None
    """Nanoseconds [start, end) from the first frame; end None: to the last one."""

    seed: int | None = None
    """Of the noise; None: the default."""

    colour: str = ""
    """Colour mode; empty: the model's default."""

    preview: bool = False
    """Goes before batch work."""

    container: str = ""
    """One of FORMATS, or empty: what fits."""

    crf: int | None = None
    """Constant rate factor; None: the default."""

    encoder: str = ""
    """Of a video, one of ENCODERS; empty: the first."""

    input_noise: float = 0.0
    """Noise added to the frames before the model sees them, 0 to 1."""

    latent_noise: float = 0.0
    """How far the model is made to distrust its input, 0 to 1."""

    steps: int = 1
    """From noise to the result."""

    cfg_scale: float = 1.0
    """Guidance by a negative text; 1: none."""

    result_uri: str = ""
    """Where the result should be written too."""

    webhook_url: str = ""
    """Whom to tell."""

    labels: tuple[tuple[str, str], ...] = ()
    """Free text, sorted by name."""

    @property
    def is_remote(self) -> bool:
        """Whether the source must be fetched."""
        return bool(self.object_uri or self.https_url)
