"""Distillation: a student learns to draw in few steps what its teacher draws in many. One method a file."""
