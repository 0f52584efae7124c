"""What a start says: a status every few seconds, failures at once, reasons in words, the answer last."""

import io
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medbench.jobs import console

TRACKED = '{"code":"%s","params":{"epochs":%d,"recipe":{"rate":0.1}}} {"torch":"%s"}'


class Clock:
    """Stands for the module `time`; `wait` is never called by these tests."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """As set."""
        return self.now

    def strftime(self, form: str) -> str:
        """The same hour always."""
        return "12:00:00"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time stands still."""
    found = Clock()
    monkeypatch.setattr(console, "time", found)
    monkeypatch.setattr(console.threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    return found


def started(answer: tuple[str, ...] = (), **settings: Any) -> tuple[logging.Logger, console.Lines | None, io.StringIO]:
    """A logger as Snakemake has it, followed."""
    logger, stream = logging.Logger("snakemake.logging"), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.name = "DefaultStreamHandler"
    logger.addHandler(handler)
    given = {"dryrun": False, "verbose": False, "printshellcmds": False, "quiet": set(), **settings}
    return logger, console.install(logger, SimpleNamespace(**given), lambda: answer), stream


def begin(
    logger: logging.Logger, number: int, rule: str, names: dict[str, str], log: Path, reason: str = "Missing output files: x"
) -> None:
    """A job starts."""
    facts = {"event": "job_info", "jobid": number, "rule_name": rule, "wildcards": names, "log": [str(log)], "reason": reason}
    logger.info("rule", extra=facts)


def test_a_start_in_lines(clock: Clock, tmp_path: Path) -> None:
    logger, lines, stream = started(("RQ1: yes", "Page: index.html"))
    assert lines
    logger.info("Job stats", extra={"event": "run_info", "stats": {"adapt": 2, "total": 3}})
    log = tmp_path / "a.log"
    log.write_text("adapt d/m/lora, epoch 2 of 6, steps: 5 of 20 (25%), 3/s, 5 s left\n")
    begin(logger, 1, "adapt", {"dataset": "d", "model": "m", "mode": "lora"}, log)
    begin(logger, 2, "predict", {"dataset": "d", "model": "m", "mode": "ots"}, tmp_path / "none.log")
    logger.info("Select jobs to execute...")
    logger.info("Execute 2 jobs...", extra={"event": "job_started", "jobs": [1, 2]})
    clock.now += 70
    shown = "adapt d/m/lora (1 min 10 s, epoch 2 of 6, steps: 5 of 20 (25%)), predict d/m/ots (1 min 10 s)"
    assert lines.status() == f"0 of 3 jobs done (0%); running: {shown}"
    logger.info("Finished", extra={"event": "job_finished", "job_id": 2})
    logger.info(None, extra={"event": "progress", "done": 1, "total": 3})
    log.write_text("ERROR: cell d/m/lora: the loss is not finite; lower the rate\n")
    logger.error("Error", extra={"event": "job_error", "jobid": 1, "rule_name": "adapt", "rule_msg": None, "log": [str(log)]})
    assert lines.status() == "1 of 3 jobs done (33%), 1 failed; running: none yet"
    lines.gave_up([])
    logger.error("WorkflowError:\nAt least one job did not complete successfully.")
    said = stream.getvalue().splitlines()
    assert said[0] == "Job stats"
    assert said[1:3] == [
        f"12:00:00  FAILED after 1 min 10 s: adapt d/m/lora (log: {log})",
        "ERROR: cell d/m/lora: the loss is not finite; lower the rate",
    ]
    assert said[3] == "NOT DONE: 1 of 3 jobs, 1 failed, in 1 min 10 s"
    assert said[4] == "  adapt d/m/lora: cell d/m/lora: the loss is not finite; lower the rate"
    assert "snakemake --cores all now" in said[5] and len(said) == 7


def test_the_answer_comes_last(clock: Clock) -> None:
    logger, lines, stream = started(("RQ1: yes", "Page: index.html"))
    assert lines
    lines.succeeded([])
    logger.info("Complete log(s): a.log")
    logger.info("Elapsed time: 0:00:01")
    assert stream.getvalue().splitlines() == ["DONE: 0 jobs in 0 s", "RQ1: yes", "Page: index.html"]
    logger, _, stream = started(("RQ1: yes",))
    logger.info("Nothing to be done (all requested files are present and up to date).")
    assert stream.getvalue().splitlines()[-1] == "RQ1: yes"


@pytest.mark.parametrize("asked", [{"dryrun": True}, {"verbose": True}, {"printshellcmds": True}, {"quiet": {"rules"}}])
def test_whoever_wants_snakemakes_own_words_has_them(asked: dict[str, Any]) -> None:
    logger, lines, stream = started(**asked)
    logger.info("Select jobs to execute...")
    assert lines is None and stream.getvalue() == "Select jobs to execute...\n"


def test_a_bug_is_shown_with_the_end_of_its_log(clock: Clock, tmp_path: Path) -> None:
    logger, _, stream = started()
    log = tmp_path / "a.log"
    log.write_text("Traceback (most recent call last):\n  somewhere\nKeyError: 1\n")
    begin(logger, 1, "report", {"run": "demo"}, log)
    logger.error("Error", extra={"event": "job_error", "jobid": 1, "rule_name": "report", "rule_msg": None, "log": [str(log)]})
    assert "FAILED after 0 s: report demo" in stream.getvalue() and "  somewhere\nKeyError: 1\n" in stream.getvalue()


def test_reasons_are_words(clock: Clock, tmp_path: Path) -> None:
    head = "Params have changed since last execution: Union of exclusive params before and now across all output: "
    before, now = TRACKED % ("aa", 6, "2.1"), TRACKED % ("aa", 4, "2.1")
    assert console.words(f"{head}before: {before} now: {now} ") == "epochs: 6 -> 4"
    assert (
        console.words(f"{head}before: {before!r} now: {TRACKED % ('bb', 6, '2.2')!r} ")
        == 'version of torch: "2.1" -> "2.2"; its code changed'
    )
    assert console.words(f"{head}before: <nothing exclusive> now: {now} ") == "Its parameters changed"
    assert console.words("Missing output files: a") == "Missing output files: a"
    logger, _, stream = started()
    for number in range(6):
        begin(logger, number, "adapt", {"dataset": f"d{number}"}, tmp_path / "a.log", f"{head}before: {before} now: {now} ")
    said = stream.getvalue().splitlines()
    assert said[:3] == [f"12:00:00  adapt d{number}: epochs: 6 -> 4" for number in range(3)]
    assert len(said) == 4 and "--dry-run" in said[3]


def test_long_failures_are_counted() -> None:
    found = console.failures({f"adapt {number}": "ERROR: no" for number in range(17)})
    assert len(found) == 16 and found[0] == "  adapt 0: no" and found[-1] == "  and 2 more: see logs/"
    assert [console.duration(seconds) for seconds in (3.9, 252, 11220)] == ["3 s", "4 min 12 s", "3 h 7 min"]


def test_what_a_log_holds_acts_on_no_terminal(clock: Clock, tmp_path: Path) -> None:
    logger, lines, stream = started(("a\x1b]0;title\x07",))
    assert lines
    log = tmp_path / "a.log"
    log.write_text("Traceback\nValueError: question '\x1b[2J\0\u202egpj'\n")
    begin(logger, 1, "adapt", {"dataset": "d"}, log)
    logger.error("Error", extra={"event": "job_error", "jobid": 1, "rule_name": "adapt", "rule_msg": None, "log": [str(log)]})
    lines.gave_up([])
    lines.end(["a\x1b]0;title\x07"])
    said = stream.getvalue()
    assert said.count(r"question '\x1b[2J\x00\u202egpj'") == 2 and r"a\x1b]0;title\x07" in said
    assert all(letter.isprintable() or letter == "\n" for letter in said)
