"""Jobs as their clients see them: sent, watched and fetched through whichever gateway answers, and compared to the byte."""

import asyncio
import contextlib
import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.chaos.fleet import DEADLY_FRAME, ECHO, NANO
from services.common.client import GatewayClient
from services.common.client.gateway import ENDED_STATES
from services.common.errors import DeadlinePassed, JobNotFound, QueueFull, ServiceError, StoreFull, UploadNotFound, WrongState
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.clips import make

T = TypeVar("T")
_CALL_S, _PATIENCE_S, _WATCH_S, _PAUSE_S, _REST_S = 6.0, 6.0, 10.0, 0.3, 3.0
# What a client may well try again, beside what says so itself.
_WORTH_A_TRY = (StoreFull, QueueFull, DeadlinePassed)
_MOST_RETRIES = 10
_REMOVALS = 4

DEADLY = ("SpanFatal", "WorkerBroken")
"""Why what ends workers fails in the end: three different ones were lost, or the same ones several times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A clip and what is made of it."""

    name: str
    """Of both."""

    frames: int = 48
    """Of the clip."""

    model: str = ECHO
    """Which restores it."""

    audio: str = "aac"
    """Its codec; empty: none."""

    size: tuple[int, int] = (64, 48)
    """Of the clip, pixels."""

    scale: float = 2.0
    """Of the result."""

    cut: tuple[int, int] | None = None
    """Only these frames are restored."""

    preview: bool = False
    """It comes before others."""

    @property
    def deadly(self) -> bool:
        """Whether it ends workers, and so must fail."""
        return self.frames > DEADLY_FRAME

    def write(self, path: Path) -> Path:
        """The clip."""
        return make.video(path, frames=self.frames, size=self.size, audio=self.audio)

    def request(self, upload_id: str) -> pb.JobRequest:
        """What is asked for."""
        request = pb.JobRequest(source=pb.Source(upload_id=upload_id), target=pb.Target(scale=self.scale), model=self.model)
        if self.cut:
            request.range.frames.first, request.range.frames.end = self.cut
        if self.preview:
            request.priority = pb.PRIORITY_PREVIEW
        return request


RECIPES = (
    Recipe(name="short"),
    Recipe(name="long", frames=96),
    Recipe(name="range", frames=96, cut=(10, 70)),
    Recipe(name="preview", cut=(0, 24), preview=True),
    Recipe(name="half", scale=1.5, audio=""),
)
_MODELLED = Recipe(name="nano", model=NANO, frames=24, scale=1.0)
_DEADLY = Recipe(name="deadly", frames=DEADLY_FRAME + 10)
# One of so many jobs is for the worker with a model, and one ends workers.
_EACH_MODELLED, _EACH_DEADLY = 5, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A job to be sent."""

    number: int
    """In order of time."""

    recipe: Recipe
    """Which."""

    at_s: float
    """Seconds after the first one."""


def draw(seed: int, count: int, within_s: float, *, modelled: bool) -> list[Order]:
    """``count`` jobs, sent within ``within_s`` seconds; ``modelled``: some are for a worker with a model."""
    chance, orders = random.Random(seed), []
    for number in range(count):
        recipe = chance.choice(RECIPES)
        if number % _EACH_DEADLY == 1:
            recipe = _DEADLY
        elif modelled and number % _EACH_MODELLED == 0:
            recipe = _MODELLED
        orders.append(Order(number=number, recipe=recipe, at_s=within_s * number / count))
    return orders


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A job that ended FAILED, as it said itself."""

    reason: str
    """Class of the error."""

    message: str
    """Its words."""

    began: float
    """When it was asked for, by the monotonic clock."""

    ended: float
    """When its client knew."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a job."""

    order: Order
    began: float
    """When it was sent, by the monotonic clock."""

    ended: float = 0.0
    """When its client had the result, or knew that there is none."""

    sha256: str = ""
    """Of the file that its client got; empty: none."""

    failures: list[Failure] = field(default_factory=list)
    """Each time that it failed; it is then asked for again."""

    moves: list[float] = field(default_factory=list)
    """When its client heard that it went on."""

    odd: list[str] = field(default_factory=list)
    """What should not have happened."""


class Clients:
    """A client for each gateway; each call is made to one after the other until it goes well."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._clients = [GatewayClient(address, timeout_s=_CALL_S, patience_s=_PATIENCE_S) for address in addresses]
        self._next = 0

    async def aclose(self) -> None:
        """End all connections."""
        for client in self._clients:
            await client.aclose()

    async def ask(self, action: Callable[[GatewayClient], Awaitable[T]]) -> T:
        """What a gateway answers. Raises ServiceError where another try makes no sense."""
        while True:
            self._next += 1
            try:
                return await action(self._clients[self._next % len(self._clients)])
            except ServiceError as error:
                if not (error.retryable or isinstance(error, _WORTH_A_TRY)):
                    raise
            await asyncio.sleep(_PAUSE_S)


class Runner:
    """Runs jobs of a fleet; files are in ``directory``, ids begin with ``name``."""

    def __init__(self, clients: Clients, directory: Path, name: str) -> None:
        self._clients = clients
        self._directory = directory
        self._name = name
        directory.mkdir(parents=True, exist_ok=True)

    async def run(self, orders: Sequence[Order], outcomes: list[Outcome]) -> None:
        """Send all, each at its time, and see them to their ends; ``outcomes`` grows with what is sent."""
        began = time.monotonic()

        async def one(order: Order) -> None:
            await asyncio.sleep(began + order.at_s - time.monotonic())
            outcome = Outcome(order=order, began=time.monotonic())
            outcomes.append(outcome)
            await self._see_through(outcome)
            outcome.ended = time.monotonic()

        async with asyncio.TaskGroup() as group:
            for order in orders:
                group.create_task(one(order))

    async def remove(self, orders: Sequence[Order]) -> list[str]:
        """Delete all jobs and uploads, some at a time; what could not be."""
        turns = asyncio.Semaphore(_REMOVALS)
        removals = [self._removed(order, turns) for order in orders]
        return [text for text in await asyncio.gather(*removals) if text]

    async def _removed(self, order: Order, turns: asyncio.Semaphore) -> str:
        async with turns:
            return await self._try_to_remove(self._id(order))

    async def _try_to_remove(self, name: str) -> str:
        try:
            await _gone(self._clients, lambda client: client.delete_job(name))
            await _gone(self._clients, lambda client: client.delete_upload(name))
        except ServiceError as error:
            return f"{name} can't be deleted: {type(error).__name__}: {error.message}"
        return ""

    def _id(self, order: Order) -> str:
        return f"{self._name}-{order.number}"

    async def _see_through(self, outcome: Outcome) -> None:
        recipe, name, ask = outcome.order.recipe, self._id(outcome.order), self._clients.ask
        clip = await asyncio.to_thread(self._clip, recipe)
        try:
            await ask(lambda client: client.upload_file(clip, upload_id=name))
            await ask(lambda client: client.create_job(recipe.request(name), name))
            job, began = await self._ended(outcome, name), outcome.began
            while job.state == pb.JOB_STATE_FAILED:
                failure = Failure(reason=job.failure.reason, message=job.failure.message, began=began, ended=time.monotonic())
                outcome.failures.append(failure)
                if (recipe.deadly and failure.reason in DEADLY) or len(outcome.failures) > _MOST_RETRIES:
                    return
                await asyncio.sleep(_REST_S)
                began = time.monotonic()
                await self._again(name)
                job = await self._ended(outcome, name)
            path = self._directory / f"{name}.result"
            await ask(lambda client: client.download_result(name, path))
            outcome.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            if outcome.sha256 != job.result.sha256:
                outcome.odd.append(f"the file has SHA-256 {outcome.sha256}, the job says {job.result.sha256}")
        except ServiceError as error:
            outcome.odd.append(f"{type(error).__name__}: {error.message}")

    def _clip(self, recipe: Recipe) -> Path:
        path = self._directory / f"{recipe.name}.mp4"
        return path if path.exists() else recipe.write(path)

    async def _again(self, name: str) -> None:
        # Where the answer to an earlier try was lost, it runs already.
        with contextlib.suppress(WrongState):
            await self._clients.ask(lambda client: client.retry_job(name))

    async def _ended(self, outcome: Outcome, name: str) -> pb.Job:
        """The job at its end, watched now through this gateway and then through that one."""
        seen: tuple[int, ...] = ()

        async def watch(client: GatewayClient) -> pb.Job:
            nonlocal seen
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_S), contextlib.aclosing(client.watch_job(name)) as jobs:
                    async for job in jobs:
                        now = (job.state, job.progress.segments_done, job.progress.frames_done)
                        if now != seen:
                            outcome.moves.append(time.monotonic())
                        seen = now
                        if job.state in ENDED_STATES:
                            return job
            raise DeadlinePassed("Not yet.")

        return await self._clients.ask(watch)


async def _gone(clients: Clients, action: Callable[[GatewayClient], Awaitable[None]]) -> None:
    # Where the answer to an earlier try was lost, it is gone already; and a job that was lost is told of elsewhere.
    with contextlib.suppress(JobNotFound, UploadNotFound):
        await clients.ask(action)
