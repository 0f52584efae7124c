"""Probabilities of option letters where a model's answer begins: by its own chat template."""

from collections.abc import Sequence
from itertools import takewhile
from string import ascii_uppercase

import torch

from medbench.models import shared_prefix
from medbench.models.answering import Letters
from medbench.models.generative_base import Generative
from medbench.models.shared_prefix import Prompts

SPELLINGS = ("", "\u2581", "\u0120")
"""What a vocabulary puts before a letter: nothing, or a space as SentencePiece or byte-level BPE write it."""


def ids_of_letters(model: Generative) -> list[list[int]]:
    """Of each letter all tokens that spell it, up to the first letter that has none."""
    vocabulary = model.tokenizer.get_vocab()
    found = ([vocabulary[f"{space}{letter}"] for space in SPELLINGS if f"{space}{letter}" in vocabulary] for letter in ascii_uppercase)
    return list(takewhile(bool, found))


def letters(model: Generative, put: Prompts, ids: Sequence[Sequence[Sequence[int]]]) -> list[Letters]:
    """Of each prompt the letters of its options. `ids`: of each prompt, of each option all tokens that spell its letter."""
    logits = shared_prefix.logits(model, put)
    return [_letters(row, of) for row, of in zip(logits.log_softmax(dim=-1).cpu(), ids, strict=True)]


def _letters(row: torch.Tensor, ids: Sequence[Sequence[int]]) -> Letters:
    of_each = torch.stack([row[list(of)].logsumexp(dim=0) for of in ids])
    return Letters([float(value) for value in of_each], float(of_each.logsumexp(dim=0).exp()))
