"""From the web's settings to what jobs may do outside."""

from services.common.metrics import GatewayMetrics
from services.gateway.book import JobBook
from services.gateway.buckets.buckets import Buckets
from services.gateway.buckets.settings import BucketSettings
from services.gateway.outside import Outside, OutsideRules
from services.gateway.sources.fetch import Fetcher, FetchLimits
from services.gateway.store.base import Store
from services.gateway.uploads import Uploads
from services.gateway.web.settings import WebSettings
from services.gateway.web.setup import make_web_client, make_webhooks
from services.gateway.webhooks.deliverer import Webhooks


def make_outside(
    web: WebSettings,
    bucket_settings: BucketSettings,
    *,
    store: Store,
    book: JobBook,
    uploads: Uploads,
    metrics: GatewayMetrics,
    poll_s: float,
    max_bytes: int,
) -> tuple[Webhooks | None, Outside]:
    """Raises SettingsError where a file of the settings can't be used."""

    client = make_web_client(web)
    webhooks = make_webhooks(web, store=store, look=book.seek, note=book.update, client=client, poll_s=poll_s, metrics=metrics)
    limits = FetchLimits(retry_s=web.source_retry_s, max_s=web.source_max_s, max_bytes=max_bytes)
    fetcher = Fetcher(uploads=uploads, store=store, limits=limits, metrics=metrics)
    rules = OutsideRules(
        sources=web.sources, source_hosts=web.source_hosts, webhook_hosts=web.webhook_hosts,
        bucket_sources=bucket_settings.sources, bucket_results=bucket_settings.results,
    )  # fmt: skip
    buckets = Buckets(bucket_settings) if bucket_settings.endpoint else None
    return webhooks, Outside(rules=rules, web=client, fetcher=fetcher, webhooks=webhooks, buckets=buckets)
