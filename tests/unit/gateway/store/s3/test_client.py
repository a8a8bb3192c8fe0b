import logging
import ssl
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.common.errors import SettingsError, StoreUnavailable
from services.gateway.store.s3.client import connect
from services.gateway.store.s3.store import S3Store
from tests.certificates import Authority
from tests.fault_proxy import FaultProxy
from tests.s3 import S3


async def test_a_key_that_is_renewed_needs_no_restart(s3: S3, tmp_path: Path, s3_store: S3Store):
    await s3_store.put("a", b"1")
    (tmp_path / "secret_key").write_text("of yesterday")
    with pytest.raises(StoreUnavailable, match=r"refuses the gateway \((SignatureDoesNotMatch|AccessDenied)\)"):
        await s3_store.get("a")
    (tmp_path / "secret_key").unlink()
    with pytest.raises(StoreUnavailable, match="has no keys for the object store"):
        await s3_store.get("a")
    (tmp_path / "secret_key").write_text(s3.secret_key)
    assert (await s3_store.get("a"))[0] == b"1"


async def test_keys_can_come_from_the_environment(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    store = S3Store(s3.settings(tmp_path, access_key_file="", secret_key_file=""))
    await store.put("a", b"1")
    store.close()


async def test_no_secret_is_logged_or_shown(s3: S3, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    store = S3Store(s3.settings(tmp_path))
    await store.bucket.prepare()
    (tmp_path / "access_key").write_text("nobody")
    with pytest.raises(StoreUnavailable) as caught:
        await store.get("a")
    settings = s3.settings(tmp_path)
    shown = caplog.text + repr(caught.value) + repr(caught.value.__cause__) + repr(vars(store)) + repr(settings)
    assert s3.secret_key not in shown
    store.close()


@pytest.mark.parametrize("name", ["access_key_file", "ca_file"])
def test_a_file_that_is_missing_is_said_at_the_start(s3: S3, tmp_path: Path, name: str):
    with pytest.raises(SettingsError, match="settings can't be used"):
        S3Store(s3.settings(tmp_path, **{name: str(tmp_path / "nowhere")}))


def test_a_file_without_certificates_is_said_at_the_start(s3: S3, tmp_path: Path):
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(SettingsError, match="settings can't be used"):
        S3Store(s3.settings(tmp_path, ca_file=str(tmp_path / "ca.pem")))


async def test_a_server_is_trusted_by_the_authority_that_is_named(s3: S3, tmp_path: Path):
    authority, other = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    pair = authority.sign("server")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair.certificate, pair.key)
    proxy = FaultProxy(urlsplit(s3.endpoint).netloc, http=True, tls=tls)
    async with proxy.listening():
        secure = replace(s3, endpoint=f"https://{proxy.address}")
        trusting = S3Store(secure.settings(tmp_path, ca_file=str(authority.ca)))
        await trusting.bucket.prepare()
        await trusting.put("a", bytes(1000))
        assert (await trusting.get("a"))[0] == bytes(1000)
        for ca_file in ("", str(other.ca)):
            doubting = S3Store(secure.settings(tmp_path, ca_file=ca_file))
            with pytest.raises(SettingsError, match="certificate is not trusted: name its authority in SEEDVR2_S3_CA_FILE"):
                await doubting.bucket.prepare()
            doubting.close()
        trusting.close()


@pytest.mark.parametrize(("path_style", "url"), [(True, "http://minio:9000/b/k?"), (False, "http://b.minio:9000/k?")])
def test_the_bucket_is_named_in_the_path_or_in_the_host(s3: S3, tmp_path: Path, path_style: bool, url: str):
    client = connect(s3.settings(tmp_path, endpoint="http://minio:9000", path_style=path_style))
    assert client.get_presigned_url("GET", "bbb", "k").replace("bbb", "b").startswith(url)
