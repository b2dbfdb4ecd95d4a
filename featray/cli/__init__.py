"""The command line: every command, and nothing that works without one. It alone knows click."""

from featray.cli.root import main as main
