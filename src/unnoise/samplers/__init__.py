"""One algorithm family a file. A sampler is a function over noise levels that yields its steps."""

from unnoise.samplers import ddim, ddpm, dpm_solver, heun, sde

__all__ = ["ddim", "ddpm", "dpm_solver", "heun", "sde"]
