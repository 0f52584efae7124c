"""The files of a try: a data set's entry and a run, for a person to keep and change."""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medbench import paths
from medbench.config import Config, Dataset
from medbench.errors import MedbenchError
from medbench.metrics.evaluate_modules.vqa_strict.words import yes_or_no
from medbench.trial.seen import Seen

TRACKED = False  # what is proposed here reaches jobs as registry entries
FOLDER = Path("tries")
TABLE = "labels.csv"
MANY, SAMPLE = 800, {"train": 300, "val": 100, "test": 300}
"""Of more rows so many are drawn for a first look, whole patients at a time."""
BARE = re.compile(r"[\d.,+-]+|true|false|pos|neg|positive|negative|y|n|class[ _-]?\d+", re.IGNORECASE)
"""Names of classes that describe no image."""
_CLIPS, _LLAVAS = ("mini-clip", "mini-medclip"), ("mini-llava", "mini-llava-med")
MODELS = {"diagnosis": _CLIPS, "vqa": _LLAVAS, "mcq": _LLAVAS}
MODES = {"diagnosis": ("ots", "lp"), "vqa": ("ots", "lora"), "mcq": ("ots", "ots-no-image")}


def entry(seen: Seen, modality: str, prompts: Mapping[str, Sequence[str]], whole: bool = True) -> dict[str, Any]:
    """The registry entry; of a large data set a draw, unless the `whole` is wanted.

    Prompts that are not given follow from the names of the classes.
    """
    found: dict[str, Any] = {
        "task": seen.task, "layout": seen.layout, "modality": modality, "specialty": modality,
        **({"raw_dir": str(seen.raw_dir.resolve())} if seen.raw_dir else {"source": seen.source}),
    }  # fmt: skip
    if seen.options:
        found["options"] = seen.options
    if not whole and seen.n > MANY:
        found["sample"] = dict(SAMPLE)
    if seen.names_splits:
        found["allow_group_overlap"] = True
    if seen.classes:
        words = {name: re.sub(r"[_-]+", " ", name).strip() or name for name in seen.classes}
        found["classes"] = list(seen.classes)
        found["prompts"] = {"main": {name: list(prompts.get(name) or [f"a photo of {words[name]}"]) for name in seen.classes}}
    return found


def said_of_prompts(proposed: Mapping[str, Any], given: Mapping[str, Sequence[str]]) -> list[str]:
    """Of a proposed entry: which prompts are made of the names of classes, and whether such a name says nothing of an image."""
    made = {name: texts[0] for name, texts in proposed.get("prompts", {}).get("main", {}).items() if name not in given}
    if not made:
        return []
    shown = ", ".join(map(repr, [*made.values()][:3])) + (", ..." if len(made) > 3 else "")
    said = [f"prompts are made of the names of classes: {shown} (most models read English: --prompts CLASS=TEXT)"]
    if bare := [name for name in made if BARE.fullmatch(name.strip()) or yes_or_no(name) is not None]:
        said.append(
            f"class {bare[0]!r} says nothing of an image: what models score off the shelf means nothing until --prompts describe it"
        )
    return said


def slug(name: str) -> str:
    """A name that paths admit."""
    text = re.sub(r"\.{2,}", ".", re.sub(r"[^a-z0-9.]+", "-", name.lower())).strip("-.")
    text = text.replace(".", "-") if text.endswith(paths.ENDINGS) else text
    return paths.slug(text or "my-set")


def write(
    folder: Path, files: Mapping[str, Mapping[str, Any]], command: str, again: str, rows: Sequence[Sequence[str]] | None = None
) -> list[Path]:
    """The files of a try, and a table of `rows` where there are some. `command`: what wrote them; `again`: what runs them.

    Returns those that were not there before.

    Raises MedbenchError where one is there and says something else: a person may have changed it.
    """
    texts = {
        name: f"# by `{command}`; change what you like\n{yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True)}"
        for name, value in files.items()
    }
    for name, text in texts.items():
        path = folder / name
        if path.exists() and yaml.safe_load(path.read_text(encoding="utf-8")) != yaml.safe_load(text):
            remedy = f"run it as it is: `{again}`; or remove the folder, or give another --name"
            raise MedbenchError(path, "is there already and says something else", remedy)
    folder.mkdir(parents=True, exist_ok=True)
    new = [folder / name for name in (*texts, *([TABLE] if rows is not None else [])) if not (folder / name).exists()]
    if rows is not None:
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(rows)
        (folder / TABLE).write_text(stream.getvalue(), encoding="utf-8")
    for name, text in texts.items():
        if folder / name in new:
            (folder / name).write_text(text, encoding="utf-8")
    return new


def modalities(config: Config) -> list[str]:
    """Those that any model of the registry knows, or any data set has; the most usual first."""
    counts = Counter(one for model in config.models.values() for one in model.pretrained_on if one != "everyday")
    counts.update(data.modality for data in config.datasets.values() if isinstance(data, Dataset))
    return [name for name, _ in counts.most_common()]
