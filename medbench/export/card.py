"""The model card of an exported cell, in the hub's format: what it was trained on and how, what it reached, and what it is not for."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from huggingface_hub import EvalResult, ModelCardData

import medbench
from medbench import cells, paths, tasks
from medbench.cells import Cell
from medbench.config import Config, Hub, Probe, recipe
from medbench.jobs import integrity
from medbench.metrics.measure import LEAK_FREE
from medbench.report import cautions, results
from medbench.report import params as reported
from medbench.report.words import counted, interval, number

TRACKED = False  # what is said of a result is no part of it
LICENCES = {
    "MIT": "mit", "Apache-2.0": "apache-2.0", "CC-BY-NC-SA-4.0": "cc-by-nc-sa-4.0", "Gemma terms of use": "gemma",
    "Llama 2 community": "llama2",
}  # fmt: skip
"""Of a base -> the hub's identifier; any other is `other`, with its own words beside it."""
OF_SOLVER = {
    "regularised": ("c_values", "n_splits", "max_iter"),
    "published": ("learning_rate", "weight_decay", "epochs", "batch_size"),
}
"""Fields of a probe that only one of its solvers reads."""
PROBES = ("probe", "published_probe", "few_shot")
"""Methods of a certificate."""
METRICS = {"auroc": "roc_auc", "closed_accuracy": "accuracy"}
"""Ours -> the hub's name, where it has another one."""


def text(config: Config, cell: Cell, merged: bool, files: Mapping[str, str]) -> str:
    """The whole README.md. `files`: name of each exported file -> its SHA-256."""
    material = _material(config, cell)
    own = material.metrics.filter(
        pl.col("model") == cell.model, pl.col("mode") == cell.mode, ~pl.col("scoring").str.starts_with("prompts-")
    )
    front = _front(config, cell, merged, _primary(config, cell, own)).to_yaml()
    parts = [
        f"# {_title(config, cell)}",
        f"Made with medbench {medbench.__version__} from the cell `{cell}`. **Research use only: this is not a medical device, "
        "no authority has cleared it, and it must not decide about patients.**",
        *_use(config, cell, merged),
        *_data(config, cell, material),
        *_recipe(config, cell, material.certificates[cell]),
        *_certificate(material.certificates[cell]),
        *_metrics(config, cell, own),
        *_limits(config, cell, material),
        *_licences(config, cell),
        "## Files",
        _table(("file", "SHA-256"), files.items()),
        f"Made with: {', '.join(f'{name} {version}' for name, version in _versions(cell).items())}.",
    ]
    return f"---\n{front}\n---\n\n" + "\n\n".join(parts) + "\n"


def _material(config: Config, cell: Cell) -> results.Material:
    """Of the cell and of those baselines of its data set that are there."""
    run = config.run.model_copy(update={"datasets": (cell.dataset,), "models": (cell.model,), "modes": (cell.mode,)})
    params, task = reported.collect(config._replace(run=run)), config.datasets[cell.dataset].task
    return results.of_cells(params._replace(cells=tuple(one for one in params.cells if one == cell or tasks.is_finished(task, *one))))


def _title(config: Config, cell: Cell) -> str:
    model, dataset, mode = config.models[cell.model], config.datasets[cell.dataset], config.modes[cell.mode]
    return f"{model.about.label or cell.model}, {mode.about.label or cell.mode} on {dataset.about.label or cell.dataset}"


def _front(config: Config, cell: Cell, merged: bool, primary: list[dict[str, Any]]) -> ModelCardData:
    model, dataset = config.models[cell.model], config.datasets[cell.dataset]
    is_probe, asks = isinstance(config.modes[cell.mode], Probe), model.kind == "generative"
    licence = LICENCES.get(model.about.licence or "", "other")
    base = model.checkpoint if model.checkpoint and _is_hub_id(model.checkpoint) else None
    relation = "finetune" if is_probe or merged else "adapter"
    source = dataset.source.repo if isinstance(dataset.source, Hub) else None
    return ModelCardData(
        base_model=base,
        base_model_relation=relation if base else None,
        library_name="transformers" if merged else "medbench" if is_probe else "peft",
        license=licence,
        license_name=(model.about.licence or "not stated") if licence == "other" else None,
        datasets=[source] if source else None,
        metrics=list(dict.fromkeys(METRICS.get(row["metric"], row["metric"]) for row in primary)) or None,
        pipeline_tag="image-text-to-text" if asks else "image-classification",
        tags=["medbench", "medical", "research-use-only", "linear-probe" if is_probe else "lora", dataset.modality, dataset.specialty],
        model_name=_title(config, cell),
        eval_results=[
            EvalResult(
                task_type="visual-question-answering" if asks else "image-classification",
                dataset_type=source or cell.dataset,
                dataset_name=dataset.about.label or cell.dataset,
                dataset_split="test",
                metric_type=METRICS.get(row["metric"], row["metric"]),
                metric_name=f"{row['metric']} ({row['subset']}, {row['scoring']})",
                metric_value=row["estimate"],
            )
            for row in primary
        ]
        or None,
    )


def _is_hub_id(checkpoint: str) -> bool:
    return checkpoint.count("/") == 1 and not checkpoint.startswith((".", "/", "~", "$")) and not Path(checkpoint).is_dir()


def _primary(config: Config, cell: Cell, own: pl.DataFrame) -> list[dict[str, Any]]:
    measure = tasks.get(config.datasets[cell.dataset].task).primary._asdict()
    return own.filter(*(pl.col(name) == value for name, value in measure.items()), method="percentile").drop_nulls("estimate").to_dicts()


def _use(config: Config, cell: Cell, merged: bool) -> Iterable[str]:
    model = config.models[cell.model]
    yield "## Use"
    if model.kind == "generative":
        yield f"```\npython example.py IMAGE {'QUESTION' if merged else 'QUESTION [FOLDER OF THE BASE]'}\n```"
        yield (
            "`example.py` words a question as the model was trained and tested with it; other words may give other answers. "
            "Images are 8-bit RGB."
        )
        if merged:
            yield (
                "Served (the path of the folder may hold no `@`; send temperature 0, and the question in the words of `example.py`):\n\n"
                "```\nHF_HUB_OFFLINE=1 HF_HUB_DISABLE_UPDATE_CHECK=1 transformers serve FOLDER\n```"
            )
            yield (
                "medbench ends an answer that goes in circles; transformers goes on until the token budget. Merging rounds: "
                "in half precision a few answers may differ from those that were scored."
            )
    else:
        yield f"```\npython example.py IMAGE ...{'' if merged else ' [--base FOLDER]'}\n```"
        yield "It prints the score of each class. Images are 8-bit RGB; of DICOM and 16 bits, what medbench's `prepare` makes of them."


def _data(config: Config, cell: Cell, material: results.Material) -> Iterable[str]:
    dataset, certificate = config.datasets[cell.dataset], material.certificates[cell]
    yield "## Data"
    tested = []
    if cell.dataset in material.leak_free:
        test, alone = material.leak_free[cell.dataset]
        tested = [("tested on", f"{counted(test, 'sample')}, of which {test - alone:,} share an image with train or validation")]
    rows = [
        ("data set", dataset.about.label or cell.dataset), ("modality, specialty", f"{dataset.modality}, {dataset.specialty}"),
        ("classes", ", ".join(dataset.classes)), *_learned(certificate), *tested,
        ("citation", dataset.about.citation or ""), ("note", dataset.about.note or ""),
    ]  # fmt: skip
    yield _table(("", ""), [row for row in rows if row[1]])


def _learned(certificate: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How many samples it was trained on, and what chose. Probes are fitted on train and validation together."""
    selection, n_train, n_val = certificate["selection"], certificate["n_train"], certificate["n_val"]
    if certificate["method"] not in PROBES:
        return [("trained on", counted(n_train, "sample")), ("chosen on", counted(n_val, "sample"))]
    both = f"{counted(n_train + n_val, 'sample')}: train and validation"
    if "draws" in selection:
        n_draws = counted(len(selection["draws"]), "time")
        return [("trained on", f"at most {counted(selection['labels'], 'label')} a class, drawn {n_draws} from {both}")]
    return [("trained on", both), *([("chosen on", f"{selection['folds']} folds of them")] if "folds" in selection else [])]


def _recipe(config: Config, cell: Cell, certificate: Mapping[str, Any]) -> Iterable[str]:
    chosen = recipe(config, cell.model, cell.mode)
    unused = OF_SOLVER["published" if chosen.solver == "regularised" else "regularised"] if isinstance(chosen, Probe) else ()
    fields = chosen.model_dump(mode="json", exclude={"about", "kind", *unused})
    if isinstance(chosen, Probe) and chosen.labels is None:
        fields = {name: value for name, value in fields.items() if name not in ("labels", "draws")}
    selection = certificate["selection"]
    found = [f"{name} {value}" for name, value in selection.items() if isinstance(value, int | float) and name in ("C", "epoch")]
    yield "## Recipe"
    rows = [(name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)) for name, value in fields.items()]
    rows += [("seed", str(config.run.seed)), *((("chosen", f"{', '.join(found)} by {selection.get('by')}"),) if found else ())]
    yield _table(("field", "value"), rows)


def _certificate(certificate: Mapping[str, Any]) -> Iterable[str]:
    yield "## Certificate"
    adapters = f", {certificate['adapters']} of them adapters" if certificate["adapters"] else ""
    frozen = "; what was frozen stayed" if certificate["frozen_before"] else ""
    yield (
        f"The adaptation passed every clause of its certificate (`certificate.json`): {certificate['n_with_gradient']} of "
        f"{counted(certificate['n_trainable'], 'trained tensor')} received a gradient and moved{adapters}; the training loss fell from "
        f"{certificate['loss_start']:.4g} to {certificate['loss_end']:.4g}{frozen}; the saved files predict as the trained model did "
        f"(difference {certificate['reload_difference']:.3g}); no test sample was used."
    )
    yield "It was trained on, and is only right with, these weights:\n\n" + "\n".join(
        f"- {name}: `{digest}`" for name, digest in certificate["weights"].items()
    )


def _metrics(config: Config, cell: Cell, own: pl.DataFrame) -> Iterable[str]:
    """The deciding one first; those of the other scoring, and of leak-free subsets but for the deciding one, are left to the report."""
    main = tasks.get(config.datasets[cell.dataset].task).primary
    rows = own.filter(pl.col("method") == "percentile", pl.col("scoring") == main.scoring).to_dicts()
    firsts = [main, main.leak_free]
    rank = {(measure.metric, measure.subset): place for place, measure in enumerate(firsts)}
    chosen = [row for row in rows if (row["metric"], row["subset"]) in rank or not row["subset"].startswith(LEAK_FREE)]
    chosen.sort(key=lambda row: rank.get((row["metric"], row["subset"]), len(firsts)))
    shown = [
        (
            row["metric"], row["subset"], number(row["estimate"]) if row["estimate"] is not None else row["reason"] or "",
            interval(row["low"], row["high"]), f"{row['n']:,}", f"{row['n_groups']:,}",
        )
        for row in chosen
    ]  # fmt: skip
    yield "## Metrics on the test split"
    yield _table(("metric", "subset", "value", "interval", "samples", "groups"), shown)
    level, unit = (rows[0]["level"], rows[0]["unit"]) if rows else (0.95, "group")
    yield f"Scoring: {main.scoring}. Intervals of {level:.0%}, by the bootstrap over the data set's {unit}s (percentile)."


def _limits(config: Config, cell: Cell, material: results.Material) -> Iterable[str]:
    model, dataset = config.models[cell.model], config.datasets[cell.dataset]
    knows = "among what" if cells.is_in_domain(config, cell.model, cell.dataset) else "not among what"
    yield "## Limits"
    lines = [
        "Research use only. It was tested on one data set, by this run alone; nothing is known of other hospitals, devices or patients.",
        f"{dataset.modality.capitalize()} is {knows} the base is listed as pretrained on ({', '.join(model.pretrained_on) or 'nothing'}).",
        "Whether the base saw the test images in its pretraining is not known.",
    ]
    if model.kind == "generative":
        lines.append("Its answers are texts without a probability; it answers questions about images that show nothing of the kind, too.")
    else:
        lines.append("Its scores are uncalibrated: no probability of disease, and no threshold was chosen for use.")
    lines += list(model.about.notes)
    lines += [f"{one.title}: {'; '.join(one.places)}. {one.meaning}" for one in cautions.collect(material)]
    yield "\n".join(f"- {line}" for line in lines)


def _licences(config: Config, cell: Cell) -> Iterable[str]:
    model, dataset = config.models[cell.model], config.datasets[cell.dataset]
    yield "## Licences"
    base = model.checkpoint or "pretrained by medbench on drawn pictures"
    yield _table(
        ("of", "licence"),
        [
            (f"the base ({base}{', gated' if model.about.gated else ''})", model.about.licence or "not stated in the registry"),
            ("the training data", dataset.about.licence or "not stated in the registry: yours to know"),
        ],
    )
    yield "What is derived from both is bound by both; some data sets do not allow that weights trained on them are passed on."


def _versions(cell: Cell) -> dict[str, str]:
    record = integrity.read(paths.run_record(paths.adapter_files(*cell)[0])) or {}
    used = record.get("libraries", [])
    found = {name: version for name, version in record.get("versions", {}).items() if name in used or name == "python"}
    return {"medbench": medbench.__version__, **found}


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(one) for one in line)} |" for line in lines)


def _cell(value: str) -> str:
    return " ".join(value.replace("|", "\\|").split())
