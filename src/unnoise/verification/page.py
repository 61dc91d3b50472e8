"""Check the page of `unnoise report`: a fresh page states the same numbers, plots and images."""

import base64
import html
import operator
import re
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from unnoise.card import Run
from unnoise.data.open_image import open_image
from unnoise.data.sources.source import UnreadableImage
from unnoise.reporting.render import render
from unnoise.reporting.report import PAGE, TEMPLATE, collect_facts, describe_disk, score_facts
from unnoise.run_folder import evaluations, own_file
from unnoise.verification.check import AGREES, DIFFERS, UNKNOWN, Check

SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)
OF_THE_MOMENT = re.compile(r"<dc:date>.*?</dc:date>", re.DOTALL)
CHANCE_NAME = re.compile(r"\b[a-z][0-9a-f]{10}\b")  # matplotlib gives its clip paths names by chance
DATA = "data:image/png;base64,"
HIDDEN = ("style", "title")
CONTEXT = 4  # words before a number that are printed to find it


class Words(HTMLParser):
    """Collect the words of a page and the addresses of its images."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.images, self.hidden = list[str](), list[str](), 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in HIDDEN
        self.images += [value or "" for name, value in attrs if (tag, name) == ("img", "src")]

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in HIDDEN

    def handle_data(self, data: str) -> None:
        self.words += [] if self.hidden else data.split()


def page_checks(run: Run) -> Iterator[Check]:
    """Yield checks of report.html in a run folder against a fresh page.

    The page may be older than the last evaluations. So it is compared with the page of the first ones, whichever
    number of them agrees best.
    """
    if (path := own_file(run.folder, PAGE)) is None:
        return
    stated, facts = path.read_text(encoding="utf-8", errors="replace"), collect_facts(run)
    facts |= {"name": found(r"<title>(.*?)</title>", stated, facts["name"])}
    facts |= {
        "folder": found(
            r"<code>unnoise (?:eval|doctor) (.*?)(?: --metrics memorization)?</code>", stated, facts["folder"]
        )
    }
    results = evaluations(run.folder)
    best: list[Check] | None = None
    for count in range(len(results), -1, -1):
        page = render(TEMPLATE, {**facts, **score_facts(results[:count])})
        checks = [*compare_pages(stated, page, run, path)]
        if best is None or wrong(checks) < wrong(best):
            best = checks
        if not wrong(best):
            break
    yield from best or []


def found(pattern: str, page: str, otherwise: str) -> str:
    """Return a text that a page states, which follows from the place of the run."""
    match = re.search(pattern, page, re.DOTALL)
    return html.unescape(match[1]) if match else otherwise


def wrong(checks: list[Check]) -> int:
    """Return the number of checks that differ."""
    return sum(check.verdict == DIFFERS for check in checks)


def compare_pages(stated: str, fresh: str, run: Run, path: Path) -> Iterator[Check]:
    """Yield checks of all numbers, plots and images of a page."""
    plots = [[*map(settled, SVG.findall(page))] for page in (stated, fresh)]
    pages = [Words(SVG.sub("", page)) for page in (stated, fresh)]
    yield from compare_words(pages[0].words, pages[1].words, run, path)
    yield from compare_lists("plot", operator.eq, *plots)
    yield from compare_lists("image", same_pixels, pages[0].images, pages[1].images)


def compare_words(stated: list[str], fresh: list[str], run: Run, path: Path) -> Iterator[Check]:
    """Yield a check for each word with a digit, and for each other word that differs."""
    for kind, start, end, other, other_end in SequenceMatcher(None, stated, fresh, autojunk=False).get_opcodes():
        for i in range(start, end):
            what = " ".join(stated[max(0, i - CONTEXT) : i + 1])
            if kind == "equal":
                if has_digit(stated[i]):
                    yield Check(PAGE, what, AGREES, stated[i], stated[i])
                continue
            place = other + i - start
            now = fresh[place] if kind == "replace" and place < other_end else None
            if stated[max(0, i - 1)] == "disk":
                yield disk_check(stated[i], run, path)
            else:
                yield Check(PAGE, what, DIFFERS, stated[i], now)
        for word in fresh[other + end - start : other_end] if kind in ("replace", "insert") else ():
            yield Check(PAGE, f"after {' '.join(stated[max(0, end - CONTEXT) : end])}", DIFFERS, None, word)


def has_digit(word: str) -> bool:
    """Return True if a word holds a digit."""
    return any(letter.isdigit() for letter in word)


def disk_check(stated: str, run: Run, path: Path) -> Check:
    """Return the check of the size of the run folder, which may hold newer files than the page."""
    folder, written = run.folder.resolve(), path.stat().st_mtime
    then = describe_disk(folder, written).split()[0]
    if stated == then:
        return Check(PAGE, "disk", AGREES, stated, then)
    newer = sum(file.lstat().st_mtime > written for file in folder.rglob("*") if file.is_file())
    if newer:
        return Check(PAGE, "disk", UNKNOWN, stated, why=f"{newer} files of the run are newer than the page")
    return Check(PAGE, "disk", DIFFERS, stated, then)


def settled(svg: str) -> str:
    """Return a plot without its date, and with the names that chance gave replaced by their order."""
    names = dict[str, str]()
    svg = OF_THE_MOMENT.sub("", svg)
    return CHANCE_NAME.sub(lambda match: names.setdefault(match[0], f"name{len(names)}"), svg)


def compare_lists(
    kind: str, are_same: Callable[[str, str], bool], stated: list[str], fresh: list[str]
) -> Iterator[Check]:
    """Yield a check for each plot or image of a page."""
    for i in range(max(len(stated), len(fresh))):
        here, there = i < len(stated), i < len(fresh)
        fits = here and there and are_same(stated[i], fresh[i])
        why = "" if fits else "another one" if here and there else "it is missing" if there else "it is no longer there"
        yield Check(PAGE, f"{kind} {i + 1}", AGREES if fits else DIFFERS, why=why)


def same_pixels(stated: str, fresh: str) -> bool:
    """Return True if two images in a page have the same pixels."""
    if stated == fresh:
        return True
    try:
        with open_image(decoded(stated), load=True) as (one, _), open_image(decoded(fresh), load=True) as (other, _):
            return np.array_equal(np.asarray(one), np.asarray(other))
    except (UnreadableImage, ValueError):
        return False


def decoded(address: str) -> bytes:
    """Return the bytes of a data address."""
    return base64.b64decode(address.removeprefix(DATA), validate=True)
