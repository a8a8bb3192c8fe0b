import asyncio

import httpx
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from services.common.http.serve import address_of, bound_socket
from services.ui.serve import PageServer


async def test_a_stop_ends_the_streams_of_pages_at_once_but_lets_a_transfer_end() -> None:
    may_end, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def pieces(request: Request) -> StreamingResponse:
        async def stream():  # type: ignore[no-untyped-def]
            yield b"first,"
            begun.release()
            await may_end.wait()
            yield b"last"

        return StreamingResponse(stream())

    app = FastAPI(routes=[Route("/files/jobs/one/result", pieces), Route("/gradio_api/queue/data", pieces)])
    listener = bound_socket("127.0.0.1:0")
    server, stop = PageServer(app, listener, 30), asyncio.Event()
    serving = asyncio.create_task(server.run_until(stop))
    await server.wait_listening()
    async with httpx.AsyncClient(base_url=f"http://{address_of(listener)}", timeout=30) as client:
        transfer = asyncio.create_task(client.get("/files/jobs/one/result"))
        page = asyncio.create_task(client.get("/gradio_api/queue/data"))
        for _ in range(2):
            await begun.acquire()
        stop.set()
        assert (await asyncio.wait_for(page, 10)).text == "first,"
        assert not transfer.done()
        may_end.set()
        assert (await transfer).text == "first,last"
    await asyncio.wait_for(serving, 10)
