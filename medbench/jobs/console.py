"""What a start of Snakemake says: a line every few seconds with what runs and how far it is, failures at once, the answer last.

Snakemake says about 15 lines a job. They still go into its own log below `.snakemake/log`; what a person watches gets a summary,
by the records that Snakemake hands to any logger (`snakemake_interface_logger_plugins`). Dry runs show every job as ever, and
`--verbose`, `--printshellcmds` and `--logger` leave Snakemake's own words.
"""

import ast
import errno
import json
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from medbench.errors import visible
from medbench.jobs import integrity

TRACKED = False  # decides no result

EVERY = 10.0
"""A status comes at most this often [s]..."""
QUIET = 20.0
"""...and at the latest after so long a silence."""
SHOWN = 3
"""Running jobs in a status, reasons in a start, and failures at its end in units of five: more of them are counted."""
REASONS: dict[str, str] = {}
"""Main output of a job that a start does again for a reason of its own -> that reason."""
_HANDLER = "DefaultStreamHandler"
_CHATTER = (
    "Select jobs to execute",
    "Complete log(s):",
    "Elapsed time:",
    "Exiting because a job execution failed",
    "RuleException:\nCalledProcessError",
)
_FAILED = "At least one job did not complete successfully"
_NOTHING = "Nothing to be done"
_HELD = frozenset(("job_info", "job_started", "job_finished", "progress", "job_error", "workflow_started", "shellcmd"))
_FAR = re.compile(r", ((?:epoch \d+ of \d+, )?\w+: \d+ of \d+ \(\d+%\))")  # in a line of medbench.jobs.progress
_ORDINARY = ("Missing output files", "Input files updated by another job")


class Job(NamedTuple):
    """A running job: `adapt data-set/model/mode`, its log file, when it began [s, monotonic]."""

    name: str
    log: Path | None
    since: float


class Lines(logging.Handler):
    """Follows the records of a start and writes the summary to `stream`. `answer`: the lines that a finished start ends with."""

    def __init__(self, stream: Any, answer: Callable[[], Iterable[str]]) -> None:
        super().__init__()
        self.stream, self.answer = stream, answer
        self.running: dict[int, Job] = {}
        self.failed: dict[str, str] = {}
        self.done, self.total, self.reasons, self.changed = 0, 0, 0, False
        self.begun = self.said = time.monotonic()
        self.over = threading.Event()
        self.guard = threading.RLock()
        threading.Thread(target=self._beat, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """As logging calls it; a fault in here costs a line, never the start."""
        try:
            with self.guard:
                self._take(record)
        except Exception:
            self.handleError(record)

    def _take(self, record: logging.LogRecord) -> None:
        event, facts = str(getattr(record, "event", None)), record.__dict__
        if event == "job_info":
            self._started(facts)
        elif event == "job_finished":
            if job := self.running.pop(facts["job_id"], None):
                self.failed.pop(job.name, None)
        elif event == "progress":
            self.done, self.total, self.changed = facts["done"], facts["total"], True
        elif event == "job_error":
            self._failed(facts)
        elif event == "group_error":
            for one in facts["job_error_info"]:
                self._failed(one)
        elif event == "run_info":
            self.total = int((facts.get("stats") or {}).get("total", 0))
            self.said = time.monotonic()
        elif str(record.msg).startswith(_NOTHING):
            self.end(self.answer())

    def succeeded(self, logs: Iterable[str]) -> None:
        """Called when all jobs are done."""
        self.end([f"DONE: {self.done} jobs in {duration(time.monotonic() - self.begun)}{_whole(logs)}", *self.answer()])

    def gave_up(self, logs: Iterable[str]) -> None:
        """Called when some job failed, or the start was interrupted."""
        took = duration(time.monotonic() - self.begun)
        self.end([
            f"NOT DONE: {self.done} of {self.total} jobs, {len(self.failed)} failed, in {took}{_whole(logs)}",
            *failures(self.failed),
            "The same command goes on where this start ended. With the target `now` (snakemake --cores all now) it makes scores, gaps and",
            "report of the cells that exist, and lists the absent ones with their errors.",
        ])  # fmt: skip

    def _started(self, facts: dict[str, Any]) -> None:
        name = " ".join((facts["rule_name"].removesuffix("_remote"), "/".join(facts["wildcards"].values()))).rstrip()
        logs = list(facts["log"] or ())
        self.running[facts["jobid"]] = Job(name, Path(logs[0]) if logs else None, time.monotonic())
        if not facts["reason"].startswith(_ORDINARY) and name not in ("all", "now"):
            self.reasons += 1
            if self.reasons <= SHOWN:
                self.say(f"{name}: {facts['reason'][:1].lower()}{facts['reason'][1:]}")
            elif self.reasons == SHOWN + 1:
                self.say("others for such a reason too: `snakemake --dry-run` names the reason of every job")

    def _failed(self, facts: dict[str, Any]) -> None:
        job = self.running.pop(facts["jobid"], None) or Job(str(facts["rule_name"]).removesuffix("_remote"), None, time.monotonic())
        error, rest = error_of(job.log, str(facts.get("rule_msg") or "it said nothing"))
        self.failed[job.name] = error
        where = f" (log: {job.log})" if job.log else ""
        self.say(f"FAILED after {duration(time.monotonic() - job.since)}: {job.name}{where}\n{rest or error}")

    def status(self) -> str:
        """`57 of 262 jobs done (22%); running: adapt data-set/model/lora (18 s, epoch 2 of 6, steps: 5 of 20 (25%)), ...`."""
        if not self.total:
            return f"looking which jobs are to be done, {duration(time.monotonic() - self.begun)} so far"
        now, jobs = time.monotonic(), sorted(self.running.values(), key=lambda job: job.since)
        shown = ", ".join(f"{job.name} ({', '.join(filter(None, (duration(now - job.since), far(job.log))))})" for job in jobs[:SHOWN])
        more = f" and {len(jobs) - SHOWN} more" if len(jobs) > SHOWN else ""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{self.done} of {self.total} jobs done ({100 * self.done // self.total}%){failed}; running: {shown or 'none yet'}{more}"

    def say(self, text: str) -> None:
        """Write a line with the time of day."""
        with self.guard:
            self.said, self.changed = time.monotonic(), False
            print(f"{time.strftime('%H:%M:%S')}  {visible(text)}", file=self.stream, flush=True)

    def end(self, lines: Iterable[str]) -> None:
        """Write the last lines of the start."""
        with self.guard:
            self.over.set()
            for line in lines:
                print(visible(line), file=self.stream, flush=True)

    def _beat(self) -> None:
        while not self.over.wait(1):
            with self.guard:
                silence = time.monotonic() - self.said
                if not self.over.is_set() and (silence >= QUIET or (self.changed and silence >= EVERY)):
                    self.say(self.status())


def install(logger: logging.Logger, settings: Any, answer: Callable[[], Iterable[str]]) -> Lines | None:
    """Called while the Snakefile is read, in the main process. None where Snakemake's own words stay.

    `settings`: Snakemake's output settings.
    """
    logger.addFilter(_in_words)
    handler = next((one for one in logger.handlers if one.name == _HANDLER), None)
    if handler is None or settings.dryrun or settings.verbose or settings.printshellcmds or settings.quiet:
        return None
    lines = Lines(getattr(handler, "stream", sys.stderr), answer)
    handler.addFilter(lambda record: not _is_held(record, lines))
    logger.addHandler(lines)
    return lines


def _is_held(record: logging.LogRecord, lines: Lines) -> bool:
    """Whether the summary says it, or nobody need read it."""
    if str(getattr(record, "event", None)) in _HELD:
        return True
    text = str(record.msg)
    return text.startswith(_CHATTER) or (_FAILED in text and lines.over.is_set())


def _in_words(record: logging.LogRecord) -> bool:
    if reason := getattr(record, "reason", None):
        ours = next((REASONS[name] for name in getattr(record, "output", None) or () if name in REASONS), "")
        record.reason = ours or words(str(reason))
    return True


def words(reason: str) -> str:
    """Snakemake's reason of a job, without the kilobytes of old and new parameters: which of them changed instead."""
    head, found, rest = reason.partition("Params have changed since last execution: ")
    if not found:
        return reason
    before, _, now = rest.partition("before: ")[2].partition(" now: ")
    old, new = _parameters(before), _parameters(now)
    if old is None or new is None:
        return f"{head}Its parameters changed"
    return f"{head}{integrity.changes(old, new) or 'Its parameters changed'}"


def _parameters(text: str) -> dict[str, Any] | None:
    """What `cli.rerun_key` wrote: parameters, digest of the code, versions; None for another text."""
    text = text.strip()
    try:
        text = ast.literal_eval(text) if text[:1] in "'\"" else text
        fingerprint, end = json.JSONDecoder().raw_decode(text)
        versions = json.JSONDecoder().raw_decode(text[end:].strip())[0]
        return {
            "code": fingerprint["code"],
            "params": fingerprint["params"],
            **{f"version of {name}": value for name, value in versions.items()},
        }
    except (ValueError, SyntaxError, KeyError, TypeError, AttributeError):
        return None


def far(log: Path | None) -> str:
    """How far a job is by the last line of progress in its log; empty where there is none."""
    found = _FAR.findall(tail(log))
    return str(found[-1]) if found else ""


def tail(log: Path | None, size: int = 4096) -> str:
    """The last bytes of a file; empty where there is none."""
    try:
        with (log or Path()).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - size))
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""


def error_of(log: Path | None, unknown: str) -> tuple[str, str]:
    """The one line that says why a job failed, `unknown` where its log is empty; and the log's end, where it is no expected error."""
    lines = [line for line in tail(log, 20_000).splitlines() if line.strip()]
    expected = [line for line in lines if line.startswith("ERROR: ")]
    if expected:
        return expected[-1], ""
    if not lines and log is not None and _is_full(log):
        return f"ERROR: {log}: {os.strerror(errno.ENOSPC)}; make room and run again", ""
    return (lines[-1] if lines else unknown), "\n".join(lines[-30:])


def _is_full(log: Path) -> bool:
    """Whether a job could not even say that its disk is full."""
    try:
        return shutil.disk_usage(log.parent).free == 0
    except OSError:
        return False


def _whole(logs: Iterable[str]) -> str:
    found = ", ".join(os.path.relpath(log) for log in logs)
    return f"; every job in {found}" if found else ""


def failures(failed: dict[str, str]) -> list[str]:
    """A line a failed job."""
    most = 5 * SHOWN
    more = [f"  and {len(failed) - most} more: see logs/"] if len(failed) > most else []
    return [f"  {name}: {error.removeprefix('ERROR: ')}" for name, error in list(failed.items())[:most]] + more


def duration(seconds: float) -> str:
    """`18 s`, `4 min 12 s`, `3 h 7 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
