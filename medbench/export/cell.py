"""An adapted cell as a folder: refused unless every byte of it is what its jobs wrote, and written whole or not at all."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medbench import cells, paths, stages, tasks
from medbench.cells import Cell
from medbench.config import Config, Probe, recipe, recipe_kind, sources
from medbench.errors import MedbenchError
from medbench.export import card
from medbench.jobs import files, integrity
from medbench.models import asking
from medbench.models.checkpoint import MAIN, Checkpoint, Source, require_weights

TRACKED = False  # reads results, and is no part of one
ABOUT = "medbench.json"
"""What the examples read: base, classes, wording, recipe."""
RULE = {"opens": asking._OPENS.pattern, "alternatives": asking._OR.pattern}
"""When a question wants yes or no, as regular expressions: the example words questions as the cell did."""
HUB_FORMAT = ("clip", "siglip", "blip2", "llava", "qwen2-vl", "qwen2-5-vl", "qwen3-vl", "internvl", "gemma3")
"""Architectures of which transformers reads the checkpoint itself, so that adapted weights can be one, too."""


def export(config: Config, cell: Cell, out: Path, merged: bool, examples: Path) -> None:
    """Write `out`. `examples`: folder of the scripts, one of which goes with it.

    Raises MedbenchError for a cell that has nothing to carry away or is not what its jobs wrote, and for `out` that exists.
    """
    require(config, cell, merged)
    if os.path.lexists(out):
        raise MedbenchError(out, "exists already", "give a new folder")
    with files.atomic(out) as folder:
        folder.mkdir()
        _write(config, cell, folder, merged, examples)


def require(config: Config, cell: Cell, merged: bool) -> None:
    """Raise MedbenchError for a cell that was not adapted, is not finished, or is stale or altered; with a way out."""
    where = f"cell {cell}"
    cells.known(config, where, cell._asdict())
    model, mode = config.models[cell.model], config.modes[cell.mode]
    if model.role == "baseline":
        raise MedbenchError(where, "is a baseline's: it shows what the data are worth without a model", "name an adapted model's cell")
    if mode.kind == "zero-shot":
        found = f"is off the shelf: its weights are those of {model.checkpoint or 'the model that the workflow pretrains'}, unchanged"
        raise MedbenchError(where, found, "take them from there, or name an adapted mode (lp, lora)")
    cells.check(config, cell)
    if merged:
        _require_mergeable(config, cell)
    certificate, weights = paths.adapter_files(*cell)
    again = f"run `snakemake --cores all {paths.intervals(*cell)}` with the --configfile of its run, if it has one"
    scored = ("score",) if tasks.get(config.datasets[cell.dataset].task).is_scored_first else ()
    for stage in ("adapt", "predict", *scored, "interval"):
        if not (output := stages.get(stage).outputs(*cell)[0]).exists():
            raise MedbenchError(output, f"does not exist: {where} is not finished", again)
        for finding in stages.look(config, stage, tuple(cell), exact=True).findings:
            first = "" if finding.kind == "stale" else f"delete {certificate.parent if stage == 'adapt' else output}, then "
            raise MedbenchError(finding.path, finding.found, first + again)
    integrity.require_adapter(str(cell), certificate, weights)


def _require_mergeable(config: Config, cell: Cell) -> None:
    where, entry = f"cell {cell}", config.models[cell.model]
    remedy = "leave --merged out: the adapter comes with an example that loads it"
    if isinstance(config.modes[cell.mode], Probe):
        raise MedbenchError(where, "is a linear probe, which lies on the model's features: there is nothing to merge", remedy)
    if entry.architecture not in HUB_FORMAT:
        found = f"{entry.about.label or cell.model} has a layout of its own ({entry.architecture}), which transformers does not read"
        raise MedbenchError(where, found, remedy)
    if entry.architecture == "blip2" and _target(config, cell) == "text":
        raise MedbenchError(where, "transformers does not compare BLIP-2's queries with prompts as medbench does", remedy)
    if entry.bits:
        raise MedbenchError(where, f"was trained on weights of {entry.bits} bits, and merged ones would be others", remedy)


def _target(config: Config, cell: Cell) -> str:
    return getattr(recipe(config, cell.model, cell.mode), "target", "")


def _write(config: Config, cell: Cell, folder: Path, merged: bool, examples: Path) -> None:
    entry, (certificate, weights) = config.models[cell.model], paths.adapter_files(*cell)
    fields = sources.source(config, cell.model)
    if fields["checkpoint"] and (place := Path(fields["checkpoint"]).expanduser()).is_dir():
        fields["checkpoint"] = str(place.resolve())
    trained_on = (integrity.read(certificate) or {}).get("weights", {})
    kind, _, commit = trained_on.get(MAIN, "").partition(" ")
    source = Source(**{**fields, **({"revision": commit} if kind == "commit" else {})})  # pinned now, if it was not
    about: dict[str, Any] = {"cell": str(cell), "kind": entry.kind, "merged": merged}
    about |= {"classes": config.datasets[cell.dataset].classes, "few_shot": recipe_kind(config.modes[cell.mode]) == "few-shot"}
    about |= {"source": source._asdict(), "weights": trained_on}
    if not merged:
        shutil.copytree(weights, folder, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
    needs_medbench = entry.bits is not None or (entry.architecture == "blip2" and _target(config, cell) == "text")
    is_native = entry.architecture in HUB_FORMAT and not needs_medbench
    if entry.kind == "generative":
        about["asking"] = {**(sources.asking(config, cell.model) or {}), **RULE}
        if is_native:
            _generative(source, weights, trained_on, folder, about["asking"]["max_new_tokens"], merged)
    elif isinstance(config.modes[cell.mode], Probe):
        _probe(folder, about["classes"])
        if is_native:
            _pixels(source, weights, trained_on, folder)
    else:
        about |= _contrastive(source, weights, folder, merged)
    example = f"{'answer' if entry.kind == 'generative' else 'classify'}_{'transformers' if is_native else 'medbench'}.py"
    shutil.copyfile(examples / example, folder / "example.py")
    shutil.copyfile(certificate, folder / "certificate.json")
    (folder / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = card.text(config, cell, merged, {name: sha256 for name, sha256 in integrity.of_folder(folder).items() if name != ABOUT})
    (folder / "README.md").write_text(text, encoding="utf-8")


def _generative(source: Source, weights: Path, trained_on: Mapping[str, str], folder: Path, max_new_tokens: int, merged: bool) -> None:
    """Processor and decoding as the cell had them; the model itself only where it is merged: else it stays without its weights."""
    import torch

    from medbench.adapt import tuned
    from medbench.models import generative_base

    model = generative_base.load(source, **({} if merged else {"device": torch.device("meta")}))
    require_weights(weights, trained_on, model.weights)
    for name, value in model.exceptions.items():
        setattr(model.processor.image_processor, name, value)
    model.processor.save_pretrained(folder)
    decoding = model.base.generation_config
    if merged:
        dtype = model.base.dtype
        tuned.read(weights, model, source)
        whole = model.model.merge_and_unload().to(dtype)
        whole.generation_config = decoding
        decoding.max_new_tokens = max_new_tokens
        whole.save_pretrained(folder)
    decoding.max_new_tokens = max_new_tokens
    decoding.save_pretrained(folder)


def _contrastive(source: Source, weights: Path, folder: Path, merged: bool) -> dict[str, Any]:
    """The adapted tower where it is merged, and what the head needs of the model. Reading proves that the adapter fits its base."""
    import torch

    from medbench.adapt import classifier as classifiers
    from medbench.models import loading

    model = loading.load(source, dtype=torch.float32)
    classifiers.read(weights, model)
    if images := getattr(model, "_images", None):
        images.processor.save_pretrained(folder)
    if merged:
        from peft import PeftModel

        base = loading.load(source, dtype=torch.float32).model
        whole = PeftModel.from_pretrained(base, str(weights), trust_remote_code=False).merge_and_unload()
        whole.save_pretrained(folder)
        model._tokenizer.save_pretrained(folder)
        shutil.copyfile(weights / classifiers.HEAD, folder / classifiers.HEAD)
    return {"scale": model.scale, "bias": model.bias}


def _probe(folder: Path, classes: tuple[str, ...]) -> None:
    """Coefficients with the classes beside them."""
    from safetensors.numpy import load_file, save_file

    from medbench.adapt import linear

    save_file(load_file(folder / linear.FILE), folder / linear.FILE, {"classes": json.dumps(classes, ensure_ascii=False)})


def _pixels(source: Source, weights: Path, trained_on: Mapping[str, str], folder: Path) -> None:
    """How the base prepares images."""
    from medbench.models import hub

    checkpoint = Checkpoint(source)
    place = checkpoint.folder()
    require_weights(weights, trained_on, checkpoint.loaded)
    hub.HubPixels(place).processor.save_pretrained(folder)
