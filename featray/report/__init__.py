"""Pages about an output, and two releases compared."""
