"""Judges in a run, over a real HTTP server: their scores and refusals on the page, and nothing asked twice."""

import csv
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import Clone
from tests.unit import llama
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
MORE = "max_tokens, parameters: {temperature: 1}"
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
    assert "What judges say" in page and "Gap in overall judge score (strict, descriptive)" in page
    drawn = {path.stem for path in (clone.folder / "results/report/nano/figures").glob("*judge-score*.svg")}
    assert drawn == {"gaps-judge-score-strict", "heatmap-judge-score-strict-ots", "heatmap-judge-score-strict-lora"}
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


def test_a_model_that_runs_here_judges_without_a_server(clone: Clone) -> None:
    """The nano model reads too little for any prompt of a judge: it is refused, and says why."""
    clone.append("config/nano.yaml", f"judge: {json.dumps({'models': ['nano-llava'], 'max_new_tokens': 32})}\n")
    table = "results/judgements/nano-vqa-radiology/nano-llava-med/ots.parquet"
    outcome = clone.snakemake(table)
    assert outcome.code == 0, outcome.output
    assert outcome.executed == {"calibrate nano-llava", "judge nano-vqa-radiology/nano-llava-med/ots"}
    known = json.loads((clone.folder / "results/calibration/nano-llava.json").read_text())
    assert any(fault.startswith("auroc") for fault in known["scorings"]["strict"]["faults"])
    assert pl.read_parquet(clone.folder / table).is_empty()
    logs = "".join(path.read_text() for path in (clone.folder / "logs").rglob("*nano-llava*") if path.is_file())
    assert "the judge does not read so long a prompt" in logs + outcome.output


# --- people's labels, by the command itself


def label(clone: Clone, *words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "medbench", "label", "nano", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(clone.folder)}
    return subprocess.run(command, cwd=clone.folder, env=environment, capture_output=True, text=True, timeout=600, check=False)


def one_line(done: "subprocess.CompletedProcess[str]") -> str:
    """What was refused."""
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_labels_of_people_correct_the_judge(clone: Clone, stub: Stub, tmp_path: Path) -> None:
    with_judges(clone, "careful")
    cells = [f"results/judgements/nano-vqa-radiology/{model}/ots.parquet" for model in ("nano-llava", "nano-llava-med")]
    outcome = clone.snakemake(*cells)
    assert outcome.code == 0, outcome.output
    path = tmp_path / "sheets" / "labels.csv"
    done = label(clone, "--sheet", path, "--n", 60)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    text = path.read_text(encoding="utf-8-sig")
    assert "llava" not in text and "lora" not in text, "who labels does not see which model it was"
    rows = list(csv.DictReader(text.splitlines()))
    assert f"{len(rows):,} answers of 4 cells" in done.stdout and len(rows) == len({row["id"] for row in rows}) > 5

    def fill(wrong: str = "", ids: str = "") -> None:
        """As a person: the reference's words are right."""
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            for row in rows:
                right = bool({*row["reference"].lower().split()} & {*row["answer"].lower().split()})
                writer.writerow({**row, "id": ids + row["id"], "label": wrong or (100 if right else 1)})

    fill()
    done = label(clone, "--read", path, "--n", 60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{len(rows)} labelled answers") and "quadratic kappa 1.00" in lines[1], done.stdout
    judged = [line for line in lines if "; judge " in line]
    assert len(judged) == 2 and all("corrected by the labels" in line for line in judged), "two cells have judgements"
    assert sum("labels, mean" in line for line in lines) == 4
    assert label(clone, "--read", path, "--n", 60).stdout == done.stdout

    fill(wrong="good")
    assert "each answer gets one number from 1 to 100" in one_line(label(clone, "--read", path, "--n", 60))
    fill(ids="x")  # of another run, or of answers that were made anew
    assert "answers that changed need a new sheet" in one_line(label(clone, "--read", path, "--n", 60))
    assert "cannot be read" in one_line(label(clone, "--read", tmp_path / "nothing.csv"))


@pytest.mark.full
def test_a_random_judge_behind_a_real_server_judges_nothing(clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp without a key: the run ends, the page says why its judge is refused, and nothing else changes."""
    before = {path.name: pl.read_parquet(path) for path in (clone.folder / "results/gaps/nano").glob("rq*.parquet")}
    pytest.importorskip("gguf", reason="gguf is not installed: no model for a llama.cpp server (pip install gguf xllamacpp)")
    with llama.serving(llama.model(tmp_path / "random.gguf"), tmp_path / "log") as server:
        monkeypatch.setenv("JUDGE_URL", server.url)
        entry = ENTRY.format(name="judge").replace("checkpoint: judge", f"checkpoint: {llama.NAME}").replace("max_tokens", MORE)
        clone.append("config/models.yaml", entry.replace("concurrency: 8", f"concurrency: {llama.SLOTS}"))
        clone.append("config/nano.yaml", f"judge: {json.dumps({'models': ['judge'], 'max_new_tokens': 160})}\n")
        outcome = clone.snakemake()
    assert outcome.code == 0, outcome.output
    known = json.loads((clone.folder / "results/calibration/judge.json").read_text())
    faults = known["scorings"]["strict"]["faults"]
    assert known["answered_by"] == [llama.NAME] and any(fault.startswith("auroc") for fault in faults)
    page = (clone.folder / "results/report/nano/index.html").read_text()
    assert "What judges say" in page and f"no: {faults[0]}" in page
    for path in (clone.folder / "results/judgements").rglob("*.parquet"):
        assert pl.read_parquet(path).is_empty()
    for name, frame in before.items():
        after = pl.read_parquet(clone.folder / "results/gaps/nano" / name)
        assert after.filter(~pl.col("metric").str.starts_with("judge")).equals(frame)
