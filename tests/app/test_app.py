"""The app as its users have it: a process of its own, driven in Chromium, and asked for what it must not give."""

import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import unnoise
from tiny import train_folder
from unnoise.app import actions as acts
from unnoise.app.training_view import training_view
from unnoise.checkpoint import load
from unnoise.errors import InputError

pytest.importorskip("gradio", reason="needs the extra `app`")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser_only = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
OPTIONS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"
NETWORK = "unet:widths=8,layers=1,groups=4,head=8"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_folder(
        "faces:count=64",
        size="16",
        images="64",
        batch=8,
        steps=8,
        backbone=NETWORK,
        precision="fp32",
        out=str(tmp_path_factory.mktemp("app") / "run"),
    )


# What it does, without a page


def test_frames_end_in_the_pictures_of_unnoise_sample(run):
    opened = load(run)
    *_, last = acts.sampled(opened, {"n": 3, "seed": 5, "steps": 4})
    assert (last.done, last.steps) == (4, 4)
    assert_close(last.x, unnoise.sample(run, 3, seed=5, steps=4))


def test_one_noise_for_all_samplers(run):
    rows = [row for row in acts.compared(load(run), ["ddim", "dpmpp_1s"], {"n": 2, "seed": 0, "steps": 4}) if row.done]
    assert [row.sampler for row in rows] == ["ddim", "dpmpp_1s"]
    assert_close(rows[0].images, rows[1].images, atol=1e-4, rtol=0)  # the same method, written in two ways


def test_noised_pictures_are_those_of_the_forward_process(run):
    opened, x0 = load(run), torch.linspace(-1, 1, 768).view(3, 16, 16)
    images, times = acts.noised(opened, x0, 5)
    assert times == sorted(times)
    assert times[-1] == opened.model.schedule.T - 1
    eps = (images[-1:] - opened.model.schedule.level(times[-1]).alpha.float() * x0) / opened.model.schedule.level(
        times[-1]
    ).sigma.float()
    for image, time_ in zip(images, times, strict=True):
        level = opened.model.schedule.level(time_)
        assert_close(image, (level.alpha.float() * x0 + level.sigma.float() * eps[0]), atol=1e-4, rtol=0)


def test_the_nearest_training_image_of_a_training_image_is_itself(run):
    dataset = acts.training_images(load(run))
    some = torch.from_numpy(dataset.read(np.array([3, 7]))) / 127.5 - 1
    assert_close(acts.nearest_seen(load(run), some + 0.01), some)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"n": 65}, "1 to 64 pictures"), ({"n": 64, "steps": 900}, "at most 20,000"), ({"n": 0}, "1 or more")],
)
def test_too_much_is_refused(run, settings, said):
    with pytest.raises(InputError, match=said):
        next(acts.sampled(load(run), settings))


def test_what_an_edit_costs_is_counted_with_its_resamplings(run):
    settings = {"n": 16, "task": "deblur", "steps": 500}
    acts.edited(load(run), {**settings, "by": "replace"}, (torch.zeros(3, 16, 16),))
    with pytest.raises(InputError, match="16 pictures of 2500 network calls"):
        acts.edited(load(run), {**settings, "by": "repaint"}, (torch.zeros(3, 16, 16),))


def test_other_data_is_not_called_that_of_the_training(run, tmp_path, monkeypatch):
    opened = load(run)
    opened.card.data["fingerprint"] = "another"
    with pytest.raises(InputError, match="no longer what this run was trained on"):
        acts.training_images(opened)


def test_a_run_is_watched_by_its_files(run, tmp_path):
    card = load(run).card
    assert "finished" in training_view(run, card)
    assert "no training log" in training_view(tmp_path, card)
    shutil.copytree(run, going := tmp_path / "going")
    (going / "metrics.jsonl").write_text('{"images": 16, "seconds": 3.0, "loss": 0.5, "images_per_second": 5.0}\n{"im')
    assert "25%: 16 images in 0:03, loss 0.5000, 5 images/s; 0:09 left" in training_view(going, card)


# As a page


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

    def memory(self):
        return psutil.Process(self.process.pid).memory_info().rss

    def status(self, path, data=None, headers=None):
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers or {})) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def upload(self, name, content):
        edge = uuid.uuid4().hex
        body = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        body += content + f"\r\n--{edge}--\r\n".encode()
        return self.status("/gradio_api/upload", body, {"Content-Type": f"multipart/form-data; boundary={edge}"})

    def press(self, button, *given):
        """Whether the work behind a button succeeds; what else it is given is as the page has it at first."""
        config, session = json.loads(self.status("/config")[1]), uuid.uuid4().hex
        parts = {part["id"]: part for part in config["components"]}
        event = next(
            event
            for event in config["dependencies"]
            if event["targets"][0][1] == "click" and parts[event["targets"][0][0]]["props"].get("value") == button
        )
        rest = [parts[i]["props"].get("value") for i in event["inputs"][len(given) :]]
        about = {"data": [*given, *rest], "fn_index": event["id"], "session_hash": session}
        body, kind = json.dumps({**about, "event_data": None, "trigger_id": event["targets"][0][0]}), "application/json"
        assert self.status("/gradio_api/queue/join", body.encode(), {"Content-Type": kind})[0] == 200
        with urllib.request.urlopen(f"{self.url}/gradio_api/queue/data?session_hash={session}", timeout=300) as lines:
            for line in lines:
                said = json.loads(line[5:]) if line.startswith(b"data:") else {"msg": ""}
                if said["msg"] == "process_completed":
                    return said["success"]
        return None


@pytest.fixture(scope="module")
def app(run, tmp_path_factory):
    app = App(run, tmp_path_factory.mktemp("log") / "app.log")
    yield app
    app.process.terminate()
    app.process.wait(20)


@pytest.fixture(scope="module")
def browser():
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS.split())
        yield browser
        browser.close()


@pytest.fixture
def page(browser, app):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)  # for a busy machine
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(app.url)
    page.get_by_role("tab", name="Draw").wait_for()
    yield page
    page.close()


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def press(page, name):
    page.get_by_role("button", name=re.compile(f"^{name}( .)?$")).locator("visible=true").click()


def slide(page, label, value):
    box = page.get_by_label(f"number input for {label}").locator("visible=true")
    box.fill(str(value))
    box.press("Tab")


def files(page, name):
    return page.locator(f"a[download='{name}']").locator("visible=true")


def downloaded(page, name):
    with page.expect_download() as caught:
        files(page, name).click()
    return caught.value.path().read_bytes()


def pictures(page):
    """By name, those of the archive that is handed out."""
    with zipfile.ZipFile(io.BytesIO(downloaded(page, "pictures.zip"))) as archive:
        return {name: np.asarray(Image.open(archive.open(name))) for name in archive.namelist()}


def shown(page):
    return page.locator("img[src*='image.png']").locator("visible=true").first


@pytest.mark.slow
@browser_only
def test_pictures_are_drawn_while_one_looks_on(page, run):
    slide(page, "Pictures", 4)
    press(page, "Sampler")
    slide(page, "Steps", 200)
    press(page, "Draw")
    seen, begun = set(), time.monotonic()
    while not files(page, "pictures.zip").count():
        assert time.monotonic() - begun < 120
        if found := re.search(r"step (\d+) of 200", page.inner_text("body")):
            seen.add(int(found[1]))
        page.wait_for_timeout(20)
    assert len(seen) > 1
    made = pictures(page)
    assert list(made) == [f"{i:06d}.png" for i in range(4)]
    expected = unnoise.sample(run, 4, steps=200)[2].permute(1, 2, 0).numpy()
    assert np.abs(made["000002.png"] / 127.5 - 1 - expected).max() < 0.03
    assert [url for url in page.asked if "127.0.0.1" not in url] == []  # nobody else is asked for anything
    press(page, "Beside the nearest training images")
    page.locator("img[src*='image.png']").nth(1).wait_for()


@pytest.mark.slow
@browser_only
def test_the_slider_of_the_film_shows_the_steps(page):
    tab(page, "Film")
    press(page, "Draw")
    files(page, "film.gif").wait_for()
    sources = set()
    for step in (1, 4, 8):
        before = shown(page).get_attribute("src")
        slide(page, "Step", step)
        page.wait_for_timeout(1000)
        sources.add(shown(page).get_attribute("src"))
        assert step == 8 or shown(page).get_attribute("src") != before
    assert len(sources) == 3


@pytest.mark.slow
@browser_only
def test_what_is_painted_is_filled_in_and_nothing_else(page, tmp_path):
    given = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(given).save(tmp_path / "given.png")
    tab(page, "Edit")
    with page.expect_response("**/gradio_api/run/*"):  # the picture comes back as the run takes it
        page.locator("#editor input[type=file]").first.set_input_files(tmp_path / "given.png")
    page.get_by_label("fill in what is painted").click()
    page.wait_for_timeout(2000)  # a canvas tells nobody when it is drawn
    box = page.locator("#editor canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 30, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=8)
    page.mouse.up()
    slide(page, "Pictures", 2)
    press(page, "Edit")
    files(page, "pictures.zip").wait_for()
    made = pictures(page)
    changed = [(picture != given).any(axis=2) for picture in made.values()]
    assert len(made) == 2
    assert 2 <= changed[0].sum() <= 60
    rows, columns = np.nonzero(changed[0] | changed[1])
    assert 5 <= rows.min() <= rows.max() <= 10  # a stroke across the middle
    assert columns.max() - columns.min() >= 2


@pytest.mark.slow
@browser_only
def test_what_is_no_picture_is_refused_in_words(page, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    tab(page, "Noise")
    page.locator("input[type=file]").last.set_input_files(tmp_path / "bad.png")
    page.wait_for_timeout(1000)
    press(page, "Noise it")
    page.locator(".toast-body").first.wait_for()
    tab(page, "Edit")
    press(page, "Edit")
    page.get_by_text("upload a picture first").wait_for()


@pytest.mark.slow
@browser_only
def test_two_at_once_wait_for_each_other_and_one_can_stop(browser, app, page):
    other = browser.new_page()
    other.goto(app.url)
    for each, steps in ((page, 250), (other, 10)):
        slide(each, "Pictures", 64 if each is page else 2)
        press(each, "Sampler")
        slide(each, "Steps", steps)
        press(each, "Draw")
    other.get_by_text(re.compile("queue|processing", re.IGNORECASE)).first.wait_for()
    page.get_by_text(re.compile(r"step \d+ of 250")).wait_for()
    press(page, "Stop")
    files(other, "pictures.zip").wait_for()  # its turn has come
    assert files(page, "pictures.zip").count() == 0
    slide(page, "Pictures", 1)
    slide(page, "Steps", 2)
    press(page, "Draw")
    files(page, "pictures.zip").wait_for()  # and it can be used again
    other.close()


# What it must not give


def test_nothing_of_the_disk_is_served(app, run):
    secret = run / "config.yaml"
    assert app.status("/")[0] == 200
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
        status, body = app.status(path)
        assert status >= 400, path
        assert b"root:" not in body
        assert b"backbone" not in body


def test_uploads_are_bounded(app):
    assert app.upload("fine.png", b"x" * 1000)[0] == 200
    assert app.upload("large.png", b"x" * 21_000_000)[0] == 413
    status, body = app.upload("../../escape.png", b"x")
    assert status >= 400 or b".." not in body
    assert app.status("/")[0] == 200


def test_it_answers_to_no_other_name(app):
    assert app.status("/config")[0] == 200
    assert app.status("/config", headers={"Host": "evil.example"})[0] == 400


def test_the_editor_takes_nothing_but_uploads(app):
    """Gradio's own way for it to hand over pictures keeps them for ever, of any number."""
    config = json.loads(app.status("/config")[1])
    editor = next(part for part in config["components"] if part["type"] == "imageeditor")
    edge, body = "edge", ""
    for name, value in {"id": "1", "type": "layer", "index": "40000000"}.items():
        body += f'--{edge}\r\nContent-Disposition: form-data; name="data[{name}]"\r\n\r\n{value}\r\n'
    for name, value in {"component_id": editor["id"], "fn_name": "accept_blobs", "session_hash": "x"}.items():
        body += f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
    body += f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--{edge}--\r\n'
    before = app.memory()
    headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    assert app.status("/gradio_api/component_server", body.encode(), headers)[0] == 404
    assert app.memory() - before < 50 * 2**20


def at_once(work, count):
    """What each of so many threads returns."""
    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(work, range(count))]


@pytest.mark.slow
def test_fifty_at_once_lose_nothing(app):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    app.press("Draw", 4, 0)
    before = app.memory()
    assert at_once(lambda i: app.upload(f"{i}.png", buffer.getvalue())[0], 50) == [200] * 50
    assert at_once(lambda i: app.press("Draw", 4, i), 50) == [True] * 50
    assert app.memory() - before < 200 * 2**20


def test_pictures_that_grow_when_they_are_opened_are_refused(app):
    """A file of a hundred kilobytes that would take a gigabyte."""
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 200_000
    (path,) = json.loads(app.upload("bomb.png", buffer.getvalue())[1])
    before = app.memory()
    given = {"path": path, "orig_name": "bomb.png", "meta": {"_type": "gradio.FileData"}}
    assert app.press("Noise it", given) is False
    assert app.memory() - before < 100 * 2**20
    (path,) = json.loads(app.upload("other.png", b"%!PS-Adobe-3.0 EPSF-3.0")[1])
    assert app.press("Noise it", {**given, "path": path}) is False
    assert app.press("Noise it", {**given, "path": "/etc/hostname"}) is not True
    assert app.press("Draw", 1, 0) is True


def test_it_listens_on_loopback_alone(app):
    listening = [c.laddr.ip for c in psutil.Process(app.process.pid).net_connections() if c.status == "LISTEN"]
    assert set(listening) == {"127.0.0.1"}


@pytest.mark.slow
def test_its_folder_ends_with_it(run, tmp_path):
    before = {*Path(tempfile.gettempdir()).glob("unnoise-app-*")}
    app = App(run, tmp_path / "log")
    assert len({*Path(tempfile.gettempdir()).glob("unnoise-app-*")} - before) == 1
    app.process.terminate()
    app.process.wait(30)
    assert not {*Path(tempfile.gettempdir()).glob("unnoise-app-*")} - before


@pytest.mark.slow
def test_a_taken_port_is_refused_in_one_line(app, run):
    port = app.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "unnoise", "app", str(run), "--no-browser", "--port", port],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert f"port {port} cannot be had" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"classes": True}, {"sampler": "ddpm", "steps": 1000, "spacing": "trailing"}])
def test_every_run_has_its_page(settings, tmp_path):
    """Of classes, and of more steps than others usually take."""
    run = train_folder("faces:count=40", size="16", images="8", batch=8, backbone=NETWORK, precision="fp32",
                        out=str(tmp_path / "run"), **settings)  # fmt: skip
    app = App(run, tmp_path / "log")
    parts = json.loads(app.status("/config")[1])["components"]
    app.process.terminate()
    app.process.wait(30)
    sliders = [part["props"] for part in parts if part["type"] == "slider"]
    assert len(sliders) > 5
    assert all(slider["minimum"] <= slider["value"] <= slider["maximum"] for slider in sliders)
    classes = [part for part in parts if part["type"] == "dropdown" and part["props"]["label"] == "Class"]
    assert len(classes) == (5 if "classes" in settings else 0)
