"""Settings of users' buckets, ``SEEDVR2_BUCKETS_…`` in the environment."""

from dataclasses import dataclass

from services.common.settings import setting
from services.gateway.buckets.rules import check_templates
from services.gateway.store.s3.settings import S3Settings

PREFIX = "SEEDVR2_BUCKETS"


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketSettings:
    """The S3 server with buckets that jobs may read from and write to; without an endpoint there are none."""

    endpoint: str = setting("", "URL of the S3 server, http:// or https://; empty: no buckets")
    region: str = setting("us-east-1", "region that requests are signed for")
    path_style: bool = setting(True, "name the bucket in the path; false: in the host name")
    ca_file: str = setting("", "PEM file of the authorities that may sign the server's certificate; empty: the well-known ones")
    access_key_file: str = setting("", "file with the access key; give it no more rights than sources and results need")
    secret_key_file: str = setting("", "file with the secret key")
    session_token_file: str = setting("", "file with a session token; empty: none")
    sources: tuple[str, ...] = setting(
        (), "where sources may lie, each bucket/ or bucket/prefix/; {subject} stands for whoever creates the job"
    )
    results: tuple[str, ...] = setting((), "where results may be written, in the same way")
    timeout_s: float = setting(30.0, "seconds without a byte after which a request is given up")
    tries: int = setting(8, "tries of a request that fails for a reason that may pass")
    retry_s: float = setting(60.0, "seconds after which no new try of it begins")

    def __post_init__(self) -> None:
        check_templates((*self.sources, *self.results))
        if (self.sources or self.results) and not self.endpoint:
            raise ValueError("sources and results need an endpoint")
        self.server()

    def server(self) -> S3Settings:
        """How to reach it. Raises ValueError for what can't be."""
        return S3Settings(
            endpoint=self.endpoint, region=self.region, path_style=self.path_style, ca_file=self.ca_file,
            access_key_file=self.access_key_file, secret_key_file=self.secret_key_file,
            session_token_file=self.session_token_file, timeout_s=self.timeout_s, tries=self.tries, retry_s=self.retry_s,
        )  # fmt: skip
