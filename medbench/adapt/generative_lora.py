"""LoRA on the decoder of a generative model, its projector trained whole, on the answers of the training questions.

The epoch is chosen by the loss on the validation split; of the test split nothing is seen. Every epoch draws its order and
its dropout from (seed, epoch), so an interrupted training resumes to the same weights.
"""

import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from medbench import runtime
from medbench.adapt import tuned
from medbench.adapt.asked import Asked, Images, QuestionJob, by_length
from medbench.adapt.base import Adapted
from medbench.adapt.certificate import Certificate, Evidence, Tensor, certify
from medbench.adapt.training import fingerprint, schedule
from medbench.adapt.witness import Expected, Witness
from medbench.errors import MedbenchError
from medbench.models import base
from medbench.models.ahead import ahead
from medbench.models.generative_base import Answer, Generative, Query

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


class Progress(NamedTuple):
    """The state between two epochs."""

    history: list[Epoch]
    best: dict[str, torch.Tensor]
    with_gradient: set[str]


def adapt(job: QuestionJob) -> Adapted:
    """Train and certify one cell. Raises MedbenchError for an empty split, or a loss that is not finite."""
    for name, asked in (("train", job.train), ("val", job.val)):
        if not asked.questions:
            raise MedbenchError(f"cell {job.cell}", f"split {name} is empty", "prepare the data set with samples in every split")
    runtime.seed_everything(job.seed)
    model = _load(job)
    frozen = tuned.frozen_digest(model)
    tuned.build(model, job.recipe["r"], job.recipe["alpha"], job.recipe["dropout"])
    if job.recipe["gradient_checkpointing"]:
        model.checkpoint_gradients()
    every = [*job.train.image_ids, *job.val.image_ids]
    images = Images(job.scratch / "images.bin", job.images(every, job.source.batch_size), job.decode)
    trainer = Trainer(job, model, Split(job.train, images), Split(job.val, images), frozen)
    return trainer.run(frozen)


def _load(job: QuestionJob) -> Generative:
    model: Generative = base.load(job.source.module, job.source.checkpoint, job.source.revision)
    return model


class Trainer:
    """One training: a plain loop of AdamW with warm-up and cosine, adapters and projector at rates of their own."""

    def __init__(self, job: QuestionJob, model: Generative, training: Split, validation: Split, frozen: str) -> None:
        self.job, self.model, self.training, self.validation = job, model, training, validation
        names = tuned.trainable(model)
        groups = [
            {"params": [value for name, value in names.items() if name not in tuned.projector(names)], "lr": job.recipe["learning_rate"]},
            {"params": [names[name] for name in tuned.projector(names)], "lr": job.recipe["projector_learning_rate"]},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=job.recipe["weight_decay"])
        self.start = self._copy()
        self.state = job.scratch / "training.pt"
        self.origin = fingerprint(job.train, job.val, sorted(job.recipe.items()), job.seed, job.source, job.asking, frozen)
        some = np.sort(np.random.default_rng(job.seed).permutation(len(training.asked.questions))[:N_PROBED])
        self.probed = some.tolist()

    def run(self, frozen: str) -> Adapted:
        """Train, save, read back, certify."""
        loss_start = self.loss(self.training, self.probed)
        witness = Witness(self.model, len(self.probed))
        progress = self._train(witness)
        witness.close()
        loss_end = self.loss(self.training, self.probed)
        path, recipe, chosen = self.job.scratch / "weights.safetensors", self.job.recipe, _best(progress.history)
        described = tuned.Description(recipe["r"], recipe["alpha"], *self.job.source[:3], dict(recipe), chosen + 1)
        tuned.save(self.model, path, described)
        return Adapted(path, self._certificate(witness, progress, (loss_start, loss_end), frozen))

    def _train(self, witness: Witness) -> Progress:
        progress = self._resume() or Progress([], {}, set())
        for epoch in range(len(progress.history), self.job.recipe["epochs"]):
            train_loss = self._epoch(epoch, witness, progress.with_gradient)
            val_loss = self.loss(self.validation, range(len(self.validation.asked.questions)))
            progress.history.append(Epoch(train_loss, val_loss))
            if _best(progress.history) == epoch:
                progress = progress._replace(best=self._copy())
            self._keep(progress)
        if not witness.n_watched:  # resumed after the last epoch: watch one batch without learning from it
            self._watch(witness)
        tuned.restore(self.model, progress.best)
        return progress

    def _epoch(self, epoch: int, witness: Witness, with_gradient: set[str]) -> float:
        """One pass in an order of its own; the mean of the batches' losses. Raises MedbenchError when it is not finite."""
        size, recipe = self.job.recipe["batch_size"], self.job.recipe
        order = np.random.default_rng((self.job.seed, epoch)).permutation(len(self.training.asked.questions)).tolist()
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        peak = [group.setdefault("initial_lr", group["lr"]) for group in self.optimizer.param_groups]
        torch.manual_seed(int(np.random.SeedSequence((self.job.seed, epoch)).generate_state(1)[0]))
        total = torch.zeros((), device=self.model.device)
        self.model.model.train()
        for step, (places, inputs) in enumerate(ahead(self._training_inputs, batches)):
            factor = schedule(epoch * len(batches) + step, recipe["epochs"] * len(batches), recipe["warmup"])
            for group, rate in zip(self.optimizer.param_groups, peak, strict=True):
                group["lr"] = rate * factor
            self._announce(witness, places, inputs)
            loss = self._loss(inputs)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for name, value in tuned.trainable(self.model).items():
                if name not in with_gradient and value.grad is not None and bool(value.grad.any()):
                    with_gradient.add(name)
            self.optimizer.step()
            total += loss.detach()
        self.model.model.eval()
        if not bool(total.isfinite()):
            found = f"the training loss is not finite in epoch {epoch + 1}"
            raise MedbenchError(f"cell {self.job.cell}", found, "lower the learning rates of the recipe")
        return float(total) / len(batches)

    def _watch(self, witness: Witness) -> None:
        places = self.probed[: self.job.recipe["batch_size"]]
        inputs = self._training_inputs(places)
        self._announce(witness, places, inputs)
        with torch.inference_mode():
            self._loss(inputs)

    def _announce(self, witness: Witness, places: Sequence[int], inputs: Mapping[str, Any]) -> None:
        asked = self.training.asked
        witness.announce([Expected(asked.sample_ids[place], asked.questions[place], asked.answers[place]) for place in places], set(inputs))

    def _loss(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        with self.model.precision():
            loss: torch.Tensor = self.model.model(**self.model.placed(inputs)).loss
        return loss

    def loss(self, split: Split, places: Sequence[int]) -> float:
        """Mean loss per answer token in evaluation mode."""
        total, count = 0.0, 0
        lengths = {place: len(self.model.tokens(split.asked.questions[place] + split.asked.answers[place])) for place in places}
        batches = by_length(places, lengths.__getitem__, self.job.recipe["batch_size"])
        with torch.inference_mode():
            for _, inputs in ahead(lambda some: self._inputs(split, some), batches):
                n = int((inputs["labels"] >= 0).sum())
                total, count = total + float(self._loss(inputs)) * n, count + n
        return total / count

    def _training_inputs(self, places: Sequence[int]) -> dict[str, torch.Tensor]:
        return self._inputs(self.training, places)

    def _inputs(self, split: Split, places: Sequence[int]) -> dict[str, torch.Tensor]:
        return self.model.train_batch(self._queries(split, places), [split.asked.answers[place] for place in places])

    def _queries(self, split: Split, places: Sequence[int]) -> list[Query]:
        asked, put = split.asked, self.job.asking
        return [
            Query(f"sample {asked.sample_ids[place]}", split.images[asked.image_ids[place]], put.text(asked.questions[place]))
            for place in places
        ]

    def answers(self, model: Generative) -> list[Answer]:
        """Answers to the first validation questions."""
        places, budget = range(min(N_ANSWERED, len(self.validation.asked.questions))), self.job.asking.max_new_tokens
        return model.generate(model.inputs(self._queries(self.validation, places), budget), budget)

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().to("cpu", copy=True) for name, value in tuned.trainable(self.model).items()}

    def _keep(self, progress: Progress) -> None:
        state = {
            "origin": self.origin,
            "tensors": self._copy(),
            "optimizer": self.optimizer.state_dict(),
            "history": [tuple(epoch) for epoch in progress.history],
            "best": progress.best,
            "with_gradient": sorted(progress.with_gradient),
        }
        partial = self.state.with_name(f"{self.state.name}.{os.getpid()}")
        torch.save(state, partial)
        partial.replace(self.state)

    def _resume(self) -> Progress | None:
        """Continue an unfinished training from the same start; anything else that lies there is ignored."""
        try:
            state = torch.load(self.state, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):  # none there, or cut off
            return None
        if state["origin"] != self.origin:
            return None
        tuned.restore(self.model, state["tensors"])
        self.optimizer.load_state_dict(state["optimizer"])
        return Progress([Epoch(*epoch) for epoch in state["history"]], state["best"], set(state["with_gradient"]))

    def _certificate(self, witness: Witness, progress: Progress, losses: tuple[float, float], frozen: str) -> Certificate:
        """Answer and score twice, then read the saved file back into a model that was never trained."""
        job, path = self.job, self.job.scratch / "weights.safetensors"
        lacking, watched = sorted(set(tuned.trainable(self.model)) - set(tuned.saved_names(path))), range(len(self.answers(self.model)))
        first, again, answered = self.loss(self.validation, watched), self.loss(self.validation, watched), self.answers(self.model)
        tensors, adapters, frozen_after = self._tensors(progress), len(tuned.adapters(self.model)), tuned.frozen_digest(self.model)
        reloaded, changed = first, 0
        if not lacking:
            self.model = _load(job)
            tuned.read(path, self.model)
            reloaded = self.loss(self.validation, watched)
            changed = sum(one != other for one, other in zip(answered, self.answers(self.model), strict=True))
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
                frozen_before=frozen,
                frozen_after=frozen_after,
                missing_from_file=lacking,
                repeat_difference=abs(first - again),
                reload_difference=abs(first - reloaded),
                reload_tolerance=GPU_TOLERANCE if self.model.device.type == "cuda" else 0.0,
                test_samples_used=sorted({*job.train.sample_ids, *job.val.sample_ids} & job.test_ids),
                selection={
                    "epoch": _best(progress.history) + 1,
                    "by": "loss",
                    "candidates": [{"epoch": place + 1, **epoch._asdict()} for place, epoch in enumerate(progress.history)],
                },
                text=witness.evidence(len(tuned.projector(tuned.saved_names(path))), len(answered), changed),
            )
        )

    def _tensors(self, progress: Progress) -> list[Tensor]:
        """How far each trainable tensor is from where it started."""
        found = []
        for name, value in tuned.trainable(self.model).items():
            start, end = self.start[name].double(), value.detach().cpu().double()
            norm = float(start.norm())
            moved = float((end - start).norm()) / (norm or 1.0)
            found.append(Tensor(name, value.numel(), name in progress.with_gradient, moved, "relative" if norm else "absolute"))
        return found


def _best(history: Sequence[Epoch]) -> int:
    """Position of the epoch with the lowest validation loss, of equals the first."""
    return int(np.argmin([epoch.val_loss for epoch in history]))
