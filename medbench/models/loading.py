"""What a model must offer: pixels in, vectors out; for contrastive models also texts in, and where adapters go.

One file per architecture stands in `contrastive/` or `baseline/` and offers `load`. Importing this module needs no torch,
since the pixel baseline has none.
"""

import errno
import importlib
import math
import pickle
import re
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medbench.errors import Extra, Interrupted, MedbenchError
from medbench.jobs.microbatching import Microbatching, exhausted
from medbench.models.checkpoint import Checkpoint, Source

if TYPE_CHECKING:
    import torch
    from torch import nn


CACHED = 2**20
"""Pixels that go through a CPU at once, for each of its threads: with more, activations outgrow its caches."""
LARGER = "raise `gpus` or set `bits` of the model's entry"
QUANTISED = "medbench.models.quantised"
"""Loaded by name: only models of few bits depend on what it imports."""


class ImageOutput(NamedTuple):
    """What a contrastive model makes of n images, on its device, float32, unnormalised, gradients kept where they are on."""

    features: "torch.Tensor"  # [n, d]: what a probe or a head reads
    embeddings: "torch.Tensor"  # [n, q, e]: compared with texts, the best of the q queries counts


class Vectors(NamedTuple):
    """The same as arrays, float32. `embeddings` is None for a model that knows no texts."""

    features: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None


class Batch(NamedTuple):
    """Some images, decoded. `evaluated` says which of them zero-shot embeddings are wanted of."""

    image_ids: list[str]
    evaluated: list[bool]
    pixels: NDArray[np.uint8]  # [n, ...] as the model's `pixels` gives them


class Embedder(Protocol):
    """All that embedding images needs."""

    @property
    def image_processor(self) -> str:
        """Which code prepares the pixels; goes to the run record."""

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB image at the model's size. Called from several threads."""

    def vectors(self, batches: Iterable[Batch], microbatching: Microbatching) -> Iterator[tuple[Batch, Vectors]]:
        """Vectors of every batch, in order, computed in parts that fit."""


class Contrastive(ABC):
    """An image tower and a text tower that share a space.

    `encode_images` follows torch's gradient mode, so that adapters can be trained through it.
    """

    model: Any  # everything that is loaded: a torch module
    scale: float  # logit = scale * cosine + bias
    bias: float
    lora_targets: str  # regular expression over the names of `vision`'s linear layers, full match
    image_processor: str
    weights: dict[str, str]  # what was loaded: `checkpoint`, and each companion by name -> its commit or SHA-256

    @property
    @abstractmethod
    def vision(self) -> "nn.Module":
        """The tower that adapters go into, a part of `model`."""

    @abstractmethod
    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """RGB image -> resized and cropped bytes [3, h, w]: small to keep, normalised on the device."""

    @abstractmethod
    def normalise(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """Bytes [n, 3, h, w] -> float32 [n, 3, h, w] as the checkpoint's own image processor scales them."""

    @abstractmethod
    def encode_images(self, pixels: "torch.Tensor") -> ImageOutput:
        """Normalised pixels [n, 3, h, w] on the model's device -> features and embeddings."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> "torch.Tensor":
        """c texts -> [c, e] float32, unnormalised. Raises MedbenchError for a text longer than the model reads."""

    @property
    def device(self) -> "torch.device":
        """Where the model lies."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass instead of keeping them: less memory, equal results, a third more time."""
        enable = getattr(self.model, "activation_checkpointing_enable", None) or self.model.gradient_checkpointing_enable  # the older name
        enable({"use_reentrant": False})

    def to_device(self, pixels: NDArray[np.uint8]) -> "torch.Tensor":
        """Bytes [n, 3, h, w] -> normalised pixels on the model's device; the copy overlaps with what the device still computes."""
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(pixels))
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        return self.normalise(batch)

    def pieces(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """What of [n, 3, h, w] goes through the device at once: all of it, on a CPU parts of equal size."""
        import torch

        if self.device.type != "cpu":
            return [pixels]
        height, width = pixels.shape[-2:]
        size = max(1, int(CACHED * torch.get_num_threads() / (height * width)))
        return np.array_split(pixels, math.ceil(len(pixels) / size))

    def vectors(self, batches: Iterable[Batch], microbatching: Microbatching) -> Iterator[tuple[Batch, Vectors]]:
        """Vectors of every batch, in order. A GPU already has the next batch while one is copied back."""
        import torch

        waiting: tuple[Batch, list[ImageOutput]] | None = None
        for batch in batches:
            with torch.inference_mode():
                parts = [microbatching.run(some, lambda one: self.encode_images(self.to_device(one))) for some in self.pieces(batch.pixels)]
                launched = [output for part in parts for output in part]
            if waiting:
                yield waiting[0], _fetched(waiting[1])
            waiting = batch, launched
        if waiting:
            yield waiting[0], _fetched(waiting[1])


def _fetched(parts: list[ImageOutput]) -> Vectors:
    features, embeddings = (np.concatenate([tensor.cpu().numpy() for tensor in tensors]) for tensors in zip(*parts, strict=True))
    return Vectors(features, embeddings)


def costs(model: Any) -> dict[str, int]:
    """For the run record: parameters, and operations of one image in the image tower, as torch counts them; nothing of a baseline."""
    if not isinstance(model, Contrastive):
        return {}
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    pixels = model.to_device(model.pixels(Image.new("RGB", (64, 64)))[None])
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.encode_images(pixels)
    return {"parameters": sum(value.numel() for value in model.model.parameters()), "flops_per_image": counter.get_total_flops()}


@contextmanager
def refusing(path: object, found: str, remedy: str) -> Iterator[None]:
    """Around a library that reads a checkpoint's files: whatever it raises is one line, since it raises anything for wrong values.

    Raises Interrupted where the memory is full.
    """
    try:
        yield
    except (MedbenchError, Extra):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):  # where a download goes to
            raise
        if where := exhausted(error):  # what was done before stays: the next try may find room
            raise Interrupted(where, f"its memory does not hold {path}", f"end what else uses it, or {LARGER}") from None
        raise MedbenchError(path, f"{found} ({reason(error)})", remedy) from None


def reason(error: Exception) -> str:
    """What a library says, in one short line. Of a pickle with code it names what would have run: torch advises to run it."""
    said = " ".join(str(error).split())
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in said:
        held = re.search(r"GLOBAL (\S{1,80})", said)
        return f"it would run {held[1]}" if held else "it is no pickle of tensors alone"
    frames = traceback.extract_tb(error.__traceback__)
    at = f", at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames and not isinstance(error, OSError | ValueError) else ""
    return f"{type(error).__name__}: {said[:200]}{at}"


def module_name(kind: str, architecture: str) -> str:
    """Module of an architecture."""
    return f"medbench.models.{kind}.{architecture.replace('-', '_')}"


def modules(source: Mapping[str, Any]) -> tuple[str, ...]:
    """Modules that loading a model of these fields of a Source loads by name: the architecture's file, and what few bits need."""
    return (source["module"], QUANTISED) if source.get("bits") else (source["module"],)


def load(source: Source, **placement: Any) -> Any:
    """Load a model by its architecture's module: a `Contrastive`, a `Generative`, or the baseline's `Embedder`.

    `placement`: `device` (default: the first GPU, else the CPU) and `dtype` (default: bfloat16 on a GPU, float32 on a CPU).
    Its `weights` say what was loaded. Raises MedbenchError for a checkpoint that is absent, refused, incomplete, not the pinned one, or
    of another architecture.
    """
    module = importlib.import_module(source.module)
    if source.checkpoint is None:
        return module.load(**placement)
    from medbench.jobs import network

    checkpoint = Checkpoint(source)
    with network.closed(), refusing(f"checkpoint {source.checkpoint}", "does not load", "fetch it again, or change `architecture`"):
        model = module.load(checkpoint, **placement)
    model.weights = checkpoint.loaded
    return model
