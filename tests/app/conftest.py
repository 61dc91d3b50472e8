"""A trained run, and the app as its users have it: a process of its own, and a page in Chromium."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import psutil
import pytest

import unnoise
from tiny import TINY, train_folder

pytest.importorskip("gradio", reason="needs the extra `app`")


@pytest.fixture(scope="package")
def run(tmp_path_factory):
    """Return the folder of a run whose sampler makes 8 steps."""
    out = tmp_path_factory.mktemp("app") / "run"
    return train_folder("faces:count=64", size="16", images="64", out=str(out), **{**TINY, "steps": 8})


@pytest.fixture(scope="package")
def student(run, tmp_path_factory):
    """Return the folder of a student of the run, which draws in one step."""
    out = tmp_path_factory.mktemp("app") / "student"
    return Path(unnoise.distill(run, steps=1, images="16", out=str(out)))


class App:
    """A process of `unnoise app`."""

    def __init__(self, run, log):
        with log.open("w") as file:
            command = [sys.executable, "-m", "unnoise", "app", str(run), "--no-browser"]
            self.process = subprocess.Popen(command, stdout=file, stderr=file)
        begun = time.monotonic()
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() - begun < 120
            time.sleep(0.1)
        self.url = found[0]

    def stop(self):
        """Ask the process to end, and wait until it has."""
        self.process.terminate()
        self.process.wait(30)

    def memory(self):
        """Return the bytes of memory that the process has now."""
        return psutil.Process(self.process.pid).memory_info().rss

    def request(self, path, data=None, headers=None):
        """Return the status and the body of the answer to a request."""
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers or {})) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def config(self):
        """Return Gradio's description of the page."""
        return json.loads(self.request("/config")[1])

    def upload(self, name, content):
        """Upload a file as the page does; return the status and the body of the answer."""
        edge = uuid.uuid4().hex
        body = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        body += content + f"\r\n--{edge}--\r\n".encode()
        return self.request("/gradio_api/upload", body, {"Content-Type": f"multipart/form-data; boundary={edge}"})

    def press(self, button, *given):
        """Return true if the work behind a button succeeds; inputs that are not given have their first values."""
        config, session = self.config(), uuid.uuid4().hex
        parts = {part["id"]: part for part in config["components"]}
        event = next(
            event
            for event in config["dependencies"]
            if event["targets"][0][1] == "click" and parts[event["targets"][0][0]]["props"].get("value") == button
        )
        rest = [parts[i]["props"].get("value") for i in event["inputs"][len(given) :]]
        about = {"data": [*given, *rest], "fn_index": event["id"], "session_hash": session}
        body, kind = json.dumps({**about, "event_data": None, "trigger_id": event["targets"][0][0]}), "application/json"
        assert self.request("/gradio_api/queue/join", body.encode(), {"Content-Type": kind})[0] == 200
        with urllib.request.urlopen(f"{self.url}/gradio_api/queue/data?session_hash={session}", timeout=300) as lines:
            for line in lines:
                message = json.loads(line[5:]) if line.startswith(b"data:") else {"msg": ""}
                if message["msg"] == "process_completed":
                    return message["success"]
        return None


@pytest.fixture
def start_app():
    """Return a function that starts the app of a run, with a file for its log; every app is stopped at the end."""
    apps = []

    def start(run, log):
        apps.append(App(run, log))
        return apps[-1]

    yield start
    for app in apps:
        app.stop()


@pytest.fixture(scope="package")
def app(run, tmp_path_factory):
    app = App(run, tmp_path_factory.mktemp("log") / "app.log")
    yield app
    app.stop()


@pytest.fixture
def page(browser, app):
    """Yield a new page of the app; `page.asked` lists the addresses that it requests."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)  # for a busy machine
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(app.url)
    page.get_by_role("tab", name="Draw").wait_for()
    yield page
    page.close()
