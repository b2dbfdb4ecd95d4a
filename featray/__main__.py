"""`python -m featray` is the command line."""

from featray.cli import main

main()
