"""Samplers: functions over decreasing noise levels that yield their steps, one family a file."""

from unnoise.samplers.adaptive import adaptive
from unnoise.samplers.base import Sampler, Step
from unnoise.samplers.ddim import ddim
from unnoise.samplers.ddpm import ddpm
from unnoise.samplers.dpm_solver import dpmpp_1s, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m
from unnoise.samplers.heun import euler, heun
from unnoise.samplers.sde import euler_maruyama, predictor_corrector
from unnoise.samplers.unipc import unipc

# The functions adaptive, ddim, ddpm, heun and unipc take the place of their modules as attributes of this package.
# Their other functions are imported as in `from unnoise.samplers.ddim import invert`.
__all__ = [
    "Sampler",
    "Step",
    "adaptive",
    "ddim",
    "ddpm",
    "dpmpp_1s",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m",
    "euler",
    "euler_maruyama",
    "heun",
    "predictor_corrector",
    "unipc",
]
