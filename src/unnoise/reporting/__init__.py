"""Show what is known of runs: one HTML page for a run, one table for several."""
