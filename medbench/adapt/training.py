"""The training loop of every LoRA: AdamW, cosine with warm-up, the epoch chosen on validation, resumed at the step it was cut off at.

An epoch's order follows from (seed, epoch) and a step's dropout from (seed, epoch, step), so an interrupted training ends in
the same weights. The state is kept after every epoch and, within one, whenever a twentieth of the time spent would be lost.
"""

import math
import pickle
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch

from medbench.adapt.certificate import Tensor
from medbench.errors import MedbenchError
from medbench.jobs import devices, files, seeding
from medbench.jobs.microbatching import Prepared
from medbench.jobs.prefetch import prefetch
from medbench.jobs.progress import track

if TYPE_CHECKING:
    from medbench.jobs.partial import Work

SHARE = 0.05
"""Of the time spent: what a kill may cost, and what keeping states may."""
LONGEST = 300.0
"""Seconds between two states, however long the training."""


class Learner(Protocol):
    """What the loop trains, and the samples that it learns from, by their places 0..size-1."""

    @property
    def size(self) -> int:
        """Number of training samples."""

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups with their peak learning rates, as AdamW takes them."""

    def trainable(self) -> dict[str, torch.Tensor]:
        """What receives gradients, by name."""

    def saved(self) -> dict[str, torch.Tensor]:
        """What makes an epoch's model, by name."""

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `saved` gave."""

    def mode(self, training: bool) -> None:
        """torch's training or evaluation mode."""

    def prepare(self, places: Sequence[int]) -> Any:
        """Inputs of some samples, on the CPU; called from a worker thread."""

    def loss(self, places: Sequence[int], inputs: Any) -> torch.Tensor:
        """Their mean loss."""

    def weight(self, places: Sequence[int], inputs: Any) -> float:
        """How much they count in the mean loss of a batch."""

    def validate(self, train_loss: float) -> tuple[float | None, ...]:
        """What the epoch reached: an entry of the history."""

    def best(self, history: Sequence[tuple[Any, ...]]) -> int:
        """Position of the epoch to keep."""

    def notes(self) -> Any:
        """What the learner itself saw so far, of lists, numbers and strings; `recall` takes it back."""

    def recall(self, notes: Any) -> None:
        """After a resume."""


class Plan(NamedTuple):
    """What the training of one cell follows."""

    cell: str
    recipe: Mapping[str, Any]
    seed: int
    origin: str  # digest of the frozen weights: a state on other ones is not resumed
    work: "Work"


class Trained(NamedTuple):
    """What the training saw; the learner then holds the weights of the chosen epoch."""

    history: list[tuple[Any, ...]]  # one entry an epoch
    with_gradient: frozenset[str]  # tensors that ever received a non-zero gradient
    start: dict[str, torch.Tensor]  # the trainable tensors before the first step


def train(learner: Learner, plan: Plan) -> Trained:
    """Train in place. Raises MedbenchError when the loss is no longer finite: at the latest when the state would be kept."""
    start = copy(learner.trainable())
    training = Training(learner, plan)
    training.run()
    learner.restore(training.best)
    return Trained(training.history, frozenset(training.with_gradient), start)


class Training:
    """An unfinished training: `epoch` and `step` are the next to do."""

    def __init__(self, learner: Learner, plan: Plan) -> None:
        self.learner, self.plan = learner, plan
        self.optimizer = torch.optim.AdamW(learner.groups(), weight_decay=plan.recipe["weight_decay"], fused=True)
        self.peak = [group["lr"] for group in self.optimizer.param_groups]
        self.state = plan.work.folder / "training.pt"
        self.history: list[tuple[Any, ...]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.with_gradient: set[str] = set()
        self.step, self.total = 0, torch.zeros(())  # of the epoch: steps done, sum of their losses
        self.begun = self.kept = time.monotonic()
        self.cost = 0.0  # seconds that keeping the state takes
        self.resume()

    def run(self) -> None:
        """All epochs that are left."""
        while (epoch := len(self.history)) < self.plan.recipe["epochs"]:
            train_loss = self.run_epoch(epoch)
            self.history.append(tuple(self.learner.validate(train_loss)))
            if self.learner.best(self.history) == epoch:
                self.best = copy(self.learner.saved())
            self.step, self.total = 0, torch.zeros(())
            self.keep()

    def run_epoch(self, epoch: int) -> float:
        """The steps of one epoch that are left; the mean of all its losses."""
        size, learner = self.plan.recipe["batch_size"], self.learner
        order = np.random.default_rng((self.plan.seed, epoch)).permutation(learner.size).tolist()
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        waiting = {name: value for name, value in learner.trainable().items() if name not in self.with_gradient}
        prepared = prefetch(
            lambda places: Prepared(self.plan.work.microbatching, places, learner.prepare), batches[self.step :], devices.overlaps()
        )
        what = f"adapt {self.plan.cell}, epoch {epoch + 1} of {self.plan.recipe['epochs']}, steps"
        learner.mode(training=True)
        for _, batch in track(prepared, what, len(batches), self.step):
            self._set_rates(epoch * len(batches) + self.step, self.plan.recipe["epochs"] * len(batches))
            loss = self._backward(batch, epoch)
            for name in [name for name, value in waiting.items() if value.grad is not None and bool(value.grad.any())]:
                self.with_gradient.add(name)
                del waiting[name]
            self.optimizer.step()
            self.total = self.total.to(loss.device) + loss
            self.step += 1
            if self.step < len(batches) and self._is_due():
                self._require_finite(epoch)
                self.keep()
        learner.mode(training=False)
        self._require_finite(epoch)
        return float(self.total) / len(batches)

    def _require_finite(self, epoch: int) -> None:
        """Not at every step: a device would be waited for."""
        if not bool(self.total.isfinite()):
            found = f"the training loss is not finite in epoch {epoch + 1}"
            raise MedbenchError(f"cell {self.plan.cell}", found, "lower the learning rates of the recipe")

    def _set_rates(self, step: int, total: int) -> None:
        factor = schedule(step, total, self.plan.recipe["warmup"])
        for group, rate in zip(self.optimizer.param_groups, self.peak, strict=True):
            group["lr"] = rate * factor

    def _backward(self, batch: Prepared[Any], epoch: int) -> torch.Tensor:
        """Gradients and mean loss of one batch; in parts, each by its weight, where the whole does not fit."""
        microbatching = self.plan.work.microbatching
        while True:
            parts = microbatching.parts(batch.places)
            self.optimizer.zero_grad()
            seeding.seed_torch(int(np.random.SeedSequence((self.plan.seed, epoch, self.step)).generate_state(1)[0]))
            try:
                return self._accumulate(parts, batch)
            except Exception as error:
                microbatching.halve(error, len(parts[0]))

    def _accumulate(self, parts: list[Sequence[int]], batch: Prepared[Any]) -> torch.Tensor:
        inputs = [batch(part) for part in parts]
        weights = [self.learner.weight(part, some) for part, some in zip(parts, inputs, strict=True)]
        total = torch.zeros(())
        for part, some, weight in zip(parts, inputs, weights, strict=True):
            loss = self.learner.loss(part, some) * (weight / sum(weights))
            loss.backward()  # type: ignore[no-untyped-call]
            total = total.to(loss.device) + loss.detach()
        return total

    def _is_due(self) -> bool:
        now = time.monotonic()
        return now - self.kept > max(self.cost / SHARE, min(SHARE * (now - self.begun), LONGEST))

    def keep(self) -> None:
        """Write the state, whole or not at all."""
        begun = time.monotonic()
        state = {
            "origin": self.plan.origin,
            "tensors": copy(self.learner.saved()),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
            "with_gradient": sorted(self.with_gradient),
            "step": self.step,
            "total": self.total.cpu(),
            "notes": self.learner.notes(),
        }
        with files.atomic(self.state) as aside:
            torch.save(state, aside)
        self.kept = time.monotonic()
        self.cost = self.kept - begun

    def resume(self) -> None:
        """Go on from the state that lies there; one that is cut off, or on other weights, is ignored."""
        try:
            state = torch.load(self.state, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
            return
        if state["origin"] != self.plan.origin:
            return
        self.learner.restore(state["tensors"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [tuple(entry) for entry in state["history"]]
        self.best, self.with_gradient = state["best"], set(state["with_gradient"])
        self.step, self.total = state["step"], state["total"]
        self.learner.recall(state["notes"])


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate: linear up over `warmup` of all steps, then half a cosine down."""
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def copy(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}


def moved(trained: Trained, now: Mapping[str, torch.Tensor]) -> list[Tensor]:
    """How far each trainable tensor is from where it started."""
    found = []
    for name, value in now.items():
        start, end = trained.start[name].double(), value.detach().cpu().double()
        norm = float(start.norm())
        distance = float((end - start).norm()) / (norm or 1.0)
        found.append(Tensor(name, value.numel(), name in trained.with_gradient, distance, "relative" if norm else "absolute"))
    return found
