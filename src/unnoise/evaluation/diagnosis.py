"""Name the faults of a set of images: what differs from real images, what it costs in KID, and what mends it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from unnoise.evaluation import metrics
from unnoise.evaluation.copies import copied
from unnoise.evaluation.faults import FAULTS, LONGER, Fault
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.kid_change import Features, Weighted, kid_change, kid_score, repeat_cost
from unnoise.evaluation.modes import Groups, find_groups, repeats, reweighted
from unnoise.evaluation.orientation import thumbnails
from unnoise.evaluation.scores import Score, plain_score, symmetric, wilson
from unnoise.evaluation.spectrum import BANDS, Bands, Means, ring_power
from unnoise.images import Uint8Images, Uint8Set
from unnoise.progress import Report

DRAWS = 200  # of each set, with replacement: they show how far chance moves a number
LEAST = 20  # different images: of fewer, chance says more than faults
TOLD_GROUPS = 3  # classes or clusters that are named, the most different ones
HANDICAP = {"modes": 2}  # the cost of a fault is divided by this number when it is compared with others
GROUP_ERRORS = 3.5  # a group that differs by more standard errors is named; of 20 equal groups one in a hundred sets


class Sets(NamedTuple):
    """Images that are judged, and real images, with their features."""

    drawn: Uint8Set
    real: Uint8Set
    extractor: Extractor
    features: Features
    real_features: Features
    labels: Int64[Tensor, " m"] | None  # of the real images
    classes: Sequence[str]
    trained: Uint8Set | None  # training images, to look for copies
    own: Int64[Tensor, " m"] | None  # the rows of the real images among them, if they are training images
    weights: Float64[Tensor, " m"]  # how often each real image counts
    mirrored: bool = False  # the run was trained on mirrored images too

    def pair(self) -> tuple[Weighted, Weighted]:
        """Return the features of both sets, as KID compares them."""
        return Weighted.even(self.features), Weighted(self.real_features, self.weights)

    def kid(self) -> Score:
        """Return the KID of the drawn images against the real ones."""
        even = bool((self.weights == 1).all())
        return metrics.kid(self.features, self.real_features) if even else kid_score(*self.pair())

    def mean_real(self, rows: Bands) -> Means:
        """Return the mean of a statistic over the real images."""
        return self.weights @ rows / self.weights.sum()


class Planted(NamedTuple):
    """A fault, and the sets after it is planted in the real images."""

    finding: dict[str, Any]
    sets: Sets


class NumberTest(NamedTuple):
    """The number of a fault with its interval of 95 %, what equal sets get, and the means of the statistic."""

    number: float
    interval: list[float]
    equal: list[float]
    drawn: Means
    real: Means

    def plain(self, fault: Fault) -> dict[str, Any]:
        """Return the numbers as plain values, with the words that say what they are."""
        return {"says": fault.says, "number": self.number, "interval": self.interval, "equal": self.equal}

    def differs(self, side: int) -> bool:
        """Return True if the two intervals are apart, to the side that counts."""
        above, below = self.interval[0] > self.equal[1], self.interval[1] < self.equal[0]
        return (above and side >= 0) or (below and side <= 0)

    def is_seen(self, bounds: tuple[float, float]) -> bool:
        """Return True if the whole interval is outside of what a person does not see."""
        return self.interval[1] < bounds[0] or self.interval[0] > bounds[1]


def open_sets(  # two sets and what is known of them
    drawn: Uint8Set,
    real: Uint8Set,
    extractor: Extractor,
    labels: Int64[Tensor, " m"] | None = None,
    classes: Sequence[str] = (),
    trained: Uint8Set | None = None,
    own: Int64[Tensor, " m"] | None = None,
) -> Sets:
    """Return two sets of images with their features."""
    ours, theirs = features(drawn, extractor), features(real, extractor)
    once = torch.ones(len(real), dtype=torch.float64)
    return Sets(drawn, real, extractor, ours, theirs, labels, classes, trained, own, once)


def features(pixels: Uint8Images, extractor: Extractor) -> Features:
    """Return the features of images, in their order."""
    with torch.inference_mode():
        found = [extractor(part)[0].cpu().double() for part in torch.split(pixels, 64)]
    return torch.cat(found).clone()


def diagnose(sets: Sets, report: Report) -> dict[str, Any]:
    """Return the KID of the drawn images, the faults that raise it, and the rest, as plain values."""
    whole, repeated = metrics.kid(sets.features, sets.real_features), repeat_findings(sets)
    single = without_repeats(sets) if repeated else sets
    tests = number_tests([*FAULTS], single)
    explained, left = explain(single, tests, report) if len(single.drawn) >= LEAST else ([], sets)
    return {
        "kid": plain_score(whole),
        "equal_kid": plain_score(equal_kid(sets)),
        "n": len(sets.drawn),
        "real_n": len(sets.real),
        "findings": in_order([*repeated, *explained, *copy_findings(sets)]),
        "rest": plain_score(left.kid()),
        "numbers": {name: test.plain(FAULTS[name]) for name, test in tests.items()},
        "spectrum": spectrum(sets),
    }


def explain(sets: Sets, tests: dict[str, NumberTest], report: Report) -> tuple[list[dict[str, Any]], Sets]:
    """Return the faults that explain KID, and the sets after all of them are planted in the real images.

    In each round, all faults are planted one by one. The one that KID falls most from stays. So no fault is named for
    what another one explains better, and the costs and the rest add up to KID. Other proportions have to explain twice
    as much as a fault of the pixels, since noise, too, makes images look more like some groups than like others.

    Args:
        sets, tests: The sets, and the number of each fault in them.
        report: Called with (task, rounds done, rounds in total).
    """
    found, left = list[dict[str, Any]](), [*FAULTS, "modes"]
    while True:
        report("looking for faults", len(found), len(found) + 2)
        made = [plant_modes(sets) if name == "modes" else plant(name, sets, tests[name]) for name in left]
        planted = [each for each in made if each is not None]
        planted = [each for each in planted if is_real(each.finding["cost"])] or planted
        if not planted:
            return found, sets
        best = max(planted, key=lambda each: each.finding["cost"]["value"] / HANDICAP.get(each.finding["fault"], 1))
        found, sets = [*found, best.finding], best.sets
        left = [name for name in left if not excludes(best.finding["fault"], name)]
        tests = number_tests([name for name in left if name != "modes"], sets)


def excludes(found: str, other: str) -> bool:
    """Return True if a fault that was found leaves no place for another one: blocks of 4 px have steps every 8 px."""
    return other == found or {found.split(maxsplit=1)[0], other.split(maxsplit=1)[0]} <= {"blocks", "jpeg"}


def without_repeats(sets: Sets) -> Sets:
    """Return the sets with each drawn image once."""
    first, _ = repeats(sets.drawn, sets.real)
    rows = (first == torch.arange(len(first))).nonzero()[:, 0]
    return sets._replace(drawn=sets.drawn[rows], features=sets.features[rows])


def equal_kid(sets: Sets) -> Score:
    """Return the KID that as many real images get."""
    square = 2 * metrics.remainder(metrics.kernel_means(sets.real_features))
    return symmetric(0.0, square * (1 / len(sets.drawn) + 1 / len(sets.real)) ** 2)


def in_order(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return findings with the most costly first; those without a cost are last."""
    return sorted(findings, key=lambda found: -found["cost"]["value"] if is_real(found["cost"]) else 0.0)


def is_real(cost: dict[str, Any] | None) -> bool:
    """Return True for a cost whose interval is above 0."""
    return cost is not None and cost["interval"][0] > 0


# Faults that are planted


def number_tests(names: Sequence[str], sets: Sets) -> dict[str, NumberTest]:
    """Return the tests of some faults; each statistic is computed once."""
    wanted = {FAULTS[name].statistic for name in names}
    rows = {statistic: (statistic(sets.drawn), statistic(sets.real)) for statistic in wanted}
    return {name: number_test(FAULTS[name], *rows[FAULTS[name].statistic], sets) for name in names}


def number_test(fault: Fault, drawn: Bands, real: Bands, sets: Sets) -> NumberTest:
    """Return the number of a fault with its interval, and what equal sets get, from its statistic of each image."""
    chance, n, even = torch.Generator().manual_seed(0), len(drawn), torch.ones(len(drawn), dtype=torch.float64)
    mean, known = drawn.mean(dim=0), sets.mean_real(real)
    ours = [fault.number(one, known) for one in mean_draws(drawn, even, n, chance)]
    draws = [mean_draws(real, sets.weights, size, chance) for size in (n, len(real))]
    equal = [fault.number(one, other) for one, other in zip(*draws, strict=True)]
    return NumberTest(fault.number(mean, known), middle(ours), middle(equal), mean, known)


def plant(name: str, sets: Sets, test: NumberTest) -> Planted | None:
    """Plant a fault in the real images; None if its number is not another one, or KID neither falls nor it is seen."""
    fault = FAULTS[name]
    if not test.differs(fault.side):
        return None
    changed = fault.plant(sets.real, test.drawn, test.real)
    after = sets._replace(real=changed, real_features=features(changed, sets.extractor))
    cost = plain_score(kid_change(sets.pair(), after.pair()))
    if not is_real(cost) and not test.is_seen(fault.seen):
        return None
    words = {"name": fault.name(test.number, test.drawn, test.real), "advice": fault.advice(test.number)}
    return Planted({"fault": name, **test.plain(fault), **words, "cost": cost, "way": "planted"}, after)


def mean_draws(
    rows: Bands, weights: Float64[Tensor, " n"], n: int, chance: torch.Generator
) -> Float64[Tensor, "draws k"]:
    """Return the means of n rows that are drawn with replacement by their weights, again and again."""
    chosen = torch.multinomial(weights.expand(DRAWS, -1), n, replacement=True, generator=chance)
    counts = torch.zeros(DRAWS, len(rows), dtype=torch.float64)
    return counts.scatter_add_(1, chosen, torch.ones(chosen.shape, dtype=torch.float64)) @ rows / n


def middle(values: list[float]) -> list[float]:
    """Return the interval that holds 95 % of the values."""
    ends = torch.tensor(values, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return [float(end) for end in ends]


def spectrum(sets: Sets) -> dict[str, list[float]]:
    """Return the power in each ring of frequencies, of drawn and of real images."""
    drawn, real = (ring_power(images).mean(dim=0)[:BANDS].tolist() for images in (sets.drawn, sets.real))
    return {"drawn": drawn, "real": real}


# Faults of the set as a whole


def repeat_findings(sets: Sets) -> list[dict[str, Any]]:
    """Return the finding that images are repeated, if more of them are than among real images."""
    ours, theirs = repeats(sets.drawn, sets.real)
    first = torch.arange(len(ours))
    shares = [float((each != torch.arange(len(each))).double().mean()) for each in (ours, theirs)]
    intervals = [list(wilson(share, len(each))) for share, each in zip(shares, (ours, theirs), strict=True)]
    if intervals[0][0] <= intervals[1][1]:
        return []
    different = int((ours == first).sum())
    return [
        {
            "fault": "repeats",
            "name": f"images are repeated: only {different:,} of {len(ours):,} differ",
            "says": "share of images that nearly equal another one",
            "number": shares[0],
            "interval": intervals[0],
            "equal": intervals[1],
            "cost": plain_score(repeat_cost(sets.features, ours)),
            "way": "mended",
            "advice": "draw with different seeds and less --guidance; train on more images, with --flip, or less long",
        }
    ]


def plant_modes(sets: Sets) -> Planted | None:
    """Give the classes or clusters of the real images the shares of the drawn ones; None if no share differs."""
    small = thumbnails(sets.drawn), thumbnails(sets.real)
    groupings = find_groups(sets.features, sets.real_features, sets.labels, sets.classes, small)
    groups = max(groupings, key=lambda some: float(some.errors(sets.weights).abs().max()))
    odd = odd_groups(groups, sets.weights)
    if not odd:
        return None
    after = sets._replace(weights=reweighted(groups, sets.weights))
    ours, theirs = groups.shares(sets.weights)
    finding = {
        "fault": "modes",
        "name": f"other proportions than the data: {odd}",
        "says": "share of images that would have to be of another class or cluster",
        "number": float((ours - theirs).abs().sum()) / 2,
        "cost": plain_score(kid_change(sets.pair(), after.pair())),
        "way": "planted",
        "advice": "train with --classes and draw them in the proportions of the data (eval --labels data), or "
        f"train on more images of what is missing; less --guidance; {LONGER}",
    }
    return Planted(finding, after)


def odd_groups(groups: Groups, weights: Float64[Tensor, " m"]) -> str:
    """Return the groups whose shares differ most clearly, in percent of both sets of images; nothing if none do."""
    errors, (ours, theirs) = groups.errors(weights), groups.shares(weights)
    told = [int(i) for i in errors.abs().argsort(descending=True)[:TOLD_GROUPS] if abs(errors[i]) > GROUP_ERRORS]
    return ", ".join(
        f"{'few' if errors[i] < 0 else 'many'} of {groups.names[i]} ({ours[i]:.0%}, in the data {theirs[i]:.0%})"
        for i in told
    )


def copy_findings(sets: Sets) -> list[dict[str, Any]]:
    """Return the finding that images are copies of training images, if more of them are flagged than of real ones."""
    if sets.trained is None:
        return []
    found = copied(sets.drawn, sets.real, sets.trained, sets.own, mirrored=sets.mirrored)
    if found is None or found["drawn"]["interval"][0] <= found["new"]["interval"][1]:
        return []
    return [
        {
            "fault": "copies",
            "name": f"copies of training images: {found['drawn']['value']:.0%} are flagged",
            "says": f"share that is nearer to one of {found['training_images']:,} training images than new images are",
            "number": found["drawn"]["value"],
            "interval": found["drawn"]["interval"],
            "equal": found["new"]["interval"],
            "cost": None,
            "way": "compared",
            "advice": "look at the pairs: unnoise eval RUN --metrics memorization; train less long, on more images, "
            "with --flip, or with a narrower --backbone",
        }
    ]
