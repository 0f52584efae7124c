"""Probabilities of option letters where a model's answer begins: by its chat template, its images seen once for all orders of options."""

from collections.abc import Sequence
from itertools import takewhile
from string import ascii_uppercase

import torch

from medbench.models import shared_prefix
from medbench.models.answering import Letters, Query
from medbench.models.generative_base import Generative

SPELLINGS = ("", "\u2581", "\u0120")
"""What a vocabulary puts before a letter: nothing, or a space as SentencePiece or byte-level BPE write it."""


def ids_of_letters(model: Generative) -> list[list[int]]:
    """Of each letter all tokens that spell it, up to the first letter that has none."""
    vocabulary = model.tokenizer.get_vocab()
    found = ([vocabulary[f"{space}{letter}"] for space in SPELLINGS if f"{space}{letter}" in vocabulary] for letter in ascii_uppercase)
    return list(takewhile(bool, found))


class Shared:
    """Some prompts of one question, which differ in their options alone; called with places of prompts, it gives their letters."""

    def __init__(self, model: Generative, variants: Sequence[Query], letters: Sequence[Sequence[int]]) -> None:
        """`letters`: ids of each, one letter an option. Raises MedbenchError for a question that is longer than the model reads."""
        self.model, self.variants, self.letters = model, variants, letters
        self.begun = shared_prefix.begun(model, variants, 0)

    def __call__(self, places: Sequence[int]) -> list[Letters]:
        """Letters of the prompts at some places. Raises MedbenchError for a question that is longer than the model reads."""
        if self.begun is None:
            inputs, past = self.model.inputs([self.variants[place] for place in places], 0), None
        else:
            inputs, past = shared_prefix.continued(self.model, self.begun.only(places))
        made = self.model.generated(inputs, 1, past, output_logits=True, return_dict_in_generate=True)
        return [_letters(row, self.letters) for row in made.logits[0].float().log_softmax(dim=-1).cpu()]


def _letters(row: torch.Tensor, letters: Sequence[Sequence[int]]) -> Letters:
    of_each = torch.stack([row[list(ids)].logsumexp(dim=0) for ids in letters])
    return Letters([float(value) for value in of_each], float(of_each.logsumexp(dim=0).exp()))
