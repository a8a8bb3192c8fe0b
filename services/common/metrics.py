"""All metrics of the project, by service: names, labels, units. ``docs/metrics.md`` lists them and a test compares.

No label carries a job or an owner. Ids belong into logs.
"""

from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from services.common.errors import SettingsError

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800)

_GIB = 1 << 30
_BYTES = tuple(_GIB * size for size in (0.125, 0.25, 0.5, 1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 64, 80, 96, 144, 192))

DEVICE_NAMES = ("device", "driver", "cuda", "cudnn", "capability", "torch")
"""What is told of a device."""


M = TypeVar("M", Counter, Histogram)


def _known(metric: M, *values: str) -> M:
    """A metric that is there from the start for values of its label: the first event is then an increase like any other."""
    for value in values:
        metric.labels(value)
    return metric


class InferenceMetrics:
    """What an inference pod measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.stage_duration = _known(
            Histogram(
                "seedvr2_stage_duration_seconds", "Time that one batch of frames spent in a stage.", ["stage"],
                buckets=_SECONDS, registry=registry,
            ),
            "decode", "prepare", "vae_encode", "dit", "vae_decode", "colour", "encode",
        )  # fmt: skip
        self.span_duration = Histogram(
            "seedvr2_span_duration_seconds", "Time from a span's header to its end.", buckets=_SECONDS, registry=registry
        )
        self.frames = Counter(
            "seedvr2_frames_restored_total", "Frames that left the pipeline, context not counted.", registry=registry
        )
        self.pixels = Counter("seedvr2_pixels_restored_total", "Output pixels of these frames.", registry=registry)
        self.concealed = Counter(
            "seedvr2_frames_concealed_total", "Frames that could not be decoded and repeat the one before.", registry=registry
        )
        self.spans = _known(
            Counter(
                "seedvr2_spans_total", "Spans by outcome: done, cancelled, failed, handed_back.", ["outcome"], registry=registry
            ),
            "done", "cancelled", "failed", "handed_back",
        )  # fmt: skip
        self.queue = Gauge("seedvr2_queue_spans", "Spans that wait for the ranks.", registry=registry)
        self.in_flight = Gauge("seedvr2_spans_in_flight", "Spans that are being restored.", registry=registry)
        self.ready = Gauge("seedvr2_ready", "1 while every rank has passed its self-test and spans are taken.", registry=registry)
        self.rank_starts = Counter(
            "seedvr2_rank_starts_total",
            "Rank processes started; more than the number of ranks means that some died.",
            registry=registry,
        )
        self.model_load = Gauge(
            "seedvr2_model_load_seconds", "Time from a rank's start to its passed self-test.", ["rank"], registry=registry
        )
        self.memory = Gauge("seedvr2_rank_memory_bytes", "Resident memory of a rank's process.", ["rank"], registry=registry)
        self.gpu_memory = Gauge("seedvr2_gpu_memory_bytes", "Memory that a rank holds on its GPU.", ["rank"], registry=registry)
        self.out_of_memory = _known(
            Counter(
                "seedvr2_out_of_memory_total",
                "Spans that didn't fit a device, by outcome: refused before they began, leaner where a leaner setting is tried "
                "next, failed where there is none.",
                ["outcome"],
                registry=registry,
            ),
            "refused", "leaner", "failed",
        )  # fmt: skip
        self.out_of_memory_avoided = Counter(
            "seedvr2_out_of_memory_avoided_total",
            "Spans that were given a leaner setting from their beginning, because the fastest one would not have fit.",
            registry=registry,
        )
        self.peak_memory = Histogram(
            "seedvr2_span_peak_memory_bytes",
            "Most memory that a span took of a rank's GPU, or of its process where there is none.",
            buckets=_BYTES, registry=registry,
        )  # fmt: skip
        self.packet_bytes = Counter("seedvr2_packet_bytes_total", "Bytes of packets received.", registry=registry)
        self.segment_bytes = Counter("seedvr2_segment_bytes_total", "Bytes of segments made.", registry=registry)
        self.available_memory = Gauge(
            "seedvr2_available_memory_bytes",
            "Memory that a rank's device had left for it after its last span, what the rank holds included.",
            ["rank"],
            registry=registry,
        )
        self.device_info = Gauge(
            "seedvr2_device_info",
            "Always 1; the labels tell what a rank's device is.",
            ["rank", *DEVICE_NAMES],
            registry=registry,
        )
        self.device_check = Gauge(
            "seedvr2_device_check_passed", "1 where a check of a rank's device passed at its start, 0 where it failed.",
            ["rank", "check"], registry=registry,
        )  # fmt: skip
        self.model_info = Gauge(
            "seedvr2_model_info",
            "Always 1; the labels tell which model is loaded.",
            ["model", "hash", "dtype", "weight_format"],
            registry=registry,
        )
        self.info = Gauge(
            "seedvr2_worker_info",
            "Always 1; the labels tell what this worker is.",
            ["pool", "fingerprint", "device", "version"],
            registry=registry,
        )


class GatewayMetrics:
    """What a gateway measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.jobs = Gauge(
            "seedvr2_jobs", "Jobs that have not ended, by state; the same on every gateway.", ["state"], registry=registry
        )
        self.oldest_job_age = Gauge(
            "seedvr2_oldest_job_age_seconds",
            "Age of the job that has been waiting or running longest, 0 where there is none; the same on every gateway.",
            registry=registry,
        )
        self.jobs_resumed = Counter(
            "seedvr2_jobs_resumed_total", "Jobs that were taken up again after their gateway had left them.", registry=registry
        )
        self.jobs_ended = _known(
            Counter("seedvr2_jobs_ended_total", "Jobs that ended, by state.", ["state"], registry=registry),
            "SUCCEEDED", "FAILED", "CANCELLED",
        )  # fmt: skip
        self.job_duration = Histogram(
            "seedvr2_job_duration_seconds",
            "Time from creation to the end of a job.",
            buckets=(*_SECONDS, 3600, 7200),
            registry=registry,
        )
        self.queued_megapixels = Gauge(
            "seedvr2_queued_megapixels",
            "Output megapixels that wait for a worker, planned or not, in jobs that this gateway drives; each in one pool: that "
            "which its job names, else the first by name that could restore it. 0 for a pool without.",
            ["pool"], registry=registry,
        )  # fmt: skip
        self.queued_jobs = Gauge(
            "seedvr2_queued_jobs",
            "Jobs that this gateway drives and that wait for a worker, with a span or with all they have; 0 for a pool without.",
            ["pool"], registry=registry,
        )  # fmt: skip
        self.dispatched = Gauge(
            "seedvr2_spans_dispatched", "Spans that workers have in hand for this gateway.", registry=registry
        )
        self.span_wait = Histogram(
            "seedvr2_span_wait_seconds", "Time that a span waited for a worker.", buckets=(*_SECONDS, 3600), registry=registry
        )
        self.workers = Gauge("seedvr2_workers", "Workers by state.", ["state"], registry=registry)
        self.cluster_watch = Counter(
            "seedvr2_cluster_watch_events_total",
            "What came of watching the cluster's objects: list, added, modified, deleted, bookmark, expired, lost.",
            ["objects", "event"],
            registry=registry,
        )
        self.leases = Counter(
            "seedvr2_lease_events_total",
            "What became of leases in the cluster: taken, taken_over, released, lost, late (a renewal that failed).",
            ["event"],
            registry=registry,
        )
        self.span_retries = _known(
            Counter(
                "seedvr2_span_retries_total", "Spans that were sent again, by the error's class.", ["reason"], registry=registry
            ),
            "WorkerBroken", "WorkerUnavailable", "QueueFull", "Draining", "ModelNotReady", "GpuOutOfMemory",
        )  # fmt: skip
        self.segments = Counter("seedvr2_segments_stored_total", "Segments stored.", registry=registry)
        self.segments_reused = Counter(
            "seedvr2_segments_reused_total", "Segments that were found in the store and not restored again.", registry=registry
        )
        self.store_failures = Counter(
            "seedvr2_store_failures_total",
            "Requests to the object store that failed, by kind: passing (tried again), refused, full and others.",
            ["kind"],
            registry=registry,
        )
        self.swept = Counter(
            "seedvr2_swept_total", "What was removed because nobody needs it any more, by kind: job, upload, leftover, lease.",
            ["kind"], registry=registry,
        )  # fmt: skip
        self.upload_bytes = Counter("seedvr2_upload_bytes_total", "Bytes received in uploads.", registry=registry)
        self.download_bytes = Counter("seedvr2_download_bytes_total", "Bytes sent in downloads.", registry=registry)
        self.logins_refused = Counter(
            "seedvr2_logins_refused_total", "Calls that were not let in, by the error's class.", ["reason"], registry=registry
        )
        self.requests = Counter(
            "seedvr2_requests_total", "Calls answered, by method and status code.", ["method", "code"], registry=registry
        )
        self.info = Gauge(
            "seedvr2_gateway_info", "Always 1; the label tells which software this is.", ["version"], registry=registry
        )
        self.webhooks = _known(
            Counter(
                "seedvr2_webhooks_total",
                "Tries of webhooks, by outcome: delivered, failed, given_up.",
                ["outcome"],
                registry=registry,
            ),
            "delivered", "failed", "given_up",
        )  # fmt: skip
        self.webhooks_pending = Gauge(
            "seedvr2_webhooks_pending", "Jobs whose webhook has not been delivered, also those that run.", registry=registry
        )
        self.fetched_bytes = Counter(
            "seedvr2_fetched_bytes_total", "Bytes of sources read from the web and from users' buckets.", registry=registry
        )
        self.join_duration = Histogram(
            "seedvr2_join_duration_seconds", "Time to join a result.", buckets=_SECONDS, registry=registry
        )


class RankHostMetrics:
    """What a rank host measures; the rest of its ranks is told by their worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ranks = Gauge("seedvr2_rank_host_ranks", "Rank processes that run here for a worker.", registry=registry)
        self.memory = Gauge("seedvr2_rank_memory_bytes", "Resident memory of a rank's process.", ["rank"], registry=registry)


class UiMetrics:
    """What the web page's server measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "seedvr2_ui_requests_total",
            "Requests to the file routes, by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self.upload_bytes = Counter("seedvr2_ui_upload_bytes_total", "Bytes received from browsers.", registry=registry)
        self.download_bytes = Counter("seedvr2_ui_download_bytes_total", "Bytes sent to browsers.", registry=registry)
        self.jobs = Counter("seedvr2_ui_jobs_total", "Jobs created from the page.", registry=registry)


def serve_metrics(address: str, registry: CollectorRegistry) -> int:
    """Answer ``GET /metrics`` on ``host:port`` from a thread of this process; returns the port.

    Raises:
        SettingsError: the port is taken.
    """
    host, _, port = address.rpartition(":")
    try:
        server, _ = start_http_server(int(port), host or "0.0.0.0", registry=registry)  # noqa: S104 - scraped from other pods
    except OSError as error:
        raise SettingsError(f"Can't serve metrics on {address}: {error.strerror}; choose another port.") from error
    return int(server.server_port)
