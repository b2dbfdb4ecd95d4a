"""Containers, units and decoding."""
