"""Compare an output's numbers with labels made by people."""
