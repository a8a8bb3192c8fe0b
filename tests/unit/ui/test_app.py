import re

import httpx
import pytest

from tests.unit.ui.fake_gateway import FakeGateway, served
from tests.unit.ui.serving import browsing, served_host, served_page


async def test_the_page_is_served_with_health_and_metrics_beside_it() -> None:
    async with (
        served(FakeGateway()) as address,
        served_page(address) as page,
        httpx.AsyncClient(base_url=page, timeout=20) as client,
    ):
        home = await client.get("/")
        assert home.status_code == 200
        assert "SeedVR2" in home.text
        assert (await client.get("/healthz")).text == "ok\n"
        assert (await client.get("/readyz")).json() == {"gateway": "0.1.0"}
        metrics = await client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        assert "seedvr2_ui_jobs_total 0.0" in metrics.text
        await every_asset_is_there(client, home.text)
        await what_gradio_brings_besides_is_closed(client)


async def every_asset_is_there(client: httpx.AsyncClient, home: str) -> None:
    names = re.findall(r"(/ui/[a-z.]+\?v=[0-9a-f]+)", home)
    assert {name.split("?")[0] for name in names} == {"/ui/page.css", "/ui/page.js", "/ui/upload.js", "/ui/player.js"}
    for name in [*names, "/ui/logo.svg", "/ui/upload.svg", "/favicon.ico", "/theme.css"]:
        assert (await client.get(name)).status_code == 200, name


async def what_gradio_brings_besides_is_closed(client: httpx.AsyncClient) -> None:
    paths = [
        "/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://example.org/", "/gradio_api/stream/a",
        "/gradio_api/runs", "/gradio_api/openapi.json", "/monitoring", "/docs", "/openapi.json", "/gradio_api/process_recording",
        "/gradio_api/custom_component/a/client/b/c.js", "/login/", "/logout/",
    ]  # fmt: skip
    for path in paths:
        assert (await client.get(path)).status_code == 404, path
        assert (await client.post(path, content=b"x")).status_code == 404, path
    assert (await client.get("/gradio_api/info")).json() == {"named_endpoints": {}, "unnamed_endpoints": {}}


async def test_no_answer_lets_a_browser_go_to_another_host() -> None:
    async with browsing(FakeGateway()) as client:
        for path in ("/healthz", "/files/uploads/none", "/nothing"):
            headers = (await client.get(path)).headers
            assert "default-src 'self'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"


async def test_pages_of_other_sites_can_change_nothing() -> None:
    gateway = FakeGateway()
    async with browsing(gateway) as client:
        begin = {"filename": "a.mp4", "size_bytes": 5}
        for site in ("cross-site", "same-site"):
            answer = await client.put("/files/uploads/clip", json=begin, headers={"Sec-Fetch-Site": site})
            assert answer.status_code == 403
        assert not gateway.uploads
        own = await client.put("/files/uploads/clip", json=begin, headers={"Sec-Fetch-Site": "same-origin"})
        assert own.status_code == 200
        asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "PUT"}
        allowed = await client.options("/files/uploads/clip", headers=asked)
        assert "access-control-allow-origin" not in allowed.headers


async def test_the_page_is_not_taken_for_a_site_whose_name_was_made_lead_here() -> None:
    async with browsing(FakeGateway()) as client:
        for path in ("/healthz", "/files/uploads/clip"):
            assert (await client.get(path, headers={"Host": "site.example"})).status_code == 421
    async with browsing(FakeGateway(), hosts=("site.example",)) as client:
        assert (await client.get("/healthz", headers={"Host": "site.example"})).status_code == 200


async def test_without_a_gateway_the_process_is_up_but_not_ready() -> None:
    async with (
        served_host("127.0.0.1:1", gateway_timeout_s=0.3) as page,
        httpx.AsyncClient(base_url=page, timeout=20) as client,
    ):
        assert (await client.get("/healthz")).status_code == 200
        ready = await client.get("/readyz")
    assert ready.status_code == 503
    assert "can't be reached" in ready.json()["error"]


@pytest.mark.parametrize("prefix", ["", "/restore"], ids=["stripped by the proxy", "left by the proxy"])
async def test_a_published_path_works_whether_the_proxy_strips_it_or_not(prefix: str) -> None:
    async with (
        served(FakeGateway()) as address,
        served_page(address, root_path="/restore") as page,
        httpx.AsyncClient(base_url=page, timeout=20) as client,
    ):
        home = await client.get(f"{prefix}/")
        assert home.status_code == 200
        assert f'"root":"{page}/restore"' in home.text.replace(" ", "")
        assert "/restore/ui/page.css" in home.text
        for path in ("/healthz", "/ui/page.css", "/theme.css", "/gradio_api/startup-events"):
            assert (await client.get(f"{prefix}{path}")).status_code == 200, path
        assert (await client.get(f"{prefix}/files/uploads/none")).json()["reason"] == "UploadNotFound"
        assert (await client.get(f"{prefix}/gradio_api/upload")).status_code == 404
