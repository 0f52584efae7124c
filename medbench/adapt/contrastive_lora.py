"""LoRA on the vision tower of a contrastive model with a linear head, trained end to end.

Pixels are decoded and resized once. The epoch is chosen on the validation split; of the test split nothing is seen. Training
stands in `training.py`, what is trained and saved in `classifier.py`; here a cell is put together and certified.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from medbench import runtime
from medbench.adapt import classifier as classifiers
from medbench.adapt.base import Adapted, Job, Source, check_classes, class_weights, log_softmax, weighted_loss
from medbench.adapt.certificate import Certificate, Evidence, Tensor, certify
from medbench.adapt.classifier import Classifier, Description
from medbench.adapt.pixels import PixelCache
from medbench.adapt.training import Plan, Trained, fingerprint, train
from medbench.models import base
from medbench.models.base import Contrastive

N_PROBED = 512  # images that losses before and after, the features' statistics and the comparisons are taken on
GPU_TOLERANCE = 1e-3  # of a score: kernels may sum in another order


class Probe(NamedTuple):
    """Some pictures (rows of the cache) with labels, and how to batch them."""

    cache: PixelCache
    rows: NDArray[np.intp]
    labels: NDArray[np.int64]
    batch_size: int

    def logits(self, classifier: Classifier) -> NDArray[np.float32]:
        """Class logits [n, k] in evaluation mode."""
        return classifier.logits(self.cache.batches(self.rows, self.batch_size))


def adapt(job: Job) -> Adapted:
    """Train and certify one cell. Raises MedbenchError for a class without training samples, or a loss that is not finite."""
    assert job.source is not None, "this method loads a model"
    check_classes(job.cell, job.train.labels, job.classes)
    runtime.seed_everything(job.seed)
    model = _load(job.source)
    frozen = classifiers.frozen_digest(model)
    cache = PixelCache.build(job, model, job.source.batch_size)
    training, validation = cache.split(job.train), cache.split(job.val)
    some = np.sort(np.random.default_rng(job.seed).permutation(len(training.rows))[:N_PROBED])
    probe = Probe(cache, training.rows[some], training.labels[some], job.source.batch_size)
    learner = _build(job, model, probe)
    weights = class_weights(job.train.labels, len(job.classes))
    loss_start = weighted_loss(probe.logits(learner), probe.labels, weights)
    trained = train(learner, _plan(job, job.source, weights, frozen), cache, training, validation)
    loss_end = weighted_loss(probe.logits(learner), probe.labels, weights)
    path, recipe = job.scratch / "weights.safetensors", job.recipe
    classifiers.save(
        learner, path, Description(recipe["r"], recipe["alpha"], *job.source[:3], job.classes, dict(recipe), trained.choice.position + 1)
    )
    watched = Probe(cache, validation.rows[:N_PROBED], validation.labels[:N_PROBED], job.source.batch_size)
    return Adapted(path, _certificate(job, learner, trained, watched, (loss_start, loss_end), frozen))


def _load(source: Source) -> Contrastive:
    model: Contrastive = base.load(source.module, source.checkpoint, source.revision, dtype=torch.float32)
    return model


def _build(job: Job, model: Contrastive, probe: Probe) -> Classifier:
    """Untrained adapters, and a head that knows the features' width and statistics."""
    recipe = job.recipe
    with torch.inference_mode():
        n_features = model.encode_images(model.to_device(probe.cache.pixels[:1])).features.shape[1]
    learner = classifiers.build(model, n_features, len(job.classes), recipe["r"], recipe["alpha"], recipe["dropout"])
    learner.standardise(probe.cache.batches(probe.rows, probe.batch_size))
    if recipe["gradient_checkpointing"]:
        model.checkpoint_gradients()
    return learner


def _plan(job: Job, source: Source, weights: NDArray[np.float64], frozen: str) -> Plan:
    data = [
        (split.sample_ids, split.labels.tolist(), split.image_ids) for split in (job.train, job.val)
    ]  # image ids are digests of the images
    origin = fingerprint(data, sorted(job.recipe.items()), job.seed, source, frozen)
    return Plan(job.cell, job.recipe, job.seed, weights, source.batch_size, job.scratch / "training.pt", origin)


def _certificate(job: Job, learner: Classifier, trained: Trained, watched: Probe, losses: tuple[float, float], frozen: str) -> Certificate:
    """Compare with the start, predict twice, and read the saved file back into a model that was never trained."""
    assert job.source is not None
    path = job.scratch / "weights.safetensors"
    lacking = classifiers.missing(path, learner)
    scores = np.exp(log_softmax(watched.logits(learner)))
    repeated = np.exp(log_softmax(watched.logits(learner)))
    reloaded = scores if lacking else np.exp(log_softmax(watched.logits(classifiers.read(path, _load(job.source)))))
    choice, history = trained.choice, trained.history
    return certify(
        Evidence(
            cell=job.cell,
            method="contrastive_lora",
            n_train=len(job.train.labels),
            n_val=len(job.val.labels),
            tensors=_tensors(learner, trained),
            adapters=len(learner.adapters()),
            loss_start=losses[0],
            loss_end=losses[1],
            converged=None,
            frozen_before=frozen,
            frozen_after=classifiers.frozen_digest(learner.contrastive),
            missing_from_file=lacking,
            repeat_difference=float(np.abs(scores - repeated).max()),
            reload_difference=float(np.abs(scores - reloaded).max()),
            reload_tolerance=GPU_TOLERANCE if learner.contrastive.device.type == "cuda" else 0.0,
            test_samples_used=sorted({*job.train.sample_ids, *job.val.sample_ids} & job.test_ids),
            selection={
                "epoch": choice.position + 1,
                "by": choice.by,
                "candidates": [{"epoch": index + 1, **entry._asdict()} for index, entry in enumerate(history)],
            },
        )
    )


def _tensors(learner: Classifier, trained: Trained) -> list[Tensor]:
    """How far each trainable tensor is from where it started."""
    found = []
    for name, value in learner.trainable().items():
        start, end = trained.start[name].double(), value.detach().cpu().double()
        norm = float(start.norm())
        moved = float((end - start).norm()) / (norm or 1.0)
        found.append(Tensor(name, value.numel(), name in trained.with_gradient, moved, "relative" if norm else "absolute"))
    return found
