"""Operations on a zip of pictures: each picture is a frame, a keyframe, and a packet."""

from __future__ import annotations

from typing import Any

from av.video.frame import VideoFrame

from services.common.channel import Channel
from services.common.errors import InvalidVideo
from services.gateway.container.cuts import Detector
from services.gateway.container.picture import decoded_picture, png
from services.gateway.container.zipped import Archive
from services.gateway.source import PacketFacts, index_fields, index_packets, info_from_fields


def archive_index(channel: Channel, fields: dict[str, Any]) -> None:
    """As "index": answer {path, info} with "index"."""
    info = info_from_fields(fields["info"])
    with Archive(fields["path"]) as archive:
        count = len(archive.entries)
    facts = [PacketFacts(pts=i, dts=i, duration=1, keyframe=True, shown=True, corrupt=False) for i in range(count)]
    channel.send("index", **index_fields(index_packets(facts, info, float(count * info.time_base))))


def archive_read(channel: Channel, fields: dict[str, Any]) -> None:
    """As "read": answer {path, first_pts, last_pts} with "packet" messages and "end"."""
    with Archive(fields["path"]) as archive:
        for number in range(fields["first_pts"], fields["last_pts"] + 1):
            channel.send("packet", archive.read(number), pts=number, dts=number, duration=1, keyframe=True, side_data={})
    channel.send("end")


def archive_cuts(channel: Channel, fields: dict[str, Any]) -> None:
    """As "cuts": answer {path, first_pts, last_pts} with "cut" {at} where a shot begins, "progress" {at}, and "end"."""
    detector = Detector()
    with Archive(fields["path"]) as archive:
        for number in range(fields["first_pts"], fields["last_pts"] + 1):
            if detector.begins_shot(_decoded(archive, number)):
                channel.send("cut", at=number)
            channel.send("progress", at=number)
    channel.send("end")


def archive_picture(channel: Channel, fields: dict[str, Any]) -> None:
    """As "picture": answer {path, first_pts, width, height, max_side, matrix} with "png"."""
    with Archive(fields["path"]) as archive:
        frame = _decoded(archive, fields["first_pts"])
    data, width, height = png(frame, fields)
    channel.send("png", data, width=width, height=height)


def _decoded(archive: Archive, number: int) -> VideoFrame:
    with archive.opened(number) as container:
        stream = container.streams.video[0] if container.streams.video else None
        if stream is None:
            raise InvalidVideo(f"Picture {number + 1} of the zip is none.")
        return decoded_picture(container, stream, {"order": 0, "keyframe": [0, None, None], "end_packet": 1 << 30})
