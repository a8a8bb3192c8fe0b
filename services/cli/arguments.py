"""The command line's grammar."""

import argparse
import importlib.metadata
import math
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import NoReturn

from services.cli import jobs, models, plan, restore, tokens, up, usage
from services.cli.connection import CA_FILE, CERTIFICATE_FILE, KEY_FILE, TOKEN_FILE
from services.cli.output import UsageError
from services.cli.remote import local_or_remote
from services.common.encoders import ENCODERS
from services.common.formats import FORMAT_OF_SUFFIX
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.inference.delivery.options import add_actions
from services.inference.model_files import DEFAULT_DIRECTORY

DEFAULT_SERVER = "127.0.0.1:50051"
_COLOURS = {
    name.removeprefix("COLOUR_MODE_").lower().replace("_", "-"): number
    for name, number in pb.ColourMode.items()
    if number != pb.COLOUR_MODE_UNSPECIFIED
}
_INTERRUPTED_EXIT_CODE = 130
_NANO = 10**9


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; `{self.prog} --help` says more.")


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``seedvr2``; wrong usage raises UsageError.

    The namespace has ``run``, the command's function or coroutine function, ``interrupted``, its exit code after Ctrl-C, and
    ``json``.
    """
    parser = _Parser(prog="seedvr2", description="Restore and enlarge video with SeedVR2.")
    parser.add_argument("--version", action="version", version=f"seedvr2 {importlib.metadata.version('seedvr2')}")
    parser.set_defaults(json=False, interrupted=_INTERRUPTED_EXIT_CODE)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_up(commands.add_parser("up", help="run web page, gateway and worker on this machine"))
    _add_restore(commands.add_parser("restore", help="restore a video, picture or sequence of pictures, or a folder of them"))
    _add_plan(commands.add_parser("plan", help="what restoring would do: size, frames, time, memory"))
    _add_jobs(commands.add_parser("jobs", help="list, show, watch, cancel, retry, delete and download jobs"))
    _add_models(commands.add_parser("models", help="list, fetch and verify models"))
    _add_usage(commands.add_parser("usage", help="what was used in a month, and may be"))
    _add_tokens(commands.add_parser("tokens", help="make tokens that a gateway lets in"))
    return parser


def _add_up(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=up.run, interrupted=0)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("seedvr2-data"),
        metavar="DIR",
        help="uploads, jobs, results and logs (default: %(default)s)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where the page and the gateway listen (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=7860, metavar="N", help="of the web page, 0: any (default: %(default)s)")
    parser.add_argument("--grpc-port", type=_port, default=50051, metavar="N", help="of the gateway (default: %(default)s)")
    parser.add_argument("--rest-port", type=_port, default=50052, metavar="N", help="of its HTTP API (default: %(default)s)")
    parser.add_argument(
        "--worker-port", type=_port, default=50061, metavar="N", help="of the worker, on loopback (default: %(default)s)"
    )
    parser.add_argument(
        "--metrics-port", type=_port, metavar="N", help="metrics of the gateway; the worker's are on N+1 (default: off)"
    )
    parser.add_argument("--model", default="", metavar="M", help="what the worker serves (default: nano)")
    parser.add_argument(
        "--model-directory", default="", metavar="DIR", help=f"where fetched models are (default: {DEFAULT_DIRECTORY})"
    )
    parser.add_argument("--no-page", action="store_true", help="gateway and worker only")


def _add_restore(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=restore.run)
    parser.add_argument(
        "input",
        type=local_or_remote,
        metavar="IN",
        help="a video or picture; a folder of videos and pictures; a directory of numbered pictures, or frames/%%04d.png; "
        "where the gateway takes them, https://… or s3://BUCKET/KEY",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help=f"{', '.join(FORMAT_OF_SUFFIX)}, or a directory (default: IN-restored beside IN)",
    )
    folder = parser.add_argument_group("a directory")
    kind = folder.add_mutually_exclusive_group()
    kind.add_argument(
        "--each", action="store_true", help="restore its files one by one (default: where one is a video, or names differ)"
    )
    kind.add_argument("--sequence", action="store_true", help="its pictures are one sequence (default: where they are numbered)")
    folder.add_argument(
        "--at-once", type=_number(1, 64, "files"), default=4, metavar="N", help="files in work (default: %(default)s)"
    )
    folder.add_argument("--overwrite", action="store_true", help="also results that this command didn't write")
    outside = parser.add_argument_group("where the gateway offers it")
    outside.add_argument(
        "--result-uri", default="", metavar="s3://BUCKET/KEY", help="where the gateway also writes the result; not of a folder"
    )
    outside.add_argument(
        "--webhook", dest="webhook_url", default="", metavar="URL", help="what the gateway tells when a job has ended"
    )
    _add_job_options(parser)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=plan.run, result_uri="", webhook_url="")
    parser.add_argument("inputs", type=Path, nargs="+", metavar="FILE", help="videos, pictures, or zips of numbered pictures")
    _add_job_options(parser)


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server", type=_address, metavar="HOST:PORT", help="a gateway that runs; without it one is started and stopped after"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="without --server: keep the job here (default: a temporary directory)"
    )
    parser.add_argument("--model", default="", metavar="M", help="(default: the gateway's)")
    parser.add_argument(
        "--model-directory", default="", metavar="DIR", help="without --server: where fetched models are, as for `up`"
    )
    span = parser.add_mutually_exclusive_group()
    span.add_argument("--frames", type=_frames, metavar="A:B", help="only frames A to B - 1, counted from 0 (default: all)")
    span.add_argument(
        "--time",
        type=_time,
        metavar="A:B",
        help="only from second A to B, for example 90:95.5, or 90: to the end (default: all)",
    )
    parser.add_argument(
        "--crf", type=_number(0, 51, "a rate factor"), metavar="N", help="of a video's encoder; lower is better (default: 14)"
    )
    parser.add_argument(
        "--encoder", choices=tuple(ENCODERS), help="of a video; nvenc is an NVIDIA card's, where workers have one (default: x264)"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--scale", type=_scale, metavar="S", help="enlarge by this factor")
    size.add_argument("--short-side", type=_number(1, 1 << 16, "pixels"), metavar="N", help="pixels of the shorter side")
    size.add_argument("--size", type=_size, metavar="WxH", help="fit into this many pixels")
    parser.add_argument("--seed", type=_number(0, (1 << 64) - 1, "a seed"), metavar="N", help="of the noise (default: 666)")
    parser.add_argument("--colour", type=_colour, metavar="MODE", help=f"{', '.join(_COLOURS)} (default: the model's)")
    advanced = parser.add_argument_group("what makes the model invent more")
    advanced.add_argument("--input-noise", type=_share, metavar="X", help="noise on the frames, 0 to 1 (default: 0)")
    advanced.add_argument("--latent-noise", type=_share, metavar="X", help="distrust in the input, 0 to 1 (default: 0)")
    advanced.add_argument("--steps", type=_number(1, 100, "steps"), metavar="N", help="where the model can take more than one")
    advanced.add_argument("--cfg-scale", type=_finite, metavar="X", help="guidance, where the model can be guided")
    _add_login(parser)
    _add_json(parser)


def _add_jobs(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, run, text in (
        ("list", jobs.list_jobs, "newest first"),
        ("show", jobs.show, "everything about one job"),
        ("watch", jobs.watch, "follow one until it has ended"),
        ("cancel", jobs.cancel, "end one"),
        ("retry", jobs.retry, "start one that failed or was cancelled again"),
        ("delete", jobs.delete, "remove one that has ended, with its result"),
        ("download", jobs.download, "get a result"),
    ):
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=run)
        if name != "list":
            command.add_argument("job_id", metavar="ID")
        _add_server(command)
    commands.choices["list"].add_argument(
        "--limit", type=_number(1, 10_000, "jobs"), default=50, metavar="N", help="at most this many (default: %(default)s)"
    )
    commands.choices["list"].add_argument("--all-owners", action="store_true", help="those of everybody, for administrators")
    commands.choices["download"].add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="a file or a directory (default: the result's name, here)"
    )


def _add_models(parser: argparse.ArgumentParser) -> None:
    parsers = add_actions(parser.add_subparsers(metavar="COMMAND", required=True))
    for command in parsers.values():
        command.set_defaults(run=models.fetch_or_verify)
    parsers["list"].set_defaults(run=models.list_models)
    parsers["list"].add_argument(
        "--server", type=_address, metavar="HOST:PORT", help="a gateway: also show which models its workers serve"
    )
    # Its --token-file is the hub's; whom a gateway should let in is in the environment.
    parsers["list"].set_defaults(gateway_token_file=None, ca=None, act_as="")
    _add_json(parsers["list"])


def _add_usage(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=usage.show)
    parser.add_argument("--month", default="", metavar="YYYY-MM", help="in UTC (default: this one)")
    parser.add_argument("--all-owners", action="store_true", help="what everybody used, for administrators")
    _add_server(parser)


def _add_tokens(parser: argparse.ArgumentParser) -> None:
    command = parser.add_subparsers(metavar="COMMAND", required=True).add_parser("create", help="make one, and the line for it")
    command.set_defaults(run=tokens.create)
    command.add_argument("subject", metavar="SUBJECT", help="who it is for, for example an address of e-mail")
    command.add_argument(
        "--role", choices=("user", "admin", "delegate"), default="user",
        help="delegate: speaks for others, as the web page behind a proxy does (default: %(default)s)",
    )  # fmt: skip
    command.add_argument("--days", type=_number(1, 36_500, "days"), metavar="N", help="until it expires (default: never)")
    _add_json(command)


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server", type=_address, default=DEFAULT_SERVER, metavar="HOST:PORT", help="the gateway (default: %(default)s)"
    )
    _add_login(parser)
    _add_json(parser)


def _add_login(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to reach a gateway", "A gateway with TLS is named grpcs://HOST:PORT.")
    group.add_argument(
        "--token-file", dest="gateway_token_file", type=Path, metavar="FILE",
        help=f"holds your token (default: {TOKEN_FILE}, else none)",
    )  # fmt: skip
    group.add_argument(
        "--ca", type=Path, metavar="FILE", help=f"who signs its certificate (default: {CA_FILE}, else the public authorities)"
    )
    group.add_argument(
        "--certificate", type=Path, metavar="FILE", help=f"what you show to a gateway that wants it (default: {CERTIFICATE_FILE})"
    )
    group.add_argument("--key", type=Path, metavar="FILE", help=f"the private key of that certificate (default: {KEY_FILE})")
    group.add_argument(
        "--as", dest="act_as", default="", metavar="SUBJECT", help="for whom, where your token is an administrator's or a proxy's"
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _number(least: int, most: int, what: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,20}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {least} to {most}")
        return int(text)

    return parse


_port = _number(0, 65535, "a port")


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def _share(text: str) -> float:
    value = _finite(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 0 to 1")
    return value


def _scale(text: str) -> float:
    value = _finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a factor above 0")
    return value


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})[xX×]([1-9]\d{0,4})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT in pixels, for example 1280x720")
    return int(match[1]), int(match[2])


def _frames(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", text)
    if not match or not int(match[1]) < int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST:END in frames, for example 0:25")
    return int(match[1]), int(match[2])


def _time(text: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"(\d{1,7}(?:\.\d{1,9})?):(\d{1,7}(?:\.\d{1,9})?)?", text)
    start, end = (Decimal(match[1]), Decimal(match[2]) if match[2] else None) if match else (Decimal(0), Decimal(0))
    if end is not None and end <= start:
        raise argparse.ArgumentTypeError(f"{text!r} is not START:END in seconds, for example 90:95.5 or 90:")
    return int(start * _NANO), None if end is None else int(end * _NANO)


def _colour(text: str) -> int:
    if text not in _COLOURS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(_COLOURS)}")
    return _COLOURS[text]


def _address(text: str) -> str:
    if not re.fullmatch(r"(grpcs://)?([^\s:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5})", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT or grpcs://HOST:PORT")
    return text
