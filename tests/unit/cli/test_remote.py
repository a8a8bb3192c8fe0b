from pathlib import Path

from services.cli.remote import Remote, local_or_remote
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb


def test_what_is_typed_is_here_or_elsewhere():
    assert local_or_remote("films/a.mp4") == Path("films/a.mp4")
    assert local_or_remote("https.mp4") == Path("https.mp4")
    url, item = local_or_remote("https://a/b//c.mp4?x=1"), local_or_remote("s3://a/b")
    assert isinstance(url, Remote)
    assert isinstance(item, Remote)
    assert url.source() == pb.Source(https_url="https://a/b//c.mp4?x=1")
    assert item.source() == pb.Source(object_uri="s3://a/b")
