"""Zero-shot classification from embeddings: cosine of image and class prompts, on the model's own logit scale. numpy only."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def class_embeddings(prompts: F64, labels: NDArray[np.integer]) -> F64:
    """Prompt embeddings [p, e] of classes [p] -> [c, e], unit length: the renormalised mean of the normalised prompts of each class."""
    unit = normalised(prompts)
    return normalised(np.stack([unit[labels == label].mean(axis=0) for label in np.unique(labels)]))


def scores(images: NDArray[np.floating], texts: F64, scale: float, bias: float) -> F64:
    """Image embeddings [n, q, e], class embeddings [c, e] -> softmax [n, c] of scale * (best cosine over q) + bias."""
    cosine = (normalised(images.astype(np.float64)) @ texts.T).max(axis=1)
    return np.asarray(np.exp(log_softmax(scale * cosine + bias)))


def normalised(vectors: F64) -> F64:
    """Unit length over the last axis; a zero vector stays zero, so its cosine with everything is zero."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norm > 0, norm, 1.0))


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
