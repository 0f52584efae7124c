"""What a hub model says to texts alone: a judge that runs here, a writer of questions.

Apart from `hub_answerer`, so that a change here makes no answer about an image anew.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from medbench.errors import MedbenchError
from medbench.jobs.microbatching import Microbatching
from medbench.models import hub_answerer, shared_prefix
from medbench.models.answering import Answer, Prompt, Query, Said, by_length
from medbench.models.checkpoint import Source
from medbench.models.generative_base import Generative
from medbench.models.hub_answerer import HubAnswerer

T = TypeVar("T")


class HubSpeaker(HubAnswerer):
    """A generative model on this machine's device, which takes texts too."""

    def __init__(self, model: Generative, batch_size: int) -> None:
        super().__init__(model, batch_size)
        self._said = dict[tuple[str, int], Said]()  # prompt and budget -> reply
        self._memory = Microbatching()

    def says(self, prompts: Iterable[tuple[T, Prompt]], max_new_tokens: int) -> Iterator[tuple[T, Said]]:
        """Greedy replies, a batch of similar length at a time; equal prompts are asked once, whatever their round. No schema is enforced.

        What the model does not read whole ends by `context`, without a text.
        """
        self._require_text()
        tags, names = dict[str, list[T]](), dict[str, str]()
        for tag, prompt in prompts:
            text = self._plain(f"{prompt.system}\n\n{prompt.text}")
            tags.setdefault(text, []).append(tag)
            names.setdefault(text, prompt.name)
        new = [text for text in tags if (text, max_new_tokens) not in self._said]
        lengths = [len(ids) for text in new for ids in self.model.text_ids([self.model.prompt(text, 0)])]
        fitting = [place for place, length in enumerate(lengths) if length + max_new_tokens <= self.model.context]

        def generate(part: Sequence[int]) -> list[Answer]:
            queries = [Query(names[new[place]], None, new[place]) for place in part]
            return shared_prefix.answers(self.model, shared_prefix.prompts(self.model, queries, max_new_tokens), max_new_tokens)

        for places in by_length(fitting, lengths.__getitem__, self.batch_size):
            answers = [answer for part in self._memory.run(places, generate) for answer in part]
            for place, answer in zip(places, answers, strict=True):
                self._said[new[place], max_new_tokens] = self._reply(new[place], max_new_tokens, answer)
            yield from ((tag, self._said[new[place], max_new_tokens]) for place in places for tag in tags.pop(new[place]))
        for text, waiting in tags.items():
            said = self._said.get((text, max_new_tokens)) or self._reply(text, max_new_tokens, Answer("", "context", 0))
            yield from ((tag, said) for tag in waiting)

    def _reply(self, text: str, max_new_tokens: int, answer: Answer) -> Said:
        by = self.weights["checkpoint"]
        key = hashlib.sha256(f"{by}\x00{max_new_tokens}\x00{text}".encode()).hexdigest()
        return Said(answer.text, answer.finish_reason, by, key)

    def _require_text(self) -> None:
        """Raise MedbenchError for a model that takes no text alone."""
        try:
            self.model.require_images(0)
        except MedbenchError as error:
            raise MedbenchError(
                error.where, f"takes no text without an image ({error.found})", "choose another model as the judge"
            ) from None

    def _plain(self, text: str) -> str:
        """Without the marks of the template and of images: in a text that others wrote they would end the turn, or ask for an image."""
        for mark in self.model.marks:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text


def answerer(source: Source, change: Callable[[Any], None] | None = None) -> HubSpeaker:
    """As `hub_answerer.answerer`."""
    found = hub_answerer.answerer(source, change)
    return HubSpeaker(found.model, found.batch_size)
