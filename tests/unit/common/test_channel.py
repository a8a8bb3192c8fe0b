import socket
import struct
import threading

import pytest

from services.common.channel import AsyncChannel, Channel, ChannelClosed, ChannelGarbled, channel_pair


@pytest.fixture
def pair():
    a, b = channel_pair()
    ends = Channel(a), Channel(b)
    yield ends
    for end in ends:
        end.close()


def test_a_message_arrives_as_it_was_sent(pair: tuple[Channel, Channel]):
    pair[0].send("frames", b"\x00\x01" * 5, count=5, name="ä")
    message = pair[1].receive()
    assert (message.kind, message.fields, bytes(message.payload)) == ("frames", {"count": 5, "name": "ä"}, b"\x00\x01" * 5)


def test_waiting_tells_whether_something_can_be_received(pair: tuple[Channel, Channel]):
    assert not pair[1].waiting()
    pair[0].send("hello")
    assert pair[1].waiting(1)


def test_large_payloads_block_the_sender_until_they_are_read(pair: tuple[Channel, Channel]):
    data = bytes(8 << 20)
    sender = threading.Thread(target=pair[0].send, args=("frames", data))
    sender.start()
    sender.join(0.2)
    assert sender.is_alive()
    assert len(pair[1].receive().payload) == len(data)
    sender.join(5)
    assert not sender.is_alive()


def test_a_closed_end_is_seen_on_the_other_side(pair: tuple[Channel, Channel]):
    pair[0].close()
    with pytest.raises(ChannelClosed):
        pair[1].receive()
    with pytest.raises(ChannelClosed):
        pair[1].send("anyone", bytes(1 << 20))


@pytest.mark.parametrize(
    "raw", [struct.pack("<IQ", 1 << 31, 0), struct.pack("<IQ", 4, 0) + b"oops", struct.pack("<IQ", 2, 0) + b"[]"]
)
def test_bytes_that_are_no_message_are_refused(raw: bytes):
    ours, theirs = channel_pair()
    theirs.sendall(raw)
    channel = Channel(ours)
    with pytest.raises((ChannelGarbled, ValueError)):
        channel.receive()
    channel.close()
    theirs.close()


async def test_the_async_end_speaks_with_the_blocking_end():
    a, b = channel_pair()
    one, other = await AsyncChannel.over(a), Channel(b)
    await one.send("task", b"abc", n=1)
    assert other.receive().fields == {"n": 1}
    other.send("answer", b"xyz")
    assert bytes((await one.receive()).payload) == b"xyz"
    other.close()
    with pytest.raises(ChannelClosed):
        await one.receive()
    await one.aclose()


def test_the_pair_is_a_local_stream_socket():
    a, b = channel_pair()
    assert a.family == socket.AF_UNIX
    a.close()
    b.close()
