"""Edits of images by a trained run; none of them needs another training."""
