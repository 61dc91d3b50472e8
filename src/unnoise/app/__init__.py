"""A trained run in the browser; needs the extra `app`."""
