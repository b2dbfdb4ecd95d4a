"""The command line: every command, and only what commands need. No other room imports click."""

import signal
import threading

# Until all is imported, which takes a second, Ctrl-C ends the process without a traceback. Only where Python's own
# handler is in place: a shell may have started this in the background, and a program may import this module.
_OURS = threading.current_thread() is threading.main_thread() and (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
)
if _OURS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    from featray.cli.root import main as main
finally:
    if _OURS:
        signal.signal(signal.SIGINT, signal.default_int_handler)
