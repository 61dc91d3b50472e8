"""The server, asked for what it must not give."""

import io
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from PIL import Image


def test_no_file_of_the_disk_is_served(app, run):
    secret = run / "config.yaml"
    assert app.request("/")[0] == 200
    for path in (
        f"/gradio_api/file={secret}",
        f"/gradio_api/file={run}/../run/config.yaml",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file=file:///etc/passwd",
        "/static/../../../../etc/passwd",
        "/assets/..%2f..%2f..%2fetc/passwd",
        "/gradio_api/proxy=http://127.0.0.1:1/",
    ):
        status, body = app.request(path)
        assert status >= 400, path
        assert b"root:" not in body
        assert b"backbone" not in body


def test_uploads_are_bounded(app):
    assert app.upload("fine.png", b"x" * 1000)[0] == 200
    assert app.upload("large.png", b"x" * 21_000_000)[0] == 413
    status, body = app.upload("../../escape.png", b"x")
    assert status >= 400 or b".." not in body
    assert app.request("/")[0] == 200


def test_the_server_answers_to_no_other_host_name(app):
    assert app.request("/config")[0] == 200
    assert app.request("/config", headers={"Host": "evil.example"})[0] == 400


def test_other_web_pages_cannot_use_the_app(app):
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}):
        for path in ("/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/component_server"):
            assert app.request(path, b"{}", headers)[0] == 403
    assert app.request("/config", headers={"Origin": app.url})[0] == 200


def test_all_uploads_together_are_bounded(app):
    files = {json.loads(app.upload(f"{i}.png", str(i).encode())[1])[0] for i in range(110)}
    assert len(files) == 110
    assert sum(Path(path).exists() for path in files) <= 100


def test_the_editor_takes_uploads_alone(app):
    """Gradio's editor has another way to send images; it keeps any number of them for ever."""
    editor = next(part for part in app.config()["components"] if part["type"] == "imageeditor")
    edge, body = "edge", ""
    for name, value in {"id": "1", "type": "layer", "index": "40000000"}.items():
        body += f'--{edge}\r\nContent-Disposition: form-data; name="data[{name}]"\r\n\r\n{value}\r\n'
    for name, value in {"component_id": editor["id"], "fn_name": "accept_blobs", "session_hash": "x"}.items():
        body += f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
    body += f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--{edge}--\r\n'
    before = app.memory()
    headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    assert app.request("/gradio_api/component_server", body.encode(), headers)[0] == 404
    assert app.memory() - before < 50 * 2**20


def in_threads(work, count):
    """Call work(i) for each i below `count`, all at the same time; return the results."""
    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(work, range(count))]


@pytest.mark.slow
def test_fifty_requests_at_once_all_succeed(app):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    app.press("Draw", 4, 0)
    before = app.memory()
    assert in_threads(lambda i: app.upload(f"{i}.png", buffer.getvalue())[0], 50) == [200] * 50
    assert in_threads(lambda i: app.press("Draw", 4, i), 50) == [True] * 50
    assert app.memory() - before < 200 * 2**20


def test_an_image_that_decodes_to_a_gigabyte_is_refused(app):
    """The file has a hundred kilobytes."""
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 200_000
    (path,) = json.loads(app.upload("bomb.png", buffer.getvalue())[1])
    before = app.memory()
    given = {"path": path, "orig_name": "bomb.png", "meta": {"_type": "gradio.FileData"}}
    assert app.press("Add noise", given) is False
    assert app.memory() - before < 100 * 2**20
    (path,) = json.loads(app.upload("other.png", b"%!PS-Adobe-3.0 EPSF-3.0")[1])
    assert app.press("Add noise", {**given, "path": path}) is False
    assert app.press("Add noise", {**given, "path": "/etc/hostname"}) is not True
    assert app.press("Draw", 1, 0) is True


def test_the_server_listens_on_loopback_alone(app):
    listening = [c.laddr.ip for c in psutil.Process(app.process.pid).net_connections() if c.status == "LISTEN"]
    assert set(listening) == {"127.0.0.1"}


@pytest.mark.slow
def test_the_temporary_folder_is_deleted_at_the_end(run, tmp_path, start_app):
    before = {*Path(tempfile.gettempdir()).glob("unnoise-app-*")}
    app = start_app(run, tmp_path / "log")
    assert len({*Path(tempfile.gettempdir()).glob("unnoise-app-*")} - before) == 1
    app.stop()
    assert not {*Path(tempfile.gettempdir()).glob("unnoise-app-*")} - before


@pytest.mark.slow
def test_a_port_that_is_taken_is_refused_in_one_line(app, run):
    port = app.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "unnoise", "app", str(run), "--no-browser", "--port", port],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert f"port {port} is not free" in done.stderr
    assert done.stderr.count("\n") == 1
