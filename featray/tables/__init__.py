"""The tables: how they are written, exactly once, and how they are read."""
