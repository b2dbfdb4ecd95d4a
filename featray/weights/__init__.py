"""Files of weights and of converted networks: fetched once, verified, shared between processes."""
