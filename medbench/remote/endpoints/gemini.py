"""Gemini's own protocol, by google-genai: block reasons, thinking budget, safety settings, the version that answered.

Bodies are read as they came. The client's own retries are off, since it heeds no Retry-After, and it is told which API to ask: of its
own it would take another version, and Google's cloud where the environment says so.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from medbench.errors import whole
from medbench.remote.batching import Batches, Gone, Result, State
from medbench.remote.endpoint import Endpoint, Failed, Invalid, Reply, Sent, Usage, count, parsed, required
from medbench.remote.request import Request

KIND = "gemini"
_FILTERED = frozenset(
    (
        "SAFETY", "RECITATION", "LANGUAGE", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION", "IMAGE_OTHER", "MODEL_ARMOR", "JAILBREAK",
    )
)  # fmt: skip


class Gemini(Endpoint):
    """The service, or a server that speaks as it does."""

    kind = KIND

    @cached_property
    def client(self) -> Any:
        """Made when the first request is sent: what is kept needs neither address nor key."""
        return self.connected(httpx_async_client=required("httpx2").AsyncClient())

    def connected(self, **client: Any) -> Any:
        """A client of the library, which takes address and key from the entry alone. `client`: of HTTP, sync or async."""
        genai = required("google.genai")
        options = {"base_url": self.address(), "api_version": "v1beta", "timeout": int(self.reached.timeout * 1000), **client}
        return genai.Client(vertexai=False, api_key=self.secret() or "-", http_options=options)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Around a call of the client: Failed, Limited, Invalid or Stopped for what it raises."""
        import httpx2
        from google.genai import errors
        from pydantic import ValidationError

        try:
            yield
        except ValidationError as error:
            raise Invalid(f"a parameter that Gemini does not know: {self.plain(error.errors()[0]['loc'])}") from None
        except errors.APIError as error:
            raise self._refused(error.code, error.details, getattr(error.response, "headers", {})) from None
        except httpx2.TimeoutException:
            raise Failed("no answer within the time limit") from None
        except httpx2.HTTPError as error:
            raise Failed(f"no connection ({self.plain(error) or type(error).__name__})") from None
        except ValueError as error:  # the client reads the body of an error as JSON
            raise Failed(f"no JSON: {self.plain(error)}") from None

    def batches(self, model: str) -> "GeminiBatches":
        return GeminiBatches(self, model)

    def payload(self, request: Request) -> list[Any]:
        return contents(request)

    async def send(self, request: Request, payload: list[Any]) -> Sent:
        client = self.client
        with self.failing():
            raw = await client.aio.models.generate_content(model=request.model, contents=payload, config=config(request))
        text = raw.sdk_http_response.body or ""
        body = parsed(text)
        if body is None:
            raise Failed(f"no JSON: {self.plain(text)}")
        if body.get("error"):
            raise self._refused(200, body, {})
        return Sent(body, str(body.get("responseId") or ""))

    def usage(self, body: Mapping[str, Any]) -> Usage:
        counts = body.get("usageMetadata") if isinstance(body.get("usageMetadata"), dict) else {}
        assert isinstance(counts, dict)
        thoughts_count = count(counts.get("thoughtsTokenCount"))
        return Usage(
            count(counts.get("promptTokenCount")),
            count(counts.get("cachedContentTokenCount")),
            count(counts.get("candidatesTokenCount")) + thoughts_count,
            thoughts_count,
        )

    def read(self, body: Mapping[str, Any]) -> Reply:
        usage, model = self.usage(body), str(body.get("modelVersion") or "")
        candidates, feedback = body.get("candidates"), body.get("promptFeedback")
        if not candidates and isinstance(feedback, dict) and feedback.get("blockReason"):
            return Reply("", "filter", usage, model, reason=f"prompt {feedback['blockReason']}")
        candidate = candidates[0] if isinstance(candidates, list) and candidates else None
        if not isinstance(candidate, dict):
            raise Failed("a reply without candidates")
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        said = [part for part in parts or () if isinstance(part, dict) and isinstance(part.get("text"), str)]
        text, thoughts = ("".join(part["text"] for part in said if bool(part.get("thought")) == apart) for apart in (False, True))
        word = str(candidate.get("finishReason") or "")
        reason = {"STOP": "stop", "MAX_TOKENS": "length"}.get(word) or ("filter" if word in _FILTERED or (word and not text) else None)
        if reason is None:
            raise Failed(f"a reply that ended in an unknown way: finishReason {word!r}")
        return Reply(whole(text).strip(), reason, usage, model, thoughts, reason=word)

    async def close(self) -> None:
        if "client" in self.__dict__:
            await self.client.aio.aclose()

    def _refused(self, status: int, said: Any, headers: Mapping[str, str]) -> Exception:
        error = said.get("error") if isinstance(said, dict) else None
        fields: Mapping[str, Any] = error if isinstance(error, dict) else {}
        details = [one for one in fields.get("details") or () if isinstance(one, dict)]
        if any(one.get("reason") == "API_KEY_INVALID" for one in details):
            status = 401  # it says 400
        delays = [float(found[1]) for one in details if (found := re.fullmatch(r"([\d.]+)s", str(one.get("retryDelay"))))]
        return self.refused(status, str(fields.get("status") or ""), fields.get("message") or said, headers, next(iter(delays), None))


def contents(request: Request) -> list[Any]:
    """Texts and pictures as google-genai takes them."""
    types = required("google.genai").types
    return [part if isinstance(part, str) else types.Part.from_bytes(data=part.png(), mime_type="image/png") for part in request.parts]


def config(request: Request) -> Any:
    """Parameters and system text. Raises pydantic's ValidationError for what google-genai does not know."""
    types = required("google.genai").types
    system = {"system_instruction": request.system} if request.system else {}
    return types.GenerateContentConfig.model_validate({**request.parameters, "should_return_http_response": True, **system})


class GeminiBatches(Batches):
    """A file of requests, a batch of it whose display name is the mark, a file of answers."""

    most_requests = 50_000
    most_bytes = 1_900 * 10**6  # of 2 GB, which some count in other bytes

    def __init__(self, endpoint: Gemini, model: str) -> None:
        httpx2 = required("httpx2")
        self.endpoint, self.model, self._written = endpoint, model, b""
        self._http = [httpx2.Client(), httpx2.Client(transport=httpx2.MockTransport(self._write))]
        self.client, self._writer = (endpoint.connected(httpx_client=client) for client in self._http)

    def line(self, request: Request) -> bytes:
        """Its body is what the client would send directly."""
        with self.endpoint.failing():
            self._writer.models.generate_content(model=request.model, contents=contents(request), config=config(request))
        return b'{"key": "%s", "request": %s}\n' % (request.key.encode(), self._written)

    def _write(self, request: Any) -> Any:
        self._written = json.dumps(json.loads(request.read())).encode()  # one line
        return required("httpx2").Response(200, json={})

    def submit(self, lines: IO[bytes], mark: str) -> str:
        with self._understanding():
            file = self.client.files.upload(file=lines, config={"display_name": mark, "mime_type": "application/jsonl"})
            return _name(self.client.batches.create(model=self.model, src=_name(file), config={"display_name": mark}))

    def find(self, mark: str, since: float) -> str | None:
        with self._understanding():
            found = (batch for batch in self.client.batches.list(config={"page_size": 100}) if batch.display_name == mark)
            return next((_name(batch) for batch in found), None)

    def state(self, id: str) -> State:
        from google.genai import errors

        with self._understanding():
            try:
                batch = self.client.batches.get(name=id)
            except errors.ClientError as error:
                if error.code != 404:
                    raise
                raise Gone("the service does not know it") from None
        if batch.state is None:
            raise Failed("a reply that is no batch")
        word, file = _STATES.get(batch.state.name, "in_progress"), batch.dest.file_name if batch.dest else None
        if word == "completed" and not file:
            raise Failed(f"batch {id} is over and names no file of answers")
        said = self.endpoint.plain(batch.error.message or "") if batch.error else ""
        return State(word, said, (file,) if file else ())

    def results(self, state: State, folder: Path) -> Iterator[Result]:
        """The file comes to the disk first: whole, or Failed."""
        from google.genai import errors

        stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        for file in state.results:
            with self._understanding():
                try:
                    self.client.files.download(file=file, destination=stream)
                except errors.ClientError as error:
                    if error.code not in (403, 404):  # 403 stands for a file that has expired, too
                        raise
                    raise Gone(f"the service no longer has its file {file}") from None
            stream.seek(0)
            if parsed((line := stream.readline()).decode("utf-8", "replace")) is None:
                raise Failed(f"a file of answers that holds none: {self.endpoint.plain(line.decode('utf-8', 'replace'))}")
        stream.seek(0)
        return (_result(found) for line in stream if (found := parsed(line.decode("utf-8", "replace"))) is not None)

    def close(self) -> None:
        for client in self._http:
            client.close()

    @contextmanager
    def _understanding(self) -> Iterator[None]:
        """Also what the client stumbles over in a reply that is none."""
        with self.endpoint.failing():
            try:
                yield
            except (LookupError, AttributeError, TypeError) as error:
                raise Failed(f"a reply that is no file or batch ({self.endpoint.plain(error)})") from None


_STATES = {
    "JOB_STATE_SUCCEEDED": "completed", "JOB_STATE_PARTIALLY_SUCCEEDED": "completed", "JOB_STATE_FAILED": "failed",
    "JOB_STATE_EXPIRED": "expired", "JOB_STATE_CANCELLED": "cancelled",
}  # fmt: skip


def _result(line: dict[str, Any]) -> Result:
    body = line.get("response")
    if not isinstance(body, dict) or body.get("error"):
        return Result(str(line.get("key")), None)
    return Result(str(line.get("key")), body, str(body.get("responseId") or ""))


def _name(made: Any) -> str:
    """Of a file or batch; the client lets pass what is none."""
    if not isinstance(made.name, str):
        raise Failed("a reply that is no file or batch")
    return made.name
