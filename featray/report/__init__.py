"""Build HTML pages about an output, and compare two releases."""
