"""A server on the loopback that says what a test tells it to: what no real server can be made to say."""

import email
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
        self.batches = Batches(self)

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


class Batches:
    """Files and batches. `ends`: one a batch in the order of submission, then the last one: what has become of it after `looks` looks.

    An end takes the answered lines and gives status, lines of the output file, lines of the error file and errors of the batch.
    """

    def __init__(self, stub: Stub) -> None:
        self.stub, self.files, self.made = stub, dict[str, bytes](), list[dict[str, Any]]()
        self.ends: list[Callable[[list[dict[str, Any]]], tuple[str, list[Any], list[Any], list[Any]]]] = [finished]
        self.looks, self.seconds, self.seen = 1, 0.0, list[str]()  # `seconds`: until the answer to a submission
        self.script: list[Said] = []  # said first, whatever is asked

    def lines(self, number: int) -> list[dict[str, Any]]:
        """Requests of a batch."""
        return [json.loads(line) for line in self.files[self.made[number]["input_file_id"]].splitlines()]

    def takes(self, path: str) -> bool:
        """Whether a request is about files or batches."""
        return path.startswith(("/v1/files", "/v1/batches"))

    def respond(self, method: str, path: str, kind: str, data: bytes) -> Said:
        with self.stub.lock:
            self.seen.append(f"{method} {path}")
            if self.script:
                return self.script.pop(0)
            parts = path.partition("?")[0].removeprefix("/v1/").split("/")
            if parts == ["files"]:
                name = f"file-{len(self.files)}"
                self.files[name] = uploaded(kind, data)
                return Said(
                    {"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "x", "purpose": "batch", "status": "ok"}
                )
            if parts[0] == "files":
                return Said(self.files[parts[1]].decode())
            if method == "POST":
                given = json.loads(data)
                batch = {
                    **given, "id": f"batch_{len(self.made)}", "object": "batch", "created_at": int(time.time()), "status": "validating",
                }  # fmt: skip
                self.made.append({**batch, "looks": 0})
                return Said(batch, seconds=self.seconds)
            if len(parts) == 1:
                return Said({"object": "list", "data": self.made[::-1], "has_more": False})
            found = [number for number, one in enumerate(self.made) if one["id"] == parts[1]]
            return Said(self.look(found[0])) if found else Said({"error": {"message": "No such batch"}}, 404)

    def look(self, number: int) -> dict[str, Any]:
        batch = self.made[number]
        batch["looks"] += 1
        if batch["looks"] > self.looks and batch["status"] in ("validating", "in_progress"):
            answered = []
            for line in self.lines(number):
                body = self.stub.answer(line["body"])
                status, body = (body.status, body.body) if isinstance(body, Said) else (200, body)
                response = {"status_code": status, "request_id": "req", "body": body}
                answered.append({"id": "x", "custom_id": line["custom_id"], "response": response, "error": None})
            end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
            batch["status"], output, errors, why = end(answered)
            for name, found in (("output_file_id", output), ("error_file_id", errors)):
                if found:
                    batch[name] = f"file-{len(self.files)}"
                    self.files[batch[name]] = "\n".join(json.dumps(line, ensure_ascii=False) for line in found).encode()
            batch["errors"] = {"object": "list", "data": why}
        elif batch["status"] == "validating":
            batch["status"] = "in_progress"
        return batch


class GoogleBatches(Batches):
    """The same as Gemini's API has it: files come in two steps, a batch is an operation, its answers stand in one file.

    An end takes the answered lines and gives the state and the lines of the file.
    """

    def __init__(self, stub: Stub) -> None:
        super().__init__(stub)
        self.finish: Callable[[list[dict[str, Any]]], tuple[str, list[Any]]] = lambda answered: ("BATCH_STATE_SUCCEEDED", answered[::-1])

    def takes(self, path: str) -> bool:
        return any(word in path for word in ("/files", "/batches", ":batchGenerateContent"))

    def lines(self, number: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files[self.made[number]["file"]].splitlines()]

    def respond(self, method: str, path: str, kind: str, data: bytes) -> Said:
        with self.stub.lock:
            self.seen.append(f"{method} {path}")
            if self.script:
                return self.script.pop(0)
            place = path.partition("?")[0]
            if place == "/upload/v1beta/files":
                return Said({}, headers={"x-goog-upload-url": f"{self.stub.url.removesuffix('/v1')}/upload/files/bytes"})
            if place == "/upload/files/bytes":
                name = f"files/in{len(self.files)}"
                self.files[name] = data
                return Said({"file": {"name": name}}, headers={"x-goog-upload-status": "final"})
            if place.endswith(":batchGenerateContent"):
                given = json.loads(data)["batch"]
                made = {"name": f"batches/b{len(self.made)}", "mark": given["displayName"], "file": given["inputConfig"]["fileName"]}
                self.made.append({**made, "model": place.split("/")[-1].partition(":")[0], "looks": 0, "state": "BATCH_STATE_PENDING"})
                return Said(self.operation(len(self.made) - 1), seconds=self.seconds)
            if place == "/v1beta/batches":
                return Said({"operations": [self.operation(number) for number in range(len(self.made))]})
            if place.startswith("/v1beta/files/"):
                return Said(self.files["files/" + place.rpartition("/")[2].partition(":")[0]].decode())
            found = [number for number, one in enumerate(self.made) if place == f"/v1beta/{one['name']}"]
            if not found:
                return Said({"error": {"code": 404, "status": "NOT_FOUND", "message": "no such batch"}}, 404)
            return Said(self.look(found[0]))

    def look(self, number: int) -> dict[str, Any]:
        batch = self.made[number]
        batch["looks"] += 1
        if batch["looks"] > self.looks and batch["state"] in ("BATCH_STATE_PENDING", "BATCH_STATE_RUNNING"):
            answered = []
            for line in self.lines(number):
                body = self.stub.answer(line["request"])
                answered.append({"key": line["key"], **({"error": body.body} if isinstance(body, Said) else {"response": body})})
            batch["state"], found = self.finish(answered)
            if found:
                batch["out"] = f"files/out{number}"
                self.files[batch["out"]] = "\n".join(json.dumps(line, ensure_ascii=False) for line in found).encode()
        elif batch["state"] == "BATCH_STATE_PENDING":
            batch["state"] = "BATCH_STATE_RUNNING"
        return self.operation(number)

    def operation(self, number: int) -> dict[str, Any]:
        batch = self.made[number]
        about = {"displayName": batch["mark"], "state": batch["state"], "model": f"models/{batch['model']}"}
        return {"name": batch["name"], "metadata": {**about, **({"output": {"responsesFile": batch["out"]}} if "out" in batch else {})}}


def finished(answered: list[dict[str, Any]]) -> tuple[str, list[Any], list[Any], list[Any]]:
    """All is answered, in another order; what failed is in the file of errors."""
    good = [line for line in answered[::-1] if line["response"]["status_code"] == 200]
    return "completed", good, [line for line in answered if line not in good], []


def uploaded(kind: str, data: bytes) -> bytes:
    """The file in a form."""
    message = email.message_from_bytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + data)
    [file] = [part for part in message.walk() if part.get_filename()]
    found = file.get_payload(decode=True)
    assert isinstance(found, bytes)
    return found


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

        def do_GET(self) -> None:
            self.say(stub.batches.respond("GET", self.path, "", b""))

        def do_POST(self) -> None:
            if "chunked" in self.headers.get("transfer-encoding", ""):
                given = b""
                while size := int(self.rfile.readline(), 16):
                    given += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                given = self.rfile.read(int(self.headers["content-length"]))
            if stub.batches.takes(self.path):
                self.say(stub.batches.respond("POST", self.path, self.headers["content-type"] or "", given))
                return
            with stub.lock:
                stub.in_flight += 1
                stub.most = max(stub.most, stub.in_flight)
            said = stub.respond(self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(given))
            self.say(said)
            with stub.lock:
                stub.in_flight -= 1

        def say(self, said: Said) -> None:
            time.sleep(said.seconds)
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
