"""Webhooks that are to be delivered: marked in the store when a job is created, tried when it has ended, until they arrive.

Any gateway tries any of them. A try is announced in the store first, under the condition that nobody else did, so two gateways
tell the same thing at the same time only where one of them is slower than its own limit; receivers know repetitions by their id.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.common.errors import AlreadyExists, InvalidInput, NotFound, ServiceError, Unavailable, WrongState
from services.common.metrics import GatewayMetrics
from services.common.watched import Watched
from services.gateway import jobs, keys
from services.gateway.jobs import Job
from services.gateway.keys import Ref
from services.gateway.outages import log_failure
from services.gateway.store.base import Store
from services.gateway.web.client import WebClient
from services.gateway.web.headers import retry_after_s
from services.gateway.web.urls import parse_url
from services.gateway.webhooks.events import Event, end_event
from services.gateway.webhooks.pending import Pending, begun, pending_from_json, pending_to_json, postponed
from services.gateway.webhooks.signing import signed_headers

_log = logging.getLogger(__name__)
FIELD = "request.webhook_url"
"""Where a request names one."""

_AT_ONCE = 8
# A job is written after its webhook is marked; whoever takes longer was killed in between.
_CREATION_S = 600.0
_GONE = 410

Look = Callable[[Ref], Awaitable[Job | None]]
"""The latest of a job, or None where there is none."""

Note = Callable[[Ref, jobs.Change], Awaitable[Job]]
"""Writes a change of a job down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """How webhooks are delivered."""

    give_up_s: float
    """How long one is tried."""

    first_s: float
    """Pause before the second try."""

    limit_s: float
    """Longest try."""

    poll_s: float
    """How often is looked for webhooks to deliver."""


class Webhooks:
    """Delivers webhooks."""

    def __init__(
        self, *, store: Store, look: Look, note: Note, web: WebClient, secrets: Watched[tuple[bytes, ...]],
        settings: WebhookSettings, metrics: GatewayMetrics, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._store = store
        self._look = look
        self._note = note
        self._web = web
        self._secrets = secrets
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._tasks: dict[Ref, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def expect(self, ref: Ref) -> None:
        """A job with a webhook is about to be created, or retried."""
        await self._store.put(keys.webhook(ref), pending_to_json(Pending(created_at=self._clock())))

    async def sweep(self) -> list[asyncio.Task[None]]:
        """Begin to try every webhook whose time has come."""
        marked = keys.webhooks(await self._store.keys(keys.WEBHOOKS))
        self._metrics.webhooks_pending.set(len(marked))
        for ref in marked:
            if ref not in self._tasks:
                # A receiver that is slow keeps no other waiting.
                self._tasks[ref] = asyncio.create_task(self._attend(ref))
        return list(self._tasks.values())

    async def sweep_always(self) -> None:
        """:meth:`sweep`, again and again."""
        while True:
            try:
                await self.sweep()
            except ServiceError as error:
                log_failure(_log, "can't look for webhooks to deliver", error)
            await asyncio.sleep(self._settings.poll_s)

    async def close(self) -> None:
        """Let go of everything; it goes on at another gateway, or after the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _attend(self, ref: Ref) -> None:
        try:
            async with self._places:
                # Gone, or another gateway's by now.
                with contextlib.suppress(NotFound, WrongState, AlreadyExists):
                    await self._try(ref)
        except (ServiceError, ValueError) as error:
            log_failure(_log, "a webhook can't be tried now", error, job_id=ref.id, owner=ref.owner)
        finally:
            self._tasks.pop(ref, None)

    async def _try(self, ref: Ref) -> None:
        data, tag = await self._store.get(keys.webhook(ref))
        pending, now = pending_from_json(data), self._clock()
        if now < max(pending.next_at, pending.busy_until):
            return
        job = await self._look(ref)
        if job is None:
            if now - pending.created_at > _CREATION_S:
                await self._store.delete(keys.webhook(ref))
        elif job.state.ended:
            event = end_event(job)
            pending = begun(pending, event.event_id, now, self._settings.limit_s)
            tag = await self._store.put(keys.webhook(ref), pending_to_json(pending), if_match=tag)
            await self._send(job, event, pending, tag)

    async def _send(self, job: Job, event: Event, pending: Pending, tag: str) -> None:
        try:
            await self._post(job.request.webhook_url, event)
        except InvalidInput as error:
            # What is refused for good: an address inside the network, a receiver that wants no more.
            await self._give_up(job, error.message)
        except ServiceError as error:
            now = self._clock()
            if now - pending.first_at > self._settings.give_up_s:
                await self._give_up(job, error.message)
                return
            self._count("failed")
            later = postponed(pending, error.message, now, self._settings.first_s, error.retry_after_s)
            await self._store.put(keys.webhook(job.ref), pending_to_json(later), if_match=tag)
        else:
            self._count("delivered")
            await self._done(job)

    async def _post(self, url: str, event: Event) -> None:
        parsed = parse_url(url, field=FIELD, http=self._web.http)
        headers = signed_headers(event.event_id, int(self._clock()), event.body, self._secrets.get())
        try:
            async with asyncio.timeout(self._settings.limit_s):
                async with self._web.request(
                    "POST", parsed, headers=[("Content-Type", "application/json"), *headers], content=event.body
                ) as answer:
                    status, retry_after = answer.status, answer.headers.get("retry-after", "")
        except TimeoutError as error:
            raise Unavailable(f"{parsed.host} doesn't answer in time.") from error
        if status == _GONE:
            raise InvalidInput(f"{parsed.host} answers 410: it wants no more webhooks.")
        if not 200 <= status < 300:
            raise Unavailable(f"{parsed.host} answers {status}.", retry_after_s=retry_after_s(retry_after, self._clock()))

    async def _give_up(self, job: Job, why: str) -> None:
        self._count("given_up")
        _log.warning("a webhook is given up", extra={"job_id": job.job_id, "owner": job.owner, "detail": why})
        await self._note(job.ref, lambda now: jobs.noted(now, f"Its webhook could not be delivered: {why}"))
        await self._done(job)

    async def _done(self, job: Job) -> None:
        await self._store.delete(keys.webhook(job.ref))
        now = await self._look(job.ref)
        if now is not None and now.ended_at != job.ended_at:
            # It was retried in between, and will end once more.
            await self.expect(job.ref)

    def _count(self, outcome: str) -> None:
        self._metrics.webhooks.labels(outcome).inc()
