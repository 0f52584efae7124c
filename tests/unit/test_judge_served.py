"""Judgements by a real server that needs no key: llama.cpp with random weights, which enforces the schema; and one that ignores it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medbench import paths
from medbench.errors import Interrupted
from medbench.jobs.partial import Work
from medbench.judging import asking
from medbench.judging.asking import Judge, Judgement, Triple
from medbench.metrics.judging import calibration
from medbench.stages import calibrate
from tests.unit import llama
from tests.unit.llama import Server
from tests.unit.stub import completion, serving

BUDGET = 160
SOURCE = {"module": "medbench.models.remote.openai", "checkpoint": llama.NAME, "options": {"budget": "max_tokens", "parameters": {}}}
GREEDY = Judge("judge", SOURCE, BUDGET)
SAMPLING = GREEDY._replace(source={**SOURCE, "options": {"budget": "max_tokens", "parameters": {"temperature": 1}}})
TRIPLES = [Triple("Where is it?", "left lung", f"in the {place}") for place in ("right lung", "heart", "liver {x}", "spleen")]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gguf", reason="gguf is not installed: no model for a llama.cpp server (pip install gguf xllamacpp)")
    return llama.model(tmp_path_factory.mktemp("llama") / "random.gguf")


@pytest.fixture(scope="module")
def server(weights: Path) -> Iterator[Server]:
    with llama.serving(weights, weights.with_name("log")) as found:
        yield found


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDBENCH_STORE", raising=False)
    return tmp_path


def told(url: str, **more: Any) -> dict[str, Any]:
    return {"url": url, "concurrency": llama.SLOTS, **more}


def judged(url: str, judge: Judge, scoring: str = "strict", triples: list[Triple] = TRIPLES, repeats: int = 1) -> list[Judgement]:
    answerer = asking.load(judge, told(url))
    return [one for _, _, one in asking.judgements(answerer, judge, scoring, triples, repeats)]


def kept() -> list[dict[str, Any]]:
    """Lines of the store."""
    return [json.loads(line) for file in Path("store").glob("*/*.jsonl") for line in file.read_text().splitlines()]


def test_with_the_schema_enforced_a_reply_is_a_score_in_range_or_null(server: Server) -> None:
    found = judged(server.url, SAMPLING, repeats=2)
    scores = [one.reading.score for one in found if one.reading.score is not None]
    failed = [one.reading for one in found if one.reading.score is None]
    assert len(found) == 8 and len(set(scores)) > 2 and all(score in range(1, 101) for score in scores)
    assert all(one.state == "failed" and ("budget" in one.reason or one.reason == "no justification") for one in failed)
    assert {one.answered_by for one in found} == {llama.NAME}
    asked = {line["key"] for line in kept()}
    assert len(asked) == len(kept()) and {one.request for one in found} <= asked and len({one.request for one in found}) == 8
    before = len(kept())
    assert judged(server.url, SAMPLING, repeats=2) and len(kept()) == before, "repeats are kept, too"


def test_the_published_scoring_gets_no_number_from_it(server: Server) -> None:
    found = judged(server.url, GREEDY._replace(max_new_tokens=24), "published")
    assert [(one.reading.state, one.reading.score) for one in found] == [("failed", None)] * 4


def test_a_server_that_is_killed_and_comes_back_elsewhere_judges_nothing_twice(weights: Path, folder: Path) -> None:
    with llama.serving(weights, folder / "first.log") as first:
        answerer = asking.load(SAMPLING, told(first.url, max_tries=2) | {"concurrency": 1})
        seen = asking.judgements(answerer, SAMPLING, "strict", TRIPLES, 2)
        next(seen)
        first.kill()
        with pytest.raises(Interrupted, match="what was answered is kept"):
            list(seen)
    n_kept = len(kept())
    assert 0 < n_kept < 8
    with llama.serving(weights, folder / "second.log") as second:
        assert second.url != first.url
        found = judged(second.url, SAMPLING, repeats=2)
    keys = [line["key"] for line in kept()]
    assert len(found) == 8 and len(keys) == len(set(keys)) > n_kept
    assert judged("http://127.0.0.1:9/v1", SAMPLING, repeats=2) and len(kept()) == len(keys), "all is read from the store"


def test_a_random_judge_misses_its_bars_by_name(server: Server) -> None:
    items = calibration.items(calibrate.ITEMS)[::40]
    triples = [Triple(item.question, item.reference, item.answer) for item in items]
    answerer = asking.load(SAMPLING, told(server.url))
    given = {triple: one.reading for triple, _, one in asking.judgements(answerer, SAMPLING, "strict", triples, 1)}
    report = calibration.report(items, [given[triple] for triple in triples])
    assert report.n == len(items) and any(fault.startswith(("auroc", "specificity")) for fault in report.faults)


@pytest.mark.full
def test_the_stage_refuses_a_random_judge(server: Server, folder: Path) -> None:
    work = Work(folder / "work")
    work.beside = told(server.url)
    calibrate.run(calibrate.Params(dict(SAMPLING.source), BUDGET, ("strict",)), "judge", work)
    found = json.loads(paths.calibration("judge").read_bytes())
    report = found["scorings"]["strict"]
    assert report["n"] == 295 and any(fault.startswith("auroc") for fault in report["faults"]) and found["answered_by"] == [llama.NAME]
    assert any("of kind injection" in fault for fault in report["faults"])


@pytest.mark.parametrize("text", ["I would say 85 out of 100.", "85", '```json\n{"justification": "Fine.", "score": 85}\n```'])
def test_a_server_that_ignores_the_schema_gives_no_number(text: str) -> None:
    with serving(lambda body: completion(text, model=body["model"])) as stub:
        found = judged(stub.url, GREEDY)
        assert [(one.reading.state, one.reading.score) for one in found] == [("failed", None)] * 4
        assert len(stub.asked) == 8, "asked once more"
        assert all(body["response_format"]["json_schema"]["strict"] for body in stub.asked)
