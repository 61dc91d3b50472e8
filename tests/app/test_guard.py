"""Other web pages cannot use the app, and uploads are bounded."""

import asyncio
import json
import os
import time

import pytest

pytest.importorskip("gradio", reason="needs the extra `app`")

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from unnoise.app import guard
from unnoise.app.guard import BoundedUploads
from unnoise.app.page import guards

CROSS = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}


@pytest.fixture
def client(tmp_path):
    """Return a client of a server that keeps uploads as Gradio does, in a folder for each."""

    async def upload(request):
        content = await request.body()
        (folder := tmp_path / content[:20].decode().strip()).mkdir(exist_ok=True)
        (folder / "image.png").write_bytes(content)
        return JSONResponse([str(folder / "image.png")])

    async def page(_):
        return PlainTextResponse("the page")

    routes = [Route("/", page), Route("/gradio_api/upload", upload, methods=["POST"])]
    return TestClient(Starlette(routes=routes, middleware=guards(tmp_path)), base_url="http://127.0.0.1:7860")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8888"},
        {"Origin": "http://127.0.0.1:7860.evil.example"},
        {"Origin": "http://127.0.0.1:7860@evil.example"},
        {"Origin": "http://127.0.0.1:7860", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8888"},
        CROSS,
    ],
    ids=str,
)
def test_another_page_uploads_nothing(client, tmp_path, headers):
    assert client.post("/gradio_api/upload", content=b"x", headers=headers).status_code == 403
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:7860"},
        {"Origin": "https://hub.example", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_the_own_page_and_programs_upload(client, headers):
    """A proxy in front of the app may change the host; the browser still says that the page asks its own server."""
    assert client.post("/gradio_api/upload", content=b"x", headers=headers).status_code == 200


def test_a_name_that_is_bound_to_this_machine_is_refused(client):
    """DNS rebinding: for the browser, the page of a stranger and this server are one origin."""
    headers = {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/gradio_api/upload", content=b"x", headers=headers).status_code == 400
    assert client.get("/", headers=headers).status_code == 400


def test_a_link_elsewhere_may_open_the_page(client):
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}).status_code == 403


def test_a_request_of_unknown_or_great_size_is_refused(client):
    assert client.post("/gradio_api/upload", content=iter([b"x"])).status_code == 411
    for length in (guard.MAX_REQUEST + 1, 10**30):
        headers = {"Content-Length": str(length)}
        assert client.post("/gradio_api/upload", content=b"x", headers=headers).status_code == 413


@pytest.mark.parametrize(("files", "size"), [(3, 10**9), (10**9, 3 * 1000)])
def test_the_oldest_uploads_are_deleted(client, tmp_path, monkeypatch, files, size):
    monkeypatch.setattr(guard, "MAX_UPLOADS", files)
    monkeypatch.setattr(guard, "MAX_UPLOADED", size)
    for i in (0, 1, 2, 0, 3, 4):  # the first one is uploaded again
        assert client.post("/gradio_api/upload", content=f"{i}".ljust(1000).encode()).status_code == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "3", "4"]


def test_uploads_that_were_broken_off_are_deleted(client, tmp_path):
    for name, age in (("tmpold", 100), ("tmpnew", 0)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    client.post("/gradio_api/upload", content=b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tmpnew", "x"]


def test_few_uploads_are_received_at_a_time(tmp_path):
    now, most = 0, 0

    async def server(_scope, _receive, send):
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.01)
        now -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps([]).encode()})

    async def all_at_once():
        bounded = BoundedUploads(server, tmp_path)
        scope = {"type": "http", "method": "POST", "path": "/upload", "headers": [(b"content-length", b"1")]}
        sent = []

        async def send(message):
            sent.append(message)

        await asyncio.gather(*(bounded(scope, None, send) for _ in range(20)))
        return len(sent)

    assert asyncio.run(all_at_once()) == 40
    assert most == guard.AT_ONCE
