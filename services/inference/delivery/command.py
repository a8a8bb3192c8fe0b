"""The command: ``list | fetch NAME… | verify NAME…``. Exit codes: 0 done, 1 failed, 2 wrong settings or arguments."""

import argparse
import dataclasses
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

from services.common.errors import InvalidOption, ServiceError, SettingsError
from services.common.logs import setup_logging
from services.common.settings import read_settings
from services.inference.delivery.catalogue import CATALOGUE, Catalogue
from services.inference.delivery.display import display_for
from services.inference.delivery.fetch import Delivery
from services.inference.delivery.gather import Convert
from services.inference.delivery.progress import size_text
from services.inference.delivery.settings import PREFIX, DeliverySettings, read_token

FAILED, WRONG_SETTINGS = 1, 2

# They log every address, and those of a content network carry a signature.
_TALKATIVE = ("httpx2", "httpcore2", "huggingface_hub")


def main(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    catalogue: Catalogue = CATALOGUE,
    convert: Convert | None = None,
) -> int:
    """Run the command; returns the exit code. Messages and progress go to standard error, results to standard output."""
    options = vars(_parser().parse_args(arguments))
    action: Callable[[Delivery, list[str]], None] = options.pop("action")
    names: list[str] = options.pop("names", [])
    _setup_messages()
    # Process 1 of a container isn't ended by a signal that it doesn't handle.
    signal.signal(signal.SIGTERM, _stop)
    try:
        settings = _settings(environment, options)
        token = read_token(settings.token_file, environment)
        delivery = Delivery(settings, token=token, catalogue=catalogue, convert=convert, on_progress=display_for(sys.stderr))
        action(delivery, names)
    except ServiceError as error:
        print(f"\n{error.message}" if sys.stderr.isatty() else error.message, file=sys.stderr)
        return WRONG_SETTINGS if isinstance(error, SettingsError | InvalidOption) else FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _list(delivery: Delivery, names: list[str]) -> None:
    for each in delivery.states():
        size = size_text(each.size_bytes) if each.size_bytes else ""
        print(f"{each.name:<18}{each.state:<12}{size:>10}  {each.title}")


def _fetch(delivery: Delivery, names: list[str]) -> None:
    delivery.fetch(*names)


def _verify(delivery: Delivery, names: list[str]) -> None:
    for name in names:
        delivery.verify(name)
        print(f"{name} is whole")


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    settings = {each.name: each.metadata["help"] for each in dataclasses.fields(DeliverySettings)}
    for name in ("directory", "endpoint", "revision", "token_file"):
        common.add_argument(f"--{name.replace('_', '-')}", help=_help(name, settings))
    common.add_argument("--text-embedding", metavar="PATH_OR_REPOSITORY", help=_help("text_embedding", settings))
    for name in ("offline", "official"):
        common.add_argument(f"--{name}", action="store_true", default=None, help=_help(name, settings))
    parser = argparse.ArgumentParser(
        prog="models",
        description="Bring models to a volume and check them.",
        epilog=f"Every option is also a variable {PREFIX}_…; the token is read from a file or HF_TOKEN, never from an argument.",
    )
    actions = parser.add_subparsers(required=True)
    for name, action, text in (
        ("list", _list, "which models there are, and which are ready"),
        ("fetch", _fetch, "download what is missing; goes on where it was cut"),
        ("verify", _verify, "compare every file with its hash"),
    ):
        # Abbreviated options would take a token, given by mistake, for the name of a file, and show it.
        added = actions.add_parser(name, parents=[common], help=text, description=text, allow_abbrev=False)
        added.set_defaults(action=action)
        if name != "list":
            added.add_argument("names", nargs="+", metavar="NAME", help="name of a model, as `list` shows it")
    return parser


def _help(name: str, texts: Mapping[str, str]) -> str:
    return f"{texts[name]} ({PREFIX}_{name.upper()})".replace("%", "%%")


def _settings(environment: Mapping[str, str], options: Mapping[str, Any]) -> DeliverySettings:
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return dataclasses.replace(read_settings(DeliverySettings, PREFIX, environment), **given)
    except ValueError as error:
        raise SettingsError(f"{error}.") from error


def _setup_messages() -> None:
    if sys.stderr.isatty():
        logging.basicConfig(level=logging.INFO, format="\r\x1b[K%(message)s", stream=sys.stderr, force=True)
    else:
        setup_logging("models")
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
