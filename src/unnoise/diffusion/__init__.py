"""The mathematics: levels, schedules, the process, targets, the model, objectives. No files, no device moves."""

from unnoise.diffusion import objective, schedule, spacing, target, times

__all__ = ["objective", "schedule", "spacing", "target", "times"]
