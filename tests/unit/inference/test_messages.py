import json
from dataclasses import replace
from fractions import Fraction

from services.common.media import Packet
from services.inference.messages import StageTime, VideoOrder, packet_fields, packet_of, stage_of, video_order
from tests.unit.inference.test_admission import TASK


def test_an_order_survives_json():
    codec = replace(TASK.codec, extradata=b"\x00\xff", sample_aspect_ratio=Fraction(4, 3), side_data={"x": b"\x01"})
    order = VideoOrder(task=replace(TASK, codec=codec, stored=frozenset({8, 5})), path="/tmp/x", encoder_threads=3)
    assert video_order(json.loads(json.dumps(order.fields()))) == order


def test_a_packet_survives_json():
    packet = Packet(pts=None, dts=-5, duration=3, keyframe=True, data=b"abc", side_data={"palette": b"\x00\x01"})
    assert packet_of(json.loads(json.dumps(packet_fields(packet))), bytearray(b"abc")) == packet


def test_progress_is_read_from_among_other_fields():
    assert stage_of({"number": 4, "stage": "dit", "seconds": 0.5, "frames": 3}) == StageTime(stage="dit", seconds=0.5, frames=3)
