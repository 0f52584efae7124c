"""Batches of chat completions: a file of requests, a batch of it, a file of answers and one of errors."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from medbench.remote.batching import Batches, Result, State
from medbench.remote.endpoint import Failed, Stopped, parsed
from medbench.remote.endpoints.openai import OpenAI, messages
from medbench.remote.request import Request

_OVER = {"failed", "completed", "expired", "cancelled"}


class OpenAIBatches(Batches):
    """Of OpenAI, or a server that speaks as it does."""

    most_requests = 50_000
    most_bytes = 190 * 10**6  # of 200 MB, which some count in other bytes

    def __init__(self, endpoint: OpenAI) -> None:
        self.endpoint = endpoint
        self.client = endpoint.connected("OpenAI")

    def line(self, request: Request) -> bytes:
        body = {"model": request.model, "messages": messages(request), **request.parameters}
        line = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(line).encode() + b"\n"

    def submit(self, lines: IO[bytes], mark: str) -> str:
        with self.endpoint.failing():
            file = self.client.files.create(file=(f"{mark}.jsonl", lines, "application/jsonl"), purpose="batch")
            batch = self.client.batches.create(
                input_file_id=_id(file), endpoint="/v1/chat/completions", completion_window="24h", metadata={"medbench": mark}
            )
        return _id(batch)

    def find(self, mark: str, since: float) -> str | None:
        with self.endpoint.failing():
            for batch in self.client.batches.list(limit=100):
                if (getattr(batch, "metadata", None) or {}).get("medbench") == mark:
                    return _id(batch)
                if (getattr(batch, "created_at", None) or since) < since:  # the newest come first
                    break
        return None

    def state(self, id: str) -> State:
        import openai

        with self.endpoint.failing():
            try:
                batch = self.client.batches.retrieve(id)
            except openai.NotFoundError:
                remedy = "use a key of the account that submitted it, or remove its note in `batches` of the store to pay for it again"
                raise Stopped(self.endpoint.where, f"knows no batch {id}", remedy) from None
        if not isinstance(getattr(batch, "status", None), str):
            raise Failed("a reply that is no batch")
        said = [f"{error.code or ''} {error.message or ''}".strip() for error in (batch.errors and batch.errors.data) or ()]
        files = tuple(file for file in (batch.output_file_id, batch.error_file_id) if file)
        return State(str(batch.status), self.endpoint.plain("; ".join(said[:3])), files if batch.status in _OVER else ())

    def results(self, state: State, folder: Path) -> Iterator[Result]:
        """The files come to the disk first: whole, or Failed."""
        stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        for file in state.results:
            with self.endpoint.failing(), self.client.files.with_streaming_response.content(file) as response:
                start = stream.tell()
                for data in response.iter_bytes(2**20):
                    stream.write(data)
            stream.write(b"\n")
            stream.seek(start)
            if parsed((line := stream.readline()).decode("utf-8", "replace")) is None:
                raise Failed(f"a file of answers that holds none: {self.endpoint.plain(line.decode('utf-8', 'replace'))}")
            stream.seek(0, os.SEEK_END)
        stream.seek(0)
        return (_result(found) for line in stream if (found := parsed(line.decode("utf-8", "replace"))) is not None)

    def close(self) -> None:
        self.client.close()


def _result(line: dict[str, Any]) -> Result:
    response = line.get("response")
    response = response if isinstance(response, dict) else {}
    body = response.get("body")
    is_answer = response.get("status_code") == 200 and isinstance(body, dict) and not body.get("error")
    return Result(str(line.get("custom_id")), body if is_answer else None, str(response.get("request_id") or ""))


def _id(made: Any) -> str:
    """Of a file or batch; the client lets pass what is none."""
    id = getattr(made, "id", None)
    if not isinstance(id, str):
        raise Failed("a reply that is no file or batch")
    return id
