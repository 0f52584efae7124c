"""Putting open answers to judges: equal ones once, what needs no judge never, a reply that cannot be read once more, then it is null."""

import hashlib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from medbench.errors import whole
from medbench.jobs.digests import canonical
from medbench.metrics.judging import Reading, scoring
from medbench.models import answering
from medbench.models.answering import Answerer, Prompt
from medbench.models.checkpoint import Source


class Triple(NamedTuple):
    """What a judge sees of a sample: nothing of the model, the mode or the cell. `refused`: the answer only declines."""

    question: str
    reference: str
    answer: str
    refused: bool = False


class Judge(NamedTuple):
    """A judge of a run. `source`: fields of `medbench.models.checkpoint.Source`."""

    name: str
    source: Mapping[str, Any]
    max_new_tokens: int  # of a judgement


class Judgement(NamedTuple):
    """A reading, who gave it, and the key of the answer that it was read from; both empty where nobody was asked."""

    reading: Reading
    answered_by: str = ""
    request: str = ""


class _Task(NamedTuple):
    triple: Triple
    repeat: int
    tries: int  # so far


def load(judge: Judge, told: Mapping[str, Any] | None = None) -> Answerer:
    """The model that judges. `told`: how an endpoint is reached. Raises MedbenchError where it cannot be loaded."""
    answerer: Answerer = importlib.import_module(answering.speaker(judge.source)).answerer(Source(**judge.source))
    answerer.told = told or {}
    return answerer


def judgements(
    answerer: Answerer, judge: Judge, name: str, triples: Iterable[Triple], repeats: int
) -> Iterator[tuple[Triple, int, Judgement]]:
    """Of every distinct triple in a scoring (`name`) and of every repeat, as they come.

    The `round` of a prompt tells repeats and further tries apart, and is 0 for the first: so the same triple of another cell, run or
    number of repeats is the same request. Raises MedbenchError where the judge cannot be asked.
    """
    how, waiting = scoring(name), list[_Task]()
    for triple in dict.fromkeys(triples):
        unasked: Reading | None = how.unasked(triple.reference, triple.answer, triple.refused)
        for repeat in range(repeats):
            if unasked is None:
                waiting.append(_Task(triple, repeat, 0))
            else:
                yield triple, repeat, Judgement(unasked)
    while waiting:
        again = list[_Task]()
        for task, said in answerer.says(((one, _prompt(how, one)) for one in waiting), judge.max_new_tokens):
            found = _read(how, said, task.triple)
            if found.score is None and task.tries + 1 < how.TRIES:
                again.append(task._replace(tries=task.tries + 1))
            else:
                yield task.triple, task.repeat, Judgement(found, said.answered_by, said.request)
        waiting = again


def _prompt(how: Any, task: _Task) -> Prompt:
    system, user = how.messages(*task.triple[:3])
    return Prompt("a judgement", system.text, user.text, how.SCHEMA, task.repeat * how.TRIES + task.tries)


def _read(how: Any, said: answering.Said, triple: Triple) -> Reading:
    if said.finish_reason != "stop":
        ended = {
            "length": "the judge's budget of tokens ended it (`max_new_tokens`)",
            "filter": "a filter held the judgement back",
            "context": "the judge does not read so long a prompt beside `max_new_tokens`",
        }
        return Reading("failed", None, ended.get(said.finish_reason, f"the judge ended by {said.finish_reason}"))
    reading: Reading = how.read(said.text, triple.answer)
    return reading._replace(reason=whole(reading.reason))


def digest(judge: Judge, name: str) -> str:
    """Of all that judgements follow from besides the triple: two cells of one digest were judged alike."""
    how = scoring(name)
    probe = [list(message) for message in how.messages("question", "reference", "answer")]
    source = {key: value for key, value in judge.source.items() if key in ("module", "checkpoint", "revision", "digest", "options")}
    return hashlib.sha256(canonical([name, probe, how.SCHEMA, how.TRIES, source, judge.max_new_tokens]).encode()).hexdigest()
