import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given

from services.common.errors import InvalidOption
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.gateway import codec
from services.gateway.job_request import JobRequest
from services.gateway.rest.decoder import decode_request, param_of
from services.gateway.rest.encoder import encode_request
from services.gateway.rest.schemas import REQUEST
from tests.unit.gateway.strategies import requests


def test_every_field_is_understood_as_text_and_as_json():
    fields = {
        "upload_id": "u", "model": "nano", "pool": "p", "scale": 1.5, "start": 0.5, "end": 2, "seed": 7, "colour": "lab",
        "preview": True, "format": "mkv", "crf": 3, "encoder": "nvenc", "input_noise": 0.25, "latent_noise": 0.5, "steps": 2,
        "cfg_scale": 1.5, "result_uri": "r", "webhook_url": "w", "labels": {"a": "b"},
    }  # fmt: skip
    wanted = JobRequest(
        upload_id="u", model="nano", pool="p", scale=1.5, time_ns=(500_000_000, 2_000_000_000), seed=7, colour="lab",
        preview=True, container="mkv", crf=3, encoder="nvenc", input_noise=0.25, latent_noise=0.5, steps=2, cfg_scale=1.5,
        result_uri="r", webhook_url="w", labels=(("a", "b"),),
    )  # fmt: skip
    assert decode_request(fields) == wanted
    assert decode_request({**{k: str(v) for k, v in fields.items() if k != "labels"}, "labels[a]": "b"}) == wanted
    assert decode_request({"upload_id": "u", "size": "640x360", "end_frame": 9.0}) == JobRequest(
        upload_id="u", box=(640, 360), frames=(0, 9)
    )


def test_what_is_absent_is_left_open_and_what_others_clients_send_is_ignored():
    assert decode_request({"prompt": "nicer", "scale": None}, upload_id="u") == JobRequest(upload_id="u")


@given(requests())
def test_a_request_is_asked_for_again_by_what_is_said_of_it(request: JobRequest):
    said = encode_request(request)
    assert said.keys() <= REQUEST.keys()
    assert decode_request(json.loads(json.dumps(said))) == request


def _leaves(message: Descriptor, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Everything that can be set in a message, by its path."""
    for field in message.fields:
        inner = field.message_type
        if inner is None or inner.GetOptions().map_entry or inner.full_name.startswith("google."):
            yield *above, field.name
        else:
            yield from _leaves(inner, (*above, field.name))


def _set(message: Message, path: tuple[str, ...]) -> None:
    """Give a field a value that is no default."""
    *above, name = path
    for each in above:
        message = getattr(message, each)
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.enum_type is not None:
        setattr(message, name, max(field.enum_type.values_by_number))
    elif field.message_type is None:
        setattr(message, name, {FieldDescriptor.CPPTYPE_STRING: "a", FieldDescriptor.CPPTYPE_BOOL: True}.get(field.cpp_type, 7))
    elif field.message_type.GetOptions().map_entry:
        getattr(message, name)["a"] = "b"
    else:
        getattr(message, name).FromSeconds(7)


@pytest.mark.parametrize("path", list(_leaves(pb.JobRequest.DESCRIPTOR)), ids=".".join)
def test_everything_that_can_be_asked_for_by_grpc_can_be_asked_for_here(path: tuple[str, ...]):
    message = pb.JobRequest()
    _set(message, path)
    wanted = codec.decode_request(message)
    said = encode_request(wanted)
    assert said.keys() - encode_request(codec.decode_request(pb.JobRequest())).keys()
    assert said.keys() <= REQUEST.keys()
    assert decode_request(said) == wanted


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"scale": "nan"}, "scale"), ({"scale": True}, "scale"), ({"scale": [1]}, "scale"), ({"scale": "1e999"}, "scale"),
        ({"seed": -1}, "seed"), ({"seed": 2**64}, "seed"), ({"seed": "1.5"}, "seed"), ({"seed": 1.5}, "seed"),
        ({"crf": 52}, "crf"), ({"size": "640"}, "size"), ({"size": 640}, "size"), ({"preview": "perhaps"}, "preview"),
        ({"preview": 2}, "preview"), ({"model": 3}, "model"), ({"model": "\ud800"}, "model"),
        ({"labels": "no json"}, "labels"), ({"labels": []}, "labels"), ({"labels": {"a": 1}}, "labels"),
        ({"labels": "[" * 5000}, "labels"), ({"colour ": "lab"}, "colour "), ({"short_side": 64, "size": "64x64"}, "short_side"),
        ({"end": 1, "end_frame": 3}, "start"),
    ],
)  # fmt: skip
def test_a_value_that_can_not_be_used_names_its_field(fields: dict[str, Any], param: str):
    with pytest.raises(InvalidOption, match=r"\.$") as error:
        decode_request(fields, upload_id="u")
    assert error.value.field == param


@pytest.mark.parametrize("other", ["upload_id", "object_uri", "https_url"])
def test_a_file_is_the_only_source(other: str):
    with pytest.raises(InvalidOption, match="give only the file"):
        decode_request({other: "a"}, upload_id="u")


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("request.target.scale", "scale"), ("request.target.box", "size"), ("request.target", "scale"),
        ("request.container", "format"), ("request.range.time", "start"), ("request.source.upload_id", "upload_id"),
        ("size_bytes", "bytes"), ("job_id", "video_id"), ("upload-offset", "upload-offset"),
    ],
)  # fmt: skip
def test_the_gateways_own_fields_have_names_here(field: str, param: str):
    assert param_of(field) == param
