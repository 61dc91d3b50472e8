"""Targets with less noise: in much noise, the mean of all images that a noisy image may come from, not one of them."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unnoise.diffusion.objective import Noised
from unnoise.types import Images, Labels

ABOVE = 1.0  # noise-to-signal ratio; below it, hardly another image explains a noisy image


class StableTarget:
    """Give a training batch the mean E[x0 | x_t] over references, the stable target of Xu et al. (arXiv:2302.00670).

    The best prediction of x0 is that mean, so a squared error teaches the same from the mean as from x0, with less
    noise. An image is always one of its own references. If the references are all images that are trained on, the mean
    is exact; otherwise it is biased, less so with more references.

    Args:
        images: The references, [n, c, h, w] in [-1, 1], equally likely.
        labels: Their classes [n], -1 for none; a batch with classes is compared with references of the same class. If
            only some of them have a class, images without one keep themselves as the target: some of these never had a
            class and some have lost it for this batch, so the references are not equally likely for them.
    """

    def __init__(self, images: Images, labels: Labels | None = None) -> None:
        self.flat, self.labels = images.flatten(1), labels
        self.partly_labelled = labels is not None and bool((labels < 0).any() and (labels >= 0).any())
        self.half_squares = torch.linalg.vector_norm(self.flat, dim=1).square() / 2

    @torch.no_grad()
    def __call__(self, batch: Noised, place: Int64[Tensor, " b"] | None = None) -> Noised:
        """Return the batch with its mean, at the levels with more noise than image; x0 at the others.

        Args:
            batch: The noised batch.
            place: The number of each image among the references, -1 if it is none of them; by default none is.
        """
        noisy = batch.t.ratio.flatten() > ABOVE
        if batch.transform is not None:  # no reference is transformed in the same way
            noisy = noisy & ~batch.transform.any(dim=1).to(noisy.device)
        if self.partly_labelled and batch.label is not None:
            noisy = noisy & (batch.label >= 0).to(noisy.device)
        rows = noisy.nonzero().flatten()
        if not len(rows):
            return batch
        mean = batch.x0.clone()
        mean[rows.to(mean.device)] = self.mean(batch.part(rows), None if place is None else place[rows])
        return batch._replace(mean=mean)

    def mean(self, batch: Noised, place: Int64[Tensor, " b"] | None) -> Images:
        """Return E[x0 | x_t] over the references and the images themselves."""
        x_t, own = batch.x_t.flatten(1), batch.x0.flatten(1)
        alpha, variance = batch.t.alpha.flatten().to(x_t)[:, None], batch.t.sigma.flatten().square().to(x_t)[:, None]

        # log q(x_t | x0) without the terms that are the same for all images
        likely = alpha * (x_t @ self.flat.T - alpha * self.half_squares) / variance
        own_likely = alpha * ((x_t - alpha * own / 2) * own).sum(dim=1, keepdim=True) / variance

        likely = likely.masked_fill(self.left_out(batch.label, place, likely), -torch.inf)
        weights = torch.cat([likely, own_likely], dim=1).softmax(dim=1)
        return (weights[:, :-1] @ self.flat + weights[:, -1:] * own).view_as(batch.x_t)

    def left_out(self, label: Labels | None, place: Int64[Tensor, " b"] | None, like: Float[Tensor, "b n"]) -> Tensor:
        """Return True for references [b, n] of another class, and for the image itself, which is counted once."""
        out = torch.zeros_like(like, dtype=torch.bool)
        if place is not None:
            out = place.to(like.device)[:, None] == torch.arange(like.shape[1], device=like.device)
        if label is not None and self.labels is not None:
            out = out | ((label[:, None] >= 0) & (label[:, None] != self.labels))
        return out
