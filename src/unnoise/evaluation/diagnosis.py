"""Name the faults of a set of images: what differs from real images, what it costs in KID, and what mends it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from unnoise.evaluation import metrics
from unnoise.evaluation.copies import copied
from unnoise.evaluation.faults import FAULTS, LONGER, Fault
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.kid_change import Features, Weighted, kid_change, repeat_cost
from unnoise.evaluation.ladder import damage_kid
from unnoise.evaluation.modes import Groups, find_groups, repeats, reweighted, shares_of
from unnoise.evaluation.scores import Score, plain_score, symmetric, wilson
from unnoise.evaluation.spectrum import BANDS, Bands, Means, ring_power
from unnoise.images import Uint8Images, Uint8Set
from unnoise.progress import Report

DRAWS = 200  # of each set, with replacement: they show how far chance moves a number
TOLD_GROUPS = 3  # classes or clusters that are named, the most different ones
GROUP_ERRORS = 3.5  # a group that differs by more standard errors is named


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
    return Sets(drawn, real, extractor, ours, theirs, labels, classes, trained, own)


def features(pixels: Uint8Images, extractor: Extractor) -> Features:
    """Return the features of images, in their order."""
    with torch.inference_mode():
        found = [extractor(part)[0].cpu().double() for part in torch.split(pixels, 64)]
    return torch.cat(found).clone()


def diagnose(sets: Sets, report: Report) -> dict[str, Any]:
    """Return the KID of the drawn images, the faults that raise it, and the rest, as plain values."""
    visible, judged, whole = [], {}, metrics.kid(sets.features, sets.real_features)
    statistics: dict[Callable[..., Bands], tuple[Bands, Bands]] = {}
    for done, (name, fault) in enumerate(FAULTS.items()):
        report("looking for faults", done, len(FAULTS))
        if fault.statistic not in statistics:
            statistics[fault.statistic] = fault.statistic(sets.drawn), fault.statistic(sets.real)
        test = number_test(fault, *statistics[fault.statistic])
        differs, clear = test.pop("differs"), test.pop("clear")
        judged[name] = {"says": fault.says, **test}
        if differs:
            drawn, real = (rows.mean(dim=0) for rows in statistics[fault.statistic])
            one = {"fault": name, **judged[name], **pixel_cost(fault, sets, drawn, real, whole)}
            if is_real(one["cost"]) or (clear and one["cost"]["value"] > 0):
                visible.append(one)
    visible = one_kind_of_blocks(in_order(visible))
    mended = mend_all(sets, [finding["fault"] for finding in visible])
    rest = features(mended, sets.extractor) if mended is not sets.drawn else sets.features
    found = [*visible, *repeat_findings(sets), *mode_findings(sets, rest), *copy_findings(sets)]
    return {
        "kid": plain_score(whole),
        "equal_kid": plain_score(equal_kid(sets)),
        "n": len(sets.drawn),
        "real_n": len(sets.real),
        "findings": in_order(found),
        "rest": plain_score(metrics.kid(rest, sets.real_features)),
        "numbers": judged,
        "spectrum": spectrum(sets),
    }


def equal_kid(sets: Sets) -> Score:
    """Return the KID that as many real images get."""
    square = 2 * metrics.remainder(metrics.kernel_means(sets.real_features))
    return symmetric(0.0, square * (1 / len(sets.drawn) + 1 / len(sets.real)) ** 2)


def in_order(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return findings with the most costly first; those without a cost are last."""
    return sorted(findings, key=lambda found: -found["cost"]["value"] if is_real(found["cost"]) else 0.0)


def one_kind_of_blocks(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the findings with only the most costly blocks: blocks of 4 px also have steps every 8 px."""
    blocks = [finding for finding in findings if finding["fault"].startswith("blocks")]
    return [finding for finding in findings if finding not in blocks[1:]]


def is_real(cost: dict[str, Any] | None) -> bool:
    """Return True for a cost whose interval is above 0."""
    return cost is not None and cost["interval"][0] > 0


# Faults that are visible in pixels


def number_test(fault: Fault, drawn: Bands, real: Bands) -> dict[str, Any]:
    """Return the number of a fault with its interval, what equal sets get, and whether the two differ, also clearly.

    They differ clearly if a quarter of both widths still lies between the intervals: about six standard errors.
    """
    chance = torch.Generator().manual_seed(0)
    n, known = len(drawn), real.mean(dim=0)
    ours = [fault.number(mean, known) for mean in mean_draws(drawn, n, chance)]
    pairs = zip(mean_draws(real, n, chance), mean_draws(real, len(real), chance), strict=True)
    interval, equal = middle(ours), middle([fault.number(a, b) for a, b in pairs])
    above, below = interval[0] - equal[1], equal[0] - interval[1]
    apart = max(above if fault.side >= 0 else -1.0, below if fault.side <= 0 else -1.0)
    clear = apart > (interval[1] - interval[0] + equal[1] - equal[0]) / 4
    number = fault.number(drawn.mean(dim=0), known)
    return {"number": number, "interval": interval, "equal": equal, "differs": apart > 0, "clear": clear}


def mean_draws(rows: Bands, n: int, chance: torch.Generator) -> Float64[Tensor, "draws k"]:
    """Return the means of n rows that are drawn with replacement, again and again."""
    chosen = torch.randint(len(rows), (DRAWS, n), generator=chance)
    counts = torch.zeros(DRAWS, len(rows), dtype=torch.float64)
    return counts.scatter_add_(1, chosen, torch.ones(chosen.shape, dtype=torch.float64)) @ rows / n


def middle(values: list[float]) -> list[float]:
    """Return the interval that holds 95 % of the values."""
    ends = torch.tensor(values, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return [float(end) for end in ends]


def pixel_cost(fault: Fault, sets: Sets, drawn: Means, real: Means, whole: Score) -> dict[str, Any]:
    """Return name, advice and cost of a fault: KID falls without it, or real images get it with it.

    `drawn` and `real` are the means of its statistic, and `whole` is the KID of the drawn images.
    """
    number = fault.number(drawn, real)
    changed = features(fault.mend(sets.real if fault.planted else sets.drawn, drawn, real), sets.extractor)
    before = Weighted.even(sets.features), Weighted.even(sets.real_features)
    if fault.planted:
        cost = at_most(damage_kid(changed, sets.real_features), whole)
    else:
        cost = kid_change(before, (Weighted.even(changed), before[1]))
    return {
        "name": fault.name(number, drawn, real),
        "cost": plain_score(cost),
        "way": "planted" if fault.planted else "mended",
        "advice": fault.advice(number),
    }


def at_most(cost: Score, whole: Score) -> Score:
    """Return a cost that is no more than the whole KID: a planted fault may lie in other places than the drawn one."""
    return cost if cost.value <= max(whole.value, 0.0) else whole


def mend_all(sets: Sets, names: Sequence[str]) -> Uint8Images:
    """Return the drawn images without any of these faults that can be removed; each is measured anew."""
    images = sets.drawn
    for name in names:
        if not (fault := FAULTS[name]).planted:
            drawn, real = (fault.statistic(some).mean(dim=0) for some in (images, sets.real))
            images = fault.mend(images, drawn, real)
    return images


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


def mode_findings(sets: Sets, rest: Features) -> list[dict[str, Any]]:
    """Return the finding that classes or clusters are missing or too frequent, if there is one.

    The other faults are mended first, since they would change which class an image seems to have.
    """
    groups = find_groups(rest, sets.real_features, sets.labels, sets.classes)
    ours, theirs = groups.shares()
    chance = torch.Generator().manual_seed(0)
    n, m, count = len(groups.drawn), len(groups.real), len(theirs)

    def redraw(of: Int64[Tensor, " n"], size: int) -> Float64[Tensor, " g"]:
        return shares_of(of[torch.randint(len(of), (size,), generator=chance)], count)

    drawn = middle([far_apart(redraw(groups.drawn, n), theirs) for _ in range(DRAWS)])
    equal = middle([far_apart(redraw(groups.real, n), redraw(groups.real, m)) for _ in range(DRAWS)])
    pair = Weighted.even(rest), Weighted.even(sets.real_features)
    cost = plain_score(kid_change(pair, (pair[0], Weighted(sets.real_features, reweighted(groups)))))
    if drawn[0] <= equal[1] or not is_real(cost):
        return []
    return [
        {
            "fault": "modes",
            "name": f"other proportions than the data: {odd_groups(groups)}",
            "says": "share of images that would have to be of another class or cluster",
            "number": far_apart(ours, theirs),
            "interval": drawn,
            "equal": equal,
            "cost": cost,
            "way": "mended",
            "advice": "train with --classes and draw them in the proportions of the data (eval --labels data), or "
            f"train on more images of what is missing; less --guidance; {LONGER}",
        }
    ]


def far_apart(ours: Float64[Tensor, " g"], theirs: Float64[Tensor, " g"]) -> float:
    """Return half of the sum of all differences: the share that is in other groups."""
    return float((ours - theirs).abs().sum()) / 2


def odd_groups(groups: Groups) -> str:
    """Return the groups whose shares differ most in words, in percent of the drawn and of the real images."""
    ours, theirs = groups.shares()
    mixed = (ours + theirs) / 2
    errors = (mixed * (1 - mixed) * (1 / len(groups.drawn) + 1 / len(groups.real))).sqrt().clamp(min=1e-9)
    apart = ((ours - theirs) / errors).tolist()
    order = sorted(range(len(apart)), key=lambda i: -abs(apart[i]))
    told = [i for i in order[:TOLD_GROUPS] if abs(apart[i]) > GROUP_ERRORS] or order[:1]
    return ", ".join(
        f"{'few' if apart[i] < 0 else 'many'} of {groups.names[i]} ({ours[i]:.0%}, in the data {theirs[i]:.0%})"
        for i in told
    )


def copy_findings(sets: Sets) -> list[dict[str, Any]]:
    """Return the finding that images are copies of training images, if more of them are flagged than of real ones."""
    if sets.trained is None:
        return []
    found = copied(sets.drawn, sets.real, sets.trained, sets.own)
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
