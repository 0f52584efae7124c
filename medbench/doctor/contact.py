"""The first contact with a model: it loads, it is as large as its entry says, and it reads a drawn image and a known prompt as before.

What public evidence leaves open about a model stands in `config/contacts.yaml`, with the check that looks at it.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from medbench.config import Config, Model, checkpoint, read_yaml, sources
from medbench.doctor import FAULT, OK, WARNING, Line, refused, weights
from medbench.errors import MedbenchError
from medbench.jobs import digests, network, tree
from medbench.models import generative_base, hub, loading
from medbench.models.answering import Answer, Query
from medbench.models.checkpoint import MAIN, WEIGHTS, Source, read_json, weight_files
from medbench.models.generative_base import Generative
from medbench.models.loading import Contrastive

TRACKED = False  # looks, and makes no result
PROMPT, QUESTION = "a photo of a chest x-ray", "Is there a nodule in this image?"
SHOWN = 8
"""First ids and first values."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Of the first values, by the largest of them: kernels sum in another order, and bfloat16 has 8 bits."""
ANSWER_TOKENS = 32
TESTED = "5.23"  # of transformers


class Met(NamedTuple):
    """A loaded model and what it made of the known input."""

    model: Any
    folder: Path
    ids: list[int]
    values: NDArray[np.float32]
    answer: Answer | None


def look(config: Config, name: str, contacts: Path) -> Iterator[Line]:
    """`contacts`: the file of open points and of what was seen before."""
    entry, subject = config.models[name], f"model {name}"
    yield Line(OK, "licence", f"{entry.about.licence or 'not stated'}{', gated' if entry.about.gated else ''}")
    there = weights.look(config, name)
    if entry.kind == "remote":
        yield there
        yield _service(config, name)
        return
    place = checkpoint(config, name)
    if there.state != OK or place is None:
        yield there._replace(state=FAULT, remedy=_fetched(entry)) if there.state == WARNING else there
        return
    if entry.pretrain and not Path(place).is_dir():
        yield Line(FAULT, subject, "is not pretrained yet", f"run `snakemake --cores all {place}`")
        return
    noted, began = read_yaml(contacts, str(contacts)), time.monotonic()
    try:
        with network.offline():
            met = meet(Source(**sources.source(config, name)))
    except MedbenchError as error:
        yield refused(subject, error)
        return
    module = met.model.model
    first = next(iter(module.parameters()))
    yield Line(OK, subject, f"loads in {time.monotonic() - began:.0f} s on {first.device} as {str(first.dtype).removeprefix('torch.')}")
    yield from _weights(entry, met)
    yield from _parameters(entry, met)
    yield Line(OK, "first ids", f"{met.ids} of {QUESTION if met.answer else PROMPT!r}")
    yield from _compared(name, met, noted.get("seen") or {}, contacts)
    if met.answer:
        state = OK if met.answer.text else WARNING
        yield Line(state, "answer", f"{met.answer.text!r} ({met.answer.finish_reason}, {met.answer.n_tokens} tokens)")
    points = noted.get("open") or {}
    for point in [*points.get(name, []), *points.get("every", [])]:
        yield _point(point, met, entry)


def _service(config: Config, name: str) -> Line:
    """Whether the service of a remote model names the day on which it shuts the model down."""
    from medbench.models import answering
    from medbench.remote.endpoint import Failed

    subject, noted = f"model {name}", config.models[name].retired_on
    try:
        answerer: Any = answering.load(Source(**sources.source(config, name)))
        answerer.told = sources.reached(config, name)
        day = answerer.shutdown_date()
    except MedbenchError as error:
        return refused(subject, error)
    except Failed as error:
        return Line(WARNING, subject, f"its service does not say until when it serves it: {error.found}", "see whether it runs")
    if day is None:
        return Line(OK, subject, "its service names no day on which it is shut down")
    if day == str(noted):
        return Line(OK, subject, f"its service shuts it down on {day}, as its entry says")
    return Line(WARNING, subject, f"its service shuts it down on {day}", f'ask all before, and write `retired_on: "{day}"` into its entry')


def _fetched(entry: Model) -> str:
    """How its files come, which nobody downloads unasked."""
    repositories = {str(entry.checkpoint): entry.revision, **entry.companions}
    hub_ids = [
        f"`hf download {name}{f' --revision {which}' if which else ''}`" for name, which in repositories.items() if "://" not in name
    ]
    return f"{', '.join(hub_ids)}, or a run that needs it; then again"


def meet(source: Source) -> Met:
    """Load a model and show it the known input. Raises MedbenchError as loading does."""
    if source.module.startswith("medbench.models.generative."):
        model = generative_base.load(source)
        inputs = model.inputs([Query("the known question", drawn(), QUESTION)], ANSWER_TOKENS)
        with torch.inference_mode(), model.precision():
            values = model.model(**model.placed(inputs)).logits[0, -1]
        answer = model.generate(inputs, ANSWER_TOKENS)[0]
        return Met(model, weights.folder(source), _without_pieces(model, inputs["input_ids"][0].tolist()), _array(values), answer)
    contrastive: Contrastive = loading.load(source)
    with torch.inference_mode():
        values = contrastive.encode_images(contrastive.to_device(contrastive.pixels(drawn())[None])).features[0]
        contrastive.encode_texts([PROMPT])  # it reads texts, too
    ids = getattr(contrastive, "_tokenizer")(PROMPT)["input_ids"]  # noqa: B009 - of every architecture, but no part of the seam
    return Met(contrastive, weights.folder(source), list(ids)[:SHOWN], _array(values), None)


def drawn() -> Image.Image:
    """The same for all, of no data set: rings and a slope, in colour."""
    y, x = np.mgrid[0:320, 0:256].astype(np.float64)
    rings = 127.5 + 127.5 * np.cos(np.hypot(x - 128, y - 160) / 9)
    return Image.fromarray(np.stack([rings, x, 255 * y / 319], axis=-1).astype(np.uint8))


def _array(values: torch.Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()


def _without_pieces(model: Generative, ids: list[int]) -> list[int]:
    """The first ids, the image's places in the prompt as one."""
    image = model.image_token_id
    return [one for place, one in enumerate(ids) if one != image or place == 0 or ids[place - 1] != image][:SHOWN]


def _weights(entry: Model, met: Met) -> Iterator[Line]:
    """What was loaded, and the digest of each file of weights."""
    loaded = dict(met.model.weights)
    pinned = entry.pretrain is not None or entry.revision is not None or bool(entry.checksums)
    state = OK if pinned or loaded[MAIN].startswith("sha256") else WARNING
    remedy = "" if state == OK else "pin it: `make lock-models`, or `revision` in its entry"
    yield Line(state, "weights", ", ".join(f"{name} {which}" for name, which in loaded.items()), remedy)
    for file in sorted(one for one in tree.files_below(met.folder) if one.suffix in WEIGHTS and one.is_file()):
        yield Line(OK, "SHA-256", f"{digests.sha256(file)} {file.relative_to(met.folder)}")


def _count(met: Met) -> int:
    return sum(value.numel() for value in met.model.model.parameters())


def _parameters(entry: Model, met: Met) -> Iterator[Line]:
    found, stated = _count(met), entry.about.parameters
    if entry.bits:
        yield Line(OK, "parameters", f"not counted: its weights have {entry.bits} bits")
    elif stated is None or found == stated:
        yield Line(OK, "parameters", f"{found:,}{'' if stated is None else ', as its entry says'}")
    else:
        remedy = "right `parameters` in its entry, once it is clear which weights these are"
        yield Line(WARNING, "parameters", f"{found:,}, its entry says {stated:,}", remedy)


def _compared(name: str, met: Met, seen: dict[str, Any], contacts: Path) -> Iterator[Line]:
    """The first values and their digest, beside those stored for these weights."""
    values = [round(float(value), 4) for value in met.values[:SHOWN]]
    digest = hashlib.sha256(np.ascontiguousarray(met.values).tobytes()).hexdigest()[:16]
    what = "logits after the prompt" if met.answer else "features of a drawn image"
    key = met.model.weights[MAIN]
    dtype = next(iter(met.model.model.parameters())).dtype
    subject = f"{what}, {len(met.values)}"
    if not np.isfinite(met.values).all():
        yield Line(FAULT, subject, f"not all are finite: {values}", "fetch the weights again")
        return
    if key not in seen:
        yield Line(OK, subject, f"{values}..., digest {digest}; no value stored for this revision ({key})")
        kind = str(dtype).removeprefix("torch.")
        line = f'"{key}": {{model: {name}, parameters: {_count(met)}, ids: {met.ids}, dtype: {kind}, digest: "{digest}", values: {values}}}'
        yield Line(OK, f"to store, below `seen` in {contacts.parent.name}/{contacts.name}", line)
        return
    stored = seen[key]
    scale = max(map(abs, stored["values"])) or 1.0
    apart = float(np.abs(np.array(values) - np.array(stored["values"])).max()) / scale
    same = "byte for byte" if stored["digest"] == digest else f"within {apart:.1e} of the largest"
    if stored["ids"] != met.ids:
        yield Line(FAULT, "first ids", f"stored for this revision: {stored['ids']}", "the tokenizer reads otherwise: look at its version")
    if apart > max(TOLERANCE.get(dtype, 5e-2), TOLERANCE.get(getattr(torch, stored["dtype"], dtype), 5e-2)):
        remedy = "the same weights compute otherwise: look at the versions of torch and transformers"
        yield Line(FAULT, subject, f"{values}..., stored for this revision: {stored['values']}...", remedy)
    else:
        yield Line(OK, subject, f"{values}..., as stored for this revision, {same}")


# --- open points: each check gives what it found, and whether that settles the point


class Verdict(NamedTuple):
    """What a check found; `settled`: None where a person must judge."""

    settled: bool | None
    found: str


def _point(point: dict[str, Any], met: Met, entry: Model) -> Line:
    try:
        settled, found = CHECKS[point["check"]](met, point.get("expect"))
    except MedbenchError as error:
        settled, found = False, f"{error.found}; {error.remedy}"
    except (AttributeError, KeyError, TypeError) as error:
        settled, found = False, f"the check does not fit this model ({type(error).__name__}: {error})"
    said = "for a person to judge" if settled is None else "settled" if settled else "still open"
    return Line(OK if settled else WARNING, "open point", f"{point['point']} {said.capitalize()}: {found}")


def _library(met: Met, expect: Any) -> Verdict:
    version = transformers.__version__
    return Verdict(True, f"it loaded on transformers {version}{'' if version.startswith(TESTED) else f', not only on {TESTED}'}")


def _image_processor(met: Met, expect: Any) -> Verdict:
    file = met.folder / "preprocessor_config.json"
    fields = read_json(file)
    names = {name: fields[name] for name in ("image_processor_type", "feature_extractor_type", "size", "crop_size") if name in fields}
    return Verdict(True, f"preprocessor_config.json says {names}; {met.model.image_processor} reads it")


def _first_ids(met: Met, expect: Sequence[int]) -> Verdict:
    same = met.ids == list(expect)
    return Verdict(True, f"they are {met.ids}" + (", as published" if same else f", not {list(expect)}: look at its tokenizer files"))


def _same_tower(met: Met, expect: str) -> Verdict:
    """Against the other model's weights, where these are in the cache."""
    with network.offline():
        try:
            other = network.snapshot(expect, None, ["*.safetensors", "*.bin"])
            files = weight_files(other)
        except MedbenchError:
            raise MedbenchError(expect, f"the weights of {expect} are not cached", f"`hf download {expect}`, then again") from None
    theirs = {name: value for file in files for name, value in hub.read_tensors(file).items() if name.startswith("vision_model.")}
    own = met.model.base.model.vision_tower.state_dict()
    pairs = {name: theirs.get(f"vision_model.{name.removeprefix('vision_model.')}") for name in own if not name.endswith("position_ids")}
    if lacking := [name for name, value in pairs.items() if value is None]:
        return Verdict(False, f"{len(lacking)} of {len(pairs)} tensors have no partner there ({lacking[0]})")
    apart = {
        name: float((own[name].cpu().float() - value.to(own[name].dtype).float()).abs().max())
        for name, value in pairs.items()
        if value is not None
    }
    differing = [name for name, distance in apart.items() if distance]
    if not differing:
        return Verdict(True, f"yes: all {len(apart)} tensors are equal")
    return Verdict(True, f"no: {len(differing)} of {len(apart)} tensors differ, by {max(apart.values()):.2g} at most")


def _plain_tokenizer(met: Met) -> Any:
    """As the checkpoint has it, before tokens for the image and for padding are added."""
    return hub.load_tokenizer(met.folder / "llm")


def _begins(met: Met, expect: Any) -> Verdict:
    tokenizer = _plain_tokenizer(met)
    adds = tokenizer("word")["input_ids"][:1] == [tokenizer.bos_token_id]
    return Verdict(True, f"{'yes: official evaluations read two' if adds else 'no'}; medbench's prompt begins with {met.ids[:2]}")


def _vocabulary(met: Met, expect: Any) -> Verdict:
    tokenizer = _plain_tokenizer(met)
    rows = sorted(
        {
            len(value)
            for file in weight_files(met.folder / "llm")
            for name, value in hub.read_tensors(file).items()
            if name.endswith("embed_tokens.weight")
        }
    )
    pad = next((token for token in ("[PAD]", "<pad>", "<|pad|>") if token in tokenizer.get_vocab()), None)
    sizes = ", ".join(f"{one:,}" for one in rows)
    return Verdict(True, f"{len(tokenizer):,} words, {sizes} rows of weights, {f'with {pad}' if pad else 'no padding token'}")


def _answer_ends(met: Met, expect: Any) -> Verdict:
    assert met.answer is not None, "of a generative model"
    return Verdict(
        None, f"under this prompt it answered {met.answer.text!r} and ended by {met.answer.finish_reason}; ask the other entry, too"
    )


CHECKS: dict[str, Callable[[Met, Any], Verdict]] = {
    "library": _library, "image-processor": _image_processor, "first-ids": _first_ids, "same-tower": _same_tower, "begins": _begins,
    "vocabulary": _vocabulary, "answer-ends": _answer_ends,
}  # fmt: skip
