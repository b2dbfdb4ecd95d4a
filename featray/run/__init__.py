"""The driver's side of a run: decide what to do, keep track of results, and publish them."""
