"""The page of a run, and runs side by side."""

import json
import re
from html.parser import HTMLParser

import pytest

import unnoise
from tiny import TINY, smooth, train_folder
from unnoise.cli import main
from unnoise.reporting.compare import compare
from unnoise.reporting.report import command, read, report

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that what is opened is closed, and notes what is shown and where it comes from."""

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


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on the same images, scored on the same terms, and one on others, with a name that means harm."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(folder / "cache"))
        import numpy as np

        np.savez(folder / "data.npz", images=smooth(120, 16, 0))
        np.savez(folder / "<b>other.npz", images=smooth(120, 16, 1))
        for name, lr, data in (("one", 1e-3, "data"), ("two", 2e-3, "data"), ("three", 1e-3, "<b>other")):
            train_folder(folder / f"{data}.npz", images="200", lr=lr, out=str(folder / name), **TINY)
        for name, more in (("one", []), ("two", ["--steps", "3"])):
            assert (
                main(
                    [
                        "eval",
                        str(folder / name),
                        "-n",
                        "60",
                        "--metrics",
                        "kid,fid,memorization,bpd",
                        "--levels",
                        "3",
                        *more,
                    ]
                )
                == 0
            )
        yield folder


def test_the_page_is_whole_and_stands_alone(runs):
    path = report(str(runs / "one"))
    page = Page(path.read_text(encoding="utf-8"))
    assert path == runs / "one" / "report.html"
    assert page.headings == ["Pictures", "Loss", "Scores", "Are they copies?", "Time and memory", "Settings"]
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in page.sources)
    for text in (
        "unnoise train",
        "kid x 1000",
        "60 pictures",
        "of 60 pictures",
        "Bits per dimension",
        "held out",
        "images/s",
    ):
        assert text in page.text
    assert "Not measured" not in page.text
    assert "nan" not in page.text


def test_a_run_without_scores_says_how_to_get_them(runs):
    page = Page(report(str(runs / "three"), str(runs / "page.html")).read_text(encoding="utf-8"))
    assert "Not measured yet: unnoise eval" in page.text
    assert "Not audited yet" in page.text
    assert "pictures of <b>other" in page.text, "a name is a name, and no markup"


def test_the_command_makes_the_run_again(runs):
    """Every setting but the defaults, as one would type it."""
    config = {"data": "my photos", "batch": 8, "flip": True, "clip": False, "out": "runs/x", "lr": 0.001, "seed": 3}
    assert command(config) == "unnoise train 'my photos' --flip --batch 8 --no-clip --seed 3"
    settings = unnoise.load(runs / "two", "cpu").card.training["config"]
    assert "--lr 0.002" in command(settings)


def test_kid_on_the_way_is_drawn(runs, tmp_path):
    for name in ("metrics.jsonl", "model.safetensors"):
        (tmp_path / name).write_bytes((runs / "one" / name).read_bytes())
    with (tmp_path / "metrics.jsonl").open("a") as file:
        for images, value in ((100, 0.3), (200, 0.2)):
            row = {"images": images, "seconds": 1.0, "kid": value, "kid_error": 0.01, "pictures": 150}
            file.write(json.dumps(row) + "\n")
    page = Page(report(str(tmp_path)).read_text(encoding="utf-8"))
    assert "Quality on the way" in page.headings
    assert "KID of 150 pictures" in page.text


def test_a_log_that_was_cut_off_is_read_as_far_as_it_goes(runs, tmp_path):
    text = (runs / "one" / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(text + '{"images": 12, "lo')
    assert read(tmp_path / "metrics.jsonl") == read(runs / "one" / "metrics.jsonl")
    assert read(runs / "one" / "metrics.jsonl").held_out


def test_no_run_no_page(runs, tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err
    assert main(["report", str(runs / "one" / "model.safetensors"), "--out", str(tmp_path / "page.html")]) == 0


def test_evaluations_are_kept_one_after_the_other(runs):
    folder = runs / "one" / "evaluations"
    before = sorted(folder.iterdir())
    assert main(["eval", str(runs / "one"), "-n", "60", "--metrics", "kid"]) == 0
    (new,) = set(folder.iterdir()) - set(before)
    assert new.name == f"{len(before) + 1:04d}.json"
    assert json.loads(new.read_text())["scores"]["of"]["n"] == 60
    new.unlink()


def test_runs_stand_side_by_side(runs):
    said = compare([str(runs / "one"), str(runs / "two")])
    text = "\n".join(said)
    assert said[0].split() == ["one", "two"]
    assert re.search(r"^lr +0.001 +0.002$", text, re.MULTILINE)
    assert re.search(r"^steps +2 +3$", text, re.MULTILINE), "how they were sampled differs, and is told"
    assert "60 pictures against 120 of data" in text
    assert len(re.findall(r"^(?:kid x 1000|fid) +\S+ \(.*?\) +\S+ \(.*?\)$", text, re.MULTILINE)) == 2
    assert "warning" not in text
    assert "batch" not in text, "only what differs"


def test_the_best_weights_are_another_model(runs, capsys):
    """Beside the last ones, scored by themselves: never by the scores of the others."""
    best = runs / "one" / "best.safetensors"
    three = unnoise.load(runs / "three", "cpu")
    best.write_bytes(three.path.read_bytes())
    said = "\n".join(compare([str(runs / "one"), str(best)]))
    assert "one/best.safetensors has no scores" in said
    assert "kid x 1000" not in said
    assert main(["eval", str(best), "--data", str(runs / "data.npz"), "-n", "60", "--metrics", "kid,fid"]) == 0
    assert "kid x 1000" in "\n".join(compare([str(runs / "one"), str(best)]))
    best.unlink()


def test_what_can_not_be_compared_is_flagged(runs, capsys):
    assert main(["compare", str(runs / "one"), str(runs / "three")]) == 0
    said = capsys.readouterr().out
    assert "trained on different data" in said
    assert "three has no scores" in said
    assert "only one was scored on 60 pictures" in said
    assert "kid x 1000" not in said
    assert main(["compare", str(runs / "one")]) == 2
    assert "two runs or more" in capsys.readouterr().err
