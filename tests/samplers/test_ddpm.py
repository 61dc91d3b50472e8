"""DDPM is the notebook's loop and agrees with diffusers."""

import inspect

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    UNet2DModel,
)
from torch.testing import assert_close

from diffusers_helpers import Theirs, exact_table, their_states
from sampler_helpers import (
    SHAPE,
    agree,
    diffusion,
    replay,
    steps_of,
)


@torch.no_grad()
def sample_ddpm(model, betas, image_size=32, n_samples=16, channels=3, device=None):
    """Run the notebook's loop, copied without its progress bar."""
    device = device or next(model.parameters()).device
    model.eval()
    alphas = 1 - betas
    alpha_bars = torch.cumprod(alphas, dim=0)
    T = len(betas)
    x = torch.randn(n_samples, channels, image_size, image_size, device=device)
    for t in range(T - 1, -1, -1):
        t_batch = torch.full((n_samples,), t, device=device, dtype=torch.long)
        beta_t = betas[t]
        alpha_t = alphas[t]
        alpha_bar_t = alpha_bars[t]
        alpha_bar_prev_t = alpha_bars[t - 1] if t > 0 else torch.tensor(1.0, device=device)
        eps_pred = model(x, t_batch).sample
        mean = (1 / torch.sqrt(alpha_t)) * (x - (beta_t / torch.sqrt(1 - alpha_bar_t)) * eps_pred)
        if t > 0:
            posterior_var_t = beta_t * (1 - alpha_bar_prev_t) / (1 - alpha_bar_t)
            x = mean + torch.sqrt(posterior_var_t) * torch.randn_like(x)
        else:
            x = mean
    model.train()
    return x


def notebook_pair(T):
    """Return our image and the notebook's, from the same network and the same random numbers."""
    net = UNet2DModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    model = diffusion("eps", f"linear:T={T}", Theirs(net))
    torch.manual_seed(1)
    expected = sample_ddpm(net, torch.linspace(1e-4, 0.02, T), image_size=8, n_samples=2)
    torch.manual_seed(1)
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        *_, last = steps_of("ddpm", model, x, model.schedule.grid(T))
    return last.x, expected


@pytest.mark.usefixtures("float64")
def test_ddpm_is_the_notebooks_loop():
    ours, expected = notebook_pair(1000)
    assert_close(ours, expected, rtol=0, atol=1e-9)


def test_ddpm_is_the_notebooks_loop_in_float32():
    """The loop runs as in the notebook, with fewer levels. An untrained network lets the image grow: compare shares."""
    ours, expected = notebook_pair(250)
    agree([ours], [expected], 1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [4, 20, 100])
@pytest.mark.parametrize("spaced", ["trailing", "leading"])
@pytest.mark.parametrize("exact", [True, False], ids=["our table", "their table"])
def test_ddpm_on_some_levels_is_that_of_diffusers(exact, spaced, steps, variance):
    """They add noise to the very last image too unless its time is 0; if it is not (trailing), the image is left out.

    That noise has a variance of 1e-20 for fixed_small, but all of 1 - alpha_bar for fixed_large.
    """
    model = diffusion("v", "linear")
    scheduler = DDPMScheduler(
        clip_sample=False,
        prediction_type="v_prediction",
        timestep_spacing=spaced,
        variance_type=f"fixed_{variance}",
    )
    scheduler.set_timesteps(steps)
    if exact:
        exact_table(scheduler, model)
    x, *noises = torch.randn(steps + 1, 2, *SHAPE)
    ours = steps_of(f"ddpm:variance={variance}", model, x, model.schedule.grid(steps, spaced), replay(noises))
    ours = [step.x for step in ours]
    same = steps - 1 if variance == "large" and spaced == "trailing" else steps
    draw = inspect.getmodule(DDPMScheduler)
    with pytest.MonkeyPatch.context() as patch:
        queue = iter(noises)
        patch.setattr(draw, "randn_tensor", lambda *_, **__: next(queue))
        theirs = their_states(scheduler, model, x)
    agree(ours[:same], theirs[:same], 1e-9 if exact else 1e-4)
