"""The page of a run: it needs no other file, is valid HTML, and shows what is known."""

import json
from html.parser import HTMLParser
from importlib.resources import files

import pytest

import unnoise
from unnoise.cli import main
from unnoise.reporting.render import render
from unnoise.reporting.report import training_command, write_report

pytestmark = pytest.mark.usefixtures("unchecked")

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Check that every element is closed, and collect the headings, the text, and the sources of images and links."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.headings, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)


def read_page(path):
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_is_valid_and_needs_no_other_file(runs):
    path = write_report(str(runs / "one"))
    page = read_page(path)
    assert path == runs / "one" / "report.html"
    headings = [heading for heading in page.headings if heading != "KID during training"]  # where there is time for it
    assert headings == ["Images", "Loss", "Scores", "Faults", "Memorization", "Time and memory", "Settings"]
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in page.sources)
    for text in (
        "unnoise train",
        "kid x 1000",
        "60 images (sampler",
        "of 60 images",
        "Bits per dimension",
        "held out",
        "images/s",
    ):
        assert text in page.text
    assert "Not measured" not in page.text
    assert "nan" not in page.text


def test_a_run_without_scores_says_how_to_measure_them(runs):
    page = read_page(write_report(str(runs / "three"), str(runs / "page.html")))
    assert "Not measured yet: unnoise eval" in page.text
    assert f"Not measured yet: unnoise eval {runs / 'three'} --metrics memorization" in page.text
    assert "images of\n<b>other" in page.text, "a name is shown as text and never becomes an element"


def test_the_command_trains_the_run_again(runs):
    """The command names every setting that is not the default, as one would type it."""
    config = {"data": "my photos", "batch": 8, "flip": True, "clip": False, "out": "runs/x", "lr": 0.001, "seed": 3}
    assert training_command(config) == "unnoise train 'my photos' --flip --batch 8 --lr 0.001 --seed 3 --no-clip"
    settings = unnoise.load(runs / "two", "cpu").card.training["config"]
    assert "--lr 0.002" in training_command(settings)


def test_kid_during_training_is_plotted(runs, tmp_path):
    for name in ("metrics.jsonl", "model.safetensors"):
        (tmp_path / name).write_bytes((runs / "one" / name).read_bytes())
    with (tmp_path / "metrics.jsonl").open("a") as file:
        for images, value in ((100, 0.3), (200, 0.2)):
            row = {"images": images, "seconds": 1.0, "kid": value, "kid_error": 0.01, "pictures": 150}
            file.write(json.dumps(row) + "\n")
    page = read_page(write_report(str(tmp_path)))
    assert "KID during training" in page.headings
    assert "KID of 150 images" in page.text


def test_a_folder_that_is_no_run_is_refused(runs, tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err
    assert main(["report", str(runs / "one" / "model.safetensors"), "--out", str(tmp_path / "page.html")]) == 0


def test_evaluations_are_numbered(runs):
    folder = runs / "one" / "evaluations"
    before = sorted(folder.iterdir())
    assert main(["eval", str(runs / "one"), "-n", "60", "--metrics", "kid"]) == 0
    new, beside = sorted(set(folder.iterdir()) - set(before))
    number = f"{1 + len([path for path in before if path.suffix == '.json']):04d}"
    assert (new.name, beside.name) == (f"{number}.json", f"{number}.safetensors")
    assert json.loads(new.read_text())["scores"]["of"]["n"] == 60
    new.unlink()
    beside.unlink()


def test_templates_are_in_the_package_and_refuse_missing_facts():
    assert (files("unnoise") / "reporting" / "report.html.jinja").is_file()
    with pytest.raises(LookupError, match="undefined"):
        render("reporting/report.html.jinja", {})
