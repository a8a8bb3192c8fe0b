"""Settings of the inference service, ``SEEDVR2_INFERENCE_…`` in the environment."""

import re
from dataclasses import dataclass

from services.common.rpc.tls import server_tls
from services.common.settings import setting
from services.inference.hosts.addresses import MEETING_PORT
from services.inference.layout import layout_of
from services.inference.model_files import DEFAULT_DIRECTORY

_DEVICES = ("auto", "cpu", "cuda")
_DTYPES = ("auto", "float32", "bfloat16", "float16")
_POOL = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceSettings:
    """What an inference process needs to know; each field is a setting."""

    address: str = setting("127.0.0.1:50061", "host:port of the gRPC server; port 0 takes any free one")
    tls_certificate_file: str = setting("", "PEM file of the certificate that gateways see; empty: no TLS")
    tls_key_file: str = setting("", "PEM file of its private key")
    tls_client_ca_file: str = setting("", "PEM file of who signs certificates that gateways must show; empty: they need none")
    health_address: str = setting("", "host:port where health alone is answered, always without TLS, for probes; empty: none")
    metrics_address: str = setting("127.0.0.1:9102", "host:port of /metrics; port 0 takes any free one, empty: no metrics")
    pool: str = setting("default", "name of the pool that this worker belongs to")
    model: str = setting("nano", "model to load")
    model_directory: str = setting("", f"directory with a directory of files per model; empty: {DEFAULT_DIRECTORY}")
    device: str = setting("auto", "cpu, cuda, or auto: cuda where there is a GPU")
    dtype: str = setting("auto", "float32, bfloat16, float16, or auto: bfloat16 on a GPU, float32 on a CPU")
    ranks: int = setting(0, "processes with a device each, on each machine; 0: one per GPU, one on a CPU")
    sequence: int = setting(0, "ranks that share a span; must divide the ranks, 0: all. Results can differ between values")
    rank_hosts: tuple[str, ...] = setting(
        (), "host:port of the rank hosts of other machines, each with as many ranks; all share a span. Empty: those of this "
        "pod's LeaderWorkerSet, where LWS_LEADER_ADDRESS and LWS_GROUP_SIZE are set, else none"
    )  # fmt: skip
    rank_hosts_ca_file: str = setting(
        "", "PEM file of who signs the certificates of rank hosts, to which the worker shows its own; empty: no TLS to them"
    )
    rank_hosts_server_name: str = setting("", "the name in the certificates of rank hosts; empty: the host of each address")
    meeting_address: str = setting(
        "", "host:port where ranks of several machines meet: how these reach this one, and a port that is free here; empty: "
        f"LWS_LEADER_ADDRESS, port {MEETING_PORT}"
    )  # fmt: skip
    torch_threads: int = setting(0, "CPU threads of a rank; 0: the cores divided by the ranks. Results can differ between values")
    encoder_threads: int = setting(4, "CPU threads of an encoder. The bytes of segments differ between values")
    queue_spans: int = setting(4, "spans that may wait for ranks; more are refused")
    queue_s: float = setting(
        2.0, "seconds that a span may wait for ranks before it is handed back for another worker; 0: no limit"
    )
    rank_start_s: float = setting(900.0, "seconds that a rank has to load its model and pass its self-test")
    rank_stop_s: float = setting(20.0, "seconds that ranks have to stop a span before they are ended and replaced")
    drain_s: float = setting(120.0, "seconds that spans in hand have to end after SIGTERM; then they are handed back")
    video_memory_bytes: int = setting(8 << 30, "address space of a process that decodes and encodes, in bytes")
    nvenc_memory_bytes: int = setting(
        0, "the same of one that encodes with NVENC, where CUDA reserves far more than it uses; 0: as much as others"
    )
    video_cpu_s: int = setting(7200, "CPU seconds that a process may take to decode and encode one span")
    log_level: str = setting("INFO", "DEBUG, INFO, WARNING or ERROR")
    ready_file: str = setting("", "file that gets the real addresses as JSON once the server listens; empty: none")

    def __post_init__(self) -> None:
        server_tls(self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file)
        _check_choice("device", self.device, _DEVICES)
        _check_choice("dtype", self.dtype, _DTYPES)
        if not _POOL.fullmatch(self.pool):
            raise ValueError(f"pool {self.pool!r} must be of a-z, 0-9, dots and hyphens")
        for name in ("ranks", "sequence", "torch_threads", "queue_spans", "queue_s", "drain_s"):
            _check_least(name, getattr(self, name), 0)
        if self.ranks and not self.rank_hosts:
            layout_of(ranks=self.ranks, sequence=self.sequence)
        for name in ("encoder_threads", "rank_start_s", "rank_stop_s", "video_cpu_s"):
            _check_least(name, getattr(self, name), 1)
        _check_least("video_memory_bytes", self.video_memory_bytes, 1 << 30)
        if self.nvenc_memory_bytes:
            _check_least("nvenc_memory_bytes", self.nvenc_memory_bytes, 1 << 30)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")


def _check_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{name} is {value}; it must be at least {least}")
