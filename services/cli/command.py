"""One command, from the words that were typed to the exit code."""

import asyncio
import inspect
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from services.cli.arguments import build_parser
from services.cli.connection import TOKEN_FILE
from services.cli.output import UsageError, print_error
from services.common.errors import ServiceError, TokenMissing


def run(typed: Sequence[str]) -> int:
    """Run one command. Exit codes: 0 done, 1 it failed (a sentence says why), 2 wrong usage, 130 interrupted."""
    as_json = "--json" in typed
    try:
        arguments = build_parser().parse_args(typed)
    except UsageError as error:
        print_error(as_json, "UsageError", str(error))
        return 2
    try:
        if not inspect.iscoroutinefunction(arguments.run):
            return int(arguments.run(arguments))
        return asyncio.run(_until_interrupted(arguments.run(arguments)))
    except (asyncio.CancelledError, KeyboardInterrupt):
        if arguments.interrupted:
            print_error(as_json, "Interrupted", "Interrupted.")
        return int(arguments.interrupted)
    except UsageError as error:
        print_error(as_json, "UsageError", str(error))
        return 2
    except TokenMissing:
        advice = f"Name the file with yours by --token-file or {TOKEN_FILE}."
        print_error(as_json, TokenMissing.__name__, f"The gateway lets in who shows a token. {advice}")
    except ServiceError as error:
        print_error(as_json, type(error).__name__, error.message)
    except BrokenPipeError:
        # Whoever read the output has enough; Python would complain once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print_error(as_json, "OSError", f"{error.filename or 'The file'}: {error.strerror or error}.")
    return 1


async def _until_interrupted(work: Coroutine[Any, Any, int]) -> int:
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task
