"""A small server that speaks the part of the Hugging Face hub's protocol that pulls use."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server serves and how it misbehaves. `files` maps `owner/repo/file` to content."""

    files: dict[str, bytes] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, COMMIT: COMMIT})
    requests: list[str] = field(default_factory=list)
    drop_after_bytes: int | None = None
    """Close the connection once, this far into the first download."""
    corrupt: bool = False
    short: bool = False
    commit_header: bool = True
    status: int | None = None
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def do_HEAD(self):
        self._answer(head=True)

    def do_GET(self):
        self._answer(head=False)

    def _answer(self, *, head):
        hub = self.hub
        self.hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        if hub.status is not None:
            return self._plain(hub.status)
        if self.path.startswith("/cdn/"):
            return self._content(hub.files[self.path.removeprefix("/cdn/")], head)
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if match is None:
            return self._plain(404)
        repo, revision, name = match.groups()
        if not any(key.startswith(repo + "/") for key in hub.files):
            return self._plain(404, {"X-Error-Code": "RepoNotFound"})
        if revision not in hub.revisions:
            return self._plain(404, {"X-Error-Code": "RevisionNotFound"})
        if f"{repo}/{name}" not in hub.files:
            return self._plain(404, {"X-Error-Code": "EntryNotFound"})
        content = hub.files[f"{repo}/{name}"]
        headers = {
            # Another origin, as the real hub's storage is: the client must not take the file's facts from there.
            "Location": f"{hub.url.replace('127.0.0.1', 'localhost')}/cdn/{repo}/{name}",
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
        }
        if hub.commit_header:
            headers["X-Repo-Commit"] = hub.revisions[revision]
        return self._plain(302, headers)

    def _plain(self, status, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _content(self, content, head):
        hub = self.hub
        if hub.corrupt:
            content = content[:-4] + bytes(4 * [255])
        if hub.short:
            content = content[: len(content) // 2]
        total, start = len(content), 0
        if requested := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(requested.group(1))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        if head:
            return
        if hub.drop_after_bytes is not None:
            self.wfile.write(content[start : start + hub.drop_after_bytes])
            hub.drop_after_bytes = None
            self.close_connection = True
            return
        self.wfile.write(content[start:])


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve an empty `Hub` on a free local port."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
