"""One algorithm family a file. A sampler is a function over noise levels that yields its steps."""

from unnoise.samplers import adaptive, ddim, ddpm, dpm_solver, heun, sde, unipc

__all__ = ["adaptive", "ddim", "ddpm", "dpm_solver", "heun", "sde", "unipc"]
