import argparse

import pytest

from services.common.errors import SettingsError
from services.inference.delivery.options import add_actions, settings_of


def settings(*arguments: str, **environment: str):
    parser = argparse.ArgumentParser()
    add_actions(parser.add_subparsers())
    return settings_of(vars(parser.parse_args(arguments)), environment)


def test_an_option_goes_before_its_variable_and_that_before_the_default():
    assert settings("list").endpoint == ""
    assert settings("list", SEEDVR2_MODELS_ENDPOINT="http://a").endpoint == "http://a"
    assert settings("list", "--endpoint", "http://b", SEEDVR2_MODELS_ENDPOINT="http://a").endpoint == "http://b"


@pytest.mark.parametrize(
    ("arguments", "variable", "converts"),
    [((), "true", True), ((), "false", False), (("--no-convert",), "true", False), (("--convert",), "false", True)],
)
def test_whether_to_convert_can_be_said_both_ways(arguments: tuple[str, ...], variable: str, converts: bool):
    assert settings("fetch", "nano", *arguments, SEEDVR2_MODELS_CONVERT=variable).convert is converts


def test_a_wrong_value_is_said_in_a_sentence():
    with pytest.raises(SettingsError, match="must be an address like"):
        settings("fetch", "nano", "--endpoint", "hub.example")
