"""Calls to a rank host in an order that no worker has."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from services.common.pb.seedvr2.v1 import rank_host_pb2 as pb
from services.common.pb.seedvr2.v1 import rank_host_pb2_grpc
from services.common.rpc.server import open_channel
from services.common.rpc.status import error_of
from tests.unit.inference.hosts.quick_hosts import QuickHost, no_ranks

START = pb.LiveRequest(start=pb.LifeStart(ranks=[pb.RankStart(index=1, threads=1)]))
WORDS = pb.LiveRequest(words=pb.RankWords(rank=1, kind="load", fields="{}"))


@pytest.fixture
async def stub() -> AsyncIterator[Any]:
    async with QuickHost().serving() as host, open_channel(host.address) as channel:
        yield rank_host_pb2_grpc.RankHostStub(channel)


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([], "begins with which ranks there are"),
        ([WORDS], "begins with which ranks there are"),
        ([START, START], "A start can't stand here"),
        ([START, pb.LiveRequest()], "A empty message can't stand here"),
        ([START, pb.LiveRequest(words=pb.RankWords(rank=7, kind="load", fields="{}"))], "A words can't stand here"),
    ],
)
async def test_what_cannot_stand_where_it_does_is_refused_in_words(stub: Any, requests: list[pb.LiveRequest], words: str):
    with pytest.raises(grpc.RpcError) as caught:
        async for _ in stub.Live(iter(requests), timeout=20):
            pass
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert words in error_of(caught.value).message
    await no_ranks()


async def test_the_end_of_the_requests_ends_the_ranks(stub: Any):
    answers = [answer.WhichOneof("message") async for answer in stub.Live(iter([START]), timeout=20)]
    assert answers[0] == "hello"
    await no_ranks()
