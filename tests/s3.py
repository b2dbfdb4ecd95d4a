"""A real S3 API for tests: moto's server in a process of its own, and a proxy that lets requests go wrong."""

import http.client
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def server(log: Path | None = None) -> Iterator[str]:
    """The endpoint of an S3 server; ended by its process id. `log` takes a line a request."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") if log else nullcontext() as file:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file or subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urlopen(f"{url}/moto-api/").close()
            break
        except URLError:
            time.sleep(0.1)
    try:
        yield url
    finally:
        process.terminate()
        process.wait(10)


class Proxy:
    """Forwards to a server; every so many requests one is refused, reset, cut or left without an answer, in turn.

    `without_headers` (lower case) are dropped from requests: a store that does not know them. `latency_seconds` pass
    before each answer.
    """

    def __init__(
        self,
        upstream: str,
        every: int,
        stall_seconds: float,
        without_headers: tuple[str, ...] = (),
        latency_seconds: float = 0,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.bytes_sent: Counter[str] = Counter()
        faults, lock = cycle(["503", "reset", "cut", "stall"]), threading.Lock()
        host, _, port = upstream.removeprefix("http://").partition(":")
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with lock:
                    proxy.counts["all"] += 1
                    fault = next(faults) if proxy.counts["all"] % every == 0 else "none"
                    proxy.counts[fault] += 1
                time.sleep(latency_seconds)
                if fault == "503":
                    self.answer(503, {"Content-Length": "0", "Retry-After": "0"}, b"")
                    return
                if fault == "reset":
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    self.connection.close()
                    return
                if fault == "stall":
                    time.sleep(stall_seconds)
                    self.close_connection = True
                    return
                upstream_connection = http.client.HTTPConnection(host, int(port), timeout=60)
                passed = {k: v for k, v in self.headers.items() if k.lower() not in without_headers}
                upstream_connection.request(self.command, self.path, body, passed)
                answer = upstream_connection.getresponse()
                data = answer.read()
                headers = {k: v for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection")}
                if self.command != "HEAD":
                    headers["Content-Length"] = str(len(data))
                if fault == "cut":
                    data, self.close_connection = data[: len(data) // 2], True
                with lock:
                    proxy.bytes_sent[self.path.partition("?")[0]] += len(data)
                self.answer(answer.status, headers, data)

            def answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    self.close_connection = True  # the client has given up on this answer

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
