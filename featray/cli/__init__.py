"""The command line: every command, and only what commands need. No other room imports click."""

from featray.cli.root import main as main
