"""The built-in dataset of cartoon faces: `faces` decides what a face looks like, `pen` draws flat shapes."""
