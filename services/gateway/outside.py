"""What jobs have to do with the world outside: sources from there, results that go there, and programs that are told."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from services.common.errors import InvalidOption
from services.gateway.buckets.buckets import Buckets, BucketSource
from services.gateway.buckets.rules import Place, check_allowed, parse_uri
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Job
from services.gateway.sources.fetch import Fetcher, OnFetched
from services.gateway.sources.remote import Remote
from services.gateway.sources.web import FIELD as URL_FIELD
from services.gateway.sources.web import WebSource, source_url
from services.gateway.uploads import Upload
from services.gateway.web.client import WebClient
from services.gateway.web.urls import host_matches, parse_url, shown_name
from services.gateway.webhooks.deliverer import FIELD as WEBHOOK_FIELD
from services.gateway.webhooks.deliverer import Webhooks

OBJECT_FIELD, RESULT_FIELD = "request.source.object_uri", "request.result_uri"
"""Where a request names objects."""

_NO_NAME = "video"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideRules:
    """What this installation offers."""

    sources: bool
    """Sources on the web."""

    source_hosts: tuple[str, ...]
    """Where they may be; none: anywhere."""

    webhook_hosts: tuple[str, ...]
    """Who may be told; none: anybody."""

    bucket_sources: tuple[str, ...] = ()
    """Where sources in buckets may lie; none: nowhere."""

    bucket_results: tuple[str, ...] = ()
    """Where results may be written; none: nowhere."""


class Outside:
    """Everything that this installation lets jobs do outside."""

    def __init__(
        self, *, rules: OutsideRules, web: WebClient, fetcher: Fetcher, webhooks: Webhooks | None, buckets: Buckets | None = None
    ) -> None:
        self._rules = rules
        self._web = web
        self._fetcher = fetcher
        self._webhooks = webhooks
        self._buckets = buckets

    def close(self) -> None:
        """Begin no more requests to buckets."""
        if self._buckets is not None:
            self._buckets.close()

    @property
    def offered(self) -> frozenset[str]:
        """Fields of a request that are taken here and that not every installation takes."""
        offers = {
            "https_url": self._rules.sources, "webhook_url": self._webhooks is not None,
            "object_uri": bool(self._buckets and self._rules.bucket_sources),
            "result_uri": bool(self._buckets and self._rules.bucket_results),
        }  # fmt: skip
        return frozenset(name for name, offered in offers.items() if offered)

    async def check(self, request: JobRequest, subject: str) -> None:
        """Refuse what can be known to fail for whoever ``subject`` is.

        Raises:
            InvalidOption, InvalidInput: a URL or an object that can't be used here.
            Unavailable: the buckets can't be reached now.
        """
        if self._buckets is not None and request.object_uri:
            await self._buckets.check_source(self._source(request, subject), OBJECT_FIELD)
        if self._buckets is not None and request.result_uri:
            await self._buckets.check_result(self._result(request, subject), RESULT_FIELD)
        if request.webhook_url:
            url = parse_url(request.webhook_url, field=WEBHOOK_FIELD, http=self._web.http)
            if self._rules.webhook_hosts and not host_matches(url.host, self._rules.webhook_hosts):
                raise InvalidOption(f"{url.host} is not told anything from here; use another host.", field=WEBHOOK_FIELD)
            await self._web.check(url, field=WEBHOOK_FIELD)
        if request.https_url:
            url = source_url(request.https_url, hosts=self._rules.source_hosts, http=self._web.http)
            await self._web.check(url, field=URL_FIELD)

    def filename(self, request: JobRequest) -> str:
        """What the source of a request that was checked is called."""
        if request.object_uri:
            return shown_name(parse_uri(request.object_uri, OBJECT_FIELD).key) or _NO_NAME
        return parse_url(request.https_url, field=URL_FIELD, http=True).filename or _NO_NAME

    async def expect(self, job: Job) -> None:
        """A job is about to be created, or retried."""
        if job.request.webhook_url and self._webhooks is not None:
            await self._webhooks.expect(job.ref)

    async def fetch(self, job: Job, on_fetched: OnFetched) -> Upload:
        """The upload that a job's source has become. Raises what :meth:`Fetcher.fetch` raises, and InvalidOption."""
        return await self._fetcher.fetch(job, self._remote(job.request, job.subject), on_fetched)

    async def deliver(self, job: Job, pieces: AsyncGenerator[bytes, None]) -> str:
        """Write a result to its owner's bucket too; returns where.

        Raises:
            InvalidInput: it may not be written. Unavailable: not now.
        """
        place = self._result(job.request, job.subject)
        if self._buckets is None:
            raise InvalidOption("Results can't be written to a bucket here; download the result.", field=RESULT_FIELD)
        await self._buckets.write(place, pieces, RESULT_FIELD)
        return place.uri

    def _source(self, request: JobRequest, subject: str) -> Place:
        place = parse_uri(request.object_uri, OBJECT_FIELD)
        check_allowed(place, subject, self._rules.bucket_sources, OBJECT_FIELD)
        return place

    def _result(self, request: JobRequest, subject: str) -> Place:
        place = parse_uri(request.result_uri, RESULT_FIELD)
        check_allowed(place, subject, self._rules.bucket_results, RESULT_FIELD)
        return place

    def _remote(self, request: JobRequest, subject: str) -> Remote:
        if self._buckets is not None and request.object_uri:
            return BucketSource(self._buckets, self._source(request, subject), OBJECT_FIELD)
        url = source_url(request.https_url, hosts=self._rules.source_hosts, http=self._web.http)
        return WebSource(url, self._web, self._rules.source_hosts)
