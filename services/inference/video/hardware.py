"""Encoders of graphics cards: which open here, and what is said when one that did doesn't any more."""

import contextlib
import logging
from collections.abc import Iterator
from fractions import Fraction

import av
import av.error
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from services.common.encoders import HARDWARE_ENCODERS, title_of
from services.common.errors import InternalError, Unavailable
from services.common.pixels import PIXEL_FORMATS

_log = logging.getLogger(__name__)

_SIDE = 256
"""Pixels; every card takes it."""


def opened_encoders() -> list[str]:
    """Those that encode a frame here, by FFmpeg's names.

    FFmpeg has them on every machine. Whether card, driver and this process's limits let one work is known when it has.
    """
    return [encoder for encoder in HARDWARE_ENCODERS if _opens(encoder)]


@contextlib.contextmanager
def told_clearly(encoder: str) -> Iterator[None]:
    """Say what it means when a card's encoder fails; other encoders' errors pass.

    Raises:
        Unavailable: it failed.
    """
    try:
        yield
    except av.error.FFmpegError as error:
        if encoder not in HARDWARE_ENCODERS:
            raise
        raise Unavailable(
            f"{title_of(encoder)} ({encoder}) opened when this worker started, and fails now ({error.strerror}): perhaps all "
            "sessions that its driver allows are taken, or the device has no memory left. Try again, or leave the encoder out "
            "for x264."
        ) from error


def _opens(encoder: str) -> bool:
    pixel_format = next(name for name, form in PIXEL_FORMATS.items() if encoder in form.encoders)
    try:
        context = av.CodecContext.create(encoder, "w")
        if not isinstance(context, VideoCodecContext):
            raise InternalError(f"{encoder} encodes no video")
        context.width, context.height, context.pix_fmt = _SIDE, _SIDE, pixel_format
        context.time_base = Fraction(1, 25)
        frame = VideoFrame(_SIDE, _SIDE, pixel_format)
        frame.pts = 0
        opened = bool([*context.encode(frame), *context.encode(None)])
    except av.error.FFmpegError as error:
        _log.info("an encoder doesn't open", extra={"encoder": encoder, "detail": error.strerror})
        return False
    return opened
