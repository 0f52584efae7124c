"""Linear probe: regularised logistic regression on cached features, standardised, every class of equal weight.

One C by mean validation AUROC over group-disjoint stratified splits of train + val, then one fit on train + val (DESIGN.md,
"Statistics"). No torch. Deterministic: float64, one BLAS thread, C ascending with warm starts.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from medbench import paths
from medbench.adapt import linear
from medbench.adapt.certificate import Certificate, Evidence, Tensor, certify
from medbench.adapt.job import Adapted, Job, Samples, check_classes, class_weights, weighted_loss
from medbench.adapt.selection import Choice, Score, choose, score
from medbench.errors import MedbenchError

F64 = NDArray[np.float64]
Indices = NDArray[np.intp]


class Fold(NamedTuple):
    """Sample numbers to fit on and to validate on; no group is in both."""

    fit: Indices
    held: Indices


class Fit(NamedTuple):
    """One solution and how the solver ended."""

    model: linear.Linear
    converged: bool
    iterations: int


class Search(NamedTuple):
    """What the search over C saw."""

    choice: Choice
    mean: list[Score]  # per C, over the folds
    iterations: list[int]  # per C, the most of any fold
    converged: list[bool]  # per C, in every fold; only such a C can be chosen
    folds: int


def adapt(job: Job) -> Adapted:
    """Fit the probe of one cell. Raises MedbenchError for a class without samples or groups too few to validate on."""
    samples = joined(job.train, job.val)
    check_classes(job.cell, samples.labels, job.classes)
    features = job.features(samples.image_ids).astype(np.float64)
    recipe, k = job.recipe, len(job.classes)
    c_values = sorted(recipe["c_values"])
    with threadpool_limits(1):
        found = search(features, samples, k, c_values, recipe, job)
        # along the same path as in the search: from a cold start a weakly regularised fit needs many more iterations
        *_, chosen = fits(features, samples.labels, k, c_values[: found.choice.position + 1], recipe["max_iter"])
        weights = job.work.folder / paths.WEIGHTS
        linear.write(chosen.model, weights)
        return Adapted(weights, _certificate(job, samples, features, chosen, found, c_values))


def joined(train: Samples, val: Samples) -> Samples:
    """Both splits as one: what a probe is fitted on in the end."""
    return Samples(
        train.sample_ids + val.sample_ids,
        train.group_ids + val.group_ids,
        np.concatenate([train.labels, val.labels]),
        train.image_ids + val.image_ids,
    )


def folds(samples: Samples, k: int, n_splits: int, seed: int) -> list[Fold]:
    """Up to `n_splits` stratified group-disjoint folds; those whose fitting part lacks a class are left out."""
    groups = np.unique(samples.group_ids, return_inverse=True)[1]
    n_splits = min(n_splits, int(groups.max()) + 1, int(np.bincount(samples.labels).max()))
    if n_splits < 2:
        return []
    splitter = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class rarer than n_splits: such folds are judged below
        parts = [Fold(*part) for part in splitter.split(samples.labels, samples.labels, groups)]
    return [fold for fold in parts if len(fold.held) and np.bincount(samples.labels[fold.fit], minlength=k).all()]


def fits(features: F64, labels: NDArray[np.int64], k: int, c_values: Sequence[float], max_iter: int) -> Iterator[Fit]:
    """One fit per C, in order, each started from the one before. Features [n, d] are standardised by their own mean and deviation."""
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale < 1e-12 * np.maximum(1, np.abs(mean))] = 1.0  # constant up to rounding
    standardised = (features - mean) / scale
    weights = class_weights(labels, k)[labels]  # "balanced", which scikit-learn would work out again for every C
    solver = LogisticRegression(solver="lbfgs", max_iter=max_iter, warm_start=True)
    for c in c_values:
        solver.set_params(C=c)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            solver.fit(standardised, labels, weights)
        coef, intercept = solver.coef_, solver.intercept_
        if k == 2:  # sklearn keeps class 1 against class 0: logits (0, z) have its sigmoid as their softmax
            coef, intercept = np.vstack([np.zeros_like(coef), coef]), np.array([0.0, intercept[0]])
        converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        yield Fit(linear.Linear(mean, scale, coef.copy(), intercept.copy()), converged, int(solver.n_iter_.max()))


def search(features: F64, samples: Samples, k: int, c_values: Sequence[float], recipe: Any, job: Job) -> Search:
    """Every C over the folds. Raises MedbenchError where no fold can be made."""
    parts = folds(samples, k, recipe["n_splits"], job.seed)
    if not parts:
        found = f"{len(set(samples.group_ids))} groups in train and val leave no split with every class on the fitting side"
        raise MedbenchError(f"cell {job.cell}", found, "every class needs samples of two groups")
    reached: list[list[Score]] = [[] for _ in c_values]
    iterations, converged = [0] * len(c_values), [True] * len(c_values)
    for fold in parts:
        fitted, held = samples.labels[fold.fit], samples.labels[fold.held]
        weights = class_weights(fitted, k)
        for index, fit in enumerate(fits(features[fold.fit], fitted, k, c_values, recipe["max_iter"])):
            reached[index].append(score(fit.model.logits(features[fold.held]), held, weights))
            iterations[index] = max(iterations[index], fit.iterations)
            converged[index] &= fit.converged
    mean = [_mean(scores) for scores in reached]
    able = [index for index, done in enumerate(converged) if done] or list(range(len(c_values)))  # if none: the certificate refuses
    chosen = choose([mean[index] for index in able])
    return Search(chosen._replace(position=able[chosen.position]), mean, iterations, converged, len(parts))


def _mean(scores: Sequence[Score]) -> Score:
    """Over folds; the AUROC over those where it is defined."""
    aurocs = [score.auroc for score in scores if score.auroc is not None]
    return Score(float(np.mean(aurocs)) if aurocs else None, float(np.mean([score.loss for score in scores])))


def _certificate(job: Job, samples: Samples, features: F64, fit: Fit, search: Search, c_values: Sequence[float]) -> Certificate:
    k, weights = len(job.classes), class_weights(samples.labels, len(job.classes))
    standardised = (features - fit.model.mean) / fit.model.scale
    slope = (np.eye(k)[samples.labels] - 1 / k) * weights[samples.labels][:, None]  # gradient of the loss at zero logits
    trained = fit.model.logits(features)
    folder = job.work.folder / paths.WEIGHTS
    lacking = linear.missing(folder)
    reloaded = trained if lacking else linear.read(folder).logits(features)
    n_fitted = fit.model.coef[1 if k == 2 else 0 :].size  # of two classes the first one's stay at zero
    coef = Tensor("coef", n_fitted, bool((slope.T @ standardised).any()), float(np.linalg.norm(fit.model.coef)), "absolute")
    return certify(
        Evidence(
            cell=job.cell,
            method="probe",
            n_train=len(job.train.labels),
            n_val=len(job.val.labels),
            tensors=[coef],  # the intercept may rightly stay at zero
            adapters=None,
            loss_start=weighted_loss(np.zeros_like(trained), samples.labels, weights),
            loss_end=weighted_loss(trained, samples.labels, weights),
            converged=fit.converged,
            frozen_before=None,
            frozen_after=None,
            missing_from_file=lacking,
            repeat_difference=float(np.abs(trained - fit.model.logits(features)).max()),
            reload_difference=float(np.abs(trained - reloaded).max()),
            reload_tolerance=0.0,
            test_samples_used=sorted(set(samples.sample_ids) & job.test_ids),
            selection={
                "C": c_values[search.choice.position],
                "by": search.choice.by,
                "folds": search.folds,
                "iterations": fit.iterations,
                "candidates": [
                    {"C": c, **mean._asdict(), "iterations": most, "converged": done}
                    for c, mean, most, done in zip(c_values, search.mean, search.iterations, search.converged, strict=True)
                ],
            },
        )
    )
