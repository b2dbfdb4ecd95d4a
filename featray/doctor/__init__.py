"""Checks of a machine: what works on it, what does not, and how to fix that."""
