"""Batches: submitted once, whatever is killed when; joined by id; and what becomes of those that fail, expire or answer in part."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medbench.errors import Interrupted, MedbenchError
from medbench.remote import batching
from medbench.remote.asking import Paid, ask
from medbench.remote.batching import fill
from medbench.remote.endpoint import Reached, Stopped, Usage
from medbench.remote.endpoints.openai import OpenAI, OpenAIBatches
from medbench.remote.limits import Limits
from medbench.remote.prices import Price
from medbench.remote.request import Request
from medbench.remote.store import Store
from tests.unit.stub import Said, Stub, completion, finished, serving

LIMITS = Limits(concurrency=4, max_tries=3, batch=True, price="openai/o3", run="r")
EACH = {"prompt_tokens": 100_000, "completion_tokens": 100_000}  # 1 $ directly, half of it by a batch


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving(lambda body: {**completion(said(body), model=body["model"]), "usage": EACH}) as found:
        yield found


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store lies in the working directory, and nobody waits long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDBENCH_STORE", raising=False)
    monkeypatch.setattr(batching, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(batching, "LONGEST_LOOK", 0.05)
    return tmp_path


def said(body: dict[str, Any]) -> str:
    """Every question has an answer of its own."""
    return f"{body['model']} says {body['messages'][0]['content']} \u2028 naïve"


def requests(numbers: range, model: str = "m") -> list[tuple[int, Request]]:
    return [(n, Request("openai", model, (f"question {n}",), {"max_tokens": 100}, name=f"sample {n}")) for n in numbers]


def answers(stub: Stub, numbers: range, limits: Limits = LIMITS, **reached: Any) -> dict[int, str]:
    """By batches, then directly, as an answerer does it."""
    wanted, endpoint = requests(numbers), OpenAI(Reached(stub.url, **reached))
    with Store("openai", "m") as store:
        if limits.batch:
            fill(lambda: (request for _, request in wanted), endpoint, store, limits)
        return {given.tag: given.reply.text for given in ask(wanted, endpoint, store, limits)}


def expected(numbers: range) -> dict[int, str]:
    return {n: f"m says question {n} \u2028 naïve" for n in numbers}


def notes(folder: Path) -> list[Path]:
    return list(folder.glob("store/openai-m-*/batches/*.jsonl"))


def spent(folder: Path) -> float:
    return sum(float(line) for line in (folder / "store/.spent/r").read_text().split())


def test_a_batch_is_submitted_once_polled_and_joined_by_id(stub: Stub, folder: Path) -> None:
    stub.batches.looks = 3
    assert answers(stub, range(9)) == expected(range(9))
    [batch] = stub.batches.made
    assert not stub.asked and batch["looks"] == 4 and batch["completion_window"] == "24h" and batch["endpoint"] == "/v1/chat/completions"
    lines = stub.batches.lines(0)
    assert [line["custom_id"] for line in lines] == [request.key for _, request in requests(range(9))]
    first = {"model": "m", "messages": [{"role": "user", "content": "question 0"}], "max_tokens": 100}
    assert lines[0] == {"custom_id": lines[0]["custom_id"], "method": "POST", "url": "/v1/chat/completions", "body": first}
    assert not notes(folder)


def test_answers_of_a_batch_and_direct_ones_are_interchangeable(stub: Stub, folder: Path) -> None:
    answers(stub, range(4))
    assert answers(stub, range(8), LIMITS._replace(batch=False)) == expected(range(8)) and len(stub.asked) == 4
    assert answers(stub, range(10)) == expected(range(10)) and len(stub.batches.lines(1)) == 2
    kept = [json.loads(line) for file in sorted(folder.glob("store/openai-m-*/*.jsonl")) for line in file.read_text().split("\n") if line]
    batched, direct = ([line for line in kept if ("batch" in line) is is_batch] for is_batch in (True, False))
    assert batched[0].keys() - direct[0].keys() == {"batch"} and direct[0].keys() - batched[0].keys() <= {"sent"}
    of_one = {line["key"]: line["asked"] for line in kept}
    assert of_one == {request.key: json.loads(json.dumps(request.words())) for _, request in requests(range(10))}
    seen = len(stub.batches.seen)
    assert answers(stub, range(10)) == expected(range(10)) and len(stub.batches.seen) == seen, "what is kept needs no service"
    stub.url = "${NO_SUCH_ADDRESS}"
    assert answers(stub, range(10)) == expected(range(10))


def test_a_batch_costs_half(stub: Stub, folder: Path) -> None:
    answers(stub, range(4))
    assert spent(folder) == pytest.approx(4 * 0.5)
    with Store("openai", "m") as store:
        found = [given.tries for given in ask(requests(range(4)), OpenAI(Reached(stub.url)), store, LIMITS)]
    assert found == [(Paid(Usage(100_000, 0, 100_000, 0), by_batch=True),)] * 4
    assert Price("openai/o3", True).of(found[0][0].usage) == pytest.approx(0.5)
    answers(stub, range(6), LIMITS._replace(batch=False))
    assert spent(folder) == pytest.approx(4 * 0.5 + 2 * 1.0)


def test_max_cost_holds_for_what_a_batch_may_cost(stub: Stub, folder: Path) -> None:
    each = Price("openai/o3", True).of(Usage(1000, 0, 100, 0))
    stub.answer = lambda body: {**completion("yes"), "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}
    with pytest.raises(Stopped, match=r"run r: .* a batch of 1 requests may cost 0\.00 \$: more than its max_cost .*`batch: false`"):
        answers(stub, range(5), LIMITS._replace(max_cost=each * 0.9))
    assert not stub.batches.made and not notes(folder)
    with pytest.raises(Stopped, match="max_cost"):
        answers(stub, range(9), LIMITS._replace(max_cost=each * 4.5))
    assert [len(stub.batches.lines(n)) for n in range(len(stub.batches.made))] == [4] and spent(folder) == pytest.approx(4 * each)
    assert len(answers(stub, range(9), LIMITS._replace(max_cost=each * 20))) == 9 and spent(folder) == pytest.approx(9 * each)


def test_what_a_batch_set_aside_and_did_not_spend_goes_into_the_next(stub: Stub) -> None:
    each = Price("openai/o3", True).of(Usage(1000, 0, 100, 0))
    stub.answer = lambda body: {**completion("yes"), "usage": {"prompt_tokens": 10, "completion_tokens": 1}}
    assert len(answers(stub, range(9), LIMITS._replace(max_cost=each * 5.5))) == 9
    assert [len(stub.batches.lines(n)) for n in range(len(stub.batches.made))] == [5, 4] and not stub.asked


@pytest.mark.parametrize(("name", "value"), [("most_requests", 4), ("most_bytes", 950)])
def test_a_file_is_split(stub: Stub, monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    monkeypatch.setattr(OpenAIBatches, name, value)
    assert answers(stub, range(10)) == expected(range(10))
    assert [len(stub.batches.lines(n)) for n in range(len(stub.batches.made))] == [4, 4, 2]
    files = [stub.batches.files[batch["input_file_id"]] for batch in stub.batches.made]
    assert all(len(file) <= OpenAIBatches.most_bytes for file in files)


def test_equal_requests_are_one(stub: Stub) -> None:
    wanted = [(n, requests(range(1))[0][1]) for n in range(5)]
    with Store("openai", "m") as store:
        fill(lambda: (request for _, request in wanted), OpenAI(Reached(stub.url)), store, LIMITS)
    assert len(stub.batches.lines(0)) == 1


def test_a_batch_that_takes_long_is_found_again(stub: Stub, folder: Path) -> None:
    stub.batches.looks = 10**6
    with pytest.raises(Interrupted, match=r"batch batch_0 \(9 requests\) is in_progress after 0 s; run again later") as error:
        answers(stub, range(9), LIMITS._replace(batch_wait=0.05))
    assert "\n" not in str(error.value)
    [note] = notes(folder)
    assert note.stat().st_mode & 0o777 == 0o600 and note.parent.stat().st_mode & 0o777 == 0o700
    stub.batches.looks = 1
    assert answers(stub, range(9)) == expected(range(9)) and len(stub.batches.made) == 1 and not stub.asked


def test_more_questions_go_into_another_batch(stub: Stub) -> None:
    stub.batches.looks = 10**6
    with pytest.raises(Interrupted):
        answers(stub, range(4), LIMITS._replace(batch_wait=0.05))
    stub.batches.looks = 1
    assert answers(stub, range(2, 8)) == expected(range(2, 8))
    assert [line["body"]["messages"][0]["content"] for line in stub.batches.lines(1)] == [f"question {n}" for n in range(4, 8)]
    assert answers(stub, range(8)) == expected(range(8)) and len(stub.batches.made) == 2


BATCHING = """
import sys
from pathlib import Path
from medbench.remote import batching
from medbench.remote.asking import ask
from medbench.remote.batching import fill
from medbench.remote.endpoint import Reached
from medbench.remote.endpoints.openai import OpenAI
from medbench.remote.limits import Limits
from medbench.remote.request import Request
from medbench.remote.store import Store

batching.FIRST_LOOK, batching.LONGEST_LOOK = 0.05, 0.1
start, end = int(sys.argv[2]), int(sys.argv[3])
wanted = [(n, Request("openai", "m", (f"question {n}",), {"max_tokens": 100}, name=f"sample {n}")) for n in range(start, end)]
with Store("openai", "m") as store:
    endpoint, limits = OpenAI(Reached(url=sys.argv[1])), Limits(concurrency=4, batch=True, price="openai/o3", run="r")
    fill(lambda: (request for _, request in wanted), endpoint, store, limits)
    found = list(ask(wanted, endpoint, store, limits))
assert sorted(one.tag for one in found) == list(range(start, end))
"""


def process(stub: Stub, start: int, end: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", BATCHING, stub.url, str(start), str(end)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(batching.__file__).parents[2])}


@pytest.mark.parametrize("is_answered", [False, True])
def test_a_kill_costs_nothing(stub: Stub, folder: Path, is_answered: bool) -> None:
    """While the service answers the submission, whose id nobody gets to know; and while the batch is under way."""
    stub.batches.seconds, stub.batches.looks = 0.0 if is_answered else 60.0, 10**6
    running = process(stub, 0, 9)
    while not (stub.batches.made and (not is_answered or stub.batches.made[0]["looks"])):
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    running.kill()
    running.communicate()
    stub.batches.seconds, stub.batches.looks = 0.0, 1
    assert ('"id"' in notes(folder)[0].read_text()) is is_answered
    assert answers(stub, range(9)) == expected(range(9)) and len(stub.batches.made) == 1 and not stub.asked
    assert spent(folder) == pytest.approx(9 * 0.5)


def test_a_kill_while_answers_are_read_keeps_each_once(stub: Stub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.answer = lambda body: {**completion("" if "question 8" in str(body) else said(body)), "usage": EACH}
    plain, n = Store.add, 0

    def add(self: Store, *args: Any, **fields: Any) -> None:
        nonlocal n
        if (n := n + 1) == 4:
            raise KeyboardInterrupt
        plain(self, *args, **fields)

    monkeypatch.setattr(Store, "add", add)
    with pytest.raises(KeyboardInterrupt):
        answers(stub, range(9))
    monkeypatch.setattr(Store, "add", plain)
    stub.answer = lambda body: {**completion(said(body)), "usage": EACH}
    assert answers(stub, range(9)) == expected(range(9)) and len(stub.batches.made) == 1
    assert len(stub.asked) == 1, "what was empty is asked again directly"
    lines = [json.loads(line) for file in folder.glob("store/openai-m-*/*.jsonl") for line in file.read_text().split("\n") if line]
    assert len(lines) == 10 and sum("batch" in line for line in lines) == 9


def test_a_note_that_was_never_submitted_goes(stub: Stub, folder: Path) -> None:
    place = Store("openai", "m").folder / "batches"
    place.mkdir(parents=True)
    [(_, request)] = requests(range(1))
    (place / "0123.jsonl").write_text(json.dumps({"key": request.key, "name": "x", "asked": {}}) + '\n{"key": "ab')
    assert answers(stub, range(3)) == expected(range(3)) and len(stub.batches.lines(0)) == 3 and not notes(folder)


def test_a_submission_without_an_answer_is_looked_for_before_another(stub: Stub) -> None:
    stub.batches.seconds = 1.0

    def hurry() -> None:
        while not stub.batches.made:
            time.sleep(0.01)
        stub.batches.seconds = 0.0

    threading.Thread(target=hurry, daemon=True).start()
    assert answers(stub, range(5), timeout=0.4) == expected(range(5)) and len(stub.batches.made) == 1


def test_a_batch_that_was_taken_before_the_network_went_is_found_again(stub: Stub, folder: Path) -> None:
    plain, is_down = stub.batches.respond, False

    def respond(method: str, path: str, kind: str, data: bytes) -> Said:
        nonlocal is_down
        found = plain(method, path, kind, data) if not is_down else None
        is_down = is_down or (method == "POST" and path.startswith("/v1/batches"))
        return Said("Bad gateway", 502) if is_down or found is None else found

    stub.batches.respond = respond  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="is not submitted again"):
        answers(stub, range(4))
    stub.batches.respond = plain  # type: ignore[method-assign]
    assert len(notes(folder)) == 1
    assert answers(stub, range(4)) == expected(range(4)) and len(stub.batches.made) == 1 and not stub.asked


def test_an_interrupt_while_a_batch_is_submitted_costs_nothing(stub: Stub, folder: Path) -> None:
    stub.batches.seconds = 3.0
    running = process(stub, 0, 4)
    while not stub.batches.made:
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    running.communicate()
    stub.batches.seconds = 0.0
    assert answers(stub, range(4)) == expected(range(4)) and len(stub.batches.made) == 1 and not stub.asked


def test_two_jobs_of_one_model_at_once(stub: Stub, folder: Path) -> None:
    stub.batches.looks = 8
    found: dict[int, dict[int, str]] = {}

    def job(start: int, end: int) -> None:
        found[start] = answers(stub, range(start, end))

    jobs = [threading.Thread(target=job, args=(start, start + 8)) for start in (0, 4, 8)]
    for one in jobs:
        one.start()
    for one in jobs:
        one.join()
    assert found == {start: expected(range(start, start + 8)) for start in (0, 4, 8)}
    asked = [line["custom_id"] for n in range(len(stub.batches.made)) for line in stub.batches.lines(n)]
    assert len(asked) == len(set(asked)) == 16 and not stub.asked and spent(folder) == pytest.approx(16 * 0.5) and not notes(folder)


def test_what_failed_in_a_batch_is_asked_directly(stub: Stub) -> None:
    plain = stub.answer
    stub.answer = lambda body: Said({"error": {"message": "busy"}}, 500) if "question 3" in str(body) and not stub.asked else plain(body)
    assert answers(stub, range(9)) == expected(range(9))
    assert [body["messages"][0]["content"] for body in stub.asked] == ["question 3"] and len(stub.batches.made) == 1


def test_lines_that_are_no_answers(stub: Stub) -> None:
    """No request is lost or joined to another's answer by a line that is cut, of another batch, or an error under status 200."""

    def end(answered: list[dict[str, Any]]) -> tuple[str, list[Any], list[Any], list[Any]]:
        answered[0]["response"] = None
        answered[1]["response"]["body"] = {"error": "overloaded"}
        answered[2]["custom_id"] = "0" * 64
        answered[3] = "cut"  # type: ignore[call-overload]
        answered[4]["response"]["body"] = {"choices": []}
        return "completed", answered, [], []

    stub.batches.ends = [end]
    assert answers(stub, range(9)) == expected(range(9)) and len(stub.asked) == 5 and len(stub.batches.made) == 1


def expired(n: int) -> Any:
    def end(answered: list[dict[str, Any]]) -> tuple[str, list[Any], list[Any], list[Any]]:
        late = [{**line, "response": None, "error": {"code": "batch_expired", "message": "too late"}} for line in answered[n:]]
        return "expired", answered[:n], late, []

    return end


def test_of_an_expired_batch_what_was_done_is_kept_and_the_rest_goes_into_the_next(stub: Stub) -> None:
    stub.batches.ends = [expired(4), expired(2), finished]
    assert answers(stub, range(9)) == expected(range(9)) and not stub.asked
    assert [len(stub.batches.lines(n)) for n in range(len(stub.batches.made))] == [9, 5, 3]


def test_batches_that_expire_with_nothing_done_end_the_job(stub: Stub) -> None:
    stub.batches.ends = [expired(4), expired(0)]
    with pytest.raises(Interrupted, match=r"batch batch_1 expired; run again: 0 answers are kept"):
        answers(stub, range(9))
    assert len(stub.batches.made) == 2 and not stub.asked


LIMIT = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for m in organization x.\nLimit: 90,000"}


def test_a_batch_that_is_refused_later_is_one_line_and_nothing_is_asked_directly(stub: Stub, folder: Path) -> None:
    stub.batches.ends = [lambda answered: ("failed", [], [], [LIMIT]), finished]
    with pytest.raises(Interrupted, match=r"batch batch_0 failed: token_limit_exceeded Enqueued token limit reached .*run again") as error:
        answers(stub, range(9))
    assert "\n" not in str(error.value) and not stub.asked and len(stub.batches.made) == 1 and not notes(folder)
    assert answers(stub, range(9)) == expected(range(9)) and len(stub.batches.made) == 2


def test_where_one_of_several_is_refused_it_waits_for_the_others(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenAIBatches, "most_requests", 5)
    stub.batches.ends = [finished, lambda answered: ("failed", [], [], [LIMIT]), finished]
    assert answers(stub, range(9)) == expected(range(9)) and not stub.asked
    assert [len(stub.batches.lines(n)) for n in range(len(stub.batches.made))] == [5, 4, 4]


def test_a_cancelled_batch_ends_the_job_and_keeps_what_was_done(stub: Stub) -> None:
    stub.batches.ends = [lambda answered: ("cancelled", answered[:3], [], []), finished]
    with pytest.raises(Interrupted, match="batch batch_0 was cancelled; run again: 3 answers are kept, and the others"):
        answers(stub, range(9))
    assert answers(stub, range(9)) == expected(range(9)) and len(stub.batches.lines(1)) == 6


def test_another_model_stops_and_the_batch_can_be_read_later(stub: Stub) -> None:
    stub.answer = lambda body: {**completion("yes", model="another"), "usage": EACH}
    for _ in range(2):
        with pytest.raises(Stopped, match="'another' answered, and 'm' was asked"):
            answers(stub, range(3))
    assert len(answers(stub, range(3), returned_as="another")) == 3 and len(stub.batches.made) == 1 and not stub.asked


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said({"error": {"message": "no key"}}, 401), "status 401"),
        (Said({"error": {"message": "not here"}}, 404), "status 404"),
        (Said({"error": {"message": "purpose batch is unknown"}}, 400), r"takes no batch: status 400: purpose .*`batch: false`"),
        (Said({"error": {"message": "x", "code": "insufficient_quota"}}, 429), "insufficient_quota"),
        (Said({}, 429, {"retry-after": "5000"}), "takes no more requests for 5,000 s"),
    ],
    ids=["401", "404", "400", "quota", "429"],
)
def test_a_service_that_takes_no_batch(stub: Stub, folder: Path, said: Said, words: str) -> None:
    stub.batches.script = [said]
    with pytest.raises(MedbenchError, match=words) as error:
        answers(stub, range(3))
    assert "\n" not in str(error.value) and not stub.batches.made
    assert answers(stub, range(3)) == expected(range(3)) and len(stub.batches.made) == 1


@pytest.mark.parametrize("number", range(5), ids=["upload", "submission", "first look", "second look", "results"])
@pytest.mark.parametrize(
    "said", [Said("<h1>Bad gateway</h1>", 502), Said("<html>sign in</html>", headers={"content-type": "text/html"}), Said('{"id": "ba')]
)
def test_what_is_no_word_of_a_batch_is_asked_for_again(stub: Stub, monkeypatch: pytest.MonkeyPatch, said: Said, number: int) -> None:
    plain, n = stub.batches.respond, 0

    def respond(*args: Any) -> Said:
        nonlocal n
        n += 1
        return said if n == number + 1 else plain(*args)

    monkeypatch.setattr(stub.batches, "respond", respond)
    assert answers(stub, range(3)) == expected(range(3)) and len(stub.batches.made) == 1 and not stub.asked


def test_a_batch_that_nobody_knows_any_more(stub: Stub, folder: Path) -> None:
    stub.batches.looks = 10**6
    with pytest.raises(Interrupted):
        answers(stub, range(3), LIMITS._replace(batch_wait=0.05))
    stub.batches.made[0]["id"] = "batch_gone"
    with pytest.raises(Stopped, match=r"batch batch_0: the service does not know it; use a key .* remove \S+\.jsonl, and") as error:
        answers(stub, range(3))
    assert notes(folder)[0].name in str(error.value)


def test_answers_that_the_service_has_removed_are_paid_again_by_a_person_alone(stub: Stub, folder: Path) -> None:
    """A run that comes back later than the service keeps its files."""
    stub.batches.looks = 10**6
    with pytest.raises(Interrupted):
        answers(stub, range(3), LIMITS._replace(batch_wait=0.05))
    stub.batches.looks, plain = 1, stub.batches.respond
    gone = Said({"error": {"message": "No such File object: file-1", "type": "invalid_request_error"}}, 404)
    stub.batches.respond = lambda *given: gone if "/content" in given[1] else plain(*given)  # type: ignore[method-assign]
    with pytest.raises(Stopped, match=r"batch batch_0: the service no longer has its file file-1; use a key") as error:
        answers(stub, range(3))
    [note] = notes(folder)
    assert note.name in str(error.value) and len(stub.batches.made) == 1 and not stub.asked
    note.unlink()
    stub.batches.respond = plain  # type: ignore[method-assign]
    assert answers(stub, range(3)) == expected(range(3)) and len(stub.batches.made) == 2


def test_an_empty_answer_is_asked_again_directly_and_counts(stub: Stub) -> None:
    stub.answer = lambda body: {**completion(""), "usage": EACH}
    assert answers(stub, range(2)) == {0: "", 1: ""} and len(stub.batches.made) == 1 and len(stub.asked) == 2 * 2
    assert answers(stub, range(2)) == {0: "", 1: ""} and len(stub.batches.made) == 1 and len(stub.asked) == 2 * 2


def test_an_answerer_asks_by_batches_where_its_entry_says_so(stub: Stub) -> None:
    from medbench.models.answering import Prompt
    from medbench.models.checkpoint import Source
    from medbench.models.remote.openai import answerer

    asked = answerer(Source("medbench.models.remote.openai", "m"))
    asked.told = {"url": stub.url, "batch": True, "price": "openai/o3", "run": "r"}
    prompts = ((n, Prompt("a judgement", "", f"question {n}")) for n in range(5))
    assert {n: said.text for n, said in asked.says(prompts, 100)} == expected(range(5)) and len(stub.batches.made) == 1 and not stub.asked
