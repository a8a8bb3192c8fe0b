"""A whole run: what nothing disturbs, then the same jobs under faults, then a look at what is left."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.chaos import audit, faults, fleet, harm, jobs
from bench.chaos.faults import Shape
from bench.chaos.fleet import Fleet
from bench.chaos.jobs import Clients, Order, Outcome, Runner
from bench.chaos.report import Run

# The last jobs are sent before the last faults begin.
_JOBS_WITHIN = 0.85
_UNDISTURBED_S, _REMOVAL_S, _POLL_S = 120.0, 300.0, 0.5
# Until gateways that were killed count as dead, and what a start tried out as abandoned; then a sweep comes.
_SETTLED_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done."""

    seed: int
    """Of everything that is drawn."""

    faults: int
    """How many."""

    jobs: int
    """How many."""

    within_s: float
    """In which they begin."""

    patience_s: float
    """In which jobs must have ended after the last fault."""

    shape: Shape
    """Of the fleet."""


async def run(plan: Plan, directory: Path) -> Run:
    """All of it; what is wrong is said, not raised. Logs are in ``directory``."""
    orders = jobs.draw(plan.seed, plan.jobs, _JOBS_WITHIN * plan.within_s, modelled=plan.shape.ranks > 0)
    done = Run(seed=plan.seed)
    async with fleet.running(directory, plan.shape) as it, contextlib.aclosing(_clients(it)) as clients:
        undisturbed = await _undisturbed(it, clients, orders, done)
        await _disturbed(it, clients, orders, plan, done)
        done.wrong += audit.wrongs(done.outcomes, done.suffered, undisturbed)
        await _clean(it, Runner(clients, directory / "jobs", "job"), orders, done)
    # The workers without a model belong to the tests; what they log when they are cut off is of no interest.
    for process in [each for each in it.processes if each.module.startswith("services.")]:
        done.wrong += [f"{process.directory.name} logged: {text}" for text in audit.unexpected(process.directory / "log")]
    for gateway in it.gateways:
        done.swept += audit.swept(gateway.process.directory / "log")
    return done


def _clients(it: Fleet) -> Clients:
    return Clients([gateway.clients.address for gateway in it.gateways])


async def _undisturbed(it: Fleet, clients: Clients, orders: Sequence[Order], done: Run) -> dict[str, str]:
    """The hash of each recipe's result when nothing goes wrong; nothing of it is left that could be used again."""
    recipes = {order.recipe.name: order.recipe for order in orders if not order.recipe.deadly}
    first = [Order(number=number, recipe=recipe, at_s=0.0) for number, recipe in enumerate(recipes.values())]
    outcomes: list[Outcome] = []
    runner = Runner(clients, it.directory / "undisturbed", "undisturbed")
    async with asyncio.timeout(_UNDISTURBED_S):
        await runner.run(first, outcomes)
    done.wrong += [
        f"undisturbed {each.order.recipe.name}: {text}"
        for each in outcomes for text in [*each.odd, *(failure.message for failure in each.failures)]
    ]  # fmt: skip
    await _clean(it, runner, first, done)
    return {each.order.recipe.name: each.sha256 for each in outcomes}


async def _disturbed(it: Fleet, clients: Clients, orders: Sequence[Order], plan: Plan, done: Run) -> None:
    drawn = faults.draw(plan.seed, plan.faults, plan.within_s, plan.shape)
    began, runner = time.monotonic(), Runner(clients, it.directory / "jobs", "job")
    running = asyncio.create_task(runner.run(orders, done.outcomes))
    try:
        done.suffered = await harm.suffer(it, drawn)
        await asyncio.wait({running}, timeout=plan.patience_s)
        if running.done():
            running.result()
    finally:
        running.cancel()
        await asyncio.wait({running})
    done.seconds = time.monotonic() - began


async def _clean(it: Fleet, runner: Runner, orders: Sequence[Order], done: Run) -> None:
    """Delete everything; say what is left in spite of that."""
    await it.answering()
    try:
        async with asyncio.timeout(_REMOVAL_S):
            done.wrong += await runner.remove(orders)
    except TimeoutError:
        done.wrong.append(f"jobs and uploads could not be deleted within {_REMOVAL_S:g} s")
    until = time.monotonic() + _SETTLED_S
    while left := [*await asyncio.to_thread(audit.left_objects, it), *await audit.left_leases(it)]:
        if time.monotonic() > until:
            done.wrong += [f"left over: {each}" for each in left]
            return
        await asyncio.sleep(_POLL_S)
