"""Monitors: what measures or draws while a model trains."""

from unnoise.training.monitors.monitor import Monitor, Outcome, TimeBudget

__all__ = ["Monitor", "Outcome", "TimeBudget"]
