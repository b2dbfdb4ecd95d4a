"""Download weights once, verify them, and cache converted networks; shared between processes."""
