"""What the registries hold, for people: data sets and models as tables, one data set as a page of text with a contact sheet."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from medbench import paths
from medbench.config import Addresses, Config, Dataset, Hub, Model, is_fetched
from medbench.errors import MedbenchError
from medbench.models.checkpoint import is_pinned

NONE = "-"


class Table(NamedTuple):
    """Rows of text under a header."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        """For README."""
        lines = [self.header, tuple("---" for _ in self.header), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def plain(self) -> str:
        """Columns of equal width, for a terminal."""
        widths = [max(len(row[column]) for row in (self.header, *self.rows)) for column in range(len(self.header))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (self.header, *self.rows)
        )


def datasets(config: Config, state: bool = True) -> Table:
    """Every data set of the registry that is not generated: access, licence, rows of each split. `state`: also what lies on this disk."""
    header = ("data set", "what", "task", "access", "pinned by", "licence", "train / val / test")
    rows = []
    for name, entry in config.datasets.items():
        if entry.about.access == "generated" and not state:
            continue
        about = entry.about
        row = (name, about.label or name, entry.task, about.access, _pin(entry), about.licence or NONE, _counts(entry))
        rows.append((*row, _state(entry, name)) if state else row)
    return Table((*header, "on this disk") if state else header, rows)


def _pin(entry: Dataset) -> str:
    """What keeps the files the same."""
    if isinstance(entry.source, Hub):
        return entry.source.revision[:12] if entry.source.revision else "first fetch"
    if isinstance(entry.source, Addresses):
        return "checksum" if all(file.checksum and file.enforce for file in entry.source.files) else "address"
    return NONE


def _counts(entry: Dataset) -> str:
    if entry.expected is None:
        return NONE
    return " / ".join(f"{count:,}" if count else NONE for count in (entry.expected.train, entry.expected.val, entry.expected.test))


def _state(entry: Dataset, name: str) -> str:
    if paths.card(name).exists():
        return "prepared"
    if entry.about.access == "generated":
        return "generated when needed"
    if not is_fetched(entry):
        return "in raw_dir" if entry.raw_dir else "no source"
    return (
        "fetched"
        if paths.fetched(name).exists()
        else "to be fetched"
        if entry.source and entry.source.kind != "manual"
        else "to be applied for"
    )


def show_dataset(config: Config, name: str) -> str:
    """The entry of a data set, and its card and contact sheet where it is prepared. Raises MedbenchError for a name in no registry."""
    if name not in config.datasets:
        raise MedbenchError(f"data set {name}", "is in no registry", f"choose from {', '.join(sorted(config.datasets))}")
    entry = config.datasets[name]
    text = yaml.safe_dump({name: entry.model_dump(mode="json", exclude_defaults=True)}, sort_keys=False, allow_unicode=True, width=120)
    parts = [text.rstrip(), f"on this disk: {_state(entry, name)}"]
    if paths.card(name).exists():
        card = json.loads(paths.card(name).read_text(encoding="utf-8"))
        del card["files"]
        parts += [
            yaml.safe_dump({"card": card}, sort_keys=False, allow_unicode=True, width=120).rstrip(),
            f"contact sheet: {_sheet(config, name)}",
        ]
    return "\n\n".join(parts)


def _sheet(config: Config, name: str) -> Path:
    from medbench.report import params, sample_sheet

    path = paths.RESULTS / "contact" / f"{name}.png"
    sample_sheet.write(sample_sheet.collect(name, params.dataset(config, name)), path)
    return path


def models(config: Config) -> Table:
    """Every model of the registry with a checkpoint: role, family, pretraining, licence, whether gated, size."""
    header = ("model", "what", "family", "role", "pretrained on", "licence", "gated", "revision", "parameters", "GPU memory")
    rows = []
    for name, entry in config.models.items():
        if entry.checkpoint is None:
            continue
        about = entry.about
        gated = "yes" if about.gated else "no"
        pinned = is_pinned(entry.checkpoint, entry.revision, entry.checksums)
        revision = (entry.revision or "checksum")[:12] if pinned else "not pinned" if entry.has_file else NONE
        sizes = _sizes(entry)
        rows.append(
            (
                name,
                about.label or name,
                entry.family,
                entry.role,
                ", ".join(entry.pretrained_on),
                about.licence or NONE,
                gated,
                revision,
                *sizes,
            )
        )
    return Table(header, rows)


def show_model(config: Config, name: str) -> str:
    """One model as a page of text: what it is made of, what pins it, and its notes. Raises MedbenchError for a name in no registry."""
    if name not in config.models:
        raise MedbenchError(f"model {name}", "is in no registry", f"choose from {', '.join(sorted(config.models))}")
    return "\n".join(f"{key.ljust(13)}  {value}" for key, value in [("model", name), *_facts(config.models[name])])


def models_page(config: Config) -> str:
    """docs/models.md: every model with a checkpoint, its parts, its pins, and where it differs from what its authors ran."""
    parts = [
        "# The models of the registry\n",
        "Generated by `python -m medbench docs` from `config/models.yaml`; one of them: `python -m medbench models NAME`.",
        "*Pins* keep the weights the same: another commit or file than the pinned one is refused, and run records and adapters say what",
        "was loaded. Real weights could not be fetched where this was written: loading is tested on tiny checkpoints with the real names",
        "of files, tensors and fields. *Notes* say where medbench differs from what a model's authors ran, or what is not known yet.",
        "`make lock-models` writes the hub's present commit into entries without one; it was tested against recorded replies only.",
    ]
    for name, entry in config.models.items():
        if entry.checkpoint is not None and entry.has_file:
            rows = [f"| {key} | {value} |" for key, value in _facts(entry) if key != "note"]
            parts += [
                f"\n## {name}\n",
                "| | |",
                "|---|---|",
                *rows,
                *(["", *(f"- {note}" for note in entry.about.notes)] if entry.about.notes else []),
            ]
    return "\n".join(parts) + "\n"


def _facts(entry: Model) -> list[tuple[str, str]]:
    about = entry.about
    size, memory = _sizes(entry)
    found = {
        "what": about.label,
        "family": f"{entry.family}, {entry.role}",
        "pretrained on": ", ".join(entry.pretrained_on),
        "encoder": about.encoder,
        "backbone": about.backbone,
        "training data": about.training_data,
        "parameters": f"{size}, {memory} of a GPU" if size != NONE else None,
        "licence": about.licence,
        "gated": "yes: accept its licence on its page, then `hf auth login`" if about.gated else None,
        "checkpoint": entry.checkpoint or ("pretrained by the workflow" if entry.pretrain else None),
        "revision": entry.revision or (f"not pinned: {about.unpinned}" if about.unpinned else None),
    }
    rows = [(key, value) for key, value in found.items() if value]
    rows += [("companion", f"{repository} at {revision or 'no commit'}") for repository, revision in entry.companions.items()]
    rows += [("SHA-256", f"{digest} {file}") for file, digest in entry.checksums.items()]
    return rows + [("note", note) for note in about.notes]


def _sizes(entry: Model) -> tuple[str, str]:
    """Parameters, and what they take on a GPU in bfloat16 with a quarter more for activations; a rough guide."""
    count = entry.about.parameters
    if count is None:
        return NONE, NONE
    return f"{count / 1e6:,.0f} M", f"{1.25 * 2 * count / 2**30:.1f} GiB"
