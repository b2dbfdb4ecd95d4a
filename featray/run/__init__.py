"""A run as its driver sees it: what is to do, what has come back, and when it is published."""
