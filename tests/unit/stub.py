"""A server on the loopback that says what a test tells it to: what no real server can be made to say."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple


class Said(NamedTuple):
    """One response: a body that is text, or becomes JSON."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    seconds: float = 0.0


class Stub:
    """`script` is said first, one after another; then what `answer` makes of a request's body. `asked`: bodies, in the order of arrival."""

    def __init__(self, answer: Callable[[dict[str, Any]], Any]) -> None:
        self.answer, self.script, self.asked = answer, list[Said](), list[dict[str, Any]]()
        self.headers, self.times, self.lock = list[dict[str, str]](), list[float](), threading.Lock()
        self.in_flight = self.most = 0
        self.url = ""

    def say(self, *script: Said) -> None:
        """Before all else."""
        self.script += script

    def respond(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Said:
        with self.lock:
            self.asked.append({**body, "path": path})
            self.headers.append(headers)
            self.times.append(time.monotonic())
            said = self.script.pop(0) if self.script else None
        found = self.answer(body) if said is None else said
        return found if isinstance(found, Said) else Said(found)


def completion(text: str | None = "yes", model: str = "m", reason: str = "stop", **more: Any) -> dict[str, Any]:
    """A chat completion."""
    message = {"role": "assistant", "content": text, **more}
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 0}}
    return {"model": model, "choices": [{"index": 0, "finish_reason": reason, "message": message}], "usage": usage}


@contextmanager
def serving(answer: Callable[[dict[str, Any]], Any] | None = None) -> Iterator[Stub]:
    """A running stub; its `url` ends in /v1."""
    stub = Stub(answer or (lambda body: completion(model=body["model"])))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            given = self.rfile.read(int(self.headers["content-length"]))
            with stub.lock:
                stub.in_flight += 1
                stub.most = max(stub.most, stub.in_flight)
            said = stub.respond(self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(given))
            time.sleep(said.seconds)
            with stub.lock:
                stub.in_flight -= 1
            data = said.body.encode() if isinstance(said.body, str) else json.dumps(said.body).encode()
            try:
                self.send_response(said.status)
                for name, value in {"content-type": "application/json", "content-length": str(len(data)), **said.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # whoever asked has gone
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
