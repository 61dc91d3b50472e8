"""A step of Euler-Maruyama is that of the SDE of diffusers."""

import pytest
import torch
from torch.testing import assert_close

from process_helpers import schedule
from sampler_helpers import SHAPE
from unnoise.samplers.sde import reverse_step


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("time", [400, 700, 999])
def test_euler_maruyama_steps_as_the_sde_of_diffusers(time, monkeypatch):
    """One step agrees with their variance-preserving SDE, which has the betas of `linear` at the time t / 999.

    Theirs is drift times a time step, ours the discretised process: 1 + beta / 2 for 2 - sqrt(1 - beta), and the noise
    left of continuous time for that of 1000 levels. Both differ by less than 1e-4 of a step once there is some noise.
    """
    from diffusers.schedulers.deprecated import scheduling_sde_vp

    scheduler = scheduling_sde_vp.ScoreSdeVpScheduler()
    scheduler.set_timesteps(1000)
    x, eps, z = torch.randn(3, 2, *SHAPE)
    monkeypatch.setattr(scheduling_sde_vp, "randn_tensor", lambda *_, **__: z)
    theirs, _ = scheduler.step_pred(eps, x, torch.tensor(time / 999))
    t, s = schedule("linear").level(time), schedule("linear").level(time - 1)
    assert_close(reverse_step(x, eps, t, s, lambda _: z), theirs, rtol=0, atol=1e-4 * float(x.abs().max()))
