"""Persons. Which tracks are of one person; pure functions over arrays, and the rows that come of them."""
