"""Linear probes with few labels: `labels` of each class, drawn `draws` times from train + val; a point of the few-shot curve.

The draws follow from the seed and the data set alone, so every model learns from the same samples. Each draw has its own classifier;
metrics are means over the draws, not the metric of a mean score, which would be an ensemble.
"""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from medbench import paths
from medbench.adapt import linear, probe
from medbench.adapt.certificate import Evidence, Tensor, certify
from medbench.adapt.job import Adapted, Job, Samples, check_classes, class_weights, weighted_loss


def adapt(job: Job) -> Adapted:
    """Fit the probes of one cell. Raises MedbenchError for a class without samples or groups too few to validate on."""
    samples = probe.joined(job.train, job.val)
    check_classes(job.cell, samples.labels, job.classes)
    features = job.features(samples.image_ids).astype(np.float64)
    k, recipe = len(job.classes), job.recipe
    c_values = sorted(recipe["c_values"])
    made: list[linear.Linear] = []
    losses, moved, converged, drawn = [], [], True, []
    with threadpool_limits(1):
        for draw in range(recipe["draws"]):
            chosen = draw_samples(samples, k, recipe["labels"], job.cell.split("/")[0], job.seed, draw)
            part, some = features[chosen], Samples(*(_take(values, chosen) for values in samples))
            search = probe.search(part, some, k, c_values, recipe, job)
            *_, fit = probe.fits(part, some.labels, k, c_values[: search.choice.position + 1], recipe["max_iter"])
            made.append(fit.model)
            weights, logits = class_weights(some.labels, k), fit.model.logits(part)
            losses.append((weighted_loss(np.zeros_like(logits), some.labels, weights), weighted_loss(logits, some.labels, weights)))
            moved.append(float(np.linalg.norm(fit.model.coef)))
            converged &= fit.converged
            drawn.append({"C": c_values[search.choice.position], "labels": np.bincount(some.labels, minlength=k).tolist()})
    folder = job.work.folder / paths.WEIGHTS
    linear.write_all(made, folder)
    reloaded = linear.read_all(folder)
    difference = max(float(np.abs(one.logits(features) - other.logits(features)).max()) for one, other in zip(made, reloaded, strict=True))
    evidence = Evidence(
        cell=job.cell,
        method="few_shot",
        n_train=len(job.train.labels),
        n_val=len(job.val.labels),
        tensors=[Tensor(f"coef of draw {draw}", made[draw].coef.size, norm > 0, norm, "absolute") for draw, norm in enumerate(moved)],
        adapters=None,
        loss_start=float(np.mean([start for start, _ in losses])),
        loss_end=float(np.mean([end for _, end in losses])),
        converged=converged,
        frozen_before=None,
        frozen_after=None,
        missing_from_file=[],
        repeat_difference=0.0,
        reload_difference=difference,
        reload_tolerance=0.0,
        test_samples_used=sorted(set(samples.sample_ids) & job.test_ids),
        selection={"by": "auroc", "labels": recipe["labels"], "draws": drawn},
    )
    return Adapted(folder, certify(evidence))


def draw_samples(samples: Samples, k: int, labels: int, dataset: str, seed: int, draw: int) -> NDArray[np.intp]:
    """Positions of `labels` samples of each class, all of a class that has fewer; sorted."""
    rng = np.random.default_rng((seed, zlib.crc32(dataset.encode()), draw))
    order = np.argsort(np.array(samples.sample_ids), kind="stable")[rng.permutation(len(samples.labels))]  # whatever the order of the rows
    chosen = [order[samples.labels[order] == label][:labels] for label in range(k)]
    return np.sort(np.concatenate(chosen))


def _take(values: Any, chosen: NDArray[np.intp]) -> Any:
    return values[chosen] if isinstance(values, np.ndarray) else [values[place] for place in chosen]
