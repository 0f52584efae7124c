"""Answers of a hub model: questions about one image together, images streamed, the next batch prepared while the device computes."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch

from medbench.jobs import devices
from medbench.jobs.imagefile import opened
from medbench.jobs.microbatching import Microbatching, Prepared
from medbench.jobs.prefetch import prefetch
from medbench.models import generative_base, lettering, shared_prefix
from medbench.models.answering import Answer, Answerer, Choices, Letters, Query, Questions, by_length, decoded
from medbench.models.checkpoint import Source
from medbench.models.generative_base import IGNORED, Generative
from medbench.models.shared_prefix import Prompts

N_ALONE = 32
"""Questions that are asked once more, alone, where the model does not compute in float32."""
WINDOW = 256
"""Images held at once. Questions are sorted by length among those about these images, so memory does not grow with the data."""


class Batch(NamedTuple):
    """Places of questions with the images that belong to them."""

    places: list[int]
    images: dict[str, bytes]


class HubAnswerer(Answerer):
    """A generative model on this machine's device."""

    def __init__(self, model: Generative, batch_size: int) -> None:
        self.model, self.batch_size, self.weights = model, batch_size, model.weights

    def answers(self, questions: Questions, done: Collection[int], microbatching: Microbatching) -> Iterator[dict[int, Answer]]:
        """Greedy answers, a batch at a time. Batches depend on the questions and the batch size alone."""
        budget = questions.max_new_tokens

        def prompts(batch: Batch, part: Sequence[int]) -> Prompts:
            once = questions._replace(look=cache(questions.look))  # questions of a batch often share an image
            return shared_prefix.prompts(self.model, [once.with_images(place, batch.images) for place in part], budget)

        def prepare(batch: Batch) -> Prepared[Prompts]:
            return Prepared(microbatching, batch.places, lambda part: prompts(batch, part))

        def generate(prepared: Prepared[Prompts]) -> list[Answer]:
            parts = microbatching.run(prepared.places, lambda part: shared_prefix.answers(self.model, prepared(part), budget))
            return [answer for part in parts for answer in part]

        for batch, prepared in prefetch(prepare, rest(self.batches(questions, self.batch_size), done), devices.overlaps()):
            yield dict(zip(batch.places, generate(prepared), strict=True))

    def batches(self, questions: Questions, size: int) -> Iterator[Batch]:
        """`size` questions of as many images, those about one image together, images that take about as many tokens together."""
        self._require(questions)
        for window in questions.windows(WINDOW):
            sizes = {name: decoded(name, data, opened).size for name, data in window.images.items()}
            of = {place: questions.images_of(place) for place in window.places}
            shown = [[sizes[name] for name in of[place]] for place in window.places]
            texts = [questions.texts[place] for place in window.places]
            lengths = dict(zip(window.places, self.model.lengths(texts, shown), strict=True))
            for n_images in sorted({len(names) for names in of.values()}):
                alike = [place for place in window.places if len(of[place]) == n_images]
                for places in by_length(alike, lengths.__getitem__, size, of.__getitem__):
                    yield Batch(places, window.images)

    def _require(self, questions: Questions) -> None:
        """Raise MedbenchError, before the first question, where one has more images than the model can be shown."""
        for n_images in sorted({len(questions.images_of(place)) for place in range(len(questions.texts))}):
            self.model.require_images(n_images)

    def tells_letters(self, n: int) -> bool:
        """Whether the tokenizer has every letter as a token."""
        return len(lettering.ids_of_letters(self.model)) >= n

    def letters(self, choices: Choices, done: Collection[int], microbatching: Microbatching) -> Iterator[dict[int, list[Letters]]]:
        """A batch at a time. The images and what comes before the options go through the model once a question, whatever the number of
        orders."""
        questions, ids = choices.questions, lettering.ids_of_letters(self.model)
        size = max(1, self.batch_size // max(map(len, choices.texts)))

        def prepare(batch: Batch) -> tuple[list[int], Prepared[Prompts]]:
            once = questions._replace(look=cache(questions.look))
            orders = [(place, text) for place in batch.places for text in choices.texts[place]]

            def prompts(part: Sequence[int]) -> Prompts:
                queries = [once.with_images(place, batch.images)._replace(text=text) for place, text in (orders[order] for order in part)]
                return shared_prefix.prompts(self.model, queries, 0, [orders[order][0] for order in part])

            return [place for place, _ in orders], Prepared(microbatching, range(len(orders)), prompts)

        def told(places: list[int], prepared: Prepared[Prompts]) -> Iterator[Letters]:
            options = [ids[: choices.n_options[place]] for place in places]
            for part in microbatching.run(
                prepared.places, lambda part: lettering.letters(self.model, prepared(part), [options[order] for order in part])
            ):
                yield from part

        for batch, prepared in prefetch(prepare, rest(self.batches(questions, size), done), devices.overlaps()):
            found = told(*prepared)
            yield {place: list(islice(found, len(choices.texts[place]))) for place in batch.places}

    def loglikelihood(self, query: Query, options: Sequence[str]) -> list[float]:
        """Natural logarithm of the probability of each option with the end that the checkpoint's template puts behind it."""
        batch = self.model.train_batch([query] * len(options), options)
        labels = batch.pop("labels")[:, 1:]
        with torch.inference_mode(), self.model.precision():
            logits = self.model.model(**self.model.placed(batch)).logits[:, :-1].float().cpu()
        chosen = logits.log_softmax(dim=-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
        return [float(value) for value in chosen.masked_fill(labels == IGNORED, 0.0).double().sum(dim=1)]

    def facts(self, questions: Questions, answers: Mapping[int, Answer]) -> dict[str, int]:
        """How many of some answers are others when each question is asked alone: in half precision a batch rounds otherwise."""
        if self.model.model.dtype == torch.float32:
            return {}
        places = sorted({round(place) for place in np.linspace(0, len(questions.texts) - 1, N_ALONE)})
        wanted = [name for place in places for name in questions.images_of(place)]
        images = {row.image_id: row.image for some in questions.images(wanted, 1) for row in some} if wanted else {}
        changed = 0
        for place in places:
            inputs = self.model.inputs([questions.with_images(place, images)], questions.max_new_tokens)
            changed += self.model.generate(inputs, questions.max_new_tokens)[0].text != answers[place].text
        return {"asked_alone": len(places), "changed_alone": changed}


def rest(every: Iterator[Batch], done: Collection[int]) -> Iterator[Batch]:
    """What is not answered yet: whole batches, unless another version of a library cuts them otherwise now."""
    for batch in every:
        if places := [place for place in batch.places if place not in done]:
            yield batch._replace(places=places)


def answerer(source: Source, change: Callable[[Any], None] | None = None) -> HubAnswerer:
    """The model of a source, with what `change` puts into it. Raises MedbenchError as `generative_base.load`."""
    model = generative_base.load(source)
    if change:
        change(model)
    return HubAnswerer(model, source.batch_size)
