"""Gemini's own protocol, by google-genai: block reasons, thinking budget, safety settings, the version that answered.

Bodies are read as they came. The client's own retries are off, since it heeds no Retry-After, and it is told which API to ask: of its
own it would take another version, and Google's cloud where the environment says so.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from medbench.errors import whole
from medbench.remote.endpoint import Endpoint, Failed, Invalid, Reply, Sent, Usage, count, parsed, required, wait
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
        genai, httpx2 = required("google.genai"), required("httpx2")
        options = {
            "base_url": self.address(), "api_version": "v1beta", "timeout": int(self.reached.timeout * 1000),
            "httpx_async_client": httpx2.AsyncClient(),
        }  # fmt: skip
        return genai.Client(vertexai=False, api_key=self.secret() or "-", http_options=options)

    def payload(self, request: Request) -> list[Any]:
        return contents(request)

    async def send(self, request: Request, payload: list[Any]) -> Sent:
        client = self.client
        import httpx2
        from google.genai import errors, types
        from pydantic import ValidationError

        config = {**request.parameters, "should_return_http_response": True}
        if request.system:
            config["system_instruction"] = request.system
        try:
            checked = types.GenerateContentConfig.model_validate(config)
            raw = await client.aio.models.generate_content(model=request.model, contents=payload, config=checked)
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
        text = raw.sdk_http_response.body or ""
        body = parsed(text)
        if body is None:
            raise Failed(f"no JSON: {self.plain(text)}")
        if body.get("error"):
            raise self._refused(200, body, {})
        reply = self.read(body)
        self.require_model(reply, request.model)
        return Sent(body, reply, str(body.get("responseId") or ""))

    def read(self, body: Mapping[str, Any]) -> Reply:
        counts = body.get("usageMetadata") if isinstance(body.get("usageMetadata"), dict) else {}
        assert isinstance(counts, dict)
        thoughts_count = count(counts.get("thoughtsTokenCount"))
        usage = Usage(
            count(counts.get("promptTokenCount")),
            count(counts.get("cachedContentTokenCount")),
            count(counts.get("candidatesTokenCount")) + thoughts_count,
            thoughts_count,
        )
        model, candidates, feedback = str(body.get("modelVersion") or ""), body.get("candidates"), body.get("promptFeedback")
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
        return self.refused(status, str(fields.get("status") or ""), fields.get("message") or said, next(iter(delays), wait(headers)))


def contents(request: Request) -> list[Any]:
    """Texts and pictures as google-genai takes them."""
    types = required("google.genai").types
    return [part if isinstance(part, str) else types.Part.from_bytes(data=part.png(), mime_type="image/png") for part in request.parts]
