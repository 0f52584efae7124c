"""The training loop of adapters and head: AdamW, cosine with warm-up, the epoch chosen on validation, resumed epoch by epoch.

Every epoch draws its order and its dropout from (seed, epoch), so an interrupted training resumes to the same weights.
"""

import hashlib
import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from medbench.adapt.classifier import Classifier
from medbench.adapt.pixels import Labelled, PixelCache
from medbench.adapt.selection import Choice, Score, choose, score
from medbench.errors import MedbenchError


class Plan(NamedTuple):
    """What the training of one cell follows."""

    cell: str
    recipe: Mapping[str, Any]
    seed: int
    weights: NDArray[np.float64]  # per class [k]
    batch_size: int  # of validation
    state: Path  # where an unfinished training lies
    fingerprint: str  # of everything the weights follow from: a state with another one is not resumed


class Trained(NamedTuple):
    """What the training saw; the classifier then holds the weights of the chosen epoch."""

    choice: Choice  # position = epoch - 1
    history: list[Score]  # on validation, after each epoch
    with_gradient: frozenset[str]  # tensors that ever received a non-zero gradient
    start: dict[str, torch.Tensor]  # the trainable tensors before the first step


class _Progress(NamedTuple):
    """The state between two epochs."""

    history: list[Score]
    best: dict[str, torch.Tensor]
    with_gradient: set[str]


def train(classifier: Classifier, plan: Plan, cache: PixelCache, training: Labelled, validation: Labelled) -> Trained:
    """Train `classifier` in place. Raises MedbenchError when the loss is no longer finite."""
    recipe, start = plan.recipe, _copy(classifier.trainable())
    optimizer = torch.optim.AdamW(
        [
            {"params": list(classifier.adapters().values()), "lr": recipe["learning_rate"]},
            {"params": list(classifier.head.parameters()), "lr": recipe["head_learning_rate"]},
        ],
        weight_decay=recipe["weight_decay"],
    )
    progress = _resume(classifier, optimizer, plan) or _Progress([], {}, set())
    for epoch in range(len(progress.history), recipe["epochs"]):
        _epoch(classifier, optimizer, plan, cache, training, epoch, progress.with_gradient)
        logits = classifier.logits(cache.batches(validation.rows, plan.batch_size))
        progress.history.append(score(logits, validation.labels, plan.weights))
        if choose(progress.history).position == epoch:
            progress = progress._replace(best=_copy(classifier.saved()))
        _keep(classifier, optimizer, plan, progress)
    classifier.restore(progress.best)
    return Trained(choose(progress.history), progress.history, frozenset(progress.with_gradient), start)


def _epoch(
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    plan: Plan,
    cache: PixelCache,
    training: Labelled,
    epoch: int,
    with_gradient: set[str],
) -> None:
    """One pass over the training samples in an order of its own."""
    size, device = plan.recipe["batch_size"], classifier.contrastive.device
    weights = torch.tensor(plan.weights, dtype=torch.float32, device=device)
    order = np.random.default_rng((plan.seed, epoch)).permutation(len(training.rows))
    steps = math.ceil(len(order) / size)
    peak = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
    total = torch.zeros((), device=device)
    waiting = {name: value for name, value in classifier.trainable().items() if name not in with_gradient}
    classifier.train()
    torch.manual_seed(int(np.random.SeedSequence((plan.seed, epoch)).generate_state(1)[0]))
    for step, pixels in enumerate(cache.batches(training.rows[order], size)):
        factor = schedule(epoch * steps + step, plan.recipe["epochs"] * steps, plan.recipe["warmup"])
        for group, rate in zip(optimizer.param_groups, peak, strict=True):
            group["lr"] = rate * factor
        labels = torch.from_numpy(training.labels[order[step * size : (step + 1) * size]]).to(device)
        loss = cross_entropy(classifier(classifier.contrastive.to_device(pixels)), labels, weights)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for name in [name for name, value in waiting.items() if value.grad is not None and bool(value.grad.any())]:
            with_gradient.add(name)
            del waiting[name]
        optimizer.step()
        total += loss.detach()
    if not bool(total.isfinite()):
        raise MedbenchError(
            f"cell {plan.cell}", f"the training loss is not finite in epoch {epoch + 1}", "lower the learning rates of the recipe"
        )


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate: linear up over `warmup` of all steps, then half a cosine down."""
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def _copy(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}


def _keep(classifier: Classifier, optimizer: torch.optim.Optimizer, plan: Plan, progress: _Progress) -> None:
    state = {
        "fingerprint": plan.fingerprint,
        "tensors": _copy(classifier.saved()),
        "optimizer": optimizer.state_dict(),
        "history": [tuple(entry) for entry in progress.history],
        "best": progress.best,
        "with_gradient": sorted(progress.with_gradient),
    }
    partial = plan.state.with_name(f"{plan.state.name}.{os.getpid()}")
    torch.save(state, partial)
    partial.replace(plan.state)


def _resume(classifier: Classifier, optimizer: torch.optim.Optimizer, plan: Plan) -> _Progress | None:
    """Continue an unfinished training of the same cell from the same start; anything else that lies there is ignored."""
    try:
        state = torch.load(plan.state, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):  # none there, or cut off
        return None
    if state["fingerprint"] != plan.fingerprint:
        return None
    classifier.restore(state["tensors"])
    optimizer.load_state_dict(state["optimizer"])
    return _Progress([Score(*entry) for entry in state["history"]], state["best"], set(state["with_gradient"]))


def fingerprint(*parts: object) -> str:
    """Digest of what a training follows from."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()
