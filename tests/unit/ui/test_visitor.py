import asyncio

from services.common.login import Credentials
from services.ui.visitor import NOBODY, Visitor, current_visitor, set_visitor, visitor_login


async def test_calls_of_two_visitors_never_mix():
    async def visit(token: str) -> list[Credentials]:
        set_visitor(Visitor(Credentials(token=token)))
        seen = []
        for _ in range(5):
            await asyncio.sleep(0)
            seen.append(visitor_login())
        return seen

    one, other = await asyncio.gather(asyncio.create_task(visit("a")), asyncio.create_task(visit("b")))
    assert set(one) == {Credentials(token="a")}
    assert set(other) == {Credentials(token="b")}
    assert current_visitor() is NOBODY
    assert visitor_login() == Credentials()
