"""Probabilities of option letters where a model's answer begins: by its own chat template, its images seen once for all orders of options.

What the orders share (images, question) goes through the decoder once, and its keys and values are kept; each order only adds its own end.
"""

from collections.abc import Sequence
from itertools import takewhile
from string import ascii_uppercase
from typing import Any, NamedTuple

import torch

from medbench.models.answering import Letters, Query
from medbench.models.generative_base import Generative

SPELLINGS = ("", "\u2581", "\u0120")
"""What a vocabulary puts before a letter: nothing, or a space as SentencePiece or byte-level BPE write it."""


class _Parts(NamedTuple):
    """Prompts as what they share, as the processor makes it, and the ids that each of them adds."""

    shared: dict[str, torch.Tensor]
    ends: list[list[int]]


def ids_of_letters(model: Generative) -> list[list[int]]:
    """Of each letter all tokens that spell it, up to the first letter that has none."""
    vocabulary = model.tokenizer.get_vocab()
    found = ([vocabulary[f"{space}{letter}"] for space in SPELLINGS if f"{space}{letter}" in vocabulary] for letter in ascii_uppercase)
    return list(takewhile(bool, found))


class Shared:
    """Some prompts of one question, which differ in their options alone; called with places of prompts, it gives their letters."""

    def __init__(self, model: Generative, variants: Sequence[Query], letters: Sequence[Sequence[int]]) -> None:
        """`letters`: ids of each, one letter an option."""
        self.model, self.variants, self.letters = model, variants, letters
        self._parts = _parted(model, variants)

    def __call__(self, places: Sequence[int]) -> list[Letters]:
        """Letters of the prompts at some places. Raises MedbenchError for a question that is longer than the model reads."""
        logits = self._at_the_end(places) if self._parts else self._plain(places)
        return [_letters(row, self.letters) for row in logits.float().log_softmax(dim=-1).cpu()]

    def _at_the_end(self, places: Sequence[int]) -> torch.Tensor:
        """Logits [n, vocabulary] behind each prompt."""
        assert self._parts is not None
        model, ends = self.model, [self._parts.ends[place] for place in places]
        begun = model.placed(self._parts.shared)
        with torch.inference_mode(), model.precision():
            made = model.model(**begun, use_cache=True, logits_to_keep=1)
            cache = made.past_key_values
            cache.batch_repeat_interleave(len(ends))
            longest, length = max(map(len, ends)), begun["input_ids"].shape[1]
            ids = torch.full((len(ends), longest), model.tokenizer.pad_token_id, dtype=torch.long)
            mask = torch.zeros((len(ends), length + longest), dtype=torch.long)
            for row, end in enumerate(ends):  # fillers stand behind the end, where no token that counts sees them
                ids[row, : len(end)], mask[row, : length + len(end)] = torch.tensor(end), 1
            last = torch.tensor([len(end) - 1 for end in ends])
            kept, at = torch.unique(last, return_inverse=True)
            logits = model.model(
                input_ids=ids.to(model.device), attention_mask=mask.to(model.device), past_key_values=cache, use_cache=True,
                position_ids=self._positions(len(ends), length, longest), logits_to_keep=kept.to(model.device),
            ).logits  # fmt: skip
        chosen: torch.Tensor = logits[torch.arange(len(ends)), at.to(logits.device)]
        return chosen

    def _positions(self, n: int, start: int, length: int) -> torch.Tensor:
        """Of the ends of `n` prompts, [n, length]. Qwen-VL counts an image's rows and columns, [3, n, length]: the text after it comes
        earlier than its tokens would have it, which the model remembers of the prompt that it read last."""
        positions = torch.arange(start, start + length, device=self.model.device).expand(n, -1)
        inner = self.model.base.model
        if not hasattr(inner, "rope_deltas"):
            return positions
        shift = inner.rope_deltas[0] if self.variants[0].images else 0
        return (positions + shift).expand(3, -1, -1)

    def _plain(self, places: Sequence[int]) -> torch.Tensor:
        """The same of whole prompts, where the processor does not let them be parted."""
        inputs = self.model.inputs([self.variants[place] for place in places], 0)
        with torch.inference_mode(), self.model.precision():
            logits: torch.Tensor = self.model.model(**self.model.placed(inputs), logits_to_keep=1).logits[:, -1]
        return logits


def _parted(model: Generative, variants: Sequence[Query]) -> _Parts | None:
    """None where the ids of a prompt with its images do not end with those of its text."""
    whole: dict[str, Any] = model.inputs(variants[:1], 0)
    prompts = [model.prompt(query.text, len(query.images)) for query in variants]
    texts = model.text_ids(prompts)
    common = next((place for place, ids in enumerate(zip(*texts, strict=False)) if len(set(ids)) > 1), min(map(len, texts)) - 1)
    common = min(common, min(map(len, texts)) - 1)  # every order has an end of its own
    ends = [ids[common:] for ids in texts]
    ids = whole["input_ids"][0].tolist()
    length = len(ids) - len(ends[0])
    images = (whole["input_ids"][0, length:] == model.image_token_id).any()
    if length < 1 or ids[length:] != ends[0] or images:
        return None
    model.check_length(variants[0], length + max(map(len, ends)))
    per_token = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
    return _Parts({name: value[:, :length] if name in per_token else value for name, value in whole.items()}, ends)


def _letters(row: torch.Tensor, letters: Sequence[Sequence[int]]) -> Letters:
    of_each = torch.stack([row[list(ids)].logsumexp(dim=0) for ids in letters])
    return Letters([float(value) for value in of_each], float(of_each.logsumexp(dim=0).exp()))
