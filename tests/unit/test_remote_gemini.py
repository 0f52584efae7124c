"""Gemini's own protocol against a stub that speaks it: blocks, budgets, errors, and whose key goes where."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medbench.errors import Interrupted, MedbenchError
from medbench.remote.asking import Given, ask
from medbench.remote.endpoint import Reached, Stopped
from medbench.remote.endpoints.gemini import Gemini
from medbench.remote.limits import Limits
from medbench.remote.request import Request, picture
from medbench.remote.store import Store
from tests.unit.stub import Said, Stub, serving

KEY = "AIza-planted-0123456789abcdefghij"
LIMITS = Limits(concurrency=4, max_tries=3)


def reply(text: str | None = "yes", reason: str = "STOP", model: str = "m", **more: Any) -> dict[str, Any]:
    counts = {"promptTokenCount": 20, "candidatesTokenCount": 2, "thoughtsTokenCount": 7, "cachedContentTokenCount": 5}
    candidate = {"finishReason": reason, **({} if text is None else {"content": {"role": "model", "parts": [{"text": text}]}})}
    return {"candidates": [candidate], "usageMetadata": counts, "modelVersion": model, "responseId": "r1", **more}


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDBENCH_STORE", raising=False)
    monkeypatch.setenv("PLANTED_KEY", KEY)
    with serving(lambda body: reply()) as found:
        yield found


def given(stub: Stub, n: int = 1, limits: Limits = LIMITS, parameters: dict[str, Any] | None = None, **reached: Any) -> list[Given[int]]:
    shown = picture(lambda: Image.new("RGB", (8, 8), (77, 0, 0)))
    some = [(place, Request("gemini", "m", (shown, f"Question {place}?"), parameters or {}, name=f"sample {place}")) for place in range(n)]
    with Store("gemini", "m") as store:
        found = ask(some, Gemini(Reached(stub.url.removesuffix("/v1"), "PLANTED_KEY", **reached)), store, limits)
        return sorted(found, key=lambda one: one.tag)


def test_what_is_asked_and_what_comes_back(stub: Stub) -> None:
    parameters = {"temperature": 0, "max_output_tokens": 1200, "thinking_config": {"thinking_budget": 1024}}
    [one] = given(stub, parameters=parameters)
    [body] = stub.asked
    assert body["path"].startswith("/v1beta/models/m:generateContent") and stub.headers[0]["x-goog-api-key"] == KEY
    image, text = body["contents"][0]["parts"]
    inline = image["inlineData"]
    assert text == {"text": "Question 0?"} and (inline.get("mimeType") or inline["mime_type"]) == "image/png"
    assert base64.urlsafe_b64decode(inline["data"].replace("+", "-").replace("/", "_"))[:4] == b"\x89PNG"
    thinking = body["generationConfig"].pop("thinkingConfig")  # the client writes inner names either way, and the service reads both
    assert thinking in ({"thinkingBudget": 1024}, {"thinking_budget": 1024})
    assert body["generationConfig"] == {"temperature": 0, "maxOutputTokens": 1200}
    assert (one.reply.text, one.reply.finish_reason, one.reply.usage) == ("yes", "stop", (20, 5, 9, 7))
    assert one.line["request_id"] == "r1" and given(stub)[0].is_new is True and given(stub)[0].is_new is False


def test_the_environment_of_the_client_leads_nowhere_else(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "another-key")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GENAI_USE_ENTERPRISE", "true")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9")
    given(stub)
    assert stub.headers[0]["x-goog-api-key"] == KEY and "another-key" not in json.dumps(stub.headers)


HELD = {
    "prompt blocked": ({"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "m"}, "prompt SAFETY"),
    "blocked for OTHER": ({"promptFeedback": {"blockReason": "OTHER"}, "modelVersion": "m", "candidates": None}, "prompt OTHER"),
    "SAFETY": (reply(None, "SAFETY"), "SAFETY"),
    "RECITATION": (reply(None, "RECITATION"), "RECITATION"),
    "PROHIBITED_CONTENT": (reply(None, "PROHIBITED_CONTENT"), "PROHIBITED_CONTENT"),
    "SPII with a beginning": (reply("The patient", "SPII"), "SPII"),
    "an unknown reason without a text": (reply(None, "NEW_REASON"), "NEW_REASON"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "word"), HELD.values(), ids=HELD)
def test_a_block_is_a_state_after_three_tries(stub: Stub, body: dict[str, Any], word: str) -> None:
    stub.answer = lambda _: body
    [one] = given(stub)
    assert (one.reply.finish_reason, one.reply.reason, len(stub.asked)) == ("filter", word, 3)


def test_thoughts_that_ate_the_budget_leave_an_empty_answer(stub: Stub) -> None:
    stub.answer = lambda _: reply(None, "MAX_TOKENS")
    [one] = given(stub)
    assert (one.reply.text, one.reply.finish_reason, one.reply.is_final, len(stub.asked)) == ("", "length", False, 3)


def test_thoughts_are_kept_apart(stub: Stub) -> None:
    parts = [{"text": "It is red.", "thought": True}, {"text": " no"}]
    stub.say(Said(reply() | {"candidates": [{"finishReason": "STOP", "content": {"parts": parts}}]}))
    assert given(stub)[0].reply[:2] == ("no", "stop") and given(stub)[0].reply.thoughts == "It is red."


NO_ANSWERS = {
    "html": Said("<html>sign in</html>", headers={"content-type": "text/html"}),
    "cut": Said('{"candidates": [{"con'),
    "nothing": Said(""),
    "error under 200": Said({"error": {"code": 500, "message": "overloaded", "status": "INTERNAL"}}),
    "no candidates": Said({"modelVersion": "m"}),
    "an unknown reason with a text": Said(reply("yes", "NEW_REASON")),
    "no reason": Said(reply("yes", "")),
    "500": Said({"error": {"code": 500, "message": "boom", "status": "INTERNAL"}}, 500),
    "503 html": Said("<h1>unavailable</h1>", 503),
}


@pytest.mark.parametrize("said", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_is_asked_again(stub: Stub, said: Said) -> None:
    stub.say(said)
    assert given(stub)[0].reply.text == "yes" and len(stub.asked) == 2
    stub.answer = lambda body: said if "Question 2?" in json.dumps(body) else reply()
    with pytest.raises(Interrupted, match="1 request failed: sample 2"):
        given(stub, 4, LIMITS._replace(max_tries=1))


def test_a_slow_reply(stub: Stub) -> None:
    stub.say(Said(reply(), seconds=1.0))
    assert given(stub, timeout=0.3)[0].reply.text == "yes" and len(stub.asked) == 2


def error(code: int, status: str, message: str, **detail: str) -> Said:
    return Said({"error": {"code": code, "status": status, "message": message, "details": [detail]}}, code)


def test_how_long_to_wait_stands_in_the_body(stub: Stub) -> None:
    stub.say(error(429, "RESOURCE_EXHAUSTED", "slow down", retryDelay="1.2s"))
    given(stub)
    assert stub.times[1] - stub.times[0] > 1.0
    stub.say(error(429, "RESOURCE_EXHAUSTED", "quota of the day", retryDelay="40000s"))
    with pytest.raises(Interrupted, match="takes no more requests for 40,000 s"):
        given(stub, 2)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (error(400, "INVALID_ARGUMENT", f"API key not valid: {KEY}", reason="API_KEY_INVALID"), "API key not valid"),
        (error(403, "PERMISSION_DENIED", "no access"), "PERMISSION_DENIED"),
        (error(404, "NOT_FOUND", "models/m is not found"), "NOT_FOUND"),
        (Said(reply(model="gemini-3.8-flash")), "'gemini-3.8-flash' answered, and 'm' was asked"),
    ],
    ids=["key", "403", "404", "rerouted"],
)
def test_what_no_other_try_mends_stops_at_once(stub: Stub, said: Said, found: str) -> None:
    given(stub, 2)
    stub.say(said)
    with pytest.raises(Stopped, match=found) as stopped:
        given(stub, 40, LIMITS._replace(concurrency=1))
    assert len(stub.asked) == 3 and KEY not in str(stopped.value)


def test_a_parameter_that_gemini_does_not_know(stub: Stub) -> None:
    with pytest.raises(Interrupted, match="reasoning_effort"):
        given(stub, parameters={"reasoning_effort": "low"})
    assert not stub.asked


def test_an_adapter_is_refused() -> None:
    from medbench.models import answering
    from medbench.models.checkpoint import Source

    with pytest.raises(MedbenchError, match="takes no adapter"):
        answering.load(Source("medbench.models.remote.gemini", "m"), lambda model: None)
