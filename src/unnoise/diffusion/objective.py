"""Training objectives: functions (model, noised batch) -> one loss per image."""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from unnoise.diffusion.level import CLEAN, Level
from unnoise.diffusion.likelihood import decoder_floor, term
from unnoise.diffusion.model import Diffusion, Prediction
from unnoise.diffusion.perceptual import STAGES, perceptual_distance
from unnoise.diffusion.process import noise_of, q_sample, transition
from unnoise.diffusion.schedule import Schedule
from unnoise.diffusion.target import encode
from unnoise.diffusion.whitening import whiten
from unnoise.errors import InputError
from unnoise.registry import objective
from unnoise.types import Images, Labels, PerImage, Transform

CAPS = 2.5, 20.0  # of `perceptual`, at the end and at the start of a training
KNOWN = 2.3  # noise-to-signal ratio; above it, x_t says nothing of fine detail, and the predicted image is blurred


class Noised(NamedTuple):
    """Hold a training batch: x_t at level t, made of x0 and eps; s is the level one step cleaner.

    progress is the share of the training that is done: 0.5 always in a run without decay, 1 outside of a run.
    mean is E[x0 | x_t] where it is known (`StableTarget`), and x0 elsewhere. transform says how x0 was transformed,
    for networks that are conditioned on it.
    """

    x0: Images
    eps: Images
    x_t: Images
    t: Level
    s: Level
    label: Labels | None
    progress: float = 1.0
    mean: Images | None = None
    transform: Transform | None = None

    def part(self, rows: slice | Tensor) -> "Noised":
        """Return the batch of some of the images."""
        here = rows if isinstance(rows, slice) else rows.to(self.x0.device)
        x0, eps, x_t = self.x0[here], self.eps[here], self.x_t[here]
        told = (self.label, self.mean, self.transform)
        label, mean, transform = (None if each is None else each[here] for each in told)
        return Noised(x0, eps, x_t, self.t.part(rows), self.s.part(rows), label, self.progress, mean, transform)

    @property
    def best_x0(self) -> Images:
        """Return what a squared error of the image should predict: the mean if it is known, else x0."""
        return self.x0 if self.mean is None else self.mean

    @property
    def best_eps(self) -> Images:
        """Return what a squared error of the noise should predict, given `best_x0`."""
        return self.eps if self.mean is None else noise_of(self.x_t, self.mean, self.t)


@runtime_checkable
class Objective(Protocol):
    """Return a loss for each image [b]; its mean is minimised."""

    def __call__(self, model: Diffusion, batch: Noised) -> PerImage: ...


def add_noise(x0: Images, eps: Images, levels: tuple[Level, Level], label: Labels | None = None) -> Noised:
    """Return a training batch, noised to level t of `levels` = (t, s)."""
    t, s = levels
    return Noised(x0, eps, q_sample(x0, eps, t), t, s, label)


def noised(x0: Images, label: Labels | None, schedule: Schedule, *, generator: Generator | None = None) -> Noised:
    """Noise a batch to levels drawn uniformly, one for each image: the batch that an objective takes.

    Args:
        x0: Clean images, [b, c, h, w] in [-1, 1].
        label: The class of each image, [b], -1 for none; None if there are no classes.
        schedule: The noise schedule of the model.
        generator: The random stream of levels and noise, on any device; by default torch's own.

    Returns:
        The noised batch.
    """
    device = generator.device if generator else torch.device("cpu")
    time = torch.randint(schedule.T, (len(x0),), generator=generator, device=device).cpu()
    eps = torch.randn(x0.shape, generator=generator, device=generator.device if generator else x0.device).to(x0)
    known = None if label is None or (label < 0).all() else label.to(x0.device)
    return add_noise(x0, eps, (schedule.level(time), schedule.level(time - 1)), known)


def mean_square(error: Images) -> PerImage:
    """Return the mean of the squared error of each image."""
    return error.square().mean(dim=(1, 2, 3))


def wanted(model: Diffusion, batch: Noised) -> Images:
    """Return the output of a perfect network for this batch."""
    return encode(batch.best_x0, batch.best_eps, batch.t, model.target)


def term_of_bound(model: Diffusion, batch: Noised, predicted: Prediction) -> PerImage:
    """Return T * L_{t-1} (or L_0) with the learned variance: its mean over all times is the bound without L_T."""
    floor = decoder_floor([*map(model.schedule.level, range(min(model.schedule.T, 2) - 1, -1, -1)), CLEAN])
    levels = (batch.t, batch.s)
    return model.schedule.T * term(predicted, batch.x0, batch.x_t, levels, floor, "learned")


@objective
def simple(model: Diffusion, batch: Noised) -> PerImage:
    """Take the mean squared error of the output, Ho et al. 2020 (arXiv:2006.11239), eq. 14, in the target's units."""
    return mean_square(model.output(batch.x_t, batch.t, batch.label) - wanted(model, batch))


@objective
def weighted(model: Diffusion, batch: Noised) -> PerImage:
    """Weigh the squared error of eps like the bound, Ho et al. 2020 (arXiv:2006.11239), eq. 12, sigma_t^2 = beta_t.

    The weight is beta_t^2 / (2 sigma_t^2 alpha_t (1 - alphas_cumprod_t)). With the posterior's variance it would be
    infinite at t = 0.
    """
    scale, beta = transition(batch.s, batch.t)  # sqrt(alpha_t) and beta_t
    weight = (beta / (2 * scale.square() * batch.t.sigma.square())).flatten()
    eps = model(batch.x_t, batch.t, batch.label).eps
    return weight.to(eps) * mean_square(eps - batch.best_eps)


@objective.declare(learned_variance=True)
def bound(model: Diffusion, batch: Noised) -> PerImage:
    """Minimise the variational bound, Ho et al. 2020 (arXiv:2006.11239), eq. 5, with a learned variance, in bits/dim.

    Nichol & Dhariwal 2021 (arXiv:2102.09672), section 3.3, train it with importance-sampled times, since its noise is
    large.
    """
    return term_of_bound(model, batch, model(batch.x_t, batch.t, batch.label))


@objective.declare(learned_variance=True)
def hybrid(model: Diffusion, batch: Noised, *, bound: float = 0.001) -> PerImage:
    """Add `simple` and lambda * `bound`, Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. 16.

    The predicted image is held fixed in the bound, so that the gradient of the bound reaches only the variance.

    Args:
        bound: lambda of the paper.

    Raises:
        InputError: lambda is below 0.
    """
    if bound < 0:
        raise InputError(f"objective hybrid: bound is 0 or more, got {bound:g}")
    output = model.output(batch.x_t, batch.t, batch.label)
    predicted = model.read(output, batch.x_t, batch.t)
    held = predicted._replace(x0=predicted.x0.detach())
    simple = mean_square(output[:, : model.shape[0]] - wanted(model, batch))
    return simple + bound * term_of_bound(model, batch, held)


@objective
def capped_v(
    model: Diffusion, batch: Noised, *, gamma: float = 5.0, first: float | None = None, white: float = 0.0
) -> PerImage:
    """Weigh the squared error of x0 by min(SNR + 1, gamma), the cap of Hang et al. 2023 on the plain loss of target v.

    SNR + 1 is the weight of the plain objective of target v (Salimans & Ho 2022, arXiv:2202.00512, section 4). The cap
    keeps nearly clean images from dominating. In noise the weight is 1; the weight of `min_snr_gamma` falls to 0 there.
    It does not suit the target eps, for which the same weight grows without bound in noise.

    Args:
        gamma: The cap at the end of a training.
        first: The cap at the start, from where it changes geometrically to gamma (docs/concepts/quality.md). The
            default is gamma.
        white: The share of the whitening of the error, 0 to 1; above 0, fine detail counts more (`whitening.whiten`).
            It acts where noise is below 2.3 times the image: above, only coarse shapes can be known.

    Raises:
        InputError: gamma or first is not above 0, or white is not from 0 to 1.
    """
    first = gamma if first is None else first
    return capped(model(batch.x_t, batch.t, batch.label).x0, batch, gamma, first, white)


def capped(x0: Images, batch: Noised, gamma: float, first: float, white: float) -> PerImage:
    """Return the loss of `capped_v` for a predicted image."""
    if min(first, gamma) <= 0:
        raise InputError(f"objective capped_v: gamma and first are above 0, got {gamma:g} and {first:g}")
    if not 0 <= white <= 1:
        raise InputError(f"whitening: white is 0 to 1, got {white:g}")
    cap = geometric(first, gamma, batch.progress)
    error = x0 - batch.best_x0
    known = (batch.t.ratio < KNOWN).to(error.device)
    weight = (batch.t.snr + 1).clamp(max=cap).flatten().to(x0)
    return weight * mean_square(torch.where(known, whiten(error, white), error))


def geometric(first: float, last: float, progress: float) -> float:
    """Return the value at this progress of a training, which changes from first to last by equal factors."""
    return first * float((last / first) ** progress)


@objective.declare(pretrained=True)
def perceptual(  # the options of two terms
    model: Diffusion,
    batch: Noised,
    *,
    weight: float = 0.1,
    last: float = 0.03,
    network: Literal["lite0", "lite1", "lite2"] = "lite1",
    stages: tuple[int, ...] = STAGES,
    white: float = 0.15,
) -> PerImage:
    """Add `capped_v:gamma=2.5,first=20` and a perceptual distance of x0, as PixelGen does it (arXiv:2602.02493).

    In much noise the predicted image is a mean of many images, which is blurred as it must be. So the distance counts
    only where noise is below 2.3 times the image. Its weight falls during a training, as the cap does: it teaches
    shapes and edges early, and at the end it would make edges too sharp.

    Args:
        weight: The weight of the distance at the start of a training.
        last: The share of the weight that is left at the end; it changes geometrically.
        network: The EfficientNet whose features are compared; it cannot judge the images then.
        stages: The stages from 0 to 6 whose first maps are compared, beside the map of the stem.
        white: The share of the whitening in `capped_v`.

    Raises:
        InputError: An option is out of range, the images have more than 4 channels, or the weights of the network are
            not installed.
    """
    if weight < 0:
        raise InputError(f"objective perceptual: weight is 0 or more, got {weight:g}")
    if not 0 < last <= 1:
        raise InputError(f"objective perceptual: last is above 0 up to 1, got {last:g}")
    x0 = model(batch.x_t, batch.t, batch.label).x0
    loss = capped(x0, batch, *CAPS, white)
    rows = (batch.t.ratio.flatten() < KNOWN).nonzero().flatten().to(x0.device)
    if not len(rows):
        return loss
    weight *= geometric(1.0, last, batch.progress)
    return loss.index_add(0, rows, weight * perceptual_distance(x0[rows], batch.x0[rows], network, stages).to(loss))


@objective.declare(pretrained=True)
def distance(
    model: Diffusion,
    batch: Noised,
    *,
    weight: float = 0.1,
    network: Literal["lite0", "lite1", "lite2"] = "lite1",
    stages: tuple[int, ...] = STAGES,
) -> PerImage:
    """Add the squared error of x0 and a perceptual distance at all levels, as Song et al. 2023 do (arXiv:2303.01469).

    It is for distillation, whose targets leave nothing to chance: so in much noise, too, the predicted image is sharp.

    Args:
        weight: The weight of the perceptual distance.
        network, stages: As in `perceptual`.

    Raises:
        InputError: The weight is below 0.
    """
    if weight < 0:
        raise InputError(f"objective distance: weight is 0 or more, got {weight:g}")
    x0 = model(batch.x_t, batch.t, batch.label).x0
    return mean_square(x0 - batch.x0) + weight * perceptual_distance(x0, batch.x0, network, stages)


@objective
def min_snr(model: Diffusion, batch: Noised, *, gamma: float = 5.0, first: float | None = None) -> PerImage:
    """Do what `capped_v` does: this is its name in version 0.1.0. The weight of Hang et al. 2023 is `min_snr_gamma`.

    Args:
        gamma, first: The caps at the end and at the start of a training.
    """
    return capped_v(model, batch, gamma=gamma, first=first)


@objective
def min_snr_gamma(model: Diffusion, batch: Noised, *, gamma: float = 5.0) -> PerImage:
    """Weigh the squared error of x0 by min(SNR, gamma), Hang et al. 2023 (arXiv:2303.09556), eq. 6.

    It is computed as the error of eps with the weight min(1, gamma / SNR), which is finite at every level. For the
    target v it is the error of v with the weight min(SNR, gamma) / (SNR + 1).

    Args:
        gamma: The cap.

    Raises:
        InputError: gamma is not above 0.
    """
    if gamma <= 0:
        raise InputError(f"objective min_snr_gamma: gamma is above 0, got {gamma:g}")
    eps = model(batch.x_t, batch.t, batch.label).eps
    weight = (gamma / batch.t.snr).clamp(max=1).flatten()
    return weight.to(eps) * mean_square(eps - batch.best_eps)


@objective
def soft_min_snr(model: Diffusion, batch: Noised, *, gamma: float = 4.0) -> PerImage:
    """Weigh the squared error of x0 by 1 / (1 / SNR + 1 / gamma), Crowson et al. 2024 (arXiv:2401.11605).

    Args:
        gamma: The largest weight, which is approached smoothly.

    Raises:
        InputError: gamma is not above 0.
    """
    if gamma <= 0:
        raise InputError(f"objective soft_min_snr: gamma is above 0, got {gamma:g}")
    x0 = model(batch.x_t, batch.t, batch.label).x0
    weight = (gamma * batch.t.snr / (batch.t.snr + gamma)).flatten()
    return weight.to(x0) * mean_square(x0 - batch.best_x0)


@objective
def p2(model: Diffusion, batch: Noised, *, k: float = 1.0, gamma: float = 1.0) -> PerImage:
    """Weigh the squared error of eps by 1 / (k + SNR)^gamma, Choi et al. 2022 (arXiv:2204.00227), eq. 8.

    Args:
        k, gamma: The constants of the paper.

    Raises:
        InputError: k or gamma is below 0.
    """
    if min(k, gamma) < 0:
        raise InputError(f"objective p2: k and gamma are 0 or more, got {k:g} and {gamma:g}")
    eps = model(batch.x_t, batch.t, batch.label).eps
    weight = (k + batch.t.snr).pow(-gamma).flatten()
    return weight.to(eps) * mean_square(eps - batch.best_eps)
