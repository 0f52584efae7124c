"""`make-questions` as a user calls it, over a real HTTP server, up to the tables that layout fairvlmed-vqa reads."""

import csv
import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from medbench import paths, tables
from medbench.judging import questions
from medbench.stages import prepare
from medbench.tasks.vqa import SamplesVqa
from tests.conftest import Clone, make_clone, until
from tests.unit import official, test_official
from tests.unit.stub import Stub, completion, serving

ENTRY = """
writer:
  family: writer
  role: generalist
  architecture: openai
  checkpoint: writer
  pretrained_on: [everyday]
  options: {budget: max_tokens}
  endpoint: {url: "${WRITER_URL}", concurrency: 4}
"""
STUBBORN = {5: "I cannot do that.", 8: "perhaps"}
"""Number of a note -> what is wrong whenever it is asked for."""


class Writer:
    """Good questions; note 4 in prose at first; wrong ones as `STUBBORN` says."""

    def __init__(self) -> None:
        self.asked_again = False

    def __call__(self, body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"]
        assert body["response_format"]["json_schema"]["schema"] == questions.SCHEMA
        number, closed = int(re.findall(r"Visit (\d+)", text)[0]), re.findall(r"question is: (yes|no)\.", text)[0]
        if number == 4 and not self.asked_again:
            self.asked_again = True
            return completion("Gladly, here are two questions.", model="writer")
        if number == 5:
            return completion(STUBBORN[5], model="writer")
        pair = {
            "open_question": "What is the cup-to-disc ratio?",
            "open_answer": f"=0.{number} + 0",
            "closed_question": "Is glaucoma suspected?",
            "closed_answer": STUBBORN.get(number, closed),
        }
        return completion(json.dumps(pair), model="writer")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The sources with the writer in the registry."""
    clone = make_clone(tmp_path_factory.mktemp("questions") / "clone")
    clone.append("config/models.yaml", ENTRY)
    return clone


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with serving(Writer()) as found:
        monkeypatch.setenv("WRITER_URL", found.url)
        yield found


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """FairVLMed's folder, each of its twelve notes with a number."""
    folder = official.fairvlmed(tmp_path / "raw")
    summary = folder / "ReadMe/data_summary.csv"
    with summary.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    for number, row in enumerate(rows, 1):
        row[header.index("note")] = f'Visit {number},\n"glaucoma suspect", cup-to-disc 0.{number}'
    official.write(summary, header, rows)
    return folder


def command(raw: Path) -> list[str]:
    return [sys.executable, "-m", "medbench", "make-questions", str(raw / "ReadMe/data_summary.csv"), str(raw), "--model", "writer"]


def environment(place: Clone, raw: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(place.folder), "MEDBENCH_STORE": str(raw.parent / "store")}


def made(place: Clone, raw: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    words = [*command(raw), *more]
    return subprocess.run(words, cwd=place.folder, env=environment(place, raw), capture_output=True, text=True, timeout=600, check=False)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_notes_do_not_leave_without_leave(place: Clone, raw: Path, stub: Stub) -> None:
    done = made(place, raw)
    assert done.returncode == 2 and stub.asked == [] and not (raw / "vqa_train.csv").exists()
    assert len(done.stderr.strip().splitlines()) == 1 and "--send" in done.stderr and "Traceback" not in done.stderr


def test_questions_of_notes_become_a_data_set(place: Clone, raw: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    done = made(place, raw, "--send")
    assert done.returncode == 0, done.stderr
    assert "two questions of 10 of 12 notes" in done.stdout and "no JSON object" in done.stdout and "not yes or no" in done.stdout
    assert len(stub.asked) == 12 + 3, "each faulty one once more"

    files = {name: raw / name for name in ("vqa_train.csv", "vqa_validation.csv", "vqa_test.csv", "review.csv", "made.json")}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    rows = [row for name in ("vqa_train.csv", "vqa_validation.csv", "vqa_test.csv") for row in rows_of(files[name])]
    assert len(rows) == 20 and {row["question type"] for row in rows} == {"OPEN", "CLOSED"}
    for row in rows:
        if row["question type"] == "CLOSED":
            assert row["answer"] == questions.wanted(row["filename"])
        else:
            assert row["answer"] == f"=0.{int(row['filename'][5:10])} + 0", "the data are as they were said"
    sheet = rows_of(files["review.csv"])
    assert len(sheet) == 10 and all(row["open_answer"].startswith("'=") for row in sheet) and "Visit" in sheet[0]["note"]
    facts = json.loads(files["made.json"].read_text())
    closed = [questions.wanted(f"data_{number:05d}.npz") for number in range(1, 13) if number not in STUBBORN]
    assert facts["closed"] == {answer: closed.count(answer) for answer in {*closed}} and facts["n_notes"] == 12 and facts["n_good"] == 10
    assert facts["model"] == "writer" and facts["prompt"] == questions.digest() and sum(facts["left_out"].values()) == 2

    again = made(place, raw, "--send")
    assert again.returncode == 0 and len(stub.asked) == 15, "answers are kept"

    monkeypatch.chdir(raw.parent)
    prepare.run(test_official.params("fairvlmed-vqa", raw), "notes")
    samples = pl.concat([tables.read(SamplesVqa, paths.samples("notes", split)) for split in paths.SPLITS])
    assert sorted(samples["answer_type"].to_list()) == ["closed"] * 10 + ["open"] * 10 and samples["group_id"].n_unique() == 10


def test_the_reviewed_sheet_is_what_the_layout_reads(place: Clone, raw: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that a person deleted, refused or mended; the same command again asks nothing, and leaves the sheet as it is."""
    assert made(place, raw, "--send").returncode == 0
    n_asked, sheet = len(stub.asked), raw / "review.csv"
    header, *rows = list(csv.reader(sheet.read_text(encoding="utf-8-sig").splitlines(keepends=True)))
    gone, refused, mended = rows.pop(), rows[0], rows[1]
    refused[-1], mended[2] = "no", "What is the vertical ratio?"
    with sheet.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";").writerows([header, *rows])
    saved = sheet.read_bytes()
    done = made(place, raw, "--send")
    assert done.returncode == 0, done.stderr
    assert len(stub.asked) == n_asked and sheet.read_bytes() == saved
    assert "8 of 10 rows are left, 1 of them mended" in done.stdout and "2 because a person left it out" in done.stdout
    asked = [row for path in sorted(raw.glob("vqa_*.csv")) for row in rows_of(path)]
    assert len(asked) == 16 and not {gone[0], refused[0]} & {row["filename"] for row in asked}
    assert [row["question"] for row in asked if row["filename"] == mended[0] and row["question type"] == "OPEN"] == [mended[2]]
    assert all(row["answer"].startswith("=0.") for row in asked if row["question type"] == "OPEN"), "the sheet's apostrophes are not data"
    before = {path.name: path.read_bytes() for path in raw.glob("*.csv")}
    assert made(place, raw, "--send").returncode == 0 and before == {path.name: path.read_bytes() for path in raw.glob("*.csv")}

    monkeypatch.chdir(raw.parent)
    prepare.run(test_official.params("fairvlmed-vqa", raw), "notes")
    samples = pl.concat([tables.read(SamplesVqa, paths.samples("notes", split)) for split in paths.SPLITS])
    assert len(samples) == 16 and samples.filter(question=mended[2]).height == 1

    summary = raw / "ReadMe/data_summary.csv"  # other notes: a person's work is not written over
    summary.write_text(summary.read_text().replace("Visit 1,", "Visit 1, again,"))
    done = made(place, raw, "--send")
    assert done.returncode == 2 and "is a sheet of other notes" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert len(stub.asked) == n_asked and before == {path.name: path.read_bytes() for path in raw.glob("*.csv")}


def test_questions_that_are_killed_in_the_middle_are_not_asked_again(place: Clone, raw: Path, stub: Stub) -> None:
    """But for what was in flight."""
    answer, gate = stub.answer, threading.Semaphore(6)
    stub.answer = lambda body: answer(body) if gate.acquire(timeout=60) else None
    job = subprocess.Popen([*command(raw), "--send"], cwd=place.folder, env=environment(place, raw), stdout=subprocess.DEVNULL)
    until(lambda: len(kept(raw)) >= 6 or job.poll() is not None)
    job.kill()
    job.wait()
    before = kept(raw)
    assert 6 <= len(before) < 12 and not (raw / "made.json").exists()
    gate.release(1000)
    assert made(place, raw, "--send").returncode == 0
    after = kept(raw)
    assert after[: len(before)] == before and len(after) == len(set(after)) == 15, "a line a request"


def kept(raw: Path) -> list[str]:
    """Keys of the answers in the store, the oldest file first."""
    stored = sorted((raw.parent / "store").glob("*/*.jsonl"), key=lambda path: path.stat().st_ctime)
    return [json.loads(line)["key"] for path in stored for line in path.read_text().splitlines()]
