"""Compare an output's numbers with human labels."""
