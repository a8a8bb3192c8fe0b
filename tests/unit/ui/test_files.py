import asyncio
import hashlib

import httpx

from services.common.errors import StoreUnavailable
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.unit.ui.clips import tiny_clip
from tests.unit.ui.fake_gateway import FakeGateway, served
from tests.unit.ui.serving import browsing, served_host, upload

MIB = 1 << 20


async def finished_job(client: httpx.AsyncClient, gateway: FakeGateway, filename: str = "clip.mp4") -> bytes:
    """The bytes of job "one", which has succeeded."""
    await upload(client, tiny_clip(), filename=filename)
    request = pb.JobRequest(source=pb.Source(upload_id="clip"))
    await gateway.CreateJob(pb.CreateJobRequest(job_id="one", request=request), None)
    async with asyncio.timeout(10):
        await gateway.ended("one")
    return tiny_clip()


async def test_a_file_arrives_in_pieces_and_is_complete_at_its_end() -> None:
    gateway, data = FakeGateway(), bytes(range(256)) * 10_000
    async with browsing(gateway) as client:
        await client.put("/files/uploads/clip", json={"filename": "a.mp4", "size_bytes": len(data)})
        middle = await client.patch("/files/uploads/clip", content=data[:MIB], headers={"Upload-Offset": "0"})
        assert (middle.headers["upload-offset"], middle.headers["upload-complete"]) == (str(MIB), "?0")
        headers = {"Upload-Offset": str(MIB), "Upload-Complete": "?1"}
        assert (await client.patch("/files/uploads/clip", content=data[MIB:], headers=headers)).json()["complete"]
    assert gateway.uploads["clip"].data == data


async def test_the_received_size_is_told_to_whoever_asks() -> None:
    async with browsing(FakeGateway()) as client:
        await client.put("/files/uploads/clip", json={"filename": "a.mp4", "size_bytes": 100})
        await client.patch("/files/uploads/clip", content=b"x" * 60, headers={"Upload-Offset": "0"})
        head = await client.head("/files/uploads/clip")
        assert (head.headers["upload-offset"], head.headers["upload-length"], head.content) == ("60", "100", b"")
        assert (await client.get("/files/uploads/clip")).json()["received_bytes"] == 60


async def test_a_browser_that_goes_away_leaves_what_it_sent() -> None:
    gateway = FakeGateway()
    async with served(gateway) as address, served_host(address) as page:
        async with httpx.AsyncClient(base_url=page) as client:
            await client.put("/files/uploads/clip", json={"filename": "a.mp4", "size_bytes": 2 * MIB})
        host, port = page.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"PATCH /files/uploads/clip HTTP/1.1\r\nHost: {host}\r\nUpload-Offset: 0\r\nContent-Length: {2 * MIB}\r\n\r\n"
        writer.write(head.encode() + b"x" * (MIB + 400))
        async with asyncio.timeout(10):
            await gateway.arrived.wait()
            writer.close()
            await gateway.written.wait()
    assert len(gateway.uploads["clip"].data) >= MIB
    assert not gateway.uploads["clip"].complete


async def test_a_piece_at_the_wrong_place_is_a_conflict() -> None:
    async with browsing(FakeGateway()) as client:
        await client.put("/files/uploads/clip", json={"filename": "a.mp4", "size_bytes": 100})
        answer = await client.patch("/files/uploads/clip", content=b"x", headers={"Upload-Offset": "7"})
    assert (answer.status_code, answer.json()["reason"]) == (409, "ChunkOutOfOrder")


async def test_a_piece_that_is_too_large_is_refused_whether_its_size_is_declared_or_not() -> None:
    async def pieces():  # type: ignore[no-untyped-def]
        for _ in range(3):
            yield b"x" * 40_000

    async with browsing(FakeGateway(), max_piece_bytes=65_536) as client:
        await client.put("/files/uploads/clip", json={"filename": "a.mp4", "size_bytes": 200_000})
        declared = await client.patch("/files/uploads/clip", content=b"x" * 65_537, headers={"Upload-Offset": "0"})
        streamed = await client.patch("/files/uploads/clip", content=pieces(), headers={"Upload-Offset": "0"})
    assert (declared.status_code, streamed.status_code) == (413, 413)


async def test_a_file_over_the_limit_is_refused_before_and_while_it_arrives() -> None:
    async with browsing(FakeGateway(), max_upload_bytes=100) as client:
        before = await client.put("/files/uploads/clip", json={"filename": "a.mp4", "size_bytes": 101})
        await client.put("/files/uploads/clip", json={"filename": "a.mp4", "size_bytes": 100})
        during = await client.patch("/files/uploads/clip", content=b"x" * 60, headers={"Upload-Offset": "60"})
    assert (before.status_code, during.status_code) == (413, 413)
    assert "at most 100 bytes" in before.json()["error"]


async def test_a_wrong_beginning_is_refused_in_words() -> None:
    wrong = [
        (b"not json", "JSON"), (b"[]", "file name"), (b'{"filename": "", "size_bytes": 1}', "file name"),
        (b'{"filename": "a", "size_bytes": "1"}', "size"), (b'{"filename": "a", "size_bytes": 0}', "empty"),
        (b'{"filename": "a", "size_bytes": true}', "size"), (b'{"filename": "\\ud800", "size_bytes": 1}', "file name"),
        (b"[" * 16_000, "JSON"),
    ]  # fmt: skip
    async with browsing(FakeGateway()) as client:
        for body, words in wrong:
            answer = await client.put("/files/uploads/clip", content=body)
            assert answer.status_code == 400, body
            assert words in answer.json()["error"]


async def test_a_beginning_larger_than_any_is_refused() -> None:
    async with browsing(FakeGateway()) as client:
        assert (await client.put("/files/uploads/clip", content=b" " * 20_000)).status_code == 413


async def test_an_offset_that_is_no_number_is_refused() -> None:
    async with browsing(FakeGateway()) as client:
        for offset in (None, "", "-1", "1.5", "٣", "9" * 30):
            headers = {"Upload-Offset": offset.encode()} if offset is not None else {}
            answer = await client.patch("/files/uploads/clip", content=b"x", headers=headers)
            assert answer.status_code == 400, offset


async def test_an_id_that_can_not_be_one_never_reaches_the_gateway() -> None:
    async with browsing(FakeGateway()) as client:
        for name in ("-a", "A", "a%2Fb", "x" * 64):
            for path in (f"/files/uploads/{name}", f"/files/jobs/{name}/result", f"/files/jobs/{name}/frames/result/0.png"):
                answer = await client.get(path)
                assert answer.status_code in (400, 404), path
                assert answer.status_code == 400 or "no such" not in answer.text


async def test_a_number_beyond_all_numbers_is_no_error_of_ours() -> None:
    async with browsing(FakeGateway()) as client:
        for number in ("9" * 20, "9" * 5000, "-1", "x"):
            for path in (f"frames/result/{number}.png", f"hls/{number}.mp4"):
                assert (await client.get(f"/files/jobs/one/{path}")).status_code == 404, path
        assert (await client.get("/files/jobs/one/frames/result/0.png", params={"max_side": "9" * 5000})).status_code == 400


async def test_an_upload_can_be_removed() -> None:
    gateway = FakeGateway()
    async with browsing(gateway) as client:
        await upload(client, b"x")
        assert (await client.delete("/files/uploads/clip")).status_code == 204
        assert (await client.get("/files/uploads/clip")).status_code == 404
    assert not gateway.uploads


async def test_what_the_gateway_says_reaches_the_browser() -> None:
    gateway = FakeGateway()
    gateway.write_limit_bytes = 1
    async with browsing(gateway) as client:
        await client.put("/files/uploads/clip", json={"filename": "a.mp4", "size_bytes": 100})
        answer = await client.patch("/files/uploads/clip", content=b"x" * 10, headers={"Upload-Offset": "0"})
    assert answer.status_code == 503
    assert answer.json() == {"error": "The store went away.", "reason": StoreUnavailable.__name__, "retryable": True}


async def test_a_result_is_sent_whole_in_part_and_not_at_all() -> None:
    gateway = FakeGateway()
    async with browsing(gateway) as client:
        data = await finished_job(client, gateway)
        whole = await client.get("/files/jobs/one/result")
        assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, data, "video/mp4")
        part = await client.get("/files/jobs/one/result", headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, data[10:20])
        assert part.headers["content-range"] == f"bytes 10-19/{len(data)}"
        behind = await client.get("/files/jobs/one/result", headers={"Range": f"bytes={len(data)}-"})
        assert (behind.status_code, behind.headers["content-range"]) == (416, f"bytes */{len(data)}")
        head = await client.head("/files/jobs/one/result")
        assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(data)), b"")


async def test_a_browser_that_has_the_result_already_gets_no_bytes() -> None:
    gateway = FakeGateway()
    async with browsing(gateway) as client:
        data = await finished_job(client, gateway)
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        assert (await client.get("/files/jobs/one/result", headers={"If-None-Match": etag})).status_code == 304
        same = await client.get("/files/jobs/one/result", headers={"Range": "bytes=0-0", "If-Range": etag})
        other = await client.get("/files/jobs/one/result", headers={"Range": "bytes=0-0", "If-Range": '"older"'})
    assert (same.status_code, other.status_code) == (206, 200)


async def test_the_source_is_sent_by_range_too() -> None:
    gateway = FakeGateway()
    async with browsing(gateway) as client:
        data = await finished_job(client, gateway)
        part = await client.get("/files/jobs/one/source", headers={"Range": "bytes=-5"})
    assert (part.status_code, part.content) == (206, data[-5:])


async def test_a_download_keeps_its_name_whatever_is_in_it() -> None:
    gateway = FakeGateway()
    async with browsing(gateway) as client:
        await finished_job(client, gateway, filename='größe "1".mp4')
        answer = await client.get("/files/jobs/one/result?download=1")
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"restored-gr__e _1_.mp4\"; filename*=UTF-8''restored-gr%C3%B6%C3%9Fe%20%221%22.mp4"
    )


async def test_an_upload_that_calls_itself_a_page_is_sent_as_bytes() -> None:
    gateway = FakeGateway()
    gateway.media_type = "text/html"
    async with browsing(gateway) as client:
        await finished_job(client, gateway)
        answer = await client.get("/files/jobs/one/source")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_frame_is_a_png_of_the_result_or_the_source() -> None:
    gateway = FakeGateway()
    async with browsing(gateway) as client:
        await finished_job(client, gateway)
        for side in ("source", "result"):
            answer = await client.get(f"/files/jobs/one/frames/{side}/3.png?max_side=64")
            assert answer.headers["content-type"] == "image/png"
            assert answer.content.startswith(b"\x89PNG")
        assert (await client.get("/files/jobs/one/frames/plan/3.png")).status_code == 404
        assert (await client.get("/files/jobs/one/frames/result/99.png")).status_code == 416
        assert (await client.get("/files/jobs/one/frames/result/3.png?max_side=5000")).status_code == 400


async def test_a_playlist_and_its_segments_are_found_beside_each_other() -> None:
    gateway = FakeGateway()
    async with browsing(gateway) as client:
        data = await finished_job(client, gateway)
        playlist = await client.get("/files/jobs/one/hls/index.m3u8")
        assert playlist.headers["content-type"] == "application/vnd.apple.mpegurl"
        segment = await client.get("/files/jobs/one/hls/0.mp4")
    assert "\n0.mp4\n" in playlist.text
    assert segment.content == data


async def test_a_missing_gateway_is_said_in_words_and_can_be_tried_again() -> None:
    async with (
        served_host("127.0.0.1:1", gateway_timeout_s=0.3) as page,
        httpx.AsyncClient(base_url=page, timeout=20) as client,
    ):
        answer = await client.get("/files/uploads/clip")
    assert answer.status_code == 503
    assert "can't be reached" in answer.json()["error"]


async def test_bytes_and_requests_are_counted() -> None:
    gateway = FakeGateway()
    async with browsing(gateway) as client:
        data = await finished_job(client, gateway)
        await client.get("/files/jobs/one/result")
        await client.get("/files/jobs/two/result")
        metrics = (await client.get("/metrics")).text
    assert f"seedvr2_ui_upload_bytes_total {float(len(data))}" in metrics
    assert f"seedvr2_ui_download_bytes_total {float(len(data))}" in metrics
    assert 'seedvr2_ui_requests_total{route="result",status="404"} 1.0' in metrics
