"""A run as its stages would leave it, made up with numpy: 4 diagnosis sets x 4 models x ots, lp, lora, raw pixels, and a set of questions.

Values are invented and only plausible; the tables go through the same schemas as real ones.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from medbench import paths, tables
from medbench.adapt import certificate
from medbench.cells import Cell
from medbench.jobs import integrity
from medbench.metrics.judging import SCORINGS
from medbench.metrics.measure import Measure
from medbench.report.params import DatasetFacts, ModeFacts, ModelFacts, Params
from medbench.stages import gaps
from medbench.tasks.diagnosis import SamplesDiagnosis
from medbench.tasks.vqa import PredictionsVqa, SamplesVqa, ScoresVqa

RUN = "trial"
MODES = {"ots": ModeFacts("off the shelf", "zero-shot"), "lp": ModeFacts("linear probe", "probe"), "lora": ModeFacts("LoRA", "lora")}
DIAGNOSIS = {
    "radio": ("Chest X-ray phantom", "x-ray", "radiology", ("normal", "nodule")),
    "patho": ("Histology phantom", "histopathology", "pathology", ("benign", "tumor")),
    "derma": ("Dermoscopy phantom", "dermoscopy", "dermatology", ("naevus", "melanoma")),
    "fundus": ("Fundus phantom", "fundus", "ophthalmology", ("healthy", "retinopathy", "glaucoma")),
}
TWINS = {"radio": 4, "patho": 10}  # data set -> test samples that stand in train too
IN_DOMAIN = {"clip": (), "medclip": ("radio", "patho"), "siglip": (), "medsiglip": ("radio", "patho"), "llava": (), "llavamed": ("vqa",)}


def params(**labels: str) -> Params:
    """Parameters of the run; `labels` replaces the label of a model or data set."""
    models = {
        name: ModelFacts(labels.get(name, f"Mini {name}"), family, role, "pretrained by this workflow", None, "generated", IN_DOMAIN[name])
        for name, family, role in (
            ("clip", "clip", "generalist"),
            ("medclip", "clip", "specialist"),
            ("siglip", "siglip", "generalist"),
            ("medsiglip", "siglip", "specialist"),
            ("llava", "llava", "generalist"),
            ("llavamed", "llava", "specialist"),
        )
    }
    for name, label in (("raw-pixels", "Raw pixels (16x16)"), ("constant-answer", "Constant answer"), ("question-only", "Question only")):
        models[name] = ModelFacts(label, "baseline", "baseline", "none", None, None, ())
    datasets = {
        name: DatasetFacts(labels.get(name, label), "diagnosis", modality, specialty, classes, "generated", None)
        for name, (label, modality, specialty, classes) in DIAGNOSIS.items()
    }
    datasets["vqa"] = DatasetFacts(
        labels.get("vqa", "Chest questions"), "vqa", "x-ray", "radiology", (), None, "Half of the questions are closed."
    )
    cells = [Cell(dataset, model, mode) for dataset in DIAGNOSIS for model in ("clip", "medclip", "siglip", "medsiglip") for mode in MODES]
    cells += [Cell(dataset, "raw-pixels", "lp") for dataset in DIAGNOSIS]
    cells += [Cell("vqa", model, mode) for model in ("llava", "llavamed") for mode in ("ots", "lora")]
    cells += [Cell("vqa", "constant-answer", "lp"), Cell("vqa", "question-only", "lp")]
    statistics: dict[str, Any] = {
        "n_resamples": 1000,
        "n_test_resamples": 10_000,
        "level": 0.95,
        "bca": False,
        "margin": 0.02,
        "margins": {},
        "min_groups": 30,
    }
    return Params(tuple(cells), models, datasets, dict(MODES), statistics, 0, "0123456789abcdef")


def build(chosen: Params, missing: tuple[Cell, ...] = ()) -> None:
    """Write all that a report reads, under the working directory; cells in `missing` are left out."""
    rng = np.random.default_rng(7)
    for name, facts in chosen.datasets.items():
        _data(name, facts, rng)
    values = {cell: _value(chosen, cell, rng) for cell in chosen.cells}
    for cell in chosen.cells:
        if cell not in missing:
            _cell(chosen, cell, values[cell])
    _gaps(chosen, values)
    rows = [
        ("exact-pixels", "radio", "test", "radio", "train", 4, 120, ["p1-0", "p2-0"]),
        ("group", "vqa", "test", "vqa", "train", 9, 40, ["q1"]),
    ]
    for path in (paths.controls(RUN), *paths.lettered(RUN)):
        tables.write(gaps.SCHEMAS[path.stem], tables.empty(gaps.SCHEMAS[path.stem]), path)
    overlap = pl.DataFrame(rows, schema=tables.columns(tables.Overlap), orient="row")
    tables.write(tables.Overlap, overlap, paths.overlap(RUN))


def judge(chosen: Params) -> None:
    """Let the open answers of a run that is built be judged: calibrations, scores, and gaps in them without a verdict."""
    bars = dict.fromkeys(("auroc", "sensitivity", "specificity"), 0.97)
    report = {**bars, "false_accepts": {}, "wordiness": -1.0, "faults": []}
    for name in chosen.judges:
        paths.calibration(name).parent.mkdir(parents=True, exist_ok=True)
        paths.calibration(name).write_text(json.dumps({"scorings": dict.fromkeys(SCORINGS, report), "answered_by": [f"{name}-1"]}))
    measures = [("judge_score", scoring, subset) for scoring in SCORINGS for subset in ("all", "open")]
    values = {}
    for place, cell in enumerate(cell for cell in chosen.cells if chosen.datasets[cell.dataset].task == "vqa"):
        values[cell] = 0.62 + 0.03 * place
        rows = [interval_row(measure, method, values[cell]) for measure in measures for method in ("percentile", "logit")]
        own = tables.read(tables.Intervals, paths.intervals(*cell))
        more = pl.DataFrame(rows, schema=own.schema)
        tables.write(tables.Intervals, pl.concat([own, more]), paths.intervals(*cell))
        _record(paths.intervals(*cell))
    for path in paths.gaps(RUN)[:4]:
        own = tables.read(tables.Gaps, path)
        rows = own.filter(pl.col("metric") == "closed_accuracy").with_columns(
            gap=pl.col("gap") / 2, low=pl.col("gap") / 2 - 0.04, high=pl.col("gap") / 2 + 0.04, metric=pl.lit("judge_score"),
            verdict=pl.lit(None, own.schema["verdict"]), p_holm=pl.lit(None, pl.Float64), p_equivalent=pl.lit(None, pl.Float64),
        )  # fmt: skip
        scored = [rows.with_columns(scoring=pl.lit(scoring), subset=pl.lit(subset)) for _, scoring, subset in measures]
        tables.write(tables.Gaps, pl.concat([own, *(frame.cast(own.schema) for frame in scored)]), path)


def fail(cell: Cell, stage: str, *lines: str) -> None:
    """Leave the log of a stage that failed for a cell."""
    log = paths.log(stage, *cell)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")


def interval_row(
    measure: tuple[str, str, str], method: str, estimate: float | None, half: float = 0.06, reason: str | None = None
) -> dict[str, Any]:
    """One row of table `intervals`."""
    known = estimate is not None
    return {
        "metric": measure[0],
        "scoring": measure[1],
        "subset": measure[2],
        "method": method,
        "unit": "group",
        "level": 0.95,
        "estimate": estimate,
        "sd": half / 2 if known else None,
        "low": max(estimate - half, 0.0) if known else None,
        "high": min(estimate + half, 1.0) if known else None,
        "n": 240,
        "n_groups": 120,
        "effective_groups": 96.5,
        "n_resamples": 1000,
        "n_undefined": 0,
        "few_groups": False,
        "reason": reason,
        "sample_digest": "ab12",
        "replicates": [estimate, estimate] if known and method == "percentile" else None,
    }


def _value(chosen: Params, cell: Cell, rng: np.random.Generator) -> float:
    model = chosen.models[cell.model]
    if model.role == "baseline":
        return {"fundus": 0.96, "vqa": 0.55}.get(cell.dataset, 0.52) + (0.02 if cell.model == "question-only" else 0.0)
    if cell.dataset == "derma":
        return float(0.5 + rng.uniform(-0.03, 0.03))
    base = {"ots": 0.86 if cell.dataset in model.in_domain else 0.54, "lp": 0.84, "lora": 0.88}[cell.mode]
    return float(np.clip(base + rng.normal(0, 0.03), 0, 1))


def _cell(chosen: Params, cell: Cell, value: float) -> None:
    vqa = chosen.datasets[cell.dataset].task == "vqa"
    primary = ("closed_accuracy", "strict", "closed") if vqa else ("auroc", "standard", "all")
    second = ("token_recall", "strict", "open") if vqa else ("accuracy", "standard", "all")
    rows = [interval_row(primary, method, value) for method in ("percentile", "logit")]
    rows += [interval_row(second, method, value * 0.9) for method in ("percentile", "logit")]
    if (cell.model, cell.mode) == ("llava", "ots"):
        rows.append(interval_row(("closed_accuracy_parsed", "strict", "closed"), "logit", 0.9))
    leak_free = Measure(*primary).leak_free
    if cell.dataset == "patho":
        rows += [interval_row(leak_free, method, None, reason="21 leak-free samples, fewer than 30") for method in ("percentile", "logit")]
    else:
        rows += [interval_row(leak_free, method, value - 0.01 * (cell.dataset in TWINS)) for method in ("percentile", "logit")]
    frame = pl.DataFrame(rows, schema=tables.columns(tables.Intervals))
    if cell.dataset == "fundus":
        frame = frame.with_columns(n_groups=pl.lit(18, pl.Int32), effective_groups=pl.lit(12.34), few_groups=pl.lit(True))
    tables.write(tables.Intervals, frame, paths.intervals(*cell))
    for path in (paths.predictions(*cell), paths.scores(*cell)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if vqa:
        _answers(cell)
    versions = {"numpy": "2.3.0", "transformers": "5.17.0" if cell.model == "siglip" else "5.23.0"}
    record = {"stage": "predict", "seconds": 1.25, "host": "somewhere", "device": "cpu", "peak_rss_mb": 300, "versions": versions}
    record["libraries"] = ["numpy"]
    _record(paths.predictions(*cell), **record)
    _record(paths.scores(*cell))
    _record(paths.intervals(*cell))
    if cell.mode != "ots" and cell.model not in ("constant-answer", "question-only"):
        path = paths.adapter(*cell) / "certificate.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        certificate.write(certificate.certify(evidence(cell)), path, {"checkpoint": "sha256 ab12"}, {})
        _record(path)


def _record(output: Path, **facts: Any) -> None:
    paths.run_record(output).write_text(json.dumps({**facts, "outputs": integrity.of_outputs([output])}))


def _answers(cell: Cell) -> None:
    """Twenty answers; of Mini llava off the shelf 4 of 10 closed ones hold no choice and 3 go on for ever."""
    poor = (cell.model, cell.mode) == ("llava", "ots")
    given, marks = [], []
    for number in range(20):
        keys = {"sample_id": f"p{number}", "group_id": f"g{number // 2}", "answer_type": "closed" if number % 2 == 0 else "open"}
        lost, repeats = poor and number in (0, 2, 4, 6), poor and number in (1, 3, 5)
        answer = {"answer": "lung", "finish_reason": "repetition" if repeats else "stop", "n_tokens": 1}
        given.append({**keys, "is_yes_no": number % 2 == 0, "question": "Is it?", "reference": "yes", **answer})
        scores = dict.fromkeys(list(tables.columns(ScoresVqa))[5:], 0.5)
        state = ("refused" if number == 0 else "unparsed") if lost else "parsed"
        marks.append({**keys, "state": state if number % 2 == 0 else None, "closed_accuracy_strict": None, **scores})
    tables.write(PredictionsVqa, pl.DataFrame(given, schema=tables.columns(PredictionsVqa)), paths.predictions(*cell))
    tables.write(ScoresVqa, pl.DataFrame(marks, schema=tables.columns(ScoresVqa)), paths.scores(*cell))


def evidence(cell: Cell) -> certificate.Evidence:
    """What the adaptation of a cell would have measured."""
    tensors = [certificate.Tensor(name, size, True, 0.4, "absolute") for name, size in (("weight", 1024), ("bias", 2))]
    return certificate.Evidence(
        cell=str(cell),
        method=cell.mode,
        n_train=160,
        n_val=40,
        tensors=tensors,
        adapters=None,
        loss_start=0.69,
        loss_end=0.21,
        converged=True,
        frozen_before="ab",
        frozen_after="ab",
        missing_from_file=[],
        repeat_difference=0.0,
        reload_difference=0.0,
        reload_tolerance=0.0,
        test_samples_used=[],
        selection={"C": 0.1, "candidates": [{"C": 0.1}, {"C": 1.0}]},
    )


def _data(name: str, facts: DatasetFacts, rng: np.random.Generator) -> None:
    rows: list[dict[str, Any]] = []
    images = []
    for number in range(24):
        side = (64, 96)[number % 2]
        pixels = np.clip(rng.normal(90 + 60 * (number % 3), 25, (64, side, 3)), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        images.append({"image_id": f"{name}-{number}", "image": buffer.getvalue(), "evaluated": True})
        row: dict[str, Any] = {"sample_id": f"p{number}", "group_id": f"g{number // 2}", "image_id": f"{name}-{number}"}
        if facts.task == "vqa":
            closed = number % 2 == 0
            question, answer = ("Is there a nodule in the left lung?", "yes") if closed else ("Which side is larger?", "left lung")
            row |= {"question": question, "answer": answer, "answer_type": "closed" if closed else "open", "is_yes_no": closed}
        else:
            row |= {"label": number % len(facts.classes)}
        rows.append(row)
    schema = SamplesVqa if facts.task == "vqa" else SamplesDiagnosis
    types = tables.columns(schema)
    tables.write(schema, pl.DataFrame([{key: row.get(key) for key in types} for row in rows], schema=types), paths.samples(name, "test"))
    duplicates = [("test", f"p{number}", "train", "exact-image", "t0") for number in range(TWINS.get(name, 0))]
    tables.write(
        tables.Duplicates, pl.DataFrame(duplicates, schema=tables.columns(tables.Duplicates), orient="row"), paths.duplicates(name)
    )
    types = tables.columns(tables.Images)
    filled = [{key: image.get(key, 0 if key == "perceptual_hash" else "0" * 8) for key in types} for image in images]
    tables.write(tables.Images, pl.DataFrame(filled, schema=types), paths.images(name))
    drops = (
        {"broken-image": {"rows": 2, "splits": {"train": 2}, "examples": ["labels.csv row 17: does not decode"]}} if name == "patho" else {}
    )
    converted = {"format DICOM": {"images": 1, "examples": []}, "format DICOM, palette": {"images": 2, "examples": []}}
    scale = {"integers": {"bits": 12, "largest": 3071, "images_by_bits": {"9": 1, "12": 8}}, "floats": {"black": -1.5, "white": 2.0}}
    seen = {"distinct": 9, "converted": converted, "scale": scale} if name == "patho" else {"distinct": 9, "converted": {}}
    paths.card(name).write_text(json.dumps({"dataset": name, "drops": drops, "images": seen}))


def _gaps(chosen: Params, values: dict[Cell, float]) -> None:
    rows: dict[str, list[dict[str, Any]]] = {"rq1": [], "rq2": [], "rq3": [], "rq4": []}
    for general, special in (("clip", "medclip"), ("siglip", "medsiglip"), ("llava", "llavamed")):
        for dataset, facts in chosen.datasets.items():
            if (facts.task == "vqa") != (general == "llava"):
                continue
            modes = ("lora",) if facts.task == "vqa" else ("lp", "lora")
            if dataset in chosen.models[special].in_domain:
                rows["rq1"].append(_gap(chosen, "rq1", "ots", Cell(dataset, general, "ots"), Cell(dataset, special, "ots"), values))
                rows["rq2"] += [
                    _gap(chosen, "rq2", mode, Cell(dataset, general, mode), Cell(dataset, special, "ots"), values) for mode in modes
                ]
                rows["rq4"] += [
                    _gap(chosen, "rq4", mode, Cell(dataset, general, mode), Cell(dataset, special, mode), values) for mode in modes
                ]
            else:
                rows["rq3"] += [
                    _gap(chosen, "rq3", mode, Cell(dataset, general, mode), Cell(dataset, special, mode), values) for mode in modes
                ]
    rows["confirmatory"] = [row for name in ("rq1", "rq2", "rq3", "rq4") for row in rows.get(name, [])]
    for path in paths.gaps(RUN)[:-1]:
        schema = gaps.SCHEMAS.get(path.stem, tables.Gaps)
        tables.write(schema, pl.DataFrame(rows.get(path.stem, []), schema=tables.columns(schema)), path)
    pooled = {
        "question": "rq2",
        "adaptation": "lp",
        "family": "clip",
        "metric": "auroc",
        "scoring": "standard",
        "k": 3,
        "gap": 0.031,
        "low": -0.02,
        "high": 0.08,
    }
    types = tables.columns(tables.PooledGaps)
    tables.write(tables.PooledGaps, pl.DataFrame([{name: pooled.get(name) for name in types}], schema=types), paths.gaps(RUN)[-1])


def _gap(chosen: Params, question: str, adaptation: str, general: Cell, special: Cell, values: dict[Cell, float]) -> dict[str, Any]:
    gap, few = values[general] - values[special], general.dataset == "fundus"
    verdict = "undecided" if abs(gap) < 0.05 else "generalist" if gap > 0 else "specialist"
    vqa = chosen.datasets[general.dataset].task == "vqa"
    return {
        "question": question,
        "adaptation": adaptation,
        "family": chosen.models[general.model].family,
        "dataset": general.dataset,
        "generalist": general.model,
        "rank": 1,
        "metric": "closed_accuracy" if vqa else "auroc",
        "scoring": "strict" if vqa else "standard",
        "subset": "closed" if vqa else "all",
        "generalist_mode": general.mode,
        "specialist": special.model,
        "specialist_mode": special.mode,
        "n_generalists": 1,
        "n_specialists": 1,
        "generalist_estimate": values[general],
        "specialist_estimate": values[special],
        "gap": gap,
        "sd": 0.025,
        "low": gap - 0.05,
        "high": gap + 0.05,
        "p": 0.2,
        "exceeds": gap > 0,
        "p_generalist": 0.2,
        "p_specialist": 0.2,
        "p_holm": None if few else 0.0004 if abs(gap) > 0.05 else 0.41,
        "p_equivalent": None if few else 1.0,
        "verdict": None if few else verdict,
        "minimum_detectable_difference": 0.061,
        "n_pair": 240,
        "n_groups": 120,
        "effective_groups": 96.5,
        "reason": "12 effective groups, fewer than 30: no verdict" if few else None,
    }
