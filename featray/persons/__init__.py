"""Persons. Cluster tracks into persons: pure functions over arrays, and the resulting table rows."""
