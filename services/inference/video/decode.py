"""Packets to frames. Damaged packets cost their own frames only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import av.error
from av.packet import Packet as AvPacket
from av.packet import PacketSideData, packet_sidedata_type_from_literal
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from services.common.errors import InvalidVideo
from services.common.media import CodecParameters, Packet

# Times the stream's own number of pixels.
_MAX_GROWTH = 4
_SMALL_PIXELS = 1 << 20


class Decoder:
    """One stream's decoder, from a keyframe on."""

    def __init__(self, codec: CodecParameters) -> None:
        """Raises InvalidVideo where there is no such decoder, or it refuses the stream."""
        try:
            context = av.CodecContext.create(codec.codec, "r")
        except ValueError as error:
            raise InvalidVideo(f"There is no decoder {codec.codec!r} here; convert the video to H.264 or HEVC.") from error
        if not isinstance(context, VideoCodecContext):
            raise InvalidVideo(f"{codec.codec!r} is no video codec.")
        # What several threads make of a damaged stream depends on chance.
        context.thread_count = 1
        # Frames may change their size on the way, but not to one that eats all memory.
        context.options = {"max_pixels": str(max(_MAX_GROWTH * codec.width * codec.height, _SMALL_PIXELS))}
        self._context = context
        self._open(codec)

    def frames(self, packet: Packet) -> Iterator[VideoFrame]:
        """The frames that are complete with this packet, in the order in which they are shown."""
        # Without data a packet would mean the stream's end.
        if packet.data:
            yield from self._decode(_av_packet(packet))

    def finish(self) -> Iterator[VideoFrame]:
        """The frames that were held back."""
        yield from self._decode(None)

    def _open(self, codec: CodecParameters) -> None:
        context = self._context
        try:
            context.width, context.height, context.pix_fmt = codec.width, codec.height, codec.pixel_format
            if codec.extradata:
                context.extradata = codec.extradata
            context.open(strict=False)
        except (av.error.FFmpegError, ValueError) as error:
            raise InvalidVideo(f"The decoder refuses the stream's header ({error}); the video is damaged.") from error

    def _decode(self, packet: AvPacket[Any] | None) -> list[VideoFrame]:
        try:
            return self._context.decode(packet)
        except av.error.FFmpegError:
            # Frames that this costs are concealed, and counted, by whoever misses them.
            return []


def _av_packet(packet: Packet) -> AvPacket[Any]:
    found = AvPacket(packet.data)
    found.pts, found.dts, found.duration = packet.pts, packet.dts, packet.duration
    found.is_keyframe = packet.keyframe
    for name, data in packet.side_data.items():
        side_data = _side_data(name, data)
        if side_data is not None:
            found.set_sidedata(side_data)
    return found


def _side_data(name: str, data: bytes) -> PacketSideData | None:
    try:
        kind = packet_sidedata_type_from_literal(name)  # type: ignore[arg-type]  # of the other side's choice
    except ValueError:
        return None
    if not data:
        return None
    side_data = PacketSideData(kind, len(data))  # type: ignore[call-arg]  # the stub knows copies only
    side_data.update(data)
    return side_data
