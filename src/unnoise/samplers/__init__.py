"""One algorithm family a file. A sampler is a function over noise levels that yields its steps."""

from unnoise.samplers.adaptive import adaptive
from unnoise.samplers.ddim import ddim
from unnoise.samplers.ddpm import ddpm
from unnoise.samplers.dpm_solver import dpmpp_1s, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m
from unnoise.samplers.heun import euler, heun
from unnoise.samplers.sde import euler_maruyama, predictor_corrector
from unnoise.samplers.unipc import unipc

__all__ = [
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
