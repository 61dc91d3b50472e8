"""The exported page draws in a browser, from files alone, the images that `unnoise sample` draws."""

import base64
import io
import itertools

import numpy as np
import pytest
from PIL import Image

import unnoise
from exporting_helpers import drawn_by_unnoise, untrained_run
from unnoise.config import Sampling
from unnoise.errors import InputError

pytest.importorskip("onnx", reason="needs the extra `onnx`")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run with classes that can be guided, whose sampler draws noise and remembers an image."""
    more = {"classes": ("cat", "dog"), "training": {"images": 1234, "config": {"label_dropout": 0.1}}}
    how = Sampling("dpmpp_2m_sde", 5, "log_snr", guidance=2.0, guidance_interval="0.1-4")
    return untrained_run(tmp_path_factory.mktemp("web") / "run", sampling=how, **more)


@pytest.fixture(scope="module")
def folder(run):
    try:
        return unnoise.export(run, to="web", out=str(run.folder / "page"))
    except InputError as error:
        if "npm" not in str(error):
            raise
        pytest.skip(f"needs npm and its registry: {error}")


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(120_000)  # for a busy machine
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    page.close()


def open_page(page, folder):
    page.goto((folder / "index.html").as_uri())
    wait(page)


def wait(page):
    """Wait until the images are drawn."""
    page.wait_for_function(
        "() => { const status = document.getElementById('status');"
        " return status.classList.contains('wrong') || /images in|stopped/.test(status.textContent); }"
    )


def pixels(page):
    """Return the sheet on the page."""
    text = page.evaluate("document.getElementById('sheet').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2]))).convert("RGB")).astype(int)


def cut(sheet, n, height=8, width=16, gap=2):
    """Return the images of a sheet."""
    columns = int(np.ceil(np.sqrt(n)))
    tops = [gap + i // columns * (height + gap) for i in range(n)]
    lefts = [gap + i % columns * (width + gap) for i in range(n)]
    return [sheet[y : y + height, x : x + width] for y, x in zip(tops, lefts, strict=True)]


def draw_again(page, **boxes):
    for name, value in boxes.items():
        box = page.locator(f"#{name}")
        box.select_option(value) if name in ("label", "steps") else box.fill(str(value))
    page.get_by_role("button", name="Draw").click()
    wait(page)


def test_the_page_draws_the_images_of_unnoise_sample(page, folder, run, tmp_path):
    """When it opens, and with another seed, number, class, guidance and number of steps; all from its own files."""
    open_page(page, folder)
    assert page.inner_text("#name") == "run"
    assert page.inner_text("#about") == "16 x 8 pixels; trained on 1,234 images"
    cases = [
        (16, {}, {}),
        (5, {"seed": 3, "count": 5, "label": "dog"}, {"seed": 3, "label": "dog"}),
        (2, {"seed": 2**32 + 7, "count": 2, "guidance": 3.5, "steps": "10"},
         {"seed": 2**32 + 7, "label": "dog", "guidance": 3.5, "steps": 10}),
    ]  # fmt: skip
    for i, (n, boxes, settings) in enumerate(cases):
        if boxes:
            draw_again(page, **boxes)
        expected = drawn_by_unnoise(run, tmp_path / str(i), n, **settings)
        for one, other in zip(cut(pixels(page), n), expected, strict=True):
            assert np.abs(one - other).max() <= 1
    inside = (folder.as_uri(), "blob:null/")
    assert [url for url in page.asked if not url.startswith(inside)] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_film_shows_each_step_and_the_images_can_be_saved(page, folder):
    open_page(page, folder)
    last, seen = pixels(page), []
    assert page.locator("#film").get_attribute("max") == "4"
    for step in range(5):
        page.locator("#film").fill(str(step))
        seen.append(pixels(page))
    assert all((one != other).any() for one, other in itertools.pairwise(seen))
    assert (seen[-1] == last).all()
    with page.expect_download() as caught:
        page.get_by_role("button", name="Download PNG").click()
    assert caught.value.suggested_filename == "run-0.png"
    assert (np.asarray(Image.open(caught.value.path()).convert("RGB")) == last).all()


def test_a_wrong_number_is_not_drawn_and_a_drawing_can_be_stopped(page, folder):
    open_page(page, folder)
    before = page.inner_text("#status")
    page.locator("#seed").fill("-3")
    page.get_by_role("button", name="Draw").click()
    page.wait_for_timeout(300)
    assert page.inner_text("#status") == before
    page.locator("#seed").fill("1")
    page.locator("#steps").select_option("40")
    page.locator("#count").fill("64")
    page.get_by_role("button", name="Draw").click()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_function("document.getElementById('status').textContent === 'stopped'")
    page.get_by_role("button", name="Another seed").click()
    page.wait_for_function("document.getElementById('seed').value !== '1'")


@pytest.mark.parametrize("damage", ["missing", "cut off", "hostile"])
def test_a_damaged_folder_says_so(page, folder, tmp_path, damage):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model = tmp_path / "model.js"
    if damage == "missing":
        model.unlink()
    elif damage == "cut off":
        model.write_bytes(model.read_bytes()[:-1000])
    else:
        text = model.read_text()
        model.write_text(text.replace('"name": "run"', '"name": "<img src=x onerror=alert(1)>"'))
    open_page(page, tmp_path)
    if damage == "hostile":
        assert page.locator("#name img").count() == 0
        assert "images in" in page.inner_text("#status")
    else:
        assert page.inner_text("#status").startswith("The model cannot be opened")


def test_a_missing_npm_is_named_before_there_is_a_folder(run, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"needs onnxruntime-web@.*install npm"):
        unnoise.export(run, to="web", out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_another_engine_than_the_known_one_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("unnoise.exporting.web_page.from_npm", lambda: {"ort.wasm.bundle.min.mjs": b"x"})
    with pytest.raises(InputError, match="is not the file that this unnoise knows"):
        unnoise.export(run, to="web", out=str(tmp_path / "out"))
    assert not (tmp_path / "cache" / "onnxruntime-web-1.30.0").exists()
