"""Numbers about a trained run, with all that is needed to compare them."""
