"""Measure a trained run or a set of images, and report everything that is needed to compare the numbers."""
