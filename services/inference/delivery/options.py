"""The grammar of ``list | fetch NAME… | verify NAME…``, for the init container's command and for ``seedvr2 models`` alike."""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from services.common.errors import SettingsError
from services.common.settings import read_settings
from services.inference.delivery.settings import PREFIX, DeliverySettings

EPILOG = f"Every option is also a variable {PREFIX}_…; the token is read from a file or HF_TOKEN, never from an argument."

_TEXTS = {
    "list": "which models there are, and which are ready",
    "fetch": "download what is missing; goes on where it was cut",
    "verify": "compare every file with its hash",
}
_HELP = {each.name: each.metadata["help"] for each in dataclasses.fields(DeliverySettings)}


def add_actions(actions: "argparse._SubParsersAction[Any]") -> dict[str, argparse.ArgumentParser]:
    """Add the three actions; returns their parsers by name. An action's name is in ``action``, models are in ``names``."""
    parsers = {}
    for name, text in _TEXTS.items():
        # Abbreviated options would take a token, given by mistake, for the name of a file, and show it.
        parser = actions.add_parser(name, help=text, description=text, epilog=EPILOG, allow_abbrev=False)
        parser.set_defaults(action=name)
        if name != "list":
            parser.add_argument("names", nargs="+", metavar="NAME", help="name of a model, as `list` shows it")
        _add_settings(parser)
        parsers[name] = parser
    return parsers


def settings_of(options: Mapping[str, Any], environment: Mapping[str, str]) -> DeliverySettings:
    """The settings of the environment, with the options that were given.

    Raises:
        SettingsError: one has a wrong value.
    """
    given = {name: options[name] for name in _HELP if options.get(name) is not None}
    try:
        return dataclasses.replace(read_settings(DeliverySettings, PREFIX, environment), **given)
    except ValueError as error:
        raise SettingsError(f"{error}.") from error


def _add_settings(parser: argparse.ArgumentParser) -> None:
    for name in ("directory", "endpoint", "revision", "token_file"):
        parser.add_argument(_flag(name), help=_help(name))
    parser.add_argument(_flag("text_embedding"), metavar="PATH_OR_REPOSITORY", help=_help("text_embedding"))
    for name in ("offline", "official"):
        parser.add_argument(_flag(name), action="store_true", default=None, help=_help(name))
    parser.add_argument(_flag("convert"), action=argparse.BooleanOptionalAction, default=None, help=_help("convert"))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _help(name: str) -> str:
    return f"{_HELP[name]} ({PREFIX}_{name.upper()})".replace("%", "%%")
