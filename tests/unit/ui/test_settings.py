from pathlib import Path

import pytest

from services.common.errors import SettingsError
from services.common.rpc.tls import ChannelTls
from services.common.settings import as_environment, read_settings
from services.ui.settings import UiSettings


def test_settings_come_from_the_environment_and_go_back() -> None:
    settings = UiSettings(address="0.0.0.0:80", root_path="/restore/v2", max_upload_bytes=5)
    assert read_settings(UiSettings, "SEEDVR2_UI", as_environment(settings, "SEEDVR2_UI")) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROOT_PATH", "/restore/"), ("ROOT_PATH", "restore"), ("ROOT_PATH", "/a${b}"), ("MAX_UPLOAD_BYTES", "0"),
        ("MAX_PIECE_BYTES", "10"), ("GATEWAY_TIMEOUT_S", "0"), ("DRAIN_S", "-1"),
        ("GATEWAY_CERTIFICATE_FILE", "client.pem"), ("GATEWAY_KEY_FILE", "client.key"),
    ],
)  # fmt: skip
def test_a_value_that_can_not_work_is_refused_at_the_start(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match="SEEDVR2_UI"):
        read_settings(UiSettings, "SEEDVR2_UI", {f"SEEDVR2_UI_{name}": value})


def test_what_is_said_of_the_gateways_certificates_goes_to_the_connection() -> None:
    assert UiSettings(gateway_address="grpcs://gateway:1").gateway_tls() is None
    assert UiSettings(gateway_tls_name="gateway").gateway_tls() == ChannelTls(server_name="gateway")
    files = {"gateway_ca_file": "ca", "gateway_certificate_file": "cert", "gateway_key_file": "key"}
    whole = ChannelTls(ca=Path("ca"), certificate=Path("cert"), key=Path("key"), server_name="gateway")
    assert UiSettings(**files, gateway_tls_name="gateway").gateway_tls() == whole
