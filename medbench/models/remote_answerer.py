"""Answers of a model behind an endpoint: every question a request of its own, and every answer kept in the store."""

import sys
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from medbench.errors import MedbenchError
from medbench.jobs.microbatching import Microbatching
from medbench.models.answering import Answer, Answerer, Prompt, Questions, Said, decoded
from medbench.models.checkpoint import Source
from medbench.remote.asking import Given, ask
from medbench.remote.batching import fill
from medbench.remote.endpoint import Endpoint, Failed, Reached, Reply, Retired
from medbench.remote.limits import Limits
from medbench.remote.prices import Price
from medbench.remote.request import Picture, Request, picture
from medbench.remote.store import Store, size

T = TypeVar("T")
WINDOW = 32
"""Encoded images held at once."""
GROUP, SECONDS = 64, 5.0  # answers, and time, after which they are handed on


class Options(BaseModel):
    """What of a registry entry's `options` stands in a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: dict[str, Any] = {}  # of the body; null takes away one that would be sent else
    detail: Literal["auto", "low", "high", "original"] | None = None  # how closely an image is looked at, where the protocol says so


class RemoteAnswerer(Answerer):
    """Asks one model of one service."""

    options: ClassVar[type[Options]] = Options

    def __init__(self, source: Source) -> None:
        """Raises MedbenchError for an entry without a model's name."""
        if source.checkpoint is None:
            raise MedbenchError("a remote model's entry", "has no `checkpoint`", "write there the name by which the service knows it")
        try:
            self.asked, self.chosen = source.checkpoint, self.options.model_validate(dict(source.options))
        except ValidationError as error:
            raise MedbenchError(f"model {source.checkpoint}", f"options: {error.errors()[0]['msg']}", "see docs/remote.md") from None
        self.weights = {"model": self.asked}
        self._facts: dict[str, Any] = {}

    @abstractmethod
    def endpoint(self, reached: Reached) -> Endpoint:
        """The service."""

    @abstractmethod
    def parameters(self, max_new_tokens: int) -> dict[str, Any]:
        """Of every request, before those of the entry."""

    def answers(self, questions: Questions, done: Collection[int], microbatching: Microbatching) -> Iterator[dict[int, Answer]]:
        """As they come. Also what is `done` is read from the store, for the facts of all."""
        endpoint, limits = self._service()
        seen, group, handed = Seen(limits.price), dict[int, Answer](), time.monotonic()
        with Store(endpoint.kind, self.asked) as store, self.noting_what_is_gone(endpoint.kind):
            if limits.batch:
                fill(lambda: (request for _, request in self.requests(questions, endpoint.kind)), endpoint, store, limits)
            for given in ask(self.requests(questions, endpoint.kind), endpoint, store, limits):
                seen.note(given)
                if given.tag not in done:
                    group[given.tag] = answer(given.reply)
                if len(group) >= GROUP or (group and time.monotonic() - handed > SECONDS):
                    yield group
                    group, handed = {}, time.monotonic()
        self._facts = seen.facts(endpoint, self.asked)
        if seen.is_new and (day := self._announced()):
            self._facts["endpoint"]["shutdown_date"] = day
            if day != endpoint.reached.retired_on:
                print(f'{endpoint.where}: shuts {self.asked} down on {day}: write `retired_on: "{day}"` into its entry', file=sys.stderr)
        if group:
            yield group

    @contextmanager
    def noting_what_is_gone(self, kind: str) -> Iterator[None]:
        """A model that was shut down before all was answered leaves a note, by which the next start leaves the cell out."""
        try:
            yield
        except Retired:
            if note := self.told.get("gone"):
                Path(note).parent.mkdir(parents=True, exist_ok=True)
                Path(note).write_text(f"{size(kind, self.asked)}\n")
            raise

    def says(self, prompts: Iterable[tuple[T, Prompt]], max_new_tokens: int) -> Iterator[tuple[T, Said]]:
        """As they come."""
        endpoint, limits = self._service()
        prompts = list(prompts) if limits.batch else prompts

        def requests() -> Iterator[tuple[T, Request]]:
            for tag, prompt in prompts:
                sent = self._sent({**self.parameters(max_new_tokens), **self.constrained(prompt)})
                yield tag, Request(endpoint.kind, self.asked, (prompt.text,), sent, prompt.system, prompt.name, prompt.round)

        with Store(endpoint.kind, self.asked) as store:
            if limits.batch:
                fill(lambda: (request for _, request in requests()), endpoint, store, limits)
            for given in ask(requests(), endpoint, store, limits):
                reply = given.reply
                text = "" if reply.finish_reason == "filter" else reply.text
                yield given.tag, Said(text, reply.finish_reason, reply.model, given.key)

    def constrained(self, prompt: Prompt) -> dict[str, Any]:
        """Parameters that hold a model to the schema of a prompt and set its round apart; nothing where the service knows none."""
        return {}

    def shutdown_date(self) -> str | None:
        """When the service shuts the model down, YYYY-MM-DD; None where it does not say. Raises Failed or MedbenchError."""
        return self._service()[0].shutdown_date(self.asked)

    def _announced(self) -> str | None:
        """The same; None also where it could not be asked."""
        with suppress(Failed, MedbenchError):
            return self.shutdown_date()
        return None

    def _service(self) -> tuple[Endpoint, Limits]:
        """Where the model is asked, and how fast. Raises MedbenchError for an entry that does not say."""
        told = self.told
        if not told.get("url"):
            raise MedbenchError(f"model {self.asked}", "its entry has no `endpoint`", "write `endpoint: {url: ...}` into it")
        reached = Reached(**{name: told[name] for name in Reached._fields if name in told})
        return self.endpoint(reached), Limits(**{name: told[name] for name in Limits._fields if name in told})

    def _sent(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """With those of the entry over them; null takes one away."""
        return {name: value for name, value in {**parameters, **self.chosen.parameters}.items() if value is not None}

    def requests(self, questions: Questions, kind: str) -> Iterator[tuple[int, Request]]:
        """Every question once, behind its images. Raises MedbenchError naming an image that cannot be decoded."""
        sent = self._sent(self.parameters(questions.max_new_tokens))
        for window in questions.windows(WINDOW):
            shown: dict[str, Picture] = {}
            for place in window.places:
                names = questions.images_of(place)
                for name in names:
                    if name not in shown:
                        shown[name] = picture(partial(decoded, name, window.images[name], questions.look), self.chosen.detail)
                parts: tuple[str | Picture, ...] = (*(shown[name] for name in names), questions.texts[place])
                yield place, Request(kind, self.asked, parts, sent, name=questions.names[place])

    def facts(self, questions: Questions, answers: Mapping[int, Answer]) -> dict[str, Any]:
        """What the service said of itself, and what was asked of it."""
        return self._facts


def answer(reply: Reply) -> Answer:
    """As it is scored: what is left of a filtered answer is none. Tokens without thoughts and without the end."""
    said = max(0, reply.usage.output - reply.usage.reasoning - (reply.finish_reason == "stop"))
    return Answer("" if reply.finish_reason == "filter" else reply.text, reply.finish_reason, said)


class Seen:
    """What the replies of a cell say together. Of equal requests one was paid."""

    def __init__(self, price: str | None) -> None:
        self.price = price
        self.models, self.fingerprints, self.reasons = Counter[str](), Counter[str](), Counter[str]()
        self.tokens, self.first, self.last, self.dollars = Counter[str](), "", "", 0.0
        self.states, self.keys, self.n_tries, self.n_sent, self.is_new = Counter[str](), set[str](), 0, 0, False

    def note(self, given: Given[int]) -> None:
        """Count one reply."""
        reply, at = given.reply, str(given.line.get("time", ""))
        self.is_new |= given.is_new
        if reply.model:  # none answered a question that the service held back
            self.models[reply.model] += 1
        self.reasons[reply.reason or reply.finish_reason] += 1
        self.states[reply.finish_reason] += 1
        self.states["empty"] += not reply.text.strip()
        self.fingerprints[reply.fingerprint] += bool(reply.fingerprint)
        self.first, self.last = min(self.first or at, at), max(self.last, at)
        if given.key not in self.keys:
            self.keys.add(given.key)
            self.n_tries += len(given.tries)
            for usage, by_batch, sent in given.tries:
                self.n_sent += sent
                self.tokens.update(usage._asdict())
                self.dollars += Price(self.price, by_batch).of(usage) if self.price else 0.0

    def facts(self, endpoint: Endpoint, asked: str) -> dict[str, Any]:
        """For the run record. Raises MedbenchError for a cell that two models answered."""
        if len(self.models) > 1:
            found = f"{' and '.join(sorted(self.models))} answered, and one cell is of one model"
            raise MedbenchError(f"model {asked}", found, "name a snapshot in `checkpoint`, or `python -m medbench store prune` one of them")
        service = {
            "kind": endpoint.kind, "asked": asked, "returned": dict(self.models), "fingerprints": dict(+self.fingerprints),
            "reasons": dict(self.reasons), "states": dict(+self.states), "tokens": dict(self.tokens),
            "first": self.first, "last": self.last, "requests": len(self.keys), "answers_paid": self.n_tries, "sent": self.n_sent,
            "price": self.price,
        }  # fmt: skip
        cost = {"dollars": round(self.dollars, 6)} if self.price else {}
        tokens = {"input_tokens": self.tokens["input"], "output_tokens": self.tokens["output"]}
        return {"weights": {"model": next(iter(self.models), asked)}, "endpoint": service, **tokens, **cost}
