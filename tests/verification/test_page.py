"""Every number, plot and image of report.html is compared with a fresh page."""

import re

import pytest

from unnoise.checkpoint import load
from unnoise.verification.page import Words, compare_pages, page_checks
from verification_helpers import agreeing, named

SHOWN = re.compile(r"<svg.*?</svg>|<style.*?</style>|<title>.*?</title>|<[^>]*>", re.DOTALL)


@pytest.fixture(scope="module")
def page(honest):
    return (honest / "report.html").read_text()


def test_an_honest_page_agrees(honest, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(honest.parent / "cache"))
    checks = [*page_checks(load(honest))]
    assert not named(checks)
    assert agreeing(checks)["report.html"] > 40


def test_each_number_that_is_changed_is_named(honest, page):
    """Each number between tags is changed alone; numbers of the header, of tables and of sentences are among them."""
    run, text = load(honest), SHOWN.sub(lambda found: " " * len(found[0]), page)
    places = [*re.finditer(r"\d+", text)]
    for place in places[::4]:
        other = page[: place.start()] + f"{int(place[0]) + 1}" + page[place.end() :]
        found = [what for _, what in named(compare_pages(other, page, run, honest / "report.html"))]
        assert len(found) == 1, (place, found)
    assert len(places) > 50


@pytest.mark.parametrize("number", [r"<svg.*?L (\d+)", r"<use [^>]*y=\"(\d+)"])
def test_a_number_of_a_plot_that_is_changed_is_named(honest, page, number):
    found = re.search(number, page, re.DOTALL)
    other = page[: found.start(1)] + f"{int(found[1]) + 1}" + page[found.end(1) :]
    assert named(compare_pages(other, page, load(honest), honest)) == {("report.html", "plot 1")}


def test_a_page_may_be_older_than_an_evaluation_and_lie_elsewhere(run):
    (run / "evaluations" / "0002.json").write_text((run / "evaluations" / "0001.json").read_text())
    run = run.rename(run.with_name("moved 2"))
    assert not named(page_checks(load(run)))


def test_a_sentence_that_is_left_out_is_named(honest, page):
    other = re.sub(r"<p>Bits per dimension.*?</p>", "", page, flags=re.DOTALL)
    assert named(compare_pages(other, page, load(honest), honest))


def test_words_of_a_page():
    found = Words('<title>3</title><p>1 of <b>2,5</b></p><img src="a"><style>p {margin: 4}</style>')
    assert (found.words, found.images) == (["1", "of", "2,5"], ["a"])
