import numpy as np
import pytest

from services.common.channel import Channel, Message, channel_pair
from services.common.errors import InternalError
from services.inference.frames import frames_of, send_frames


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_frames_arrive_as_they_were_sent(dtype: type[np.unsignedinteger], channels: int):
    frames = np.arange(2 * 3 * 8 * channels).reshape(2, 3, 8, channels).astype(dtype)[:, :, ::2]
    ours, theirs = map(Channel, channel_pair())
    send_frames(ours, frames)
    received = frames_of(theirs.receive())
    assert received.dtype == dtype
    assert np.array_equal(received, frames)
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    "message",
    [
        Message("end"),
        Message("frames", {"shape": [1, 2, 2, 3], "dtype": "float32"}, bytes(48)),
        Message("frames", {"shape": [1, 2, 2, 5], "dtype": "uint8"}, bytes(20)),
        Message("frames", {"shape": [1, 2, 2], "dtype": "uint8"}, bytes(4)),
        Message("frames", {"shape": [1, 2, 2, 3], "dtype": "uint8"}, bytes(11)),
        Message("frames", {"shape": [1, 2, "x", 3], "dtype": "uint8"}, bytes(12)),
        Message("frames", {"dtype": "uint8"}, bytes(12)),
    ],
)
def test_what_is_no_frames_is_refused(message: Message):
    with pytest.raises(InternalError):
        frames_of(message)
