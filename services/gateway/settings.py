"""Settings of the gateway, ``SEEDVR2_GATEWAY_…`` in the environment."""

from dataclasses import dataclass

from services.common.rpc.tls import server_tls
from services.common.settings import setting
from services.gateway.encoding import PRESETS

# S3 servers take no longer ones.
_LONGEST_LINK_S = 7 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """What the gateway needs to know; each field is a setting."""

    address: str = setting("127.0.0.1:50051", "host:port of the gRPC service; port 0 takes any free one")
    tls_certificate_file: str = setting("", "PEM file of the certificate that clients see; empty: no TLS")
    tls_key_file: str = setting("", "PEM file of its private key")
    tls_client_ca_file: str = setting("", "PEM file of who signs certificates that clients must show; empty: they need none")
    health_address: str = setting("", "host:port where health alone is answered, always without TLS, for probes; empty: none")
    reflection: bool = setting(True, "true: callers can ask which calls there are, as grpcurl does")
    rest_address: str = setting("127.0.0.1:50052", "host:port of the HTTP API; port 0 takes any free one; empty: off")
    rest_hosts: tuple[str, ...] = setting(
        (),
        "names by which the HTTP API is asked for, besides addresses, where it listens on loopback: behind a proxy there; *: any",
    )
    rest_cors_origins: tuple[str, ...] = setting((), "origins of web pages that may call the HTTP API, like https://example.com")
    rest_link_s: int = setting(
        0, "seconds that links hold by which the HTTP API sends who downloads to the S3 server; 0: it sends the bytes itself"
    )
    metrics_address: str = setting("127.0.0.1:9101", "host:port of /metrics; port 0 takes any free one; empty: off")
    store_directory: str = setting(
        "seedvr2-data/store", "directory that holds uploads, jobs and results, where no S3 server is named"
    )
    store_min_free_bytes: int = setting(
        256 << 20, "bytes that artifacts, or with S3 scratch files, leave free on their file system"
    )
    discovery: str = setting("list", "who finds inference workers: list, or kubernetes by its EndpointSlices")
    workers: tuple[str, ...] = setting(
        ("127.0.0.1:50061",), "list of workers, each pool=host:port, or pool=dns:///host:port for all addresses of a name"
    )
    workers_resolve_s: float = setting(10.0, "seconds between two looks at the addresses of such a name")
    worker_ca_file: str = setting(
        "", "PEM file of who signs the workers' certificates; empty: no TLS between gateway and workers"
    )
    worker_certificate_file: str = setting("", "PEM file of the certificate that workers are shown; empty: none")
    worker_key_file: str = setting("", "PEM file of its private key")
    worker_tls_name: str = setting("", "name that the workers' certificates carry; empty: the host of their address")
    kubernetes_config: str = setting("", "kubeconfig file; empty: the service account of the pod that the gateway runs in")
    kubernetes_namespace: str = setting("", "namespace of workers and leases; empty: the pod's own, or the kubeconfig's")
    kubernetes_selector: str = setting("seedvr2.io/pool", "label selector of the workers' EndpointSlices")
    kubernetes_instance: str = setting("seedvr2", "name of this installation, where several share a namespace")
    leases: str = setting("file", "who says which gateway drives a job: file, for one machine, or kubernetes")
    lease_s: int = setting(9, "seconds after which the jobs of a gateway that has died are taken up by others (kubernetes)")
    lease_renew_s: float = setting(2.0, "seconds between two signs of life of a gateway (kubernetes)")
    default_model: str = setting("", "model of jobs that name none; empty: the first one that workers serve, by name")
    max_upload_bytes: int = setting(50 << 30, "largest upload, in bytes")
    max_source_pixels: int = setting(8192 * 4352, "largest frame of a source, in pixels")
    max_output_pixels: int = setting(8192 * 4352, "largest frame of a result, in pixels")
    max_duration_s: float = setting(6 * 3600.0, "longest part of a video that one job restores, in seconds")
    max_active_jobs: int = setting(1000, "jobs that wait or run; more are refused until some have ended")
    max_owner_jobs: int = setting(200, "jobs of one owner that wait or run; more are refused until some have ended")
    first_answer_s: float = setting(5.0, "seconds that a plan or a new job waits for a first worker to answer, after the start")
    preview_max_s: float = setting(60.0, "longest range of a preview, in seconds")
    span_seconds: float = setting(20.0, "longest span, the part of a video that one worker restores in one go, in seconds")
    span_work_s: float = setting(0.0, "longest span in seconds of work, where the workers' speed is known; 0: no limit")
    segment_frames: int = setting(48, "frames of a segment, the part that is stored and played while the rest is restored")
    encoder_preset: str = setting(
        "fast", "x264 preset of results: slower ones make smaller files; NVENC gets its own nearest one"
    )
    worker_poll_s: float = setting(1.0, "seconds between two looks at a worker")
    worker_wait_s: float = setting(600.0, "seconds that a job waits for a worker that can restore it before it fails")
    store_wait_s: float = setting(
        3600.0, "seconds that a job waits for a store that does not answer, without any step forward, before it fails"
    )
    fingerprint_wait_s: float = setting(60.0, "seconds that a begun job waits for workers like those that began it")
    span_attempts: int = setting(3, "times that a span may fail without any new segment before its job fails")
    span_stall_s: float = setting(300.0, "seconds without progress after which a worker gives a span up")
    container_memory_bytes: int = setting(3 << 30, "address space of a process that reads or writes a container, in bytes")
    container_cpu_s: int = setting(900, "CPU seconds of such a process")
    container_silence_s: float = setting(60.0, "seconds that such a process may go without a word")
    container_processes: int = setting(4, "such processes at a time, without those that feed workers; half as many look for cuts")
    cuts_s: float = setting(900.0, "seconds that a job looks for cuts before it goes on without the rest; 0: none")
    index_s: float = setting(10.0, "seconds that creating a job waits for the index of its source; later the job makes it")
    adopt_s: float = setting(5.0, "seconds between two looks for jobs that nobody drives")
    share_s: float = setting(
        2.0, "seconds between two words to the other gateways on the progress of jobs, and two looks at theirs"
    )
    fresh_s: float = setting(1.0, "seconds after which what is known of a job that another gateway drives is read again")
    keep_jobs_s: float = setting(30 * 86400.0, "seconds that ended jobs are kept, with results and segments; 0: for ever")
    keep_uploads_s: float = setting(7 * 86400.0, "seconds that complete uploads are kept that no job uses; 0: for ever")
    keep_unfinished_s: float = setting(3 * 86400.0, "seconds without a new byte that incomplete uploads are kept; 0: for ever")
    keep_pools_s: float = setting(
        30 * 86400.0, "seconds that it is kept what a pool served which nobody lists or labels any more; 0: for ever"
    )
    sweep_s: float = setting(3600.0, "seconds between two looks for what has expired, and for what nothing belongs to")
    connection_age_s: float = setting(
        1800.0, "seconds after which a connection takes no new calls, so that clients spread; 0: any age"
    )
    connection_grace_s: float = setting(600.0, "seconds that calls on such a connection have to end; clients go on elsewhere")
    drain_s: float = setting(10.0, "seconds that open calls have to end after SIGTERM")
    log_level: str = setting("INFO", "DEBUG, INFO, WARNING or ERROR")
    ready_file: str = setting("", "file that gets the real addresses as JSON once the service listens; empty: none")

    def __post_init__(self) -> None:
        for name, choices in (
            ("discovery", ("list", "kubernetes")), ("leases", ("file", "kubernetes")), ("encoder_preset", PRESETS),
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be {' or '.join(choices)}")
        if self.lease_s < 3 * self.lease_renew_s:
            raise ValueError(f"lease_s is {self.lease_s}; it must be at least three times lease_renew_s, {self.lease_renew_s:g}")
        for name in ("max_upload_bytes", "max_source_pixels", "max_output_pixels", "max_active_jobs", "max_owner_jobs",
                     "segment_frames",
                     "span_attempts", "container_memory_bytes", "container_cpu_s", "container_processes"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("max_duration_s", "preview_max_s", "span_seconds", "worker_poll_s", "workers_resolve_s",
                     "lease_renew_s", "span_stall_s",
                     "container_silence_s", "adopt_s", "share_s", "fresh_s", "sweep_s"):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("keep_jobs_s", "keep_uploads_s", "keep_unfinished_s", "keep_pools_s", "store_min_free_bytes", "span_work_s",
                     "worker_wait_s", "store_wait_s", "fingerprint_wait_s", "cuts_s", "index_s", "first_answer_s",
                     "connection_age_s", "connection_grace_s",
                     "drain_s"):  # fmt: skip
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it can't be below 0")
        if not 0 <= self.rest_link_s <= _LONGEST_LINK_S:
            raise ValueError(f"rest_link_s is {self.rest_link_s}; it can be 0 to {_LONGEST_LINK_S}")
        server_tls(self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file)
        if bool(self.worker_certificate_file) != bool(self.worker_key_file) or (self.worker_key_file and not self.worker_ca_file):
            raise ValueError("worker_certificate_file and worker_key_file belong together, and need worker_ca_file")
        if not self.store_directory:
            raise ValueError("store_directory is empty; name a directory")
