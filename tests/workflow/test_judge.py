"""Judges in a run, over a real HTTP server: their scores and refusals on the page, and nothing asked twice."""

import csv
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import Clone
from tests.unit.stub import Said, Stub, completion, serving

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"<<<(\w{12}) (QUESTION|REFERENCE ANSWER|CANDIDATE ANSWER)\n(.*?)\n\2 \1>>>", re.DOTALL)
ENTRY = """
{name}:
  family: {name}
  role: generalist
  architecture: openai
  checkpoint: {name}
  pretrained_on: [everyday]
  options: {{budget: max_tokens}}
  endpoint: {{url: "${{JUDGE_URL}}", concurrency: 8}}
"""
with (ROOT / "resources/judge/calibration.csv").open(encoding="utf-8", newline="") as file:
    TRUTH = {(row["question"], row["reference"], row["answer"]): row["is_right"] == "1" for row in csv.DictReader(file)}


def judge(body: dict[str, Any]) -> Any:
    """The judge `careful` knows the calibration's truth, and counts shared words elsewhere; `lenient` gives 95 to all; `prose` talks."""
    text = body["messages"][-1]["content"]
    name = body["model"]
    if name == "prose":
        return completion("I would give this answer a score of 85 out of 100.", model=name)
    if name == "lenient":
        return completion(json.dumps({"justification": "Fine.", "score": 95}), model=name)
    question, reference, answer = (found[2] for found in FENCED.findall(text))
    if (known := TRUTH.get((question, reference, answer))) is None:
        known = bool({*reference.lower().split()} & {*answer.lower().split()})
    assert body["response_format"]["json_schema"]["strict"] and body["temperature"] == 0
    return completion(json.dumps({"justification": "As known.", "score": 90 if known else 10}), model=name)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with serving(judge) as found:
        monkeypatch.setenv("JUDGE_URL", found.url)
        yield found


def with_judges(clone: Clone, *names: str, **more: object) -> None:
    for name in names:
        clone.append("config/models.yaml", ENTRY.format(name=name))
    clone.append("config/nano.yaml", f"judge: {json.dumps({'models': names, **more})}\n")


def test_a_run_with_a_judge(clone: Clone, stub: Stub) -> None:
    with_judges(clone, "careful", "lenient", "prose", scorings=["strict"])
    outcome = clone.snakemake()
    assert outcome.code == 0, outcome.output
    cells = list((clone.folder / "results/predictions/nano-vqa-radiology").glob("*/*.parquet"))
    made = {job for job in outcome.executed if job.startswith(("judge ", "calibrate "))}
    assert made == {"calibrate careful", "calibrate lenient", "calibrate prose"} | {
        f"judge nano-vqa-radiology/{path.parent.name}/{path.stem}" for path in cells
    }
    assert not {job for job in outcome.executed if job.startswith(("predict", "adapt", "embed", "score", "prepare"))}
    assert not {job for job in outcome.executed if job.startswith("interval nano-radiology")}, "images with labels are not judged"

    table = clone.folder / "results/judgements/nano-vqa-radiology/nano-llava/ots.parquet"
    assert stat.S_IMODE(os.stat(table).st_mode) == 0o600
    frame = pl.read_parquet(table)
    assert set(frame["judge"]) == {"careful"}, "a judge that misses a bar judges nothing"
    answers = pl.read_parquet(clone.folder / "results/predictions/nano-vqa-radiology/nano-llava/ots.parquet")
    assert set(frame["sample_id"]) == set(answers.filter(pl.col("answer_type") == "open")["sample_id"]) and len(frame) > 5
    intervals = pl.read_parquet(clone.folder / "results/intervals/nano-vqa-radiology/nano-llava/ots.parquet")
    own = intervals.filter(pl.col("metric") == "judge_score", pl.col("subset") == "open", pl.col("method") == "percentile")
    assert own["estimate"].to_list() == pytest.approx([frame["score"].mean() / 100])
    page = (clone.folder / "results/report/nano/index.html").read_text()
    assert "What judges say" in page
    assert page.count("no: auroc") == 2 and page.count("accepts 100% of kind injection") == 2, "lenient and prose are refused by name"

    # a second model with equal answers, a changed order, a deleted table: nothing is asked again
    n_asked = len(stub.asked)
    bodies = [json.dumps(body, sort_keys=True) for body in stub.asked if body["model"] == "careful"]
    assert len(bodies) == len(set(bodies)), "no request twice"
    before, judged = clone.tables(), list((clone.folder / "results/judgements").rglob("*.parquet"))
    for path in (*judged, clone.folder / "results/calibration/careful.json"):
        path.unlink()
    again = [str(path.relative_to(clone.folder)) for path in judged]
    assert clone.snakemake(*again).code == 0 and len(stub.asked) == n_asked
    assert clone.tables() == before
    assert clone.plan() == []


def test_a_judge_changes_no_other_number(finished: Clone, clone: Clone, stub: Stub) -> None:
    with_judges(clone, "careful")
    assert clone.snakemake().code == 0
    for before in (finished.folder / "results/gaps/nano").glob("rq*.parquet"):
        old, new = pl.read_parquet(before), pl.read_parquet(clone.folder / before.relative_to(finished.folder))
        assert new.filter(~pl.col("metric").str.starts_with("judge")).equals(old)


def test_a_server_that_dies_costs_no_answer(clone: Clone, stub: Stub) -> None:
    with_judges(clone, "careful")
    stub.say(*[Said({"error": {"message": "bad key", "code": "invalid_api_key"}}, 401)])  # at the first request
    outcome = clone.snakemake("results/calibration/careful.json")
    assert outcome.code != 0 and "bad key" in outcome.output
    n_asked = len(stub.asked)
    assert clone.snakemake("results/calibration/careful.json").code == 0
    bodies = [json.dumps(body, sort_keys=True) for body in stub.asked[n_asked:]]
    assert len(bodies) == len(set(bodies))
