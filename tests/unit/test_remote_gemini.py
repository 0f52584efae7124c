"""Gemini's own protocol against a stub that speaks it: blocks, budgets, errors, and whose key goes where."""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medbench.errors import Interrupted, MedbenchError
from medbench.remote import batching
from medbench.remote.asking import Given, ask
from medbench.remote.batching import fill
from medbench.remote.endpoint import Reached, Stopped
from medbench.remote.endpoints.gemini import Gemini
from medbench.remote.limits import Limits
from medbench.remote.request import Request, picture
from medbench.remote.store import Store
from tests.unit.stub import GoogleBatches, Said, Stub, serving

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


# --- batches ----------------------------------------------------------------------------------------------------------

EACH = {"promptTokenCount": 100_000, "candidatesTokenCount": 10_000}  # 0.225 $ directly
BATCHED = LIMITS._replace(batch=True, price="google/gemini-2.5-pro", run="r")


@pytest.fixture
def google(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> GoogleBatches:
    """Every question has an answer of its own; nobody waits long."""
    monkeypatch.setattr(batching, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(batching, "LONGEST_LOOK", 0.05)
    stub.answer = lambda body: reply(f"\u2028 says {body['contents'][0]['parts'][-1]['text']}", usageMetadata=EACH)
    stub.batches = found = GoogleBatches(stub)
    return found


def wanted(numbers: range) -> list[tuple[int, Request]]:
    shown = picture(lambda: Image.new("RGB", (8, 8), (77, 0, 0)))
    return [(n, Request("gemini", "m", (shown, f"question {n}"), {"max_output_tokens": 100}, "Be brief.", f"sample {n}")) for n in numbers]


def answers(stub: Stub, numbers: range, limits: Limits = BATCHED) -> dict[int, str]:
    """By batches, then directly, as an answerer does it."""
    endpoint = Gemini(Reached(stub.url.removesuffix("/v1"), "PLANTED_KEY"))
    with Store("gemini", "m") as store:
        if limits.batch:
            fill(lambda: (request for _, request in wanted(numbers)), endpoint, store, limits)
        return {given.tag: given.reply.text for given in ask(wanted(numbers), endpoint, store, limits)}


def expected(numbers: range) -> dict[int, str]:
    return {n: f"says question {n}" for n in numbers}


def spent() -> float:
    return sum(float(line) for line in Path("store/.spent/r").read_text().split())


def notes() -> list[Path]:
    return list(Path().glob("store/gemini-m-*/batches/*.jsonl"))


def test_a_batch_is_submitted_once_joined_by_key_and_costs_half(stub: Stub, google: GoogleBatches) -> None:
    assert answers(stub, range(9)) == expected(range(9)) and not stub.asked and not notes()
    assert [line["key"] for line in google.lines(0)] == [request.key for _, request in wanted(range(9))]
    assert google.made[0]["model"] == "m" and spent() == pytest.approx(9 * 0.225 / 2)
    assert answers(stub, range(9)) == expected(range(9)) and len(google.made) == 1
    assert answers(stub, range(9), BATCHED._replace(batch=False)) == expected(range(9)) and not stub.asked


def test_a_line_of_a_batch_is_what_would_be_sent_directly(stub: Stub, google: GoogleBatches) -> None:
    answers(stub, range(1))
    [line] = google.lines(0)
    Path("store").rename("elsewhere")
    answers(stub, range(1), LIMITS)
    [body] = stub.asked
    assert line["request"] == {name: value for name, value in body.items() if name != "path"}
    assert line["request"]["generationConfig"] == {"maxOutputTokens": 100} and "Be brief." in str(line["request"]["systemInstruction"])


BATCHING = """
import sys
from tests.unit.test_remote_gemini import BATCHED, Gemini, Reached, Store, batching, fill, wanted

batching.FIRST_LOOK, batching.LONGEST_LOOK = 0.05, 0.1
with Store("gemini", "m") as store:
    fill(lambda: (request for _, request in wanted(range(9))), Gemini(Reached(sys.argv[1], "PLANTED_KEY")), store, BATCHED)
"""


@pytest.mark.parametrize("is_answered", [False, True])
def test_a_batch_of_a_killed_run_is_found_again(stub: Stub, google: GoogleBatches, is_answered: bool) -> None:
    """While the service answers the submission, whose name nobody gets to know; and while the batch is under way."""
    google.seconds, google.looks = 0.0 if is_answered else 60.0, 10**6
    command = [sys.executable, "-c", BATCHING, stub.url.removesuffix("/v1")]
    place = {**os.environ, "PYTHONPATH": str(Path(batching.__file__).parents[2])}
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=place)
    while not (google.made and (not is_answered or google.made[0]["looks"])):
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    running.kill()
    running.communicate()
    google.seconds, google.looks = 0.0, 1
    assert ('"id"' in notes()[0].read_text()) is is_answered
    assert answers(stub, range(9)) == expected(range(9)) and len(google.made) == 1 and not stub.asked
    assert spent() == pytest.approx(9 * 0.225 / 2)


def test_a_note_whose_batch_was_never_submitted_goes(stub: Stub, google: GoogleBatches) -> None:
    google.script = [Said({}, 400)]
    with pytest.raises(Stopped, match="takes no batch: status 400"):
        answers(stub, range(2))
    assert not notes() and not stub.asked and answers(stub, range(2)) == expected(range(2)) and len(google.made) == 1


def test_what_a_batch_leaves_open_is_asked_directly(stub: Stub, google: GoogleBatches) -> None:
    """A line with an error, one that is missing, one that is no answer, one of nobody."""

    def finish(answered: list[dict[str, Any]]) -> tuple[str, list[Any]]:
        broken = {"key": answered[0]["key"], "error": {"code": 500, "message": "boom"}}
        return "JOB_STATE_PARTIALLY_SUCCEEDED", [broken, *answered[2:], {"key": "x", "response": reply()}, [1], {}]

    google.finish = finish
    assert answers(stub, range(5)) == expected(range(5)) and len(stub.asked) == 2 and len(google.made) == 1


@pytest.mark.parametrize(
    ("state", "n_kept", "words"),
    [
        ("BATCH_STATE_EXPIRED", 0, "batch batches/b0 expired; run again: 0 answers are kept"),
        ("BATCH_STATE_CANCELLED", 2, "batch batches/b0 was cancelled; run again: 2 answers are kept"),
        ("BATCH_STATE_FAILED", 0, "batch batches/b0 failed; see to it"),
    ],
)
def test_a_batch_that_was_not_finished_ends_the_job(stub: Stub, google: GoogleBatches, state: str, n_kept: int, words: str) -> None:
    google.finish = lambda answered: (state, answered[:n_kept])
    with pytest.raises(Interrupted, match=words):
        answers(stub, range(5))
    assert not stub.asked and not notes()
    google.finish = lambda answered: ("BATCH_STATE_SUCCEEDED", answered)
    assert answers(stub, range(5)) == expected(range(5)) and len(google.lines(1)) == 5 - n_kept and not stub.asked


def test_of_an_expired_batch_what_was_done_is_kept(stub: Stub, google: GoogleBatches) -> None:
    ends = iter(["BATCH_STATE_EXPIRED", "BATCH_STATE_SUCCEEDED"])
    google.finish = lambda answered: (next(ends), answered[:3])
    assert answers(stub, range(6)) == expected(range(6)) and [len(google.lines(number)) for number in (0, 1)] == [6, 3] and not stub.asked


def test_another_model_in_a_batch_stops(stub: Stub, google: GoogleBatches) -> None:
    stub.answer = lambda body: reply(model="gemini-3.8-flash", usageMetadata=EACH)
    with pytest.raises(Stopped, match="'m' was asked"):
        answers(stub, range(3))
    assert len(notes()) == 1, "it can be read later, under `returned_as`"


def test_a_blocked_prompt_of_a_batch_is_asked_again_and_counts(stub: Stub, google: GoogleBatches) -> None:
    stub.answer = lambda body: {"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "m"}
    assert answers(stub, range(2)) == {0: "", 1: ""} and len(google.made) == 1 and len(stub.asked) == 2 * 2


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(
    "said", [Said("<html>"), Said([1]), Said({}), Said("{}", 503), Said({"error": {"code": 429, "details": [{"retryDelay": "0.1s"}]}}, 429)]
)
def test_what_is_no_word_of_a_batch_is_asked_for_again(
    stub: Stub, google: GoogleBatches, monkeypatch: pytest.MonkeyPatch, said: Said, number: int
) -> None:
    """Instead of the answer to the start of an upload, its end, the submission, a look, the file of answers."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    plain, n = GoogleBatches.respond, 0

    def respond(self: GoogleBatches, method: str, path: str, kind: str, data: bytes) -> Said:
        nonlocal n
        n += 1
        return said if n == number + 1 else plain(self, method, path, kind, data)

    monkeypatch.setattr(GoogleBatches, "respond", respond)
    assert answers(stub, range(3)) == expected(range(3)) and len(google.made) == 1


def test_a_batch_that_nobody_knows_any_more(stub: Stub, google: GoogleBatches) -> None:
    google.looks = 10**6
    with pytest.raises(Interrupted, match="goes on, and is not submitted again"):
        answers(stub, range(2), BATCHED._replace(batch_wait=0.05))
    google.made[0]["name"] = "batches/other"
    with pytest.raises(Stopped, match=r"batch batches/b0: the service does not know it; use a key of the account"):
        answers(stub, range(2))
    assert not stub.asked


@pytest.mark.parametrize("status", [403, 404])
def test_answers_that_the_service_has_removed(stub: Stub, google: GoogleBatches, status: int) -> None:
    google.looks = 10**6
    with pytest.raises(Interrupted):
        answers(stub, range(2), BATCHED._replace(batch_wait=0.05))
    google.looks, plain = 1, google.respond
    gone = Said({"error": {"code": status, "message": "no permission to access the File, or it may not exist"}}, status)
    google.respond = lambda *given: gone if ":download" in given[1] else plain(*given)  # type: ignore[method-assign]
    with pytest.raises(Stopped, match=r"batch batches/b0: the service no longer has its file files/out0; use a key .* paid again"):
        answers(stub, range(2))
    assert not stub.asked and len(google.made) == 1


def test_a_redirect_takes_nothing_to_another_host(stub: Stub) -> None:
    with serving() as other:
        stub.say(Said("", 307, {"location": f"{other.url.replace('127.0.0.1', 'localhost')}/x"}))
        with pytest.raises(Stopped, match="status 307: it has moved to http://localhost"):
            given(stub, 1)
        assert len(stub.asked) == 1 and not other.asked
