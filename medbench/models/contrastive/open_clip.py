"""BioMedCLIP and every other checkpoint of open_clip with a text tower of transformers (MODELS.md, section 4).

Its folder holds `open_clip_config.json`, the weights and the tokenizer's files; the text tower's own configuration comes from the companion
that `hf_model_name` names.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CustomTextCLIP
from open_clip.transform import image_transform
from PIL import Image
from torch import nn

from medbench.errors import MedbenchError
from medbench.models import hub
from medbench.models.checkpoint import Checkpoint
from medbench.models.loading import Contrastive, ImageOutput

CONFIG = "open_clip_config.json"
SAFE, PICKLES = ("open_clip_model.safetensors",), ("open_clip_pytorch_model.bin",)


class OpenClip(Contrastive):
    """Features are the projected embedding, as in the study; open_clip leaves it unnormalised."""

    lora_targets = r"trunk\.blocks\.\d+\.attn\.(qkv|proj)"
    bias = 0.0

    def __init__(self, model: Any, tokenizer: Any, preprocessing: dict[str, Any], context: int) -> None:
        self.model, self._tokenizer, self._context = model, tokenizer, context
        size = preprocessing.get("size", 224)
        mean, std = preprocessing["mean"], preprocessing["std"]
        steps = image_transform(size, False, mean, std, "shortest", preprocessing.get("interpolation", "bicubic")).transforms
        self._geometry, self._mean, self._std = steps[:-2], mean, std  # without to tensor, normalise
        self.image_processor = "open_clip image_transform"
        self.scale = float(model.logit_scale.detach().float().exp())

    @property
    def vision(self) -> nn.Module:
        """timm's trunk with open_clip's projection."""
        tower: nn.Module = self.model.visual
        return tower

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Shortest edge bicubic, centre crop."""
        for step in self._geometry:
            image = step(image)
        return np.asarray(image).transpose(2, 0, 1)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """By the checkpoint's mean and deviation."""
        mean, std = (torch.tensor(value, device=pixels.device).view(-1, 1, 1) for value in (self._mean, self._std))
        return pixels.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)  # in place: fresh memory costs as much as the sums

    def encode_images(self, pixels: torch.Tensor) -> ImageOutput:
        """One query: features and embeddings are the same vector."""
        projected = self.model.encode_image(pixels.to(self.model.logit_scale.dtype)).float()
        return ImageOutput(projected, projected[:, None])

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Padded to the full length; the tower masks the padding itself."""
        ids = hub.tokens(self._tokenizer, list(texts), self._context, padding="max_length", max_length=self._context)["input_ids"]
        with torch.inference_mode():
            encoded: torch.Tensor = self.model.encode_text(ids.to(self.device)).float()
        return encoded

    def checkpoint_gradients(self) -> None:
        """As open_clip names it."""
        self.model.set_grad_checkpointing(True)


def load(checkpoint: Checkpoint, device: torch.device | None = None, dtype: torch.dtype | None = None) -> OpenClip:
    """Load from a hub id or a folder. Raises MedbenchError as `hub` does."""
    path, place = checkpoint.folder(SAFE, PICKLES), hub.placement(device, dtype)
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        text = config["model_cfg"]["text_cfg"]
        named = text["hf_model_name"]
    except (OSError, ValueError, KeyError, TypeError):
        raise MedbenchError(path, f"holds no usable {CONFIG}", "give a checkpoint of open_clip with a text tower of transformers") from None
    tower = checkpoint.companion(named, path, ["config.json"])
    config["model_cfg"]["text_cfg"] = {**text, "hf_model_name": str(tower), "hf_model_pretrained": False}
    model = skeleton(config["model_cfg"])
    hub.load_weights(model, path, SAFE, PICKLES)
    model.requires_grad_(False).eval().to(place.device, place.dtype)
    rows = int(model.text.vocab_size)  # type: ignore[union-attr,arg-type]
    context = int(text.get("context_length", 77))
    return OpenClip(model, hub.load_tokenizer(path, rows), config.get("preprocess_cfg", {}), context)


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of a `model_cfg`, untrained; on the meta device it takes no memory. `hf_model_name` must be a folder."""
    model: nn.Module = CustomTextCLIP(**{**config, "text_cfg": {**config["text_cfg"], "hf_model_pretrained": False}})
    return model
