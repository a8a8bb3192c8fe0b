import json
from dataclasses import replace
from typing import Any

import pytest

from services.common.fleet import ModelState
from services.gateway.pools.records import PoolRecord, lasting, pool_from_json, pool_to_json, serves_the_same
from tests.unit.gateway.examples import MODEL, view

STATUS = replace(
    view(checks={"0": "ok"}, detail="busy", encoders=("h264_nvenc",), memory_bytes=80 << 30, facts={"device": "H100"}).status,
    installed=(ModelState(name="nano", title="Nano", state="ready", size_bytes=5),),
)
RECORD = PoolRecord(pool="p", seen_at=12.5, address="10.0.0.1:50061", status=lasting(STATUS))


def test_a_pool_is_read_as_it_was_written():
    assert pool_from_json(pool_to_json(RECORD)) == RECORD


def test_what_is_of_one_process_or_of_one_moment_is_not_kept():
    other = replace(STATUS, worker_id="2", state="draining", free_slots=7, checks={}, detail="")
    assert lasting(other) == lasting(STATUS) == RECORD.status
    assert serves_the_same(STATUS, replace(other, megapixels_per_second=3.0))
    assert not serves_the_same(STATUS, replace(STATUS, fingerprint="f2"))
    assert not serves_the_same(STATUS, replace(STATUS, models=(replace(MODEL, hash="cd" * 32),)))


def test_what_a_later_release_added_is_left_out():
    record: dict[str, Any] = json.loads(pool_to_json(RECORD))
    record["grain"] = record["status"]["grain"] = record["status"]["models"][0]["grain"] = 2
    record["status"]["installed"][0]["grain"] = 2
    assert pool_from_json(json.dumps(record).encode()) == RECORD


def test_fields_that_have_their_default_are_not_written():
    record = json.loads(pool_to_json(RECORD))
    assert {"megapixels_per_second", "ranks", "version"}.isdisjoint(record["status"])
    assert "max_steps" not in record["status"]["models"][0]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema_version": 2}', b'{"schema_version": 1, "status": null}'])
def test_what_is_no_pool_of_this_release_is_told(data: bytes):
    with pytest.raises(ValueError, match="not a pool of this release"):
        pool_from_json(data)
