"""What jobs have to do with the world outside: sources that are fetched from there, and programs that are told."""

from dataclasses import dataclass

from services.common.errors import InvalidOption
from services.gateway.jobs import Job, JobRequest
from services.gateway.sources.fetch import Fetcher, OnFetched
from services.gateway.sources.remote import Remote
from services.gateway.sources.web import FIELD as URL_FIELD
from services.gateway.sources.web import WebSource, source_url
from services.gateway.uploads import Upload
from services.gateway.web.client import WebClient
from services.gateway.web.urls import host_matches, parse_url
from services.gateway.webhooks.deliverer import FIELD as WEBHOOK_FIELD
from services.gateway.webhooks.deliverer import Webhooks

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


class Outside:
    """Everything that this installation lets jobs do outside."""

    def __init__(self, *, rules: OutsideRules, web: WebClient, fetcher: Fetcher, webhooks: Webhooks | None) -> None:
        self._rules = rules
        self._web = web
        self._fetcher = fetcher
        self._webhooks = webhooks

    @property
    def offered(self) -> frozenset[str]:
        """Fields of a request that are taken here and that not every installation takes."""
        offers = {"https_url": self._rules.sources, "webhook_url": self._webhooks is not None}
        return frozenset(name for name, offered in offers.items() if offered)

    async def check(self, request: JobRequest) -> None:
        """Refuse what can be known to fail.

        Raises:
            InvalidOption, InvalidInput: a URL that can't be used here.
        """
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
        return parse_url(request.https_url, field=URL_FIELD, http=True).filename or _NO_NAME

    async def expect(self, job: Job) -> None:
        """A job is about to be created, or retried."""
        if job.request.webhook_url and self._webhooks is not None:
            await self._webhooks.expect(job.ref)

    async def fetch(self, job: Job, on_fetched: OnFetched) -> Upload:
        """The upload that a job's source has become. Raises what :meth:`Fetcher.fetch` raises, and InvalidOption."""
        return await self._fetcher.fetch(job, self._remote(job.request), on_fetched)

    def _remote(self, request: JobRequest) -> Remote:
        url = source_url(request.https_url, hosts=self._rules.source_hosts, http=self._web.http)
        return WebSource(url, self._web, self._rules.source_hosts)
