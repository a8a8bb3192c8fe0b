import pytest

from services.common.errors import SettingsError
from services.common.settings import as_environment, read_settings
from services.gateway.settings import GatewaySettings


def test_by_default_the_jobs_of_a_gateway_that_died_are_taken_up_within_15_s():
    settings = GatewaySettings()
    # Its last sign of life, that it was seen, and a look at what there is to do.
    assert settings.lease_s + settings.lease_renew_s <= 12


def test_the_defaults_are_read_back_from_the_environment():
    settings = GatewaySettings()
    assert read_settings(GatewaySettings, "SEEDVR2_GATEWAY", as_environment(settings, "SEEDVR2_GATEWAY")) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SEGMENT_FRAMES", "0"),
        ("SPAN_SECONDS", "0"),
        ("DRAIN_S", "-1"),
        ("STORE_DIRECTORY", ""),
        ("X", "1"),
        ("DISCOVERY", "etcd"),
        ("LEASES", ""),
        ("LEASE_S", "5"),
        ("LEASE_RENEW_S", "0"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: str):
    with pytest.raises(SettingsError, match=name.lower() if name != "X" else "X"):
        read_settings(GatewaySettings, "SEEDVR2_GATEWAY", {f"SEEDVR2_GATEWAY_{name}": value})
