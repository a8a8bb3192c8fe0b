import asyncio
import contextlib
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from minio.error import S3Error

from services.common.errors import SettingsError, StoreUnavailable
from services.gateway.store.s3.bucket import PROBES
from services.gateway.store.s3.store import S3Store
from tests.fault_proxy import Fault
from tests.s3 import S3, client_of, free_ports
from tests.unit.gateway.store.s3.conftest import Behind

_OTHER_RULE = (
    b'<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule><ID>theirs</ID><Status>Enabled</Status>'
    b"<Filter><Prefix>logs/</Prefix></Filter><Expiration><Days>3</Days></Expiration></Rule></LifecycleConfiguration>"
)


@pytest.fixture
def rclone(tmp_path: Path) -> Iterator[S3]:
    """A real S3 server that takes conditions and ignores them."""
    (tmp_path / "data/seedvr2").mkdir(parents=True)
    port = free_ports(1)[0]
    tool = shutil.which("rclone", path=str(Path(sys.executable).parent))
    assert tool, "rclone is missing: run make setup"
    command = [tool, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "key,secret", str(tmp_path / "data")]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until = time.monotonic() + 30
            while time.monotonic() < until:
                with contextlib.suppress(httpx.HTTPError):
                    httpx.get(f"http://127.0.0.1:{port}/")
                    break
                time.sleep(0.05)
            yield S3(endpoint=f"http://127.0.0.1:{port}", bucket="seedvr2", access_key="key", secret_key="secret")
        finally:
            process.kill()


@contextlib.contextmanager
def opened(s3: S3, directory: Path, **settings: object) -> Iterator[S3Store]:
    with contextlib.closing(S3Store(s3.settings(directory, **settings))) as store:
        yield store


async def test_a_bucket_that_does_is_tried_out_and_left_clean(s3_store: S3Store):
    assert "is there" in (await s3_store.bucket.prepare())[0]
    assert await s3_store.objects.keys(PROBES) == []


async def test_a_server_that_ignores_conditions_is_refused(rclone: S3, tmp_path: Path):
    with opened(rclone, tmp_path / "x", prefix="") as store:
        await store.put("a", b"1", if_absent=True)
        await store.put("a", b"2", if_absent=True)
        with pytest.raises(SettingsError, match=r"ignores conditions of writes \(If-None-Match\), so two gateways"):
            await store.bucket.prepare()
        assert await store.objects.keys(PROBES) == []


async def test_a_bucket_that_is_missing_is_said_or_created(s3: S3, tmp_path: Path):
    missing = replace(s3, bucket=f"seedvr2-{secrets.token_hex(6)}")
    with opened(missing, tmp_path) as store, pytest.raises(SettingsError, match="SEEDVR2_S3_CREATE_BUCKET=true"):
        await store.bucket.prepare()
    with opened(missing, tmp_path, create_bucket=True) as store, opened(missing, tmp_path, create_bucket=True) as second:
        assert "was created" in (await store.bucket.prepare())[0]
        assert "is there" in (await second.bucket.prepare())[0]
    client_of(missing).remove_bucket(missing.bucket)


@pytest.mark.parametrize("values", [{"secret_key": "wrong"}, {"access_key": "nobody"}])
async def test_wrong_keys_are_said_at_the_start_and_not_repeated(s3: S3, tmp_path: Path, values: dict[str, str]):
    refused = pytest.raises(SettingsError, match=r"refuses the gateway \(AccessDenied\)")
    with opened(replace(s3, **values), tmp_path) as store, refused as caught:
        await store.bucket.prepare()
    assert s3.secret_key not in caught.value.message
    assert s3.bucket in caught.value.message


async def test_a_server_that_is_away_is_unavailable_and_not_a_wrong_setting(behind: Behind):
    store = behind.store(tries=2)
    behind.proxy.set(Fault(refuse=True))
    with pytest.raises(StoreUnavailable):
        await store.bucket.prepare()


async def test_what_a_gateway_wrote_to_try_the_server_out_and_could_not_remove_goes_when_no_check_lasts_so_long(behind: Behind):
    killed, patient, store = behind.store(tries=1), behind.store(), behind.store(retry_s=0.05, timeout_s=0.1)
    behind.proxy.set(Fault(refuse=True, only="^DELETE "))
    with pytest.raises(StoreUnavailable):
        await killed.bucket.prepare()
    behind.proxy.set()
    left = await store.objects.keys(PROBES)
    assert len(left) == 1
    for each in (patient, store):
        await each.tidy()
    assert await store.objects.keys(PROBES) == left, "it may be in use"
    async with asyncio.timeout(30):
        while await store.objects.keys(PROBES):
            await patient.tidy()
            assert await patient.objects.keys(PROBES) == left, "it may be in use, as far as this one knows"
            await store.tidy()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("lifecycle", [True, False])
async def test_a_bucket_that_is_full_is_taken_as_it_is(behind: Behind, lifecycle: bool):
    store = behind.store(lifecycle=lifecycle)
    behind.proxy.set(Fault(status=507, only="^PUT "))
    said = await store.bucket.prepare()
    assert "not tried out until the next start" in said[-1]
    assert "delete jobs" in said[-1]


# ---- rules ----


async def test_rules_are_added_to_those_of_others(s3: S3, tmp_path: Path):
    own = replace(s3, bucket=f"seedvr2-{secrets.token_hex(6)}")
    client = client_of(own)
    client.make_bucket(own.bucket)
    with opened(own, tmp_path, lifecycle=True, leftover_days=5, prefix="p/") as store:
        assert "remove leftovers after 5 days" in (await store.bucket.prepare())[-1]
        rules = client.get_bucket_lifecycle(own.bucket)
        assert rules
        assert {rule.rule_id for rule in rules.rules} == {
            "seedvr2-leftovers:p/parts", "seedvr2-leftovers:p/.unfinished/", "seedvr2-leftovers:p/.check/",
        }  # fmt: skip
        client._execute("PUT", own.bucket, body=_OTHER_RULE, query_params={"lifecycle": ""})
        await store.bucket.prepare()
        rules = client.get_bucket_lifecycle(own.bucket)
        assert rules
        assert len(rules.rules) == 4
        theirs = next(rule for rule in rules.rules if rule.rule_id == "theirs")
        assert (theirs.rule_filter.prefix, theirs.expiration.days) == ("logs/", 3)
        assert "as they should be" in (await store.bucket.prepare())[-1]
    client.remove_bucket(own.bucket)


async def test_no_rules_are_touched_where_that_is_not_wanted(behind: Behind):
    await behind.store(lifecycle=False).bucket.prepare()
    assert not [r for r in behind.proxy.requests if "lifecycle" in r.line]


async def test_a_server_without_rules_can_be_used_and_it_is_said(behind: Behind):
    store = behind.store(lifecycle=True)
    behind.proxy.set(Fault(status=403, only="lifecycle"))
    said = (await store.bucket.prepare())[-1]
    assert "takes no rules for leftovers" in said
    assert "AccessDenied" in said


async def test_a_server_that_knows_no_rule_for_parts_gets_the_others(behind: Behind, s3: S3):
    store = behind.store(lifecycle=True, prefix="p/")
    behind.proxy.set(Fault(status=400, times=1, only="^PUT .*lifecycle"))
    said = (await store.bucket.prepare())[-1]
    assert "It has rules" in said
    assert "takes none for uploads in parts" in said
    client = client_of(s3)
    rules = client.get_bucket_lifecycle(s3.bucket)
    assert rules
    assert {"seedvr2-leftovers:p/.unfinished/", "seedvr2-leftovers:p/.check/"} <= {rule.rule_id for rule in rules.rules}
    client.delete_bucket_lifecycle(s3.bucket)


async def test_a_server_that_fails_while_rules_are_set_is_unavailable(behind: Behind):
    store = behind.store(lifecycle=True, tries=1)
    behind.proxy.set(Fault(status=500, only="lifecycle"))
    with pytest.raises(StoreUnavailable):
        await store.bucket.prepare()


def test_the_test_bucket_is_there(s3: S3):
    with pytest.raises(S3Error, match="NoSuchKey"):
        client_of(s3).stat_object(s3.bucket, "nothing")
