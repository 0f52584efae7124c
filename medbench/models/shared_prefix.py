"""Prompts that begin alike (the template, an image that several questions are about) go through the model once up to where they part.

Its keys and values are kept, and each prompt goes on from them: an image is hundreds to thousands of tokens, a question some tens.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from medbench.models.answering import Answer, Query
from medbench.models.generative_base import Generative

PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""What a processor makes of every token [n, length]; all else belongs to the images."""


class Begun(NamedTuple):
    """Prompts of a batch, on the CPU, as what they share and how each goes on."""

    shared: dict[str, torch.Tensor]  # of each set of images its prompts up to where any two part, padded on the left
    rows: list[int]  # of each prompt: where its beginning stands in `shared`
    ends: list[list[int]]  # ids that each prompt adds

    def only(self, places: Sequence[int]) -> "Begun":
        """Some of the prompts."""
        return self._replace(rows=[self.rows[place] for place in places], ends=[self.ends[place] for place in places])


Prompts = Begun | dict[str, torch.Tensor]
"""Prompts of a batch, shared or whole."""


def prompts(model: Generative, queries: Sequence[Query], max_new_tokens: int) -> Prompts:
    """Of queries with as many images each. Raises MedbenchError naming a question that leaves no room for the answer."""
    return begun(model, queries, max_new_tokens) or model.inputs(queries, max_new_tokens)


def answers(model: Generative, put: Prompts, max_new_tokens: int) -> list[Answer]:
    """Greedy answers, in order."""
    if isinstance(put, dict):
        return model.generate(put, max_new_tokens)
    inputs, past = continued(model, put)
    return model.generate(inputs, max_new_tokens, past)


def begun(model: Generative, queries: Sequence[Query], max_new_tokens: int) -> Begun | None:
    """None where no two queries show the same images (one object), where the ids of a prompt do not end with those of its text, or where
    ends of different length take fillers and prompts are longer than the decoder's sliding window, which would count these as tokens.

    Raises MedbenchError naming a question that leaves no room for the answer.
    """
    of_images: dict[tuple[int, ...], int] = {}
    rows = [of_images.setdefault(tuple(map(id, query.images)), len(of_images)) for query in queries]
    if len(of_images) == len(queries):
        return None
    texts = model.text_ids([model.prompt(query.text, len(query.images)) for query in queries])
    alike = next((place for place, ids in enumerate(zip(*texts, strict=False)) if len(set(ids)) > 1), len(min(texts, key=len)))
    alike = min(alike, min(map(len, texts)) - 1)  # every prompt has an end of its own
    ends = [ids[alike:] for ids in texts]
    firsts = [rows.index(row) for row in range(len(of_images))]
    whole = model.encode([queries[place] for place in firsts])
    lengths = (whole["attention_mask"].sum(dim=1) - torch.tensor([len(ends[place]) for place in firsts])).tolist()
    for ids, place, length in zip(whole["input_ids"], firsts, lengths, strict=True):
        end = ids[len(ids) - len(ends[place]) :]
        if length < 1 or end.tolist() != ends[place] or (end == model.image_token_id).any():
            return None
    for query, row, end in zip(queries, rows, ends, strict=True):
        model.check_length(query, lengths[row] + len(end), max_new_tokens)
    window = getattr(model.model.config.get_text_config(), "sliding_window", None)
    if window and max(lengths) + max(map(len, ends)) + max_new_tokens > window and len(set(map(len, ends))) > 1:
        return None
    shared = {name: value for name, value in whole.items() if name not in PER_TOKEN}
    for name in whole.keys() & set(PER_TOKEN):
        cut = [value[: len(value) - len(ends[place])][-length:] for value, place, length in zip(whole[name], firsts, lengths, strict=True)]
        shared[name] = _left_padded(cut, model.tokenizer.pad_token_id if name == "input_ids" else 0)
    return Begun(shared, rows, ends)


def continued(model: Generative, put: Begun) -> tuple[dict[str, torch.Tensor], Any]:
    """Inputs of `generate` from where the prompts part, with the keys and values of what stands before."""
    rows = torch.tensor(put.rows)
    ids = _left_padded([torch.tensor(end) for end in put.ends], model.tokenizer.pad_token_id)
    mask = _left_padded([torch.ones(len(end), dtype=torch.long) for end in put.ends], 0)
    cache = model.keys_and_values(put.shared)
    cache.batch_select_indices(rows)
    inputs = {"input_ids": ids, "attention_mask": torch.cat([put.shared["attention_mask"][rows], mask], dim=1)}
    inner = model.base.model
    if getattr(inner, "rope_deltas", None) is not None:
        # Qwen-VL counts an image's rows and columns: the text after it comes earlier than its tokens would have it
        places = inputs["attention_mask"].cumsum(dim=1)[:, -ids.shape[1] :] - 1
        inputs["position_ids"] = (places + inner.rope_deltas.cpu()[rows]).expand(3, -1, -1)
    return inputs, cache


def _left_padded(rows: Sequence[torch.Tensor], filler: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=filler, padding_side="left")
