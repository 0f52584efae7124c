"""Chat completions: the protocol of OpenAI, vLLM, SGLang, llama.cpp, `transformers serve`, Ollama, and of Gemini's compatible address.

The client's answer is read as JSON, since it lets pass what is none: HTML, an error or no choices under status 200.
"""

import base64
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from medbench.errors import whole
from medbench.remote.batching import Batches, Gone, Result, State
from medbench.remote.endpoint import Endpoint, Failed, Reply, Sent, Usage, count, parsed, required
from medbench.remote.request import Picture, Request

KIND = "openai"
_REASONS = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop", "length": "length", "max_tokens": "length",
    "repetition": "repetition", "content_filter": "filter",
}  # fmt: skip
_OVER = {"failed", "completed", "expired", "cancelled"}  # states of a batch
_FLAGGED = {"invalid_prompt", "content_filter", "content_policy_violation", "image_content_policy_violation"}  # codes of a status 400
_SPENT = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated"}


class OpenAI(Endpoint):
    """A server of chat completions."""

    kind = KIND

    @cached_property
    def client(self) -> Any:
        """Made when the first request is sent: what is kept needs neither address nor key."""
        return self.connected("AsyncOpenAI")

    def connected(self, client_class: str) -> Any:
        """A client of the library, which takes address and key from the entry alone."""
        openai = required("openai")
        for name in ("openai", "httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)  # their debug lines hold headers
        key, seconds = self.secret() or "-", self.reached.timeout
        make, http = getattr(openai, client_class), getattr(openai, f"Default{client_class.replace('OpenAI', '')}HttpxClient")
        client = make(base_url=self.address(), api_key=key, timeout=seconds, max_retries=0, http_client=http(follow_redirects=False))
        client.organization = client.project = None  # what OPENAI_* variables say is not for every server
        client._custom_headers = {}
        return client

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Around a call of the client: Failed, Limited, Invalid or Stopped for what it raises."""
        import httpx2
        import openai

        try:
            yield
        except openai.APITimeoutError:
            raise Failed("no answer within the time limit") from None
        except openai.APIConnectionError as error:
            raise Failed(f"no connection ({self.plain(error.__cause__ or error)})") from None
        except openai.APIStatusError as error:
            raise self._refused(error.status_code, error.response.text, error.response.headers) from None
        except json.JSONDecodeError:
            raise Failed("no JSON") from None
        except httpx2.HTTPError as error:  # in the middle of a file
            raise Failed(f"no connection ({self.plain(error) or type(error).__name__})") from None

    def batches(self, model: str) -> "OpenAIBatches":
        return OpenAIBatches(self)

    def shutdown_date(self, model: str) -> str | None:
        import openai

        with self.failing(), self.connected("OpenAI") as client:
            try:
                found = client.models.retrieve(model, timeout=10)
            except openai.NotFoundError:  # many servers list their models alone, or none
                return None
        day = getattr(found, "shutdown_date", None)
        return day if isinstance(day, str) else None

    def payload(self, request: Request) -> bytes:
        return json.dumps(body(request)).encode()

    async def send(self, request: Request, payload: bytes) -> Sent:
        """The body goes as it is: the client's own walk through messages takes longer than all the rest."""
        client, httpx2 = self.client, required("httpx2")
        with self.failing():
            try:
                raw = await client.post(
                    "/chat/completions", content=payload, cast_to=httpx2.Response, options={"headers": {"content-type": "application/json"}}
                )
            except required("openai").BadRequestError as error:
                if not flagged(parsed(error.response.text) or {}):
                    raise
                raw = error.response
        found = parsed(raw.text)
        if found is None:
            raise Failed(f"status {raw.status_code}, and no JSON: {self.plain(raw.text)}")
        if found.get("error") and not flagged(found):
            raise self._refused(int(raw.status_code), raw.text, raw.headers)
        return Sent(found, raw.headers.get("x-request-id", ""))

    def usage(self, body: Mapping[str, Any]) -> Usage:
        return usage(body)

    def read(self, body: Mapping[str, Any]) -> Reply:
        if code := flagged(body):
            return Reply("", "filter", Usage(), "", reason=code)
        choices = body.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            raise Failed(f"a reply without choices: {self.plain(json.dumps(body))}")
        text, refusal, word = message.get("content"), message.get("refusal"), str(choice.get("finish_reason") or "")
        if isinstance(text, list):
            text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict))
        if not isinstance(text, str | None) or not isinstance(refusal, str | None):
            raise Failed(f"a reply whose content is no text: {self.plain(json.dumps(body))}")
        reason = "refusal" if refusal and not text and word != "content_filter" else _REASONS.get(word)
        if reason is None:
            raise Failed(f"a reply that ended in an unknown way: finish_reason {word!r}")
        thoughts = message.get("reasoning_content") or message.get("reasoning") or ""
        found = refusal if reason == "refusal" else text
        return Reply(
            whole(found or "").strip(), reason, usage(body), str(body.get("model") or ""), thoughts if isinstance(thoughts, str) else "",
            str(body.get("system_fingerprint") or ""), word,
        )  # fmt: skip

    async def close(self) -> None:
        if "client" in self.__dict__:
            await self.client.close()

    def _refused(self, status: int, text: str, headers: Mapping[str, str]) -> Exception:
        body = parsed(text) or {}
        error = body.get("error")
        fields: Mapping[str, Any] = error if isinstance(error, dict) else {}
        codes = [str(value) for value in (fields.get("code"), fields.get("type")) if value]
        said = fields.get("message") or error or body.get("detail") or text
        return self.refused(status, next(iter(codes), ""), said, headers, is_spent=bool(_SPENT & set(codes)))


def flagged(body: Mapping[str, Any]) -> str:
    """The code of an error by which a service held its model back from a question; empty for any other body. No model has answered then."""
    error = body.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) and code in _FLAGGED else ""


def body(request: Request) -> dict[str, Any]:
    """Of an HTTP request, or of a line of a batch."""
    return {"model": request.model, "messages": messages(request), **request.parameters}


def messages(request: Request) -> list[dict[str, Any]]:
    """As chat completions have them; a text alone is a plain string."""
    content: list[dict[str, Any]] = [_part(part) for part in request.parts]
    alone = len(request.parts) == 1 and isinstance(request.parts[0], str)
    user = {"role": "user", "content": request.parts[0] if alone else content}
    return [{"role": "system", "content": request.system}, user] if request.system else [user]


def _part(part: str | Picture) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    image = {"url": f"data:image/png;base64,{base64.b64encode(part.png()).decode()}"}
    return {"type": "image_url", "image_url": {**image, "detail": part.detail} if part.detail else image}


def usage(body: Mapping[str, Any]) -> Usage:
    """Tokens; 0 where the service does not count."""
    counts = body.get("usage")
    if not isinstance(counts, dict):
        return Usage()

    def inside(name: str, key: str) -> int:
        details = counts.get(name)
        return count(details.get(key)) if isinstance(details, dict) else 0

    return Usage(
        count(counts.get("prompt_tokens")),
        inside("prompt_tokens_details", "cached_tokens"),
        count(counts.get("completion_tokens")),
        inside("completion_tokens_details", "reasoning_tokens"),
    )


class OpenAIBatches(Batches):
    """A file of requests, a batch of it, a file of answers and one of errors."""

    most_requests = 50_000
    most_bytes = 190 * 10**6  # of 200 MB, which some count in other bytes

    def __init__(self, endpoint: OpenAI) -> None:
        self.endpoint = endpoint
        self.client = endpoint.connected("OpenAI")

    def line(self, request: Request) -> bytes:
        line = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": body(request)}
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
                raise Gone("the service does not know it") from None
        if not isinstance(getattr(batch, "status", None), str):
            raise Failed("a reply that is no batch")
        said = [f"{error.code or ''} {error.message or ''}".strip() for error in (batch.errors and batch.errors.data) or ()]
        files = tuple(file for file in (batch.output_file_id, batch.error_file_id) if file)
        return State(str(batch.status), self.endpoint.plain("; ".join(said[:3])), files if batch.status in _OVER else ())

    def results(self, state: State, folder: Path) -> Iterator[Result]:
        """The files come to the disk first: whole, or Failed."""
        import openai

        stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        for file in state.results:
            start = stream.tell()
            with self.endpoint.failing():
                try:
                    with self.client.files.with_streaming_response.content(file) as response:
                        for data in response.iter_bytes(2**20):
                            stream.write(data)
                except openai.NotFoundError:
                    raise Gone(f"the service no longer has its file {file}") from None
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
