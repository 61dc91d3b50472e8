"""Show a trained run in the browser; this needs the extra `app`."""
