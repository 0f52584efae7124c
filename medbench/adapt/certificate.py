"""The proof that an adaptation happened: what was trainable, what moved, what stayed, what came back from the file.

A cell whose certificate fails is an error, not a number. Every clause is a defect that a published evaluation had or could have had.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from medbench.errors import MedbenchError


class Tensor(NamedTuple):
    """One trainable tensor. `moved`: L2 norm of the change, relative to the start where that was not zero."""

    name: str
    size: int
    gradient: bool  # a non-zero gradient at any step
    moved: float
    measure: Literal["relative", "absolute"]


class TextEvidence(NamedTuple):
    """What an adaptation to questions measured at the model itself, over the first training samples that reached it."""

    n_watched: int
    without_question: list[str]  # samples whose decoded input lacks the question
    wrong_labels: list[str]  # samples whose labels are not exactly the answer and its end
    masked_in_loss: list[str]  # of padding and image tokens: those found in the loss
    keys_dropped: list[str]  # what the processor made and the model was not given
    adapters_outside: list[str]  # those that are not in the decoder
    projector_saved: int  # tensors of the projector in the saved file
    n_answered: int  # validation questions answered by the trained model, and by the one read back from the file
    answers_changed: int


class Evidence(NamedTuple):
    """What an adaptation measured. None: the clause does not apply to the method."""

    cell: str
    method: str
    n_train: int
    n_val: int
    tensors: list[Tensor]
    adapters: int | None  # tensors inside the tower; None where the tower is not adapted
    loss_start: float  # class-weighted cross-entropy on training samples, evaluation mode
    loss_end: float
    converged: bool | None
    frozen_before: str | None  # digest of all weights that must not change
    frozen_after: str | None
    missing_from_file: list[str]  # tensors that prediction needs and the saved file lacks
    repeat_difference: float  # largest difference between two predictions of the same images
    reload_difference: float  # ... between the trained model and the one read back from the file
    reload_tolerance: float  # 0 on a CPU
    test_samples_used: list[str]
    selection: dict[str, Any]  # what was chosen, by what, and every candidate's score
    text: TextEvidence | None = None


class Certificate(NamedTuple):
    """The evidence with its verdict: no failures, or each as one sentence."""

    evidence: Evidence
    failures: list[str]


def certify(evidence: Evidence) -> Certificate:
    """Judge every clause."""
    return Certificate(evidence, [*_training(evidence), *_persistence(evidence), *_separation(evidence), *_text(evidence.text)])


def _training(e: Evidence) -> Iterable[str]:
    """Something was trainable, all of it learned, and the loss fell."""
    if not e.tensors:
        yield "nothing was trainable"
    if e.adapters == 0:
        yield "no adapter was put into the tower: the target names match nothing"
    if still := [tensor.name for tensor in e.tensors if not tensor.gradient]:
        yield f"{len(still)} of {len(e.tensors)} trainable tensors never received a gradient ({still[0]})"
    if unmoved := [tensor.name for tensor in e.tensors if tensor.gradient and not tensor.moved > 0]:
        yield f"{len(unmoved)} of {len(e.tensors)} trainable tensors did not move ({unmoved[0]})"
    if broken := [tensor.name for tensor in e.tensors if not math.isfinite(tensor.moved)]:
        yield f"{len(broken)} trained tensors are not finite ({broken[0]})"
    if not e.loss_end < e.loss_start:
        yield f"the training loss did not fall ({e.loss_start:.4g} -> {e.loss_end:.4g})"
    if e.converged is False:
        yield "the solver did not converge"


def _persistence(e: Evidence) -> Iterable[str]:
    """What is saved is what was trained, and it predicts the same."""
    if e.frozen_before != e.frozen_after:
        yield f"frozen weights changed ({e.frozen_before} -> {e.frozen_after})"
    if e.missing_from_file:
        yield f"the saved file lacks {', '.join(e.missing_from_file)}"
    if e.repeat_difference != 0:
        yield f"two predictions of the same images differ by {e.repeat_difference:.3g}: not in evaluation mode"
    if not e.missing_from_file and not e.reload_difference <= e.reload_tolerance:
        yield f"the saved adapter predicts otherwise than the trained one (by {e.reload_difference:.3g})"


def _separation(e: Evidence) -> Iterable[str]:
    """No test sample took part in training or selection."""
    if e.test_samples_used:
        yield f"{len(e.test_samples_used)} test samples were used in training or selection ({e.test_samples_used[0]})"


def _text(e: TextEvidence | None) -> Iterable[str]:
    """The question was read, the answer alone was learned, and the projector is in the file."""
    if e is None:
        return
    if not e.n_watched:
        yield "no training sample reached the model"
    if e.without_question:
        yield f"{len(e.without_question)} of {e.n_watched} inputs lack their question ({e.without_question[0]})"
    if e.wrong_labels:
        yield f"the labels of {len(e.wrong_labels)} of {e.n_watched} samples are not exactly the answer ({e.wrong_labels[0]})"
    if e.masked_in_loss:
        yield f"the loss covers {' and '.join(e.masked_in_loss)}"
    if e.keys_dropped:
        yield f"the model was not given {', '.join(e.keys_dropped)} of its processor"
    if e.adapters_outside:
        yield f"{len(e.adapters_outside)} adapters are outside the decoder ({e.adapters_outside[0]})"
    if not e.projector_saved:
        yield "the saved file holds no projector"
    if e.answers_changed:
        yield f"the saved adapter answers {e.answers_changed} of {e.n_answered} questions otherwise than the trained one"


def require(certificate: Certificate) -> None:
    """Raises MedbenchError naming the cell and every clause that failed."""
    if certificate.failures:
        raise MedbenchError(
            f"cell {certificate.evidence.cell}",
            "; ".join(certificate.failures),
            "the adaptation is refused: change its recipe or its model file",
        )


def write(certificate: Certificate, path: Path, weights: Mapping[str, str], files: Mapping[str, str]) -> None:
    """Write as JSON with sorted keys: `failures` beside everything that was measured, which `weights` were adapted, and the SHA-256 of
    the `files` that came of it.
    """
    evidence = certificate.evidence._asdict() | {
        "tensors": [tensor._asdict() for tensor in certificate.evidence.tensors],
        "text": certificate.evidence.text and certificate.evidence.text._asdict(),
        "n_trainable": len(certificate.evidence.tensors),
        "n_with_gradient": sum(tensor.gradient for tensor in certificate.evidence.tensors),
        "parameters_trained": sum(tensor.size for tensor in certificate.evidence.tensors),
    }
    of_files = {"weights": dict(weights), "files": dict(files)}
    text = json.dumps({**evidence, "failures": certificate.failures, **of_files}, indent=1, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
