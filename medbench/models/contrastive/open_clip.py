"""BioMedCLIP and every other checkpoint of open_clip with a text tower of transformers (MODELS.md, section 4).

Its folder holds `open_clip_config.json`, the weights and the tokenizer's files; the text tower's own configuration comes from the companion
that `hf_model_name` names.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CustomTextCLIP
from open_clip.transform import image_transform
from PIL import Image
from torch import nn

from medbench.errors import MedbenchError
from medbench.jobs import limits
from medbench.models import hub
from medbench.models.checkpoint import Checkpoint, read_json, weight_files
from medbench.models.loading import Contrastive, ImageOutput, refusing

CONFIG = "open_clip_config.json"
SAFE, PICKLES = ("open_clip_model.safetensors",), ("open_clip_pytorch_model.bin",)


class OpenClip(Contrastive):
    """Features are the projected embedding, as in the study; open_clip leaves it unnormalised."""

    lora_targets = r"trunk\.blocks\.\d+\.attn\.(qkv|proj)"
    bias = 0.0

    def __init__(self, model: Any, tokenizer: Any, preprocessing: dict[str, Any], context: int) -> None:
        self.model, self._tokenizer, self._context = model, tokenizer, context
        size = preprocessing.get("size", 224)
        if max(size if isinstance(size, list) else [size]) > limits.SIDE:
            raise MedbenchError(CONFIG, f"makes images of {size} pixels, more than {limits.SIDE}", "fix its preprocess_cfg")
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
    config = _config(path)
    text = config["model_cfg"]["text_cfg"]
    tower = checkpoint.companion(text["hf_model_name"], path, ["config.json"])
    _check_names(path, config["model_cfg"], {text["hf_model_name"], *checkpoint.source.companions})
    text["hf_model_name"] = str(tower)
    model = hub.built(lambda: skeleton(config["model_cfg"]), path / CONFIG, weight_files(path, SAFE, PICKLES)[:1])
    hub.load_weights(model, path, SAFE, PICKLES)
    model.requires_grad_(False).eval().to(place.device, place.dtype)
    rows = int(model.text.vocab_size)
    context, reads = int(text.get("context_length", 77)), int(model.text.context_length)
    if not 0 < context <= reads:
        raise MedbenchError(path / CONFIG, f"has context_length {context}, its text tower reads {reads}", "fetch it again")
    with refusing(path / CONFIG, "holds no usable preprocess_cfg", "fetch it again"):
        loaded = OpenClip(model, hub.load_tokenizer(path, rows), config.get("preprocess_cfg", {}), context)
        loaded.to_device(loaded.pixels(Image.new("RGB", (64, 64)))[None])
    return loaded


def _config(path: Path) -> dict[str, Any]:
    """Raises MedbenchError for one without both towers."""
    found, remedy = f"holds no usable {CONFIG}", "give a checkpoint of open_clip with a text tower of transformers"
    if not (path / CONFIG).is_file():
        raise MedbenchError(path, found, remedy)
    config = read_json(path / CONFIG)
    with refusing(path, found, remedy):
        towers = config["model_cfg"]
        assert isinstance(towers["vision_cfg"], dict) and isinstance(towers["text_cfg"]["hf_model_name"], str)
    return config


def _check_names(path: Path, towers: dict[str, Any], known: Collection[str]) -> None:
    """Raise MedbenchError for a configuration that names a repository besides the `known` ones: open_clip and timm would ask for it."""
    words, images = towers["text_cfg"].get("hf_tokenizer_name"), towers["vision_cfg"].get("timm_model_name")
    if words is not None and words not in known:
        found = f"names the tokenizer {words!r:.80}, which the registry does not"
        raise MedbenchError(path / CONFIG, found, "remove it: the folder's own tokenizer is read")
    if images is not None and not re.fullmatch(r"[\w.]+", str(images)):
        found = f"names the image tower {images!r:.80}, which is no architecture of timm"
        raise MedbenchError(path / CONFIG, found, "give the architecture's name alone: its weights come with the checkpoint")


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of a `model_cfg`, untrained; on the meta device it takes no memory. `hf_model_name` must be a folder.

    Neither tower asks the hub for weights: all come with the checkpoint.
    """
    vision, text = {**config["vision_cfg"], "timm_model_pretrained": False}, {**config["text_cfg"], "hf_model_pretrained": False}
    model: nn.Module = CustomTextCLIP(**{**config, "vision_cfg": vision, "text_cfg": text})
    return model
