import pytest

from services.common.channel import ChannelGarbled, Message
from services.common.pb.seedvr2.v1 import rank_host_pb2 as pb
from services.inference.hosts.words import message_of, words_of


def test_a_message_comes_back_as_it_was():
    message = Message("ready", {"facts": {"device": "cpu"}, "seconds": 0.5, "frames": 1 << 60}, b"\x00\xff")
    words = words_of(3, message)
    assert words.rank == 3
    assert message_of(words) == message


@pytest.mark.parametrize("fields", ["", "{", "[]", "1"])
def test_what_is_no_message_is_noticed(fields: str):
    with pytest.raises(ChannelGarbled):
        message_of(pb.RankWords(kind="ready", fields=fields))
