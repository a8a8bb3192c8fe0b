"""The command: ``list | fetch NAME… | verify NAME…``. Exit codes: 0 done, 1 failed, 2 wrong settings or arguments."""

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

from services.common.errors import InvalidOption, ServiceError, SettingsError
from services.common.logs import setup_logging
from services.inference.delivery.catalogue import CATALOGUE, Catalogue
from services.inference.delivery.conversion import Convert, convert_apart
from services.inference.delivery.display import display_for
from services.inference.delivery.fetch import Delivery
from services.inference.delivery.options import EPILOG, add_actions, settings_of
from services.inference.delivery.progress import size_text
from services.inference.delivery.settings import read_token

FAILED, WRONG_SETTINGS = 1, 2

# They log every address, and those of a content network carry a signature.
_TALKATIVE = ("httpx2", "httpcore2", "huggingface_hub")


def main(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    catalogue: Catalogue = CATALOGUE,
    convert: Convert = convert_apart,
) -> int:
    """Run the command; returns the exit code. Messages and progress go to standard error, results to standard output."""
    parser = argparse.ArgumentParser(prog="models", description="Bring models to a volume and check them.", epilog=EPILOG)
    add_actions(parser.add_subparsers(required=True))
    options = vars(parser.parse_args(arguments))
    # Process 1 of a container isn't ended by a signal that it doesn't handle.
    signal.signal(signal.SIGTERM, _stop)
    try:
        run(options, environment, catalogue=catalogue, convert=convert)
    except ServiceError as error:
        print(f"\n{error.message}" if sys.stderr.isatty() else error.message, file=sys.stderr)
        return WRONG_SETTINGS if isinstance(error, SettingsError | InvalidOption) else FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def run(
    options: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    catalogue: Catalogue = CATALOGUE,
    convert: Convert = convert_apart,
) -> None:
    """Do what parsed options ask for. Raises ServiceError; see :class:`Delivery`."""
    _setup_messages()
    settings = settings_of(options, environment)
    token = read_token(settings.token_file, environment)
    delivery = Delivery(settings, token=token, catalogue=catalogue, convert=convert, on_progress=display_for(sys.stderr))
    _ACTIONS[options["action"]](delivery, options.get("names", []))


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


_ACTIONS: dict[str, Callable[[Delivery, list[str]], None]] = {"list": _list, "fetch": _fetch, "verify": _verify}


def _setup_messages() -> None:
    if sys.stderr.isatty():
        logging.basicConfig(level=logging.INFO, format="\r\x1b[K%(message)s", stream=sys.stderr, force=True)
    else:
        setup_logging("models")
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
