"""``seedvr2``: restore videos, run the services on this machine, see to jobs."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; see :func:`services.cli.command.run`."""
    typed = list(sys.argv[1:] if argv is None else argv)
    try:
        # Not above: this takes about as long as changing one's mind, and an interrupt shall not look like a fault.
        from services.cli.command import run

        return run(typed)
    except KeyboardInterrupt:
        from services.cli.output import print_error

        print_error("--json" in typed, "Interrupted", "Interrupted.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
