"""Messages between server and rank, as they travel to another machine and back."""

import json

from services.common.channel import ChannelGarbled, Message
from services.common.pb.seedvr2.v1 import rank_host_pb2 as pb


def words_of(rank: int, message: Message) -> pb.RankWords:
    """A message to, or from, the rank with an index."""
    return pb.RankWords(rank=rank, kind=message.kind, fields=json.dumps(message.fields), payload=bytes(message.payload))


def message_of(words: pb.RankWords) -> Message:
    """Read :func:`words_of` back. Raises ChannelGarbled."""
    try:
        fields = json.loads(words.fields)
    except ValueError as error:
        raise ChannelGarbled("fields that are not JSON") from error
    if not isinstance(fields, dict):
        raise ChannelGarbled("fields of another shape")
    return Message(words.kind, fields, words.payload)
