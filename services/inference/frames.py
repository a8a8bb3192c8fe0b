"""Frames in messages between a rank and the process that decodes and encodes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.common.channel import Channel, Message
from services.common.errors import InternalError

Frames = NDArray[np.unsignedinteger[Any]]
"""(T, H, W, 3) RGB or (T, H, W, 4) RGBA, full range: uint8, or uint16 for sources of more than 8 bits."""

MAX_BATCH_FRAMES = 8
MAX_BATCH_BYTES = 32 << 20
"""A message holds one frame, however large, or several within these limits: memory is the same for any length."""

_DTYPES = {"uint8": np.uint8, "uint16": np.uint16}


def send_frames(channel: Channel, frames: Frames) -> None:
    """Send (T, H, W, C) frames as one message of kind "frames". Raises ChannelClosed."""
    whole = np.ascontiguousarray(frames)
    channel.send("frames", whole.reshape(-1).view(np.uint8).data, shape=list(frames.shape), dtype=frames.dtype.name)


def frames_of(message: Message) -> Frames:
    """The frames in a message of :func:`send_frames`, without a copy.

    Raises:
        InternalError: the message holds something else.
    """
    shape, dtype = message.fields.get("shape"), _DTYPES.get(str(message.fields.get("dtype")))
    if message.kind != "frames" or dtype is None or not isinstance(shape, list) or len(shape) != 4 or shape[3] not in (3, 4):
        raise InternalError(f"a message of kind {message.kind} stands where frames should be")
    try:
        return np.frombuffer(message.payload, dtype).reshape(shape)
    except (TypeError, ValueError) as error:
        raise InternalError(f"{len(message.payload)} bytes are not frames of {shape}") from error
