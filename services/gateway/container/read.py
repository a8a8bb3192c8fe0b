"""The packets of a span: from a keyframe on, as far as its frames need them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from services.common.channel import Channel
from services.gateway.container.opening import opened, reading
from services.gateway.container.probe import video_packets

# What decoders need beside the data.
_SIDE_DATA = frozenset({"new_extradata", "palette", "param_change"})


def read(channel: Channel, fields: dict[str, Any]) -> None:
    """Answer "read" with "packet" messages and "end".

    Fields: path, stream; keyframe [packet, pts, dts], the packet to start at; first_pts, last_pts and frames, the time stamps
    wanted and their number; or end_packet, the number of the packet to stop before, where packets have no usable time stamps.
    """
    with opened(fields["path"]) as container:
        stream = container.streams[fields["stream"]]
        for packet in wanted_packets(container, stream, fields):
            side_data = {s.data_type: bytes(s).hex() for s in packet.iter_sidedata() if s.data_type in _SIDE_DATA}
            channel.send(
                "packet", bytes(packet), pts=packet.pts, dts=packet.dts, duration=packet.duration or 0,
                keyframe=packet.is_keyframe, side_data=side_data,
            )  # fmt: skip
    channel.send("end")


def wanted_packets(container: InputContainer, stream: Stream, fields: dict[str, Any]) -> Iterator[Packet[Any]]:
    """The packets that ``fields`` (see :func:`read`) asks for."""
    packets = _from_keyframe(container, stream, fields["keyframe"])
    if fields.get("end_packet") is not None:
        yield from itertools.islice(packets, fields["end_packet"] - fields["keyframe"][0])
        return
    missing = fields["frames"]
    for packet in packets:
        yield packet
        if packet.pts is not None and fields["first_pts"] <= packet.pts <= fields["last_pts"] and not packet.is_discard:
            missing -= 1
        if not missing:
            return


def _from_keyframe(container: InputContainer, stream: Stream, keyframe: list[Any]) -> Iterator[Packet[Any]]:
    number, pts, dts = keyframe
    if number and (pts is not None or dts is not None):
        found = _sought(container, stream, pts, dts)
        if found is not None:
            return found
        with reading():
            container.seek(0)
    return itertools.islice(video_packets(container, stream), number, None)


def _sought(container: InputContainer, stream: Stream, pts: int | None, dts: int | None) -> Iterator[Packet[Any]] | None:
    """Packets from that keyframe on, by the container's index; None where it doesn't lead there."""
    stamps = [t for t in (pts, dts) if t is not None]
    with reading():
        container.seek(min(stamps), stream=stream)
    packets = video_packets(container, stream)
    for packet in packets:
        # Decoding times are computed and, after a jump, not always known.
        if packet.is_keyframe and (packet.pts == pts if pts is not None else packet.dts == dts):
            return itertools.chain([packet], packets)
        if packet.dts is not None and packet.dts > max(stamps):
            return None
    return None
