"""``seedvr2 usage``: what was used in a month, and may be."""

import argparse

from services.cli.connection import connected
from services.cli.output import as_record, print_result, table
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb

_HEAD = ("SUBJECT", "JOBS", "GPU SECONDS", "MEGAPIXELS")


async def show(arguments: argparse.Namespace) -> int:
    """One's own, or with --all-owners everybody's."""
    async with connected(arguments) as client:
        answer = await client.usage(arguments.month, all_owners=arguments.all_owners)
    text = "\n".join([table(_HEAD, [_row(usage) for usage in answer.usages]), "", _limits(answer)])
    print_result(arguments.json, as_record(answer), text)
    return 0


def _row(usage: pb.Usage) -> tuple[str, ...]:
    who = usage.subject or usage.owner or "you"
    return who, str(usage.jobs), f"{usage.gpu_seconds:,.1f}", f"{usage.megapixels:,.1f}"


def _limits(answer: pb.GetUsageResponse) -> str:
    """What the caller may use, in a sentence."""
    quota = answer.quota
    limits = [
        f"{getattr(quota, name):,g} {words}"
        for name, words in (
            ("active_jobs", "jobs at a time"),
            ("gpu_seconds_month", "GPU seconds a month"),
            ("megapixels_month", "megapixels a month"),
        )
        if quota.HasField(name)
    ]
    may = f"You may use {', '.join(limits)}." if limits else "Nothing limits what you use."
    return f"{answer.month}; {answer.active_jobs} of your jobs wait or run. {may}"
