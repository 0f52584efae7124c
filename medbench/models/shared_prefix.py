"""Prompts that begin alike (the template, an image that several questions are about) go through the model once up to where they part.

Its keys and values are kept, and each prompt goes on from them: an image is hundreds to thousands of tokens, a question some tens.
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch

from medbench.models.answering import Answer, Query
from medbench.models.generative_base import Generative

PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""What a processor makes of every token [n, length]; all else belongs to the images."""


class Begun(NamedTuple):
    """Prompts of a batch, on the CPU, as what those of a group share and how each goes on."""

    shared: dict[str, torch.Tensor]  # of each group its prompts up to where any two part, padded on the left
    rows: list[int]  # of each prompt: where its beginning stands in `shared`
    ends: list[list[int]]  # ids that each prompt adds


Prompts = Begun | dict[str, torch.Tensor]
"""Prompts of a batch, shared or whole."""


def prompts(model: Generative, queries: Sequence[Query], max_new_tokens: int, groups: Sequence[Hashable] = ()) -> Prompts:
    """Of queries with as many images each. `groups`: which of them begin alike, one name a query; by default those of the same images,
    each image one object. Raises MedbenchError naming a question that leaves no room for the answer.
    """
    names = groups or [tuple(map(id, query.images)) for query in queries]
    return _begun(model, queries, max_new_tokens, names) or model.inputs(queries, max_new_tokens)


def answers(model: Generative, put: Prompts, max_new_tokens: int) -> list[Answer]:
    """Greedy answers, in order."""
    inputs, past = _continued(model, put)
    return model.generate(inputs, max_new_tokens, past)


def logits(model: Generative, put: Prompts) -> torch.Tensor:
    """Of the token with which an answer would begin: float32 [n, vocabulary], on the model's device."""
    inputs, past = _continued(model, put)
    made = model.generated(inputs, 1, past, output_logits=True, return_dict_in_generate=True)
    found: torch.Tensor = made.logits[0].float()
    return found


def _begun(model: Generative, queries: Sequence[Query], max_new_tokens: int, names: Sequence[Hashable]) -> Begun | None:
    """None where no group has two prompts, where a question holds a mark (of another image, say), where the ids of a prompt do not end with
    those of its text, or where ends of different length take fillers, which a decoder's sliding window would count as tokens.
    """
    groups, said = list(dict.fromkeys(names)), "\n".join(query.text for query in queries)
    if len(groups) == len(queries) or any(mark in said for mark in model.marks):  # of which some tokenizers have thousands
        return None
    rows = [groups.index(name) for name in names]
    texts = model.text_ids([model.prompt(query.text, len(query.images)) for query in queries])
    ends = _ends(texts, rows)
    firsts = [rows.index(row) for row in range(len(groups))]
    whole = model.encode([queries[place] for place in firsts])
    lengths = (whole["attention_mask"].sum(dim=1) - torch.tensor([len(ends[place]) for place in firsts])).tolist()
    for ids, place, length in zip(whole["input_ids"], firsts, lengths, strict=True):
        if length < 1 or ids[len(ids) - len(ends[place]) :].tolist() != ends[place]:
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


def _ends(texts: Sequence[list[int]], rows: Sequence[int]) -> list[list[int]]:
    """Of each text the ids from where those of its row part, one at least. A text alone in its row parts where one of another row does."""
    of_row = [[ids for ids, other in zip(texts, rows, strict=True) if other == row] for row in range(max(rows) + 1)]
    parts = [next((place for place, ids in enumerate(zip(*of, strict=False)) if len(set(ids)) > 1), min(map(len, of)) - 1) for of in of_row]
    first = min(place for place, of in zip(parts, of_row, strict=True) if len(of) > 1)
    parts = [place if len(of) > 1 else min(first, place) for place, of in zip(parts, of_row, strict=True)]
    return [ids[parts[row] :] for ids, row in zip(texts, rows, strict=True)]


def _continued(model: Generative, put: Prompts) -> tuple[dict[str, torch.Tensor], Any]:
    """Inputs of `generate` from where the prompts part, and the keys and values of what stands before; None before whole prompts."""
    if isinstance(put, dict):
        return put, None
    rows = torch.tensor(put.rows)
    ids = _left_padded([torch.tensor(end) for end in put.ends], model.tokenizer.pad_token_id)
    mask = _left_padded([torch.ones(len(end), dtype=torch.long) for end in put.ends], 0)
    cache = model.generated(put.shared, 1, return_dict_in_generate=True).past_key_values
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
