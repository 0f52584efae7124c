"""LoRA on the decoder of a generative model, its projector trained whole, on the answers of the training questions.

The epoch is chosen by the loss on the validation split; of the test split nothing is seen. The loop itself stands in `training.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from medbench import paths
from medbench.adapt import tuned
from medbench.adapt.asked import Asked, Images, QuestionJob
from medbench.adapt.certificate import Certificate, Evidence, certify
from medbench.adapt.forward_audit import Expected, ForwardAudit
from medbench.adapt.job import Adapted
from medbench.adapt.peft_layout import Description
from medbench.adapt.training import Plan, Trained, moved, train
from medbench.errors import MedbenchError
from medbench.jobs import devices, digests, seeding
from medbench.jobs.microbatching import Prepared
from medbench.jobs.prefetch import prefetch
from medbench.models import generative_base
from medbench.models.answering import Answer, Query, by_length
from medbench.models.generative_base import Generative

N_PROBED = 128
"""Samples that losses before and after are taken on, and that are watched on their way into the model."""
N_ANSWERED = 32
"""Validation questions answered by the trained model and by the one read back."""
GPU_TOLERANCE = 1e-2
"""Of a loss: kernels may sum in another order, in bfloat16."""


class Split(NamedTuple):
    """One split with its images."""

    asked: Asked
    images: Images


class Epoch(NamedTuple):
    """What one epoch reached: mean loss per answer token."""

    train_loss: float
    val_loss: float


def adapt(job: QuestionJob) -> Adapted:
    """Train and certify one cell. Raises MedbenchError for an empty split, or a loss that is not finite."""
    for name, asked in (("train", job.train), ("val", job.val)):
        if not asked.questions:
            raise MedbenchError(f"cell {job.cell}", f"split {name} is empty", "prepare the data set with samples in every split")
    every = [*job.train.image_ids, *job.val.image_ids]
    images = Images(job.work.folder / "images.bin", job.images(every, job.source.batch_size), job.decode)
    return Learner(job, Split(job.train, images), Split(job.val, images)).run()


class Learner:
    """What `training` trains: adapters on the decoder and the projector, on the answers of a split."""

    def __init__(self, job: QuestionJob, training: Split, validation: Split) -> None:
        self.job, self.training, self.validation = job, training, validation
        seeding.seed_everything(job.seed)
        self.model = generative_base.load(job.source)
        self.frozen = tuned.frozen_digest(self.model)
        self.origin = digests.canonical([self.frozen, self.model.weights])  # the projector is not frozen, and is of these weights
        tuned.build(self.model, job.recipe["r"], job.recipe["alpha"], job.recipe["dropout"])
        if job.recipe["gradient_checkpointing"]:
            self.model.checkpoint_gradients()
        self.size = len(training.asked.questions)
        self.probed = np.sort(np.random.default_rng(job.seed).permutation(self.size)[:N_PROBED]).tolist()
        self.watched = range(min(N_ANSWERED, len(validation.asked.questions)))
        self.audit = ForwardAudit(self.model, len(self.probed))

    def run(self) -> Adapted:
        """Train, save, read back, certify."""
        loss_start = self.loss_on(self.training, self.probed)
        trained = train(self, Plan(self.job.cell, self.job.recipe, self.job.seed, self.origin, self.job.work))
        self.audit.close()
        loss_end = self.loss_on(self.training, self.probed)
        folder, source, weights = self.job.work.folder / paths.WEIGHTS, self.job.source, self.model.weights
        described = (*source[:3], weights, dict(self.job.recipe), self.best(trained.history) + 1)
        tuned.save(self.model, folder, Description(*described, bits=source.bits))
        return Adapted(folder, self._certificate(trained, (loss_start, loss_end)), weights)

    def groups(self) -> list[dict[str, Any]]:
        """Adapters and projector, at rates of their own."""
        names, recipe = self.trainable(), self.job.recipe
        projector = {name for name in names if tuned.is_projector(self.model, name)}
        return [
            {"params": [value for name, value in names.items() if name not in projector], "lr": recipe["learning_rate"]},
            {"params": [value for name, value in names.items() if name in projector], "lr": recipe["projector_learning_rate"]},
        ]

    def trainable(self) -> dict[str, torch.Tensor]:
        """Adapters and projector."""
        return tuned.trainable(self.model)

    saved = trainable

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `saved` gave."""
        tuned.restore(self.model, tensors)

    def mode(self, training: bool) -> None:
        """Dropout on or off."""
        self.model.model.train(training)

    def prepare(self, places: Sequence[int]) -> dict[str, torch.Tensor]:
        """Inputs with labels."""
        return self._inputs(self.training, places)

    def loss(self, places: Sequence[int], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean over answer tokens, watched on its way into the model."""
        asked = self.training.asked
        expected = [Expected(asked.sample_ids[place], asked.questions[place], asked.answers[place]) for place in places]
        self.audit.announce(expected, set(inputs))
        return self.model.loss(inputs)

    def weight(self, places: Sequence[int], inputs: dict[str, torch.Tensor]) -> float:
        """Answer tokens."""
        return float((inputs["labels"] >= 0).sum())

    def validate(self, train_loss: float) -> Epoch:
        """Both losses."""
        return Epoch(train_loss, self.loss_on(self.validation, range(len(self.validation.asked.questions))))

    def best(self, history: Sequence[tuple[Any, ...]]) -> int:
        """Position of the epoch with the lowest validation loss, of equals the first."""
        return int(np.argmin([Epoch(*epoch).val_loss for epoch in history]))

    def notes(self) -> dict[str, Any]:
        """What the audit saw."""
        return self.audit.notes()

    def recall(self, notes: dict[str, Any]) -> None:
        """Into the audit."""
        self.audit.recall(notes)

    def loss_on(self, split: Split, places: Sequence[int]) -> float:
        """Mean loss per answer token in evaluation mode."""
        total, count, microbatching = 0.0, 0, self.job.work.microbatching
        texts = [split.asked.questions[place] + split.asked.answers[place] for place in places]
        lengths = dict(zip(places, self.model.lengths(texts, [()] * len(texts)), strict=True))
        batches = by_length(places, lengths.__getitem__, self.job.recipe["batch_size"])
        prepared = prefetch(lambda some: Prepared(microbatching, some, lambda part: self._inputs(split, part)), batches, devices.overlaps())

        def measured(inputs: dict[str, torch.Tensor]) -> tuple[float, int]:
            n = int((inputs["labels"] >= 0).sum())
            return float(self.model.loss(inputs)) * n, n

        with torch.inference_mode():
            for some, batch in prepared:
                for loss, n in microbatching.run(some, lambda part: measured(batch(part))):  # noqa: B023 - called at once
                    total, count = total + loss, count + n
        return total / count

    def _inputs(self, split: Split, places: Sequence[int]) -> dict[str, torch.Tensor]:
        return self.model.train_batch(self._queries(split, places), [split.asked.answers[place] for place in places])

    def _queries(self, split: Split, places: Sequence[int]) -> list[Query]:
        asked, put = split.asked, self.job.asking
        return [
            Query(f"sample {asked.sample_ids[place]}", split.images[asked.image_ids[place]], put.text(asked.questions[place]))
            for place in places
        ]

    def answers(self) -> list[Answer]:
        """Answers to the first validation questions."""
        budget = self.job.asking.max_new_tokens
        answer = lambda part: self.model.generate(self.model.inputs(self._queries(self.validation, part), budget), budget)  # noqa: E731
        return [found for part in self.job.work.microbatching.run(self.watched, answer) for found in part]

    def _reloaded(self) -> Generative:
        """The base once more. The trained one goes first: a device may not hold both."""
        del self.model, self.audit.model
        devices.free_memory()
        return generative_base.load(self.job.source)

    def _certificate(self, trained: Trained, losses: tuple[float, float]) -> Certificate:
        """Score twice and answer, then read the saved files back into a model that was never trained."""
        job, folder, watched = self.job, self.job.work.folder / paths.WEIGHTS, self.watched
        lacking, projector = tuned.lacking(self.model, folder), tuned.saved_projector(self.model, folder)
        first, again, answered = self.loss_on(self.validation, watched), self.loss_on(self.validation, watched), self.answers()
        tensors, adapters, frozen_after = moved(trained, self.trainable()), len(tuned.adapters(self.model)), tuned.frozen_digest(self.model)
        outside = tuned.outside(self.model)
        reloaded, changed = first, 0
        if not lacking:
            self.model = self._reloaded()
            tuned.read(folder, self.model, job.source)
            reloaded = self.loss_on(self.validation, watched)
            changed = sum(one != other for one, other in zip(answered, self.answers(), strict=True))
        return certify(
            Evidence(
                cell=job.cell,
                method="generative_lora",
                n_train=len(job.train.questions),
                n_val=len(job.val.questions),
                tensors=tensors,
                adapters=adapters,
                loss_start=losses[0],
                loss_end=losses[1],
                converged=None,
                frozen_before=self.frozen,
                frozen_after=frozen_after,
                missing_from_file=lacking,
                repeat_difference=abs(first - again),
                reload_difference=abs(first - reloaded),
                reload_tolerance=GPU_TOLERANCE if self.model.device.type == "cuda" else 0.0,
                test_samples_used=sorted({*job.train.sample_ids, *job.val.sample_ids} & job.test_ids),
                selection={
                    "epoch": self.best(trained.history) + 1,
                    "by": "loss",
                    "candidates": [{"epoch": place + 1, **Epoch(*epoch)._asdict()} for place, epoch in enumerate(trained.history)],
                },
                text=self.audit.evidence(outside, projector, len(answered), changed),
            )
        )
