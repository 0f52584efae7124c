"""Watching what training really feeds a generative model: from inside its forward pass, not from the code that prepares it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from medbench.adapt.certificate import TextEvidence
from medbench.models.generative_base import IGNORED, Generative


class Expected(NamedTuple):
    """One sample as the data set has it."""

    name: str
    question: str
    answer: str


class ForwardAudit:
    """Compares inputs and labels of the first `limit` samples with the data; `announce` a batch, then run the model on it."""

    def __init__(self, model: Generative, limit: int) -> None:
        self.model, self._limit = model, limit
        self._expected: list[Expected] = []
        self._keys: set[str] = set()
        self.n_watched = 0
        self.without_question: list[str] = []
        self.wrong_labels: list[str] = []
        self.in_loss: set[str] = set()
        self.keys_dropped: set[str] = set()
        self._hook = model.base.register_forward_pre_hook(self._forward, with_kwargs=True)

    def announce(self, expected: Sequence[Expected], keys: set[str]) -> None:
        """The samples of the next training batch, and what the processor makes of them."""
        self._expected, self._keys = list(expected) if self.n_watched < self._limit else [], keys

    def notes(self) -> dict[str, Any]:
        """What was seen so far, for a training that goes on in another process."""
        return {
            "n_watched": self.n_watched,
            "without_question": self.without_question,
            "wrong_labels": self.wrong_labels,
            "in_loss": sorted(self.in_loss),
            "keys_dropped": sorted(self.keys_dropped),
        }

    def recall(self, notes: dict[str, Any]) -> None:
        """Go on after `notes`."""
        self.n_watched, self.without_question, self.wrong_labels = notes["n_watched"], notes["without_question"], notes["wrong_labels"]
        self.in_loss, self.keys_dropped = set(notes["in_loss"]), set(notes["keys_dropped"])

    def close(self) -> None:
        """Stop watching."""
        self._hook.remove()

    def evidence(self, outside: list[str], projector_saved: int, n_answered: int, answers_changed: int) -> TextEvidence:
        """What was seen, with what others measured."""
        return TextEvidence(
            n_watched=self.n_watched,
            without_question=self.without_question,
            wrong_labels=self.wrong_labels,
            masked_in_loss=sorted(self.in_loss),
            keys_dropped=sorted(self.keys_dropped),
            adapters_outside=outside,
            projector_saved=projector_saved,
            n_answered=n_answered,
            answers_changed=answers_changed,
        )

    def _forward(self, module: Any, arguments: tuple[Any, ...], given: dict[str, Any]) -> None:
        expected, self._expected = self._expected, []
        if not expected:
            return
        self.keys_dropped |= {name for name in self._keys if given.get(name) is None}
        ids = given["input_ids"]
        labels = torch.full_like(ids, IGNORED)
        labels[:, -given["labels"].shape[1] :] = given["labels"]  # of the last tokens, over which the loss is taken
        mask = given["attention_mask"].bool() if given.get("attention_mask") is not None else torch.ones_like(ids, dtype=torch.bool)
        learned, image = labels != IGNORED, ids == self.model.image_token_id
        if bool((learned & ~mask).any()):
            self.in_loss.add("padding")
        if bool((learned & image).any()):
            self.in_loss.add("image tokens")
        for row, sample in enumerate(expected):
            self.n_watched += 1
            read = self._decoded(ids[row][mask[row] & ~image[row] & ~learned[row]])
            if _squeezed(sample.question) not in _squeezed(read):
                self.without_question.append(sample.name)
            end = self.model.tokens(self.model.completion(sample.answer))
            places = learned[row].nonzero().flatten()
            together = len(places) > 0 and int(places[-1] - places[0]) + 1 == len(places)
            if not together or _squeezed(self._decoded(labels[row][learned[row]])) != _squeezed(self._decoded(end)):
                self.wrong_labels.append(sample.name)

    def _decoded(self, ids: Any) -> str:
        return str(self.model.tokenizer.decode(ids, skip_special_tokens=False))


def _squeezed(text: str) -> str:
    return " ".join(text.split())
