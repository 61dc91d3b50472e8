"""Recompute what a run states, and say what differs."""
