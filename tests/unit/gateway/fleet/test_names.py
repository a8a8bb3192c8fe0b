import asyncio
import socket

from services.gateway.fleet.endpoints import Endpoint
from services.gateway.fleet.names import Name, Named, hosts_of

V4, V6 = socket.AF_INET, socket.AF_INET6


def found(*hosts: str) -> list:
    return [(V6 if ":" in host else V4, socket.SOCK_STREAM, 6, "", (host, 5)) for host in hosts]


def test_each_address_of_a_name_counts_once():
    assert hosts_of(found("10.0.0.2", "10.0.0.1", "10.0.0.2")) == ["10.0.0.1", "10.0.0.2"]


def test_where_a_name_has_addresses_of_both_families_one_counts():
    assert hosts_of(found("fd00::1", "10.0.0.1")) == ["10.0.0.1"]
    assert hosts_of(found("fd00::1")) == ["fd00::1"]


def test_a_name_without_an_address_still_names_its_pool():
    assert Named(Name(host="workers.invalid", port=5, pool="gpu"), resolve_s=1).pools() == {"gpu"}
    assert Named(Name(host="workers.invalid", port=5), resolve_s=1).pools() == frozenset()


async def first_look(name: Name) -> list[Endpoint]:
    shown: asyncio.Queue[list[Endpoint]] = asyncio.Queue()
    looking = asyncio.create_task(Named(name, resolve_s=0.01).run(lambda endpoints: shown.put_nowait(list(endpoints))))
    try:
        return await asyncio.wait_for(shown.get(), 20)
    finally:
        looking.cancel()
        await asyncio.wait({looking})


async def test_workers_are_where_the_name_is():
    assert await first_look(Name(host="127.0.0.1", port=5, pool="gpu")) == [Endpoint(address="127.0.0.1:5", pool="gpu")]


async def test_an_address_of_version_six_has_brackets():
    assert await first_look(Name(host="::1", port=5)) == [Endpoint(address="[::1]:5")]


async def test_a_service_without_a_ready_pod_has_no_workers():
    assert await first_look(Name(host="nobody.invalid", port=5)) == []


async def test_a_name_is_looked_up_again_and_a_name_service_that_fails_changes_nothing():
    answers: list[list | int] = [found("10.0.0.1"), found("10.0.0.1"), found("10.0.0.1", "10.0.0.2"), socket.EAI_AGAIN,
                                 found("10.0.0.2"), socket.EAI_NONAME, socket.EAI_AGAIN, found("10.0.0.3")]  # fmt: skip
    shown: list[list[str]] = []
    over = asyncio.Event()

    async def resolve(host: str, port: int) -> list:
        if not answers:
            over.set()
            await asyncio.Event().wait()
        answer = answers.pop(0)
        if isinstance(answer, int):
            raise socket.gaierror(answer, "told to fail")
        return answer

    named = Named(Name(host="gpu", port=5), resolve_s=0.001, resolve=resolve)
    looking = asyncio.create_task(named.run(lambda endpoints: shown.append([e.address for e in endpoints])))
    await asyncio.wait_for(over.wait(), 20)
    looking.cancel()
    assert shown == [["10.0.0.1:5"], ["10.0.0.1:5", "10.0.0.2:5"], ["10.0.0.2:5"], [], ["10.0.0.3:5"]]
