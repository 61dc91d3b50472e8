"""Trained runs in other libraries' formats."""
