"""`draw` runs a sampler from one seed an image, and computes only the network in bf16."""

import pytest
import torch

from sampler_helpers import SHAPE, Toy, diffusion
from unnoise.backbones.unet import UNet
from unnoise.config import Sampling
from unnoise.errors import InputError
from unnoise.samplers.draw import NonfiniteError, draw, seeded_noise


def test_run_draws_every_step_and_passes_labels():
    seen = []

    class Labelled(Toy):
        def forward(self, x, time, label=None):
            seen.append(label)
            return super().forward(x, time)

    model = diffusion(backbone=Labelled()).requires_grad_()
    steps = list(draw(model, [0, 1], Sampling("ddim", steps=5, spacing="leading"), torch.tensor([1, 0])))
    assert [step.level.time for step in steps] == [600, 400, 200, 0, -1]
    assert [label.tolist() for label in seen] == [[1, 0]] * 5
    assert not steps[0].x.requires_grad
    assert next(draw(model, [0], Sampling("ddim", steps=1))).x.shape == (1, *SHAPE)
    assert seen[-1] is None


def test_run_leaves_gradients_on_between_steps():
    for _ in draw(diffusion(), [0], Sampling("ddpm", steps=2)):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_only_the_network_is_computed_in_bf16(precision):
    """The products of the network are bf16; all that the sampler gets and returns is float32."""
    model, products = diffusion("v", backbone=(network := UNet(3, widths=(32,), groups=8, zero_init=False))), set()
    network.conv_out.register_forward_hook(lambda _, x, y: products.add(y.dtype))
    how = Sampling("dpmpp_2m", steps=5)
    *_, last = draw(model, [3, 4], how, precision=precision)
    assert products == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert last.x.dtype == last.x0.dtype == torch.float32
    *_, exact = draw(model, [3, 4], how)
    error = (last.x - exact.x).norm() / exact.x.norm()
    assert error == 0 if precision == "fp32" else 1e-6 < error < 0.02


def test_seeded_noise_is_standard_normal_and_moves_on():
    noise = seeded_noise(range(1000))
    x = torch.empty(1000, 1, 4, 4)
    first, second = noise(x), noise(x)
    assert abs(first.mean()) < 5 / 16_000**0.5
    assert abs(first.std() - 1) < 5 / 32_000**0.5
    assert (first - second).abs().max() > 1
    assert torch.equal(seeded_noise([7])(x[:1])[0], first[7])


def test_bad_options_are_refused():
    for spec, message in [
        ("ddim:eta=1.5", "between 0 .* and 1 .* got 1.5"),
        ("ddim:eta=nan", "got nan"),
        ("ddpm:variance=larg", "did you mean 'large'"),
        ("dpmpp_2n", "did you mean 'dpmpp_2m'"),
    ]:
        with pytest.raises(InputError, match=message):
            list(draw(diffusion(), [0], Sampling(spec, steps=2)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_no_numbers_are_refused(value):
    """A file would show them black, and a score would count them as images."""

    class Broken(Toy):
        def forward(self, x, time, label=None):
            output = super().forward(x, time).clone()
            output[0] = value
            return output

    model = diffusion(backbone=Broken())
    with pytest.raises(NonfiniteError, match="1 of 2 images are not finite"):
        list(draw(model, [0, 1], Sampling("ddim", steps=2, clip=False)))
