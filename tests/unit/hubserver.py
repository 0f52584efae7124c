"""A server on this machine that speaks the hub's protocol, serves plain files, and can break, stall and damage. Holds no test."""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "owner/name"


class Hub(ThreadingHTTPServer):
    """`files`: path in the repository -> bytes; `faults`: path -> what goes wrong with its next transfers, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = {REPO}
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = {}
        self.moved: dict[str, str] = {}  # name of a plain file -> where it is now
        self.sent: Counter[str] = Counter()  # path -> bytes of bodies that were sent
        self.tokens: list[str | None] = []  # of every request
        self.asked: list[str] = []  # revisions

    @property
    def address(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"


def _git(data: bytes) -> str:
    """What git, and so the hub, calls a small file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """A running server."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class Handler(BaseHTTPRequestHandler):
    """What the hub's client asks for (information, tree, files of a revision), and `/files/{path}`."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.server.tokens.append(self.headers.get("Authorization"))
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)/tree/[^/]+/?", path):
            self._json([self._entry(name, data) for name, data in sorted(self.server.files.items())])
        elif (moved := re.fullmatch(r"/files/([^/]+)(?:/.*)?", path)) and moved[1] in self.server.moved:
            self.send_response(302)
            self.send_header("Location", self.server.moved[moved[1]])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif match := re.fullmatch(r"/(?:datasets/)?[^/]+/[^/]+/resolve/([^/]+)/(.+)|/files/([^/]+)(?:/.*)?", path):
            self._file(match[2] or match[3], body)
        else:
            self._refuse(404, "RepoNotFound")

    def _info(self, repo: str, revision: str) -> None:
        self.server.asked.append(revision)
        if fault := self._fault("info"):
            self._refuse(*{"gated": (403, "GatedRepo"), "down": (503, "")}[fault])
        elif repo not in self.server.repositories:
            self._refuse(404, "RepoNotFound")
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        else:
            self._json(
                {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in sorted(self.server.files)], "private": False}
            )

    def _entry(self, name: str, data: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "path": name, "size": len(data), "oid": _git(data)}
        if not name.endswith(".json"):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def _file(self, name: str, body: bool) -> None:
        if name not in self.server.files:
            self._refuse(404, "EntryNotFound")
            return
        data = self.server.files[name]
        fault = self._fault(name) if body else None
        if fault in ("401", "403"):
            self._refuse(int(fault), "GatedRepo")
            return
        start = self._start(len(data))
        if start is None:
            return
        part = bytearray(data[start:])
        if fault == "corrupt":
            part[len(part) // 2] ^= 0xFF
        self.send_response(206 if start else 200)
        self._headers(name, data, len(part))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            self._send(name, bytes(part), fault)

    def _start(self, size: int) -> int | None:
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if start and start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return start

    def _headers(self, name: str, data: bytes, length: int) -> None:
        digest = _git(data) if name.endswith(".json") else hashlib.sha256(data).hexdigest()
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{digest}"')
        if not name.endswith(".json"):
            self.send_header("X-Linked-Etag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(len(data)))

    def _send(self, name: str, part: bytes, fault: str | None) -> None:
        if fault in ("break", "stall"):
            half = part[: len(part) // 2]
            self.wfile.write(half)
            self.wfile.flush()
            self.server.sent[name] += len(half)
            if fault == "stall":
                time.sleep(6)
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(part)
        self.server.sent[name] += len(part)

    def _fault(self, name: str) -> str | None:
        waiting = self.server.faults.get(name, [])
        return waiting.pop(0) if waiting else None

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", f"refused: {code or status}")
        self.send_header("Content-Length", "0")
        self.end_headers()
