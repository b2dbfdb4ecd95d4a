"""Watching what processes try to reach: an audit hook in every Python that is started, children included."""

import os
import re
import socket
from pathlib import Path

_HOOK = '''
"""Notes and refuses every attempt to leave this machine. Python's sockets only: native code does not pass here."""
import ipaddress, os, socket, sys

_LOG = os.environ["WATCH_LOG"]


def _is_here(host):
    name = host.decode() if isinstance(host, bytes) else str(host)
    if name in ("", "None", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified or name in os.environ["WATCH_OWN"].split()


def _watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        target = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        connection, address = arguments
        if not isinstance(address, tuple):
            return  # a socket of the file system, or one that is connected already
        if event == "socket.connect" and connection.type & socket.SOCK_DGRAM:
            return  # sends nothing: this is how programs learn which address they have
        target = address[0]
    else:
        return
    if not _is_here(target):
        with open(_LOG, "a") as file:
            file.write(f"{event} {target} {' '.join(sys.argv)[:100]}\\\\n")
        raise ConnectionRefusedError(f"{event} {target}: watched")


sys.addaudithook(_watch)
with open(_LOG, "a") as file:
    file.write("watching\\\\n")
'''.replace("\\\\n", "\\n")


def watched(folder: Path) -> dict[str, str]:
    """An environment in which Python refuses to leave the machine, as a user has it: nothing is switched off in it."""
    (folder / "sitecustomize.py").write_text(_HOOK)
    off = ("RAY_USAGE_STATS_ENABLED", "RAY_USAGE_STATS_REPORT_URL", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI")
    plain = {name: value for name, value in os.environ.items() if name not in off}
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; Ray's processes talk to each other by this address
        own = probe.getsockname()[0]
    (folder / "home").mkdir()
    watch = {"WATCH_LOG": str(folder / "log"), "WATCH_OWN": own, "HOME": str(folder / "home")}
    return plain | watch | {"PYTHONPATH": path}


def attempts(folder: Path) -> list[str]:
    """What was refused; AssertionError if nothing was watched.

    Ray's dashboard asks the cloud that its machine may be in for the cloud's name, and cannot be told not to. That goes
    to the machine's own metadata service, and on from there only in the reports that are looked for here.
    """
    lines = (folder / "log").read_text().splitlines()
    assert "watching" in lines
    return [line for line in lines if line != "watching" and not (_METADATA.match(line) and "ray/dashboard" in line)]


_METADATA = re.compile(r"socket\.\w+ (169\.254\.169\.254|metadata\.google\.internal|b'metadata\.google\.internal') ")
