"""Compute tracks, events and baselines from the numbers of single faces. Pure functions over published rows."""
