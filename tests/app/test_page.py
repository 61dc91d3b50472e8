"""The page in a browser: every tab does what it offers."""

import io
import re
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

import unnoise
from tiny import TINY, train_folder


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()


def press(page, name):
    page.get_by_role("button", name=re.compile(f"^{name}( .)?$")).locator("visible=true").click()


def slide(page, label, value):
    box = page.get_by_label(f"number input for {label}").locator("visible=true")
    box.fill(str(value))
    box.press("Tab")


def download_link(page, name):
    return page.locator(f"a[download='{name}']").locator("visible=true")


def download(page, name):
    with page.expect_download() as caught:
        download_link(page, name).click()
    return caught.value.path().read_bytes()


def downloaded_images(page):
    """Return the images in the zip for download, by their names."""
    with zipfile.ZipFile(io.BytesIO(download(page, "images.zip"))) as archive:
        return {name: np.asarray(Image.open(archive.open(name))) for name in archive.namelist()}


def shown_image(page):
    return page.locator("img[src*='image.png']").locator("visible=true").first


@pytest.mark.slow
def test_images_are_shown_while_they_form(page, run):
    slide(page, "Images", 4)
    press(page, "Sampler")
    slide(page, "Steps", 200)
    press(page, "Draw")
    seen, begun = set(), time.monotonic()
    while not download_link(page, "images.zip").count():
        assert time.monotonic() - begun < 120
        if found := re.search(r"step (\d+) of 200", page.inner_text("body")):
            seen.add(int(found[1]))
        page.wait_for_timeout(20)
    assert len(seen) > 1
    images = downloaded_images(page)
    assert list(images) == [f"{i:06d}.png" for i in range(4)]
    expected = unnoise.sample(run, 4, steps=200)[2].permute(1, 2, 0).numpy()
    assert np.abs(images["000002.png"] / 127.5 - 1 - expected).max() < 0.03
    assert [url for url in page.asked if "127.0.0.1" not in url] == [], "no other machine is asked for anything"
    press(page, "Show the nearest training images")
    page.locator("img[src*='image.png']").nth(1).wait_for()


@pytest.mark.slow
def test_a_student_draws_while_a_slider_moves(browser, student, start_app, tmp_path):
    page = browser.new_page()
    page.goto(start_app(student, tmp_path / "log").url)
    assert page.get_by_role("tab", name="Samplers").count() == 0
    shown_image(page).wait_for(timeout=120_000)  # without a click
    seen, slider = [shown_image(page).get_attribute("src")], page.locator("input[type=range]").first
    slider.focus()
    while len(seen) < 5:
        page.keyboard.press("ArrowRight")
        page.wait_for_function(
            "before => document.querySelector(\"img[src*='image.png']\").src != before", arg=seen[-1]
        )
        seen.append(shown_image(page).evaluate("image => image.src"))
    assert len(set(seen)) == 5
    open_tab(page, "Draw")
    assert page.get_by_label("Steps").locator("visible=true").count() == 0
    press(page, "Draw")
    download_link(page, "images.zip").wait_for()
    page.close()


@pytest.mark.slow
def test_the_slider_shows_each_step(page):
    open_tab(page, "Step by step")
    press(page, "Draw")
    download_link(page, "animation.gif").wait_for()
    sources = set()
    for step in (1, 4, 8):
        before = shown_image(page).get_attribute("src")
        slide(page, "Step", step)
        page.wait_for_timeout(1000)
        sources.add(shown_image(page).get_attribute("src"))
        assert step == 8 or shown_image(page).get_attribute("src") != before
    assert len(sources) == 3


@pytest.mark.slow
def test_the_painted_area_is_filled_in_and_nothing_else(page, tmp_path):
    given = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(given).save(tmp_path / "given.png")
    open_tab(page, "Edit")
    page.locator("#editor canvas").first.wait_for()  # before that, the editor does not notice a file
    with page.expect_response("**/gradio_api/run/*"):  # the image comes back as the run sees it
        page.locator("#editor input[type=file]").first.set_input_files(tmp_path / "given.png")
    page.get_by_label("fill in the painted area").click()
    page.wait_for_timeout(2000)  # a canvas sends no event when it is drawn
    box = page.locator("#editor canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 30, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=8)
    page.mouse.up()
    slide(page, "Images", 2)
    press(page, "Edit")
    download_link(page, "images.zip").wait_for()
    images = downloaded_images(page)
    changed = [(image != given).any(axis=2) for image in images.values()]
    assert len(images) == 2
    assert 2 <= changed[0].sum() <= 60
    rows, columns = np.nonzero(changed[0] | changed[1])
    assert 5 <= rows.min() <= rows.max() <= 10  # a stroke across the middle
    assert columns.max() - columns.min() >= 2


@pytest.mark.slow
def test_a_file_that_is_no_image_is_refused_with_a_message(page, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    open_tab(page, "Noise")
    page.locator("input[type=file]").last.set_input_files(tmp_path / "bad.png")
    page.wait_for_timeout(1000)
    press(page, "Add noise")
    page.locator(".toast-body").first.wait_for()
    open_tab(page, "Edit")
    press(page, "Edit")
    page.get_by_text("upload an image first").wait_for()


@pytest.mark.slow
def test_two_users_take_turns_and_one_can_stop(browser, app, page):
    other = browser.new_page()
    other.goto(app.url)
    for each, steps in ((page, 250), (other, 10)):
        slide(each, "Images", 64 if each is page else 2)
        press(each, "Sampler")
        slide(each, "Steps", steps)
        press(each, "Draw")
    other.get_by_text(re.compile("queue|processing", re.IGNORECASE)).first.wait_for()
    page.get_by_text(re.compile(r"step \d+ of 250")).wait_for()
    press(page, "Stop")
    download_link(other, "images.zip").wait_for()  # the other user's turn has come
    assert download_link(page, "images.zip").count() == 0
    slide(page, "Images", 1)
    slide(page, "Steps", 2)
    press(page, "Draw")
    download_link(page, "images.zip").wait_for()  # the stopped page works again
    other.close()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"classes": True}, {"sampler": "ddpm", "steps": 1000, "spacing": "trailing"}])
def test_every_run_has_a_page(settings, tmp_path, start_app):
    """A run may have classes, or more steps than usual."""
    network = {name: TINY[name] for name in ("backbone", "batch", "precision")}
    out = str(tmp_path / "run")
    run = train_folder("faces:count=40", size="16", images="8", out=out, **network, **settings)
    parts = start_app(run, tmp_path / "log").config()["components"]
    sliders = [part["props"] for part in parts if part["type"] == "slider"]
    assert len(sliders) > 5
    assert all(slider["minimum"] <= slider["value"] <= slider["maximum"] for slider in sliders)
    classes = [part for part in parts if part["type"] == "dropdown" and part["props"]["label"] == "Class"]
    assert len(classes) == (5 if "classes" in settings else 0)
