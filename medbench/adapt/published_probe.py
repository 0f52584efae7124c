"""Linear probe by the study's recipe, on cached features: AdamW a linearly falling rate, every class of equal weight, unscaled features.

The study recomputes the frozen backbone in every epoch and chooses nothing, so train + val are its training set; the steps are the
same on cached features. One Linear, from zero weights, in numpy: torch's order of sums would differ by machine.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medbench import paths
from medbench.adapt import linear
from medbench.adapt.certificate import Evidence, Tensor, certify
from medbench.adapt.job import Adapted, Job, check_classes, class_weights, weighted_loss
from medbench.adapt.probe import joined

F64 = NDArray[np.float64]
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of AdamW, as torch has them


def adapt(job: Job) -> Adapted:
    """Train the probe of one cell. Raises MedbenchError for a class without samples."""
    samples = joined(job.train, job.val)
    check_classes(job.cell, samples.labels, job.classes)
    features, k = job.features(samples.image_ids).astype(np.float64), len(job.classes)
    weights = class_weights(samples.labels, k)
    coef, intercept = train(features, samples.labels, weights, job.recipe, job.seed)
    d = features.shape[1]
    trained = linear.Linear(np.zeros(d), np.ones(d), coef, intercept)
    folder = job.work.folder / paths.WEIGHTS
    linear.write(trained, folder)
    logits = trained.logits(features)
    lacking = linear.missing(folder)
    reloaded = logits if lacking else linear.read(folder).logits(features)
    tensors = [
        Tensor(name, value.size, bool(value.any()), float(np.linalg.norm(value)), "absolute")
        for name, value in (("coef", coef), ("intercept", intercept))
    ]
    return Adapted(
        folder,
        certify(
            Evidence(
                cell=job.cell,
                method="published_probe",
                n_train=len(job.train.labels),
                n_val=len(job.val.labels),
                tensors=tensors,
                adapters=None,
                loss_start=weighted_loss(np.zeros_like(logits), samples.labels, weights),
                loss_end=weighted_loss(logits, samples.labels, weights),
                converged=None,
                frozen_before=None,
                frozen_after=None,
                missing_from_file=lacking,
                repeat_difference=float(np.abs(logits - trained.logits(features)).max()),
                reload_difference=float(np.abs(logits - reloaded).max()),
                reload_tolerance=0.0,
                test_samples_used=sorted(set(samples.sample_ids) & job.test_ids),
                selection={"epoch": job.recipe["epochs"], "by": "nothing: the recipe is fixed", "candidates": []},
            )
        ),
    )


def train(features: F64, labels: NDArray[np.int64], weights: F64, recipe: Mapping[str, Any], seed: int) -> tuple[F64, F64]:
    """coef [k, d] and intercept [k] after all epochs. `weights` [k]: of the classes in the loss, whose mean is over a batch's weights."""
    size, epochs, peak, decay = (recipe[name] for name in ("batch_size", "epochs", "learning_rate", "weight_decay"))
    n, k = len(labels), len(weights)
    values = np.zeros((k, features.shape[1] + 1))  # the intercept last
    first, second = np.zeros_like(values), np.zeros_like(values)
    inputs = np.hstack([features, np.ones((n, 1))])
    total, step = epochs * -(-n // size), 0
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(n)
        for start in range(0, n, size):
            batch = order[start : start + size]
            rate = peak * (1 - step / total)
            step += 1
            gradient = _gradient(values, inputs[batch], labels[batch], weights)
            first += (1 - BETA1) * (gradient - first)
            second += (1 - BETA2) * (gradient**2 - second)
            values *= 1 - rate * decay
            values -= rate * (first / (1 - BETA1**step)) / (np.sqrt(second / (1 - BETA2**step)) + EPSILON)
    return values[:, :-1].copy(), values[:, -1].copy()


def _gradient(values: F64, inputs: F64, labels: NDArray[np.int64], weights: F64) -> F64:
    """Of the class-weighted cross-entropy."""
    logits = inputs @ values.T
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    slope = shifted / shifted.sum(axis=1, keepdims=True)
    slope[np.arange(len(labels)), labels] -= 1
    each = weights[labels]
    return np.asarray((slope * (each / each.sum())[:, None]).T @ inputs)
