"""The two judges of every score: two feature extractors, where they disagree, and which of them a run has used.

A judge that a training has used, or that images were chosen by, sees them better than they are. The other one does not.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from unnoise import distributed, registry
from unnoise.card import Run
from unnoise.config import EvalConfig
from unnoise.errors import InputError
from unnoise.evaluation.features import FIRST, SECOND, Extractor, fitting, open_extractor
from unnoise.options import Spec
from unnoise.run_folder import BEST

OFF = "none"  # instead of the spec of a second judge
APART = 4  # times: judges disagree if their KIDs differ by more, each in units of the most that equal sets get
USED_BY_TRAINING = "features"  # in the training facts of a card: sha256 of weights, or names of networks
TUNED_BY = "sampling_chosen_by"  # there too: the network by whose KID `unnoise tune` chose the sampling settings
DURING_TRAINING = "efficientnet-lite0"  # the judge of the KID during a training
NO_JUDGE = "no judge: the training used it"


class Judges(NamedTuple):
    """The specs of one or two judges that can be opened, and why there is no second one, if that is a surprise."""

    specs: list[Spec]
    missing: str = ""

    def fitted(self, side: int) -> list[Extractor]:
        """Return the judges, at the size that images of this shorter side need."""
        return [open_extractor(fitting(spec, side)) for spec in self.specs]

    def warnings(self, result: Mapping[str, Any]) -> list[str]:
        """Return warnings about the judges of a result: none is missing, none was trained on, and they agree."""
        return ([self.missing] if self.missing else []) + judge_warnings(result)


def open_judges(config: EvalConfig, names: Sequence[str]) -> Judges:
    """Return the judges that the settings name; raise InputError if one of them cannot give the named metrics.

    If nobody asked for the second judge, and it cannot be opened, the scores come from the first one alone.
    """
    first = open_extractor(config.features)
    if "inception_score" in names and not first.classes:
        text = registry.features.text(config.features)
        raise InputError(f"metric inception_score needs a feature extractor that knows classes; {text} knows none")
    if config.second == OFF:
        return Judges([config.features])
    by_default = config.second == SECOND
    wanted = FIRST if by_default and "-lite2" in first.about["network"] else config.second
    try:
        second, why = open_extractor(wanted), ""
    except InputError as error:
        if not by_default:
            raise
        second, why = None, str(error)
    if second and second.about == first.about:
        raise InputError(f"--second {registry.features.text(wanted)} is the first judge too: name another one, or none")
    if distributed.all_reduce_max(second is None) != [0]:  # all processes have the same judges
        return Judges([config.features], f"no second judge: {why or 'another process cannot open it'}")
    return Judges([config.features, wanted])


# What a run has used


def network_name(network: str) -> str:
    """Return the name of a network without its options: one that was used at another size was used."""
    return network.partition(":")[0]


def trained_with(run: Run | None) -> list[str]:
    """Return the feature extractors that the training used, as the card of a run names them."""
    used = run.card.training.get(USED_BY_TRAINING) if run else None
    return [str(one) for one in used] if isinstance(used, list | tuple) else []


def used_by_training(about: Mapping[str, str], run: Run | None) -> bool:
    """Return True if the card of a run says that the training used this feature extractor."""
    named = {network_name(one) for one in trained_with(run)}
    return bool(named & {network_name(about["network"]), about["weights"]})


def judge_facts(extractor: Extractor, run: Run | None) -> dict[str, str]:
    """Return the facts of a judge of a run; "no_judge" is one of them if the training used it."""
    return {**extractor.about, **({"no_judge": NO_JUDGE} if used_by_training(extractor.about, run) else {})}


def chosen_by(run: Run | None) -> dict[str, str]:
    """Return what of a run was chosen by the KID of a feature extractor, and by which one."""
    if run is None:
        return {}
    tuned = run.card.training.get(TUNED_BY)
    weights = {"weights": f"{DURING_TRAINING}:size=64"} if run.path is not None and run.file.name == BEST else {}
    return {**weights, **({"sampling settings": tuned} if isinstance(tuned, str) else {})}


# Where the judges disagree


def judge_warnings(result: Mapping[str, Any]) -> list[str]:
    """Return a warning for each judge that the training used, or else one if the judges disagree."""
    judges = [result, *([result["second"]] if result.get("second") else [])]
    used = [judge["features"]["network"] for judge in judges if "no_judge" in judge["features"]]
    blind = [f"{name} is {NO_JUDGE}, so it sees the images better than they are" for name in used]
    return blind or disagreements(result)


def disagreements(result: Mapping[str, Any]) -> list[str]:
    """Return a warning if one judge sees images APART times as far from real ones as the other one does, by KID.

    Each KID counts in units of the most that equal sets get, in which both judges see ordinary damage alike. The whole
    interval of the larger one must lie above APART times the interval of the smaller one, and above APART units.
    """
    judges = [judge for judge in (result, result.get("second")) if judge and "kid" in judge.get("values", {})]
    found = [(*in_equal_sets(judge["values"]["kid"]), judge["features"]["network"]) for judge in judges]
    if len(found) < 2 or not all(math.isfinite(number) for *numbers, _ in found for number in numbers):
        return []
    (near, _, high, kind), (far, low, _, strict) = sorted(found)
    if low <= APART * max(high, 1):
        return []
    times = f"{far:.1f} times the most that equal sets get by {strict}, and {near:.1f} times by {kind}"
    text = (
        f"look at the images, which may have been made or chosen for {kind}: ordinary damage differs less than {APART}"
    )
    return [f"the judges disagree: KID is {times}; {text} times"]


def in_equal_sets(kid: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return a KID and its interval in units of the most that equal sets get; nan if that is unknown."""
    most = kid["floor"]["interval"][1] or math.nan
    low, high = kid["interval"]
    return kid["value"] / most, low / most, high / most


def opposite_orders(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return True if the judges order two results in opposite ways by KID, and both intervals are apart by each."""
    found = list[int]()
    for results in ((one, other), (one.get("second", {}), other.get("second", {}))):
        kids = [result.get("values", {}).get("kid") for result in results]
        if any(kid is None or None in kid["interval"] for kid in kids):
            return False
        (low, high), (other_low, other_high) = (kid["interval"] for kid in kids)
        found.append((low > other_high) - (high < other_low))
    return found[0] * found[1] < 0
