"""Settings of a rank host, ``SEEDVR2_RANK_HOST_…`` in the environment."""

from dataclasses import dataclass

from services.common.rpc.tls import server_tls
from services.common.settings import setting
from services.inference.hosts.addresses import PORT

PREFIX = "SEEDVR2_RANK_HOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankHostSettings:
    """What a rank host needs to know; its worker tells the rest."""

    address: str = setting(f"127.0.0.1:{PORT}", "host:port of the gRPC server; port 0 takes any free one")
    tls_certificate_file: str = setting("", "PEM file of the certificate that the worker sees; empty: no TLS")
    tls_key_file: str = setting("", "PEM file of its private key")
    tls_client_ca_file: str = setting("", "PEM file of who signs the certificate that the worker must show; empty: it needs none")
    health_address: str = setting("", "host:port where health alone is answered, always without TLS, for probes; empty: none")
    metrics_address: str = setting("127.0.0.1:9102", "host:port of /metrics; port 0 takes any free one, empty: no metrics")
    pool: str = setting("default", "name of the pool that the worker belongs to")
    drain_s: float = setting(150.0, "seconds that the worker has to end its spans after SIGTERM; more than the worker's drain_s")
    log_level: str = setting("INFO", "DEBUG, INFO, WARNING or ERROR")
    ready_file: str = setting("", "file that gets the real addresses as JSON once the server listens; empty: none")

    def __post_init__(self) -> None:
        server_tls(self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file)
        if not self.drain_s >= 0:
            raise ValueError(f"drain_s is {self.drain_s}; it must be at least 0")
