"""Settings of the object store, ``SEEDVR2_S3_…`` in the environment; the gateway and the bucket command read the same ones."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from services.common.settings import setting

PREFIX = "SEEDVR2_S3"
SMALLEST_PART_BYTES = 5 << 20
"""S3 takes no smaller parts, except the last one."""

_PREFIX = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*/)*")
_ENCRYPTION = ("", "AES256", "aws:kms")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """What is known of the S3 server; without an endpoint artifacts are kept in a directory."""

    endpoint: str = setting("", "URL of the S3 server, http:// or https://; empty: artifacts are kept in a directory instead")
    public_endpoint: str = setting("", "URL of the same server for users, for presigned links; empty: the endpoint")
    bucket: str = setting("seedvr2", "bucket that holds uploads, jobs and results")
    prefix: str = setting("", "begins every key, ends with a slash; several installations can share a bucket")
    region: str = setting("us-east-1", "region that requests are signed for")
    path_style: bool = setting(True, "name the bucket in the path; false: in the host name")
    ca_file: str = setting("", "PEM file of the authorities that may sign the server's certificate; empty: the well-known ones")
    access_key_file: str = setting(
        "", "file with the access key, read again when it changes; empty: AWS_… or MINIO_… variables, or the machine's IAM role"
    )
    secret_key_file: str = setting("", "file with the secret key")
    session_token_file: str = setting("", "file with a session token; empty: none")
    encryption: str = setting("", "server-side encryption: AES256 or aws:kms; empty: as the bucket says")
    kms_key: str = setting("", "key id for aws:kms; empty: the bucket's")
    create_bucket: bool = setting(False, "create the bucket at start where there is none")
    lifecycle: bool = setting(True, "keep rules in the bucket that remove what was begun and left")
    leftover_days: int = setting(7, "days after which such leftovers go; an upload must not take longer")
    timeout_s: float = setting(30.0, "seconds without a byte after which a request is given up")
    tries: int = setting(8, "tries of a request that fails for a reason that may pass")
    retry_s: float = setting(30.0, "seconds after which no new try of it begins")
    connections: int = setting(32, "requests at a time")
    part_bytes: int = setting(SMALLEST_PART_BYTES, "smallest part of a large object, in bytes; parts grow with the object")
    scratch_directory: str = setting("seedvr2-data/scratch", "directory for the local copies that containers are read from")
    cache_bytes: int = setting(64 << 30, "size of these copies, in bytes; not below the largest upload")

    def __post_init__(self) -> None:
        for name in ("endpoint", "public_endpoint"):
            if getattr(self, name):
                _check_endpoint(name, getattr(self, name))
        for name in ("leftover_days", "tries", "connections"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("timeout_s", "retry_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.part_bytes < SMALLEST_PART_BYTES:
            raise ValueError(f"part_bytes is {self.part_bytes}; S3 takes no parts below {SMALLEST_PART_BYTES}")
        self._check_names()
        if bool(self.access_key_file) != bool(self.secret_key_file):
            raise ValueError("access_key_file and secret_key_file go together; name both or neither")

    def _check_names(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ValueError(f"prefix is {self.prefix!r}; use letters, digits, '.', '_' and '-', and end with a slash")
        if self.encryption not in _ENCRYPTION:
            raise ValueError(f"encryption is {self.encryption!r}; it can be AES256, aws:kms or empty")
        if self.kms_key and self.encryption != "aws:kms":
            raise ValueError("kms_key needs encryption aws:kms")
        if not self.bucket or not self.scratch_directory:
            raise ValueError("bucket and scratch_directory can't be empty")


def _check_endpoint(name: str, value: str) -> None:
    url: SplitResult = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.path not in ("", "/") or url.query:
        raise ValueError(f"{name} is not a URL like https://host:port, without a path and without a password")
