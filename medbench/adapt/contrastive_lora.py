"""LoRA on the vision tower of a contrastive model with a linear head, trained end to end.

Pixels are decoded and resized once. The epoch is chosen on the validation split; of the test split nothing is seen. Training
stands in `training.py`, what is trained and saved in `classifier.py`; here a cell is put together and certified.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from medbench import paths
from medbench.adapt import classifier as classifiers
from medbench.adapt.certificate import Certificate, Evidence, certify
from medbench.adapt.classifier import Classifier, TextClassifier
from medbench.adapt.job import Adapted, Job, check_classes, class_weights, weighted_loss
from medbench.adapt.peft_layout import Description
from medbench.adapt.pixels import Labelled, PixelCache
from medbench.adapt.selection import Score, choose, score
from medbench.adapt.training import Plan, Trained, moved, train
from medbench.jobs import seeding
from medbench.jobs.microbatching import Microbatching
from medbench.models import loading
from medbench.models.checkpoint import Source
from medbench.models.loading import Contrastive
from medbench.models.similarity import class_embeddings, log_softmax

N_PROBED = 512  # images that losses before and after, the features' statistics and the comparisons are taken on
GPU_TOLERANCE = 1e-3  # of a score: kernels may sum in another order


class Probe(NamedTuple):
    """Some pictures (rows of the cache) with labels, and how to batch them."""

    cache: PixelCache
    rows: NDArray[np.intp]
    labels: NDArray[np.int64]
    batch_size: int
    microbatching: Microbatching

    def logits(self, classifier: Classifier) -> NDArray[np.float32]:
        """Class logits [n, k] in evaluation mode."""
        return classifier.logits(self.cache.batches(self.rows, self.batch_size), self.microbatching)


class Learner(NamedTuple):
    """What `training` trains: a classifier on the pictures of a split."""

    classifier: Classifier
    probe: Probe  # the whole validation split
    training: Labelled
    weights: NDArray[np.float64]  # per class [k]
    recipe: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Training samples."""
        return len(self.training.rows)

    def groups(self) -> list[dict[str, Any]]:
        """Adapters and head, at rates of their own."""
        adapters = {"params": list(self.classifier.adapters().values()), "lr": self.recipe["learning_rate"]}
        if isinstance(self.classifier, TextClassifier):
            return [adapters]
        return [adapters, {"params": list(self.classifier.head.parameters()), "lr": self.recipe["head_learning_rate"]}]

    def trainable(self) -> dict[str, torch.Tensor]:
        """Adapters and head."""
        return self.classifier.trainable()

    def saved(self) -> dict[str, torch.Tensor]:
        """Those and the features' statistics."""
        return self.classifier.saved()

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `saved` gave."""
        self.classifier.restore(tensors)

    def mode(self, training: bool) -> None:
        """Dropout on or off."""
        self.classifier.train() if training else self.classifier.eval()

    def prepare(self, places: Sequence[int]) -> NDArray[np.uint8]:
        """Pixels [n, 3, h, w]."""
        return self.probe.cache.pixels[self.training.rows[list(places)]]

    def loss(self, places: Sequence[int], inputs: NDArray[np.uint8]) -> torch.Tensor:
        """Class-weighted cross-entropy."""
        device = self.classifier.contrastive.device
        labels = torch.from_numpy(self.training.labels[list(places)]).to(device)
        weights = torch.tensor(self.weights, dtype=torch.float32, device=device)
        return cross_entropy(self.classifier(self.classifier.contrastive.to_device(inputs)), labels, weights)

    def weight(self, places: Sequence[int], inputs: NDArray[np.uint8]) -> float:
        """The classes' weights, summed."""
        return float(self.weights[self.training.labels[list(places)]].sum())

    def validate(self, train_loss: float) -> Score:
        """AUROC and loss on the validation split."""
        return score(self.probe.logits(self.classifier), self.probe.labels, self.weights)

    def best(self, history: Sequence[tuple[Any, ...]]) -> int:
        """By AUROC, else by loss."""
        return choose([Score(*entry) for entry in history]).position

    def notes(self) -> None:
        """It takes none."""

    def recall(self, notes: None) -> None:
        """Nothing to recall."""


def adapt(job: Job) -> Adapted:
    """Train and certify one cell. Raises MedbenchError for a class without training samples, or a loss that is not finite."""
    assert job.source is not None, "this method loads a model"
    check_classes(job.cell, job.train.labels, job.classes)
    seeding.seed_everything(job.seed)
    model = _load(job.source)
    frozen = classifiers.frozen_digest(model)
    cache = PixelCache.build(job, model, job.source.batch_size)
    training, validation = cache.split(job.train), cache.split(job.val)
    some = np.sort(np.random.default_rng(job.seed).permutation(len(training.rows))[:N_PROBED])
    probe = Probe(cache, training.rows[some], training.labels[some], job.source.batch_size, job.work.microbatching)
    classifier = _build(job, model, probe)
    weights = class_weights(job.train.labels, len(job.classes))
    loss_start = weighted_loss(probe.logits(classifier), probe.labels, weights)
    learner = Learner(classifier, probe._replace(rows=validation.rows, labels=validation.labels), training, weights, job.recipe)
    trained = train(learner, Plan(job.cell, job.recipe, job.seed, frozen, job.work))
    loss_end = weighted_loss(probe.logits(classifier), probe.labels, weights)
    folder, epoch = job.work.folder / paths.WEIGHTS, learner.best(trained.history) + 1
    classifiers.save(classifier, folder, Description(*job.source[:3], model.weights, dict(job.recipe), epoch, classes=job.classes))
    watched = probe._replace(rows=validation.rows[:N_PROBED], labels=validation.labels[:N_PROBED])
    return Adapted(folder, _certificate(job, classifier, trained, watched, (loss_start, loss_end), frozen), model.weights)


def _load(source: Source) -> Contrastive:
    model: Contrastive = loading.load(source, dtype=torch.float32)
    return model


def _build(job: Job, model: Contrastive, probe: Probe) -> Classifier:
    """Untrained adapters, and a head that knows the features' width and statistics."""
    recipe, k = job.recipe, len(job.classes)
    with torch.inference_mode():
        some = model.encode_images(model.to_device(probe.cache.pixels[:1]))
    if recipe["target"] == "text":
        learner = classifiers.build(model, some.embeddings.shape[2], k, recipe["r"], recipe["alpha"], recipe["dropout"], text=True)
        learner.texts.copy_(_texts(job, model))  # type: ignore[operator]
    else:
        learner = classifiers.build(model, some.features.shape[1], k, recipe["r"], recipe["alpha"], recipe["dropout"])
        learner.standardise(probe.cache.batches(probe.rows, probe.batch_size), probe.microbatching)
    if recipe["gradient_checkpointing"]:
        model.checkpoint_gradients()
    return learner


def _texts(job: Job, model: Contrastive) -> torch.Tensor:
    """Class embeddings [k, e] of the deciding prompts, as zero-shot classification has them."""
    assert job.prompts is not None, "the class prompts are the head"
    labels = np.repeat(np.arange(len(job.prompts)), [len(of_class) for of_class in job.prompts])
    vectors = model.encode_texts([prompt for of_class in job.prompts for prompt in of_class]).cpu().numpy().astype(np.float64)
    return torch.from_numpy(class_embeddings(vectors, labels)).float()


def _certificate(job: Job, learner: Classifier, trained: Trained, watched: Probe, losses: tuple[float, float], frozen: str) -> Certificate:
    """Compare with the start, predict twice, and read the saved files back into a model that was never trained."""
    assert job.source is not None
    folder = job.work.folder / paths.WEIGHTS
    lacking = classifiers.missing(folder, learner)
    scores = np.exp(log_softmax(watched.logits(learner)))
    repeated = np.exp(log_softmax(watched.logits(learner)))
    reloaded = scores if lacking else np.exp(log_softmax(watched.logits(classifiers.read(folder, _load(job.source)))))
    history = [Score(*entry) for entry in trained.history]
    choice = choose(history)
    return certify(
        Evidence(
            cell=job.cell,
            method="contrastive_lora",
            n_train=len(job.train.labels),
            n_val=len(job.val.labels),
            tensors=moved(trained, learner.trainable()),
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
