"""Chat completions: the protocol of OpenAI, vLLM, SGLang, llama.cpp, `transformers serve`, Ollama, and of Gemini's compatible address.

The client's answer is read as JSON, since it lets pass what is none: HTML, an error or no choices under status 200.
"""

import base64
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from medbench.remote.batching import Batches
from medbench.remote.endpoint import Endpoint, Failed, Reply, Sent, Usage, count, parsed, required, wait
from medbench.remote.request import Picture, Request

KIND = "openai"
_REASONS = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop", "length": "length", "max_tokens": "length",
    "repetition": "repetition", "content_filter": "filter",
}  # fmt: skip
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
        client = getattr(openai, client_class)(base_url=self.address(), api_key=key, timeout=seconds, max_retries=0)
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

    def batches(self) -> Batches:
        from medbench.remote.endpoints.openai_batches import OpenAIBatches

        return OpenAIBatches(self)

    def payload(self, request: Request) -> list[dict[str, Any]]:
        return messages(request)

    async def send(self, request: Request, payload: list[dict[str, Any]]) -> Sent:
        client = self.client
        with self.failing():
            raw = await client.chat.completions.with_raw_response.create(
                model=request.model, messages=payload, extra_body=dict(request.parameters)
            )
        body = parsed(raw.text)
        if body is None:
            raise Failed(f"status {raw.status_code}, and no JSON: {self.plain(raw.text)}")
        if body.get("error"):
            raise self._refused(int(raw.status_code), raw.text, raw.headers)
        reply = self.read(body)
        self.require_model(reply, request.model)
        return Sent(body, reply, raw.request_id or "")

    def read(self, body: Mapping[str, Any]) -> Reply:
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
            (found or "").strip(), reason, usage(body), str(body.get("model") or ""), thoughts if isinstance(thoughts, str) else "",
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
        return self.refused(status, next(iter(codes), ""), said, wait(headers), is_spent=bool(_SPENT & set(codes)))


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
