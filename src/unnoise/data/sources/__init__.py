"""Readers of every kind of data: each module turns one kind into a `Source`, and `find` chooses the module."""
