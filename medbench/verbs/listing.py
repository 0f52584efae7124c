"""What the registries hold, for people: data sets and models as tables, one data set as a page of text with a contact sheet."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from medbench import paths
from medbench.config import Addresses, Config, Dataset, Hub, Manual, Model, expand_raw_dir, is_fetched, needs
from medbench.errors import MedbenchError, choose
from medbench.models.checkpoint import is_pinned

NONE = "-"


class Table(NamedTuple):
    """Rows of text under a header."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        """For a generated document."""
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
        row = (name, about.label or name, entry.task, _access(entry), _pin(entry), about.licence or NONE, _counts(entry))
        rows.append((*row, _state(entry, name)) if state else row)
    return Table((*header, "on this disk") if state else header, rows)


def _access(entry: Dataset) -> str:
    return entry.about.access or ("open" if entry.source else "own")


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
        if not entry.raw_dir:
            return "no source"
        try:
            expand_raw_dir(entry.raw_dir, name)
        except MedbenchError:
            return f"not here (raw_dir is {entry.raw_dir})"
        return "in raw_dir"
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
        raise MedbenchError(f"data set {name}", "is in no registry", choose(name, config.datasets))
    entry = config.datasets[name]
    text = yaml.safe_dump({name: entry.model_dump(mode="json", exclude_defaults=True)}, sort_keys=False, allow_unicode=True, width=120)
    parts = [text.rstrip(), f"on this disk: {_state(entry, name)}"]
    if paths.card(name).exists():
        try:
            card = json.loads(paths.card(name).read_text(encoding="utf-8"))
            del card["files"]
        except (ValueError, KeyError, TypeError):
            raise MedbenchError(paths.card(name), "is no data card", "delete it and run `prepare` again") from None
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


def models(config: Config, state: bool = True) -> Table:
    """Every model of the registry: role, family, pretraining, licence, whether gated, size. `state`: those too that the workflow makes."""
    header = ("model", "what", "family", "role", "pretrained on", "licence", "gated", "revision", "parameters", "GPU memory")
    rows = []
    for name, entry in config.models.items():
        if entry.checkpoint is None and not (state and entry.pretrain):
            continue
        about = entry.about
        gated = "yes" if about.gated else "no"
        pinned = entry.checkpoint is not None and is_pinned(entry.checkpoint, entry.revision, entry.checksums)
        revision = "made here" if entry.pretrain else "not pinned" if entry.has_file and entry.endpoint is None else NONE
        revision = (entry.revision or "checksum")[:12] if pinned else revision
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
        raise MedbenchError(f"model {name}", "is in no registry", choose(name, config.models))
    return "\n".join(f"{key.ljust(13)}  {value}" for key, value in [("model", name), *_facts(config.models[name])])


MODELS = """\
# The models of the registry

This page is generated from `config/models.yaml` by `python -m medbench docs`. `python -m medbench models` prints the table below, and
`python -m medbench models NAME` prints one model. How to add a model: [own-data.md](own-data.md#a-model).

A *pin* keeps the weights the same: a commit of the hub (`revision`) or SHA-256 digests of files (`checksums`). Weights other than the
pinned ones are refused. Run records and adapters name what was loaded, and an adapter is only loaded into the weights that it was trained
on. The start of a run lists the models that are not pinned. `make lock-models` writes the hub's present commit into entries without one;
it was tested against recorded replies only.

*Gated* weights need an account: accept the licence on the model's page, then run `hf auth login`. *GPU memory* is a rough guide: the
weights in bfloat16, or quantised where the entry says `bits`, and a quarter more. Models of the families `openai` and `gemini`, and
those whose name ends in `-vllm`, answer over the network: [remote.md](remote.md).

Loading was tested on tiny checkpoints that have the real names of files, tensors and fields; no real weights were loaded when this was
written: `python -m medbench doctor NAME` is their first contact ([doctor.md](doctor.md)). The notes below a model say where medbench
differs from what its authors ran, or what is not known.
"""

DATASETS = """\
# The data sets of the registry

This page is generated from `config/datasets.yaml` by `python -m medbench docs`. `python -m medbench datasets` prints the table below and
what lies on this disk; `python -m medbench datasets show NAME` prints one entry, with its card and a contact sheet once it is prepared.
The phantoms of the demo are described in [demo.md](demo.md). How to add a data set: [own-data.md](own-data.md#a-data-set).

- **Open** data sets are fetched when a run needs them. They are stored in `raw/`, or below the folder that the variable `MEDBENCH_DATA`
  names; deleting `results/` keeps them. An interrupted download continues where it stopped.
- **Manual** data sets need an application. The start of a run, dry or not, says where to apply and which files to put where.
- `raw_dir` in an entry names a folder that you already have, and takes precedence over fetching.
- With `HF_HUB_OFFLINE=1` a data set is taken from its folder or from the hub's own cache, where it lies whole.
- *Pinned by* says what keeps the files the same: `checksum` (every file is verified), `address` (a file is identified by its address; a
  checksum of secondary origin only warns), a commit of the hub, or `first fetch` (the newest commit at the first fetch, which the
  folder records and every later fetch uses).
- The rows of each split must equal the published counts (last column); `allow_counts: true` in the entry permits others.
- Data sets without a source (`-`) are read from the folder that their `raw_dir` names by a variable, for instance `MEDBENCH_REAL_DATA`.
"""


def models_page(config: Config) -> str:
    """docs/models.md: every model with a checkpoint, its parts, its pins, and where it differs from what its authors ran."""
    sections = [_section(name, _facts(entry)) for name, entry in config.models.items() if entry.checkpoint is not None and entry.has_file]
    return "\n".join([MODELS, models(config, state=False).markdown(), *sections]) + "\n"


def datasets_page(config: Config) -> str:
    """docs/datasets.md: every data set that is not generated: what it asks, where it comes from, what pins it."""
    sections = [_section(name, _dataset_facts(entry)) for name, entry in config.datasets.items() if entry.about.access != "generated"]
    return "\n".join([DATASETS, datasets(config, state=False).markdown(), *sections]) + "\n"


def _section(name: str, facts: list[tuple[str, str]]) -> str:
    """A heading, a table of facts, and the notes among them as a list."""
    lines = [f"\n## {name}\n", "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts if key != "note")]
    notes = [f"- {value}" for key, value in facts if key == "note"]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _dataset_facts(entry: Dataset) -> list[tuple[str, str]]:
    about, source = entry.about, entry.source
    found = {
        "what": about.label,
        "task": entry.task,
        "modality, specialty": f"{entry.modality}, {entry.specialty}",
        "classes": ", ".join(entry.classes),
        "prompt sets": ", ".join(entry.prompts),
        "layout": entry.layout,
        "rows (train / val / test)": _counts(entry) if entry.expected else None,
        "sample": _sizes_drawn(entry),
        "access": _access(entry),
        "files": _origin(entry),
        "apply": source.apply if isinstance(source, Manual) else None,
        "licence": about.licence,
        "citation": about.citation,
        "note": about.note,
    }
    return [(key, value) for key, value in found.items() if value]


def _origin(entry: Dataset) -> str:
    """Where the files come from."""
    if isinstance(entry.source, Hub):
        return f"{entry.source.repo} on the hub"
    if isinstance(entry.source, Addresses):
        return ", ".join(file.name for file in entry.source.files)
    return entry.source.place if entry.source else f"`raw_dir: {entry.raw_dir}`"


def _sizes_drawn(entry: Dataset) -> str | None:
    if entry.sample is None:
        return None
    drawn = {split: size for split, size in entry.sample.model_dump().items() if size}
    return "a seeded draw of whole groups: " + ", ".join(f"{size:,} {split}" for split, size in drawn.items())


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
        "parameters": f"{size}, {memory} of a GPU" if memory != NONE else size if size != NONE else None,
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
    """Parameters, and what a model that runs here takes on its GPUs, as `needs.gpu_mb` has it; a rough guide."""
    count, memory = entry.about.parameters, needs.gpu_mb(entry, adapts=False)
    return NONE if count is None else f"{count / 1e6:,.0f} M", NONE if memory is None else f"{memory * 1e6 / 2**30:.1f} GiB"
