"""``python -m bench.chaos``: random faults under a fleet with jobs; afterwards every job must have ended as if undisturbed.

Two gateways, three workers without a model, one with the embedded one, a real S3 server and a Kubernetes API of this project's
own. All faults and jobs come from the seed. A job may fail where a fault says why, and must succeed when it is asked for again;
what ends three workers must fail. Then all jobs and uploads are deleted, and nothing may be left. Needs SeaweedFS (``make
setup``), libfaketime and the right to mount.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

from bench.chaos import report, run
from bench.chaos.faults import Shape


def main() -> None:
    """Run, and tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of faults and jobs (default: %(default)s)")
    parser.add_argument("--faults", type=int, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=2.0, help="in which faults and jobs begin (default: %(default)s)")
    parser.add_argument("--patience", type=float, default=240.0, help="seconds that jobs then have to end (default: %(default)s)")
    parser.add_argument("--ranks", type=int, default=1, help="workers with the embedded model (default: %(default)s)")
    parser.add_argument("--directory", type=Path, help="where logs and files are kept; empty: a temporary one")
    chosen = parser.parse_args()
    plan = run.Plan(
        seed=chosen.seed, faults=chosen.faults, jobs=chosen.jobs, within_s=60 * chosen.minutes, patience_s=chosen.patience,
        shape=Shape(ranks=chosen.ranks),
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        directory = chosen.directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seedvr2-chaos-")))
        directory.mkdir(parents=True, exist_ok=True)
        done = asyncio.run(run.run(plan, directory))
    report.show(done)
    sys.exit(1 if done.wrong else 0)


if __name__ == "__main__":
    main()
