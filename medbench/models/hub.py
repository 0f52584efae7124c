"""How transformers loads a checkpoint in hub format, and whether the folder is what the registry says.

Everything is loaded from the folder that `medbench.models.checkpoint` finds. Weights are read from safetensors, else from a pickle with
`weights_only=True`, and code from a checkpoint is never run.
"""

import importlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules import module as registration
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.utils import logging

from medbench.errors import Interrupted, MedbenchError
from medbench.jobs import devices, limits
from medbench.models.checkpoint import inspect, read_json, weight_files
from medbench.models.loading import LARGER, QUANTISED, Contrastive, refusing

BUFFERS = frozenset(("inv_freq", "num_batches_tracked", "position_ids", "relative_position_index"))
"""Last parts of names of tensors that older versions saved and newer ones compute: these may stand in a file without use."""
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt", "vocab.json")
"""Files of which a tokenizer has at least one; without any, transformers makes an empty tokenizer that reads every text as nothing."""
ORIGINAL = {
    "llava_mistral": ("LLaVA-Med", "set `architecture: llava-med`, which converts it while reading"),
    "llava_llama": ("LLaVA or VILA", "set `architecture: vila` where it is VILA; of LLaVA take the checkpoint of llava-hf"),
}
UNREADABLE = ("the weights cannot be read safely", "fetch them again, as safetensors")
"""Found and remedy."""
DECODER = ".language_model."
"""Part of the names of all that is in a generative model's decoder."""


class Placement(NamedTuple):
    """Device and number format of a model. `bits`: of the decoder's weights (4 or 8), `spread`: over all visible GPUs."""

    device: torch.device
    dtype: torch.dtype
    bits: int | None = None
    spread: bool = False


def placement(device: torch.device | None = None, dtype: torch.dtype | None = None, bits: int | None = None) -> Placement:
    """Fills in what is not given: this job's devices; bfloat16 on a GPU and float32 on a CPU.

    A job sees as many GPUs as its registry entry asks for (medbench.jobs.devices): a model is spread where there are several.
    """
    spread = device is None and devices.n_gpus() > 1
    device = device or devices.device()
    return Placement(device, dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32), bits, spread)


@contextmanager
def sized(config: Path, stored: int) -> Iterator[None]:
    """Around the making of a model on the meta device: stops it as soon as it has more numbers than `stored` bytes of weights can hold.

    So a configuration with a thousand times the layers costs neither memory nor time. Raises MedbenchError.
    """
    limit, counted = limits.NUMBERS_FREE + limits.NUMBERS_PER_BYTE * stored, 0

    def count(module: nn.Module, name: str, value: torch.Tensor | None) -> None:
        nonlocal counted
        if value is not None and value.is_meta:  # once: loading registers each again
            counted += max(value.numel(), limits.NUMBERS_OF_TENSOR)
            if counted > limit:
                found = f"describes a model of more than {counted / 1e6:.0f} million numbers, its weights have {stored} bytes"
                raise MedbenchError(config, found, "fetch the whole checkpoint, configuration and weights")

    hooks = [
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def built(make: Callable[[], nn.Module], config: Path, files: Sequence[Path]) -> Any:
    """A model as its configuration describes it, on the CPU, untrained; first on the meta device, to see whether it fits its weights."""
    with refusing(config, "describes no model", "fetch it again"):
        with torch.device("meta"), sized(config, n_bytes(files)):
            make()
        return make()


def n_bytes(files: Iterable[Path]) -> int:
    """Of all of them."""
    return sum(file.stat().st_size for file in files)


def load_weights(
    model: nn.Module, path: Path, safe: Sequence[str], pickles: Sequence[str], renamed: Callable[[str], str | None] = lambda name: name
) -> None:
    """Fill a model from the first of some files that exists, safetensors or a pickle of tensors alone.

    `renamed`: a tensor's name in the model, None for one to leave out. Raises MedbenchError for weights that are absent, damaged, not all
    there, of another model, or would run code.
    """
    [file] = weight_files(path, safe, pickles)[:1]
    tensors = read_tensors(file)
    found = {new: value for name, value in tensors.items() if (new := renamed(name)) is not None}
    with refusing(file, *UNREADABLE):
        missing, unexpected = model.load_state_dict(found, strict=False)
    check_names(file, missing, unexpected, model)


def check_names(file: Path, missing: Iterable[str], unexpected: Iterable[str], model: nn.Module, unused: str = "") -> None:
    """Raise MedbenchError when weights lack a tensor of the model or hold one too many: no buffer, nor one of the `unused` (full match)."""
    if absent := sorted(missing):
        found = f"{len(absent)} tensors are missing or of another shape, {absent[0]} first"
        raise MedbenchError(file, found, "fetch the whole checkpoint")
    buffers = BUFFERS | {name.rpartition(".")[2] for name, _ in model.named_buffers()}
    if unknown := sorted(name for name in unexpected if name.rpartition(".")[2] not in buffers and not re.fullmatch(unused, name)):
        found = f"{len(unknown)} tensors are unknown to {type(model).__name__}, {unknown[0]} first"
        raise MedbenchError(file, found, "give a checkpoint of this architecture")


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Tensors of one file; safetensors are mapped, not copied. Raises MedbenchError where it is damaged or would run code."""
    with refusing(file, *UNREADABLE):
        tensors = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise MedbenchError(file, "holds more than tensors by name", "give the weights alone, as safetensors")
    return tensors


def read_shards(path: Path, parts: Sequence[str], renamed: Callable[[str], str | None]) -> dict[str, torch.Tensor]:
    """Tensors of all weights in the folders `parts` below `path`, under their new names.

    `renamed` gets `part/name` (`name` for the part "") and gives None for one to leave out. Raises MedbenchError for weights that are
    absent, incomplete or damaged, or would run code.
    """
    tensors: dict[str, torch.Tensor] = {}
    for part in parts:
        for file in weight_files(path / part):
            found = read_tensors(file)
            tensors |= {new: value for name, value in found.items() if (new := renamed(f"{part}/{name}" if part else name)) is not None}
    return tensors


def load_model(model_class: type[Any], path: Path, model_type: str, place: Placement, unused: str = "") -> Any:
    """The model of a folder, frozen and in evaluation mode. `unused`: regular expression of tensors that may be there and are not read.

    Raises MedbenchError when `config.json` is missing or names another `model_type`, when there are no weights, not all of them or some
    of another model, and when they are damaged or would run code.
    """
    check_type(path, model_type)
    files = weight_files(path)
    safe = files[0].suffix == ".safetensors"
    given: dict[str, Any] = {"local_files_only": True, "use_safetensors": safe, "weights_only": True}
    with refusing(path / "config.json", "describes no model", "fetch it again"):
        model_class.config_class.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    make = lambda more: model_class.from_pretrained(path, trust_remote_code=False, **given, **more)  # noqa: E731
    return _built(make, path, n_bytes(files), place, unused)


def from_tensors(model_class: type[Any], config: Any, tensors: dict[str, torch.Tensor], path: Path, place: Placement) -> Any:
    """As `load_model`, from tensors that are at hand; `path` is for messages."""
    given: dict[str, Any] = {"config": config, "state_dict": tensors}
    stored = sum(value.nbytes for value in tensors.values())
    return _built(lambda more: model_class.from_pretrained(None, trust_remote_code=False, **given, **more), path, stored, place)


def _built(make: Callable[[dict[str, Any]], Any], path: Path, stored: int, place: Placement, unused: str = "") -> Any:
    """Weights go to their device one by one: host memory never holds a second copy of them.

    What matters of transformers' warnings is checked here: the type, tensors that are missing, misshapen or unknown.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    more: dict[str, Any] = {"dtype": place.dtype, "attn_implementation": "sdpa", "output_loading_info": True}
    more["ignore_mismatched_sizes"] = True  # they are refused below, by name
    more["device_map"] = "auto" if place.spread else {"": place.device}
    if place.bits:
        more["quantization_config"] = importlib.import_module(QUANTISED).settings(path, place.bits, place.dtype)
    found, remedy = "cannot be read safely", "fetch config.json and weights again, as safetensors"
    if place.bits:
        found, remedy = f"does not load with {place.bits} bits", LARGER
    with refusing(path, found, remedy), sized(path / "config.json", stored):
        model, report = make(more)
    missing = map(str, [*report["missing_keys"], *report["mismatched_keys"]])
    check_names(path, missing, map(str, report["unexpected_keys"]), model, unused)
    if place.device.type == "cuda":
        _refuse_offload(getattr(model, "hf_device_map", {}), path)
    return model.requires_grad_(False).eval()


def _refuse_offload(device_map: dict[str, Any], path: Path) -> None:
    """Raise Interrupted when layers lie on the CPU or the disk: accelerate would put them there silently, a hundred times slower."""
    if elsewhere := sorted(name for name, device in device_map.items() if str(device) in ("cpu", "disk")):
        found = f"their memory does not hold {path}: {len(elsewhere)} parts are left over ({elsewhere[0]})"
        raise Interrupted("the GPUs", found, LARGER)


def check_type(path: Path, model_type: str) -> None:
    """Raise MedbenchError when `config.json` is missing or names another `model_type`."""
    if not (path / "config.json").is_file():
        raise MedbenchError(path, "holds no readable config.json", "give a checkpoint in hub format")
    found = read_json(path / "config.json").get("model_type")
    if isinstance(found, str) and found in ORIGINAL and model_type != found:
        layout, remedy = ORIGINAL[found]
        raise MedbenchError(path, f"is in the original layout of {layout}", remedy)
    if found != model_type:
        remedy = "change `architecture` or `checkpoint` in the registry"
        raise MedbenchError(path, f"is a checkpoint of {str(found)[:80]!r}, not of {model_type!r}", remedy)


def load_tokenizer(path: Path, rows: int | None = None) -> Any:
    """The tokenizer of a folder. `rows`: of the model's embedding of tokens.

    Raises MedbenchError when the folder has none, or one with more tokens than the model knows.
    """
    inspect(path)
    check_tokenizer_files(path)
    with refusing(path, "holds no usable tokenizer", "add the tokenizer's files"):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        tokenizer("a word")  # wrong values show in use alone
    check_vocabulary(tokenizer, rows, path)
    return tokenizer


def check_tokenizer_files(path: Path) -> None:
    """Raise MedbenchError when a folder lacks what a tokenizer is made from."""
    found = [name for name in VOCABULARIES if (path / name).is_file()]
    if not found:
        raise MedbenchError(path, "holds no tokenizer", f"add the tokenizer's files: one of {', '.join(VOCABULARIES)}")
    for name in found:
        if (size := (path / name).stat().st_size) > limits.JSON_BYTES:
            raise MedbenchError(path / name, f"has {size} bytes, more than the {limits.JSON_BYTES} that are read", "fetch it again")
    if found == ["vocab.json"] and not (path / "merges.txt").is_file():
        raise MedbenchError(path, "holds vocab.json without merges.txt", "add the tokenizer's other files")


def check_vocabulary(tokenizer: Any, rows: int | None, path: Path) -> None:
    """Raise MedbenchError when a tokenizer knows no words, or more than the model's embedding has rows."""
    words = len(tokenizer) - len(tokenizer.all_special_tokens)
    if words < 1:
        raise MedbenchError(path, "its tokenizer knows no words", "add the tokenizer's files")
    if rows is not None and (last := max(tokenizer.get_vocab().values())) >= rows:
        raise MedbenchError(path, f"its tokenizer gives tokens up to {last}, the model knows {rows}", "give its own tokenizer")


def tokens(tokenizer: Any, texts: list[str], length: int, **padding: Any) -> Any:
    """Tensors of `texts`. Raises MedbenchError for a text longer than `length` tokens: its end would be cut off silently."""
    for text in texts:
        if (found := len(tokenizer(text)["input_ids"])) > length:
            raise MedbenchError(f"prompt {text!r}", f"has {found} tokens, the model reads {length}", "shorten it")
    return tokenizer(texts, return_tensors="pt", **padding)


def _image_processor(path: Path) -> Any:
    """As the folder configures it. Files of late 2022 name a *feature extractor*, as image processors were called before."""
    file = path / "preprocessor_config.json"
    fields = read_json(file) if file.is_file() else {}
    named, given = str(fields.get("image_processor_type", "")), {"local_files_only": True, "backend": "pil"}
    if not named.endswith("FeatureExtractor"):
        return AutoImageProcessor.from_pretrained(path, trust_remote_code=False, **given)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as renamed:
        fields["image_processor_type"] = named.replace("FeatureExtractor", "ImageProcessor")
        (Path(renamed) / "preprocessor_config.json").write_text(json.dumps(fields), encoding="utf-8")
        return AutoImageProcessor.from_pretrained(renamed, trust_remote_code=False, **given)  # type: ignore[no-untyped-call]


def check_sides(images: Any, limit: int, path: object) -> None:
    """Raise MedbenchError for an image processor that makes every image larger than `limit` (sides, or the area where it is one) allows."""
    for fields in (images.size, getattr(images, "crop_size", None)):
        for name, value in dict(fields or {}).items():
            if isinstance(value, int | float) and value > limit:
                found = f"its image processor makes images with {name} {value}, more than {limit}"
                raise MedbenchError(path, found, "fix its preprocessor_config.json")


class HubPixels:
    """A checkpoint's own image processor, cut in two: geometry on the CPU, which keeps bytes, and scaling on the device.

    The PIL backend is used where there is one: it computes without the interpreter's lock and equals the published evaluations.
    """

    def __init__(self, path: Path) -> None:
        """Raises MedbenchError when the folder has no image processor, or one that makes no pixels."""
        with refusing(path, "holds no usable image processor", "add preprocessor_config.json"):
            self.processor = _image_processor(path)
            check_sides(self.processor, limits.SIDE, path)
            self.shape = self.normalise(torch.from_numpy(self.pixels(Image.new("RGB", (64, 64)))[None])).shape[2:]
        self.name = type(self.processor).__name__

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """RGB image -> resized and cropped bytes [3, h, w]."""
        done = self.processor(images=image, do_rescale=False, do_normalize=False, return_tensors="np")
        pixels: NDArray[np.uint8] = done["pixel_values"][0]
        return pixels

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Bytes [n, 3, h, w] -> float32, scaled as the processor would."""
        scaled = pixels.to(torch.float32, copy=True)  # then in place: fresh memory costs as much as the sums
        if self.processor.do_rescale:
            scaled.mul_(self.processor.rescale_factor)
        if self.processor.do_normalize:
            mean, std = (
                torch.tensor(value, device=pixels.device).view(-1, 1, 1) for value in (self.processor.image_mean, self.processor.image_std)
            )
            scaled.sub_(mean).div_(std)
        return scaled


class HubContrastive(Contrastive):
    """A contrastive model of transformers with the image processor and tokenizer of its folder."""

    def __init__(self, model: Any, images: HubPixels, tokenizer: Any, scale: float, bias: float = 0.0) -> None:
        self.model, self._images, self._tokenizer = model, images, tokenizer
        self.image_processor = images.name
        self.scale, self.bias = scale, bias
        side = model.config.vision_config.image_size
        if images.shape != (read := (side, side) if isinstance(side, int) else tuple(side)):
            found = f"its image processor makes images of {tuple(images.shape)} pixels, its model reads {read}"
            raise MedbenchError(model.name_or_path, found, "fix its preprocessor_config.json")

    @property
    def vision(self) -> nn.Module:
        """The vision transformer."""
        tower: nn.Module = self.model.vision_model
        return tower

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """As the checkpoint's image processor resizes and crops."""
        return self._images.pixels(image)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """By the checkpoint's mean and deviation."""
        return self._images.normalise(pixels)
