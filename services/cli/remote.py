"""Sources that are not here: the gateway fetches them."""

from dataclasses import dataclass
from pathlib import Path

from services.common.pb.seedvr2.v1 import gateway_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file on the web, or an object of a bucket."""

    uri: str
    """As it was typed: https://host/path or s3://bucket/key."""

    def source(self) -> pb.Source:
        """As a request names it."""
        return pb.Source(object_uri=self.uri) if self.uri.startswith("s3://") else pb.Source(https_url=self.uri)


def local_or_remote(text: str) -> Path | Remote:
    """What was typed as a source."""
    return Remote(uri=text) if text.startswith(("https://", "http://", "s3://")) else Path(text)
