"""Edits of pictures by a trained run, none of which needs another training."""
