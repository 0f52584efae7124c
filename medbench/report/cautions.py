"""Why some numbers of a run should not be trusted: each caution is one plain sentence and the places it concerns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import polars as pl

from medbench import paths
from medbench.datasets.card import remarks
from medbench.datasets.sharing import NEAR
from medbench.jobs import integrity, records
from medbench.report import served
from medbench.report.results import LOST, TASKS, Material, n_test, primary
from medbench.report.words import counted, interval, listed, number, with_interval
from medbench.stats.intervals import MIN_GROUPS

NOTABLE = 0.05  # share of a cell's answers, or of its resamples
SOLVED = 0.9  # a baseline that reaches this leaves a model nothing to show
WORDS = "bag-of-words"  # the baseline that reads question and options alone


class Caution(NamedTuple):
    """`kind` is a slug (also the tables' key), `meaning` says what it does to the reader's conclusion, `places` where."""

    kind: str
    title: str
    meaning: str
    places: list[str]


class Worth(NamedTuple):
    """What a data set is worth without a model: its best baseline. Of `models` cells with an interval, `above` have it above its value."""

    label: str
    metric: str
    baseline: str
    value: str
    reading: str
    best: str
    above: int
    models: int


def worths(material: Material) -> list[Worth]:
    """One a data set that has a baseline, in the order of the run."""
    found = []
    for task, chosen in TASKS.items():
        ranked = _baselines(material, task).drop_nulls("estimate").sort("estimate", descending=True, maintain_order=True)
        best = {row["dataset"]: row for row in reversed(ranked.to_dicts())}
        for name in (name for name in material.params.datasets if name in best):
            base, rows = best[name], _models(material, task).filter(pl.col("dataset") == name)
            above = rows.filter(pl.col("low") > base["estimate"]).height
            top = rows.sort("estimate", descending=True, maintain_order=True).head(1).to_dicts()
            said = (
                f"{number(top[0]['estimate'])} ({top[0]['model_label']}, {material.params.mode_label(top[0]['mode'])})" if top else "none"
            )
            reading = _reading(base, chosen.chance)
            judged = rows.drop_nulls("low").height
            metric = chosen.title if base["scoring"] == chosen.primary.scoring else f"{chosen.title} by {base['scoring']}"
            found.append(Worth(base["dataset_label"], metric, base["model_label"], _value(base), reading, said, above, judged))
    return found


def _reading(base: dict[str, Any], chance: float | None) -> str:
    if base["estimate"] >= SOLVED:
        return "solved without a model"
    if chance is not None and base["low"] is not None and base["low"] <= chance <= base["high"]:
        return "the baseline only guesses"
    return "the baseline says something" if chance is not None else "what the questions alone give"


def collect(material: Material) -> list[Caution]:
    """All cautions of a run that concern at least one place, gravest first."""
    checks: tuple[Callable[[Material], Caution], ...] = (
        altered, other_seed,
        equal_scores, below_chance, solved, at_chance, not_above_baseline, no_gain, words_ahead, shared_test, alike, untrained,
        unread, unreadable, little_mass, cut_off, rounded, behind_a_server,
        few_groups, unstable, unscored, drops, data_notes, undefined, uncalibrated, stale, versions,
    )  # fmt: skip
    return [caution for caution in (check(material) for check in checks) if caution.places]


def altered(material: Material) -> Caution:
    """Tables and weights of cells that are not the files that their jobs wrote, or of which nobody knows how they were made."""
    findings = []
    for cell in material.present:
        own = [paths.predictions(*cell), paths.scores(*cell), paths.intervals(*cell), *paths.adapter_files(*cell)]
        findings += [finding for file in own for finding in integrity.inspect([file], None)]
    meaning = (
        "Do not believe these values. `python -m medbench verify` reads every byte and names all such files; `snakemake` makes what was "
        "altered again, and what has no run record once it is deleted."
    )
    return Caution("altered", "Results that are not what their jobs wrote", meaning, [str(finding) for finding in findings])


def other_seed(material: Material) -> Caution:
    """Data or weights that were made with another seed than the one on the page."""
    seed, places = material.params.seed, []
    outputs = [paths.data(name)[0] for name in material.params.datasets] + [paths.adapter_files(*cell)[0] for cell in material.present]
    for output in outputs:
        params = ((integrity.read(paths.run_record(output)) or {}).get("params") or {}).get("params") or {}
        if params.get("seed", seed) != seed:
            places.append(f"{output.parent}: seed {params['seed']}, the run's is {seed}")
    meaning = "The page states the seed of the configuration. `snakemake` with the same options makes these again; `now` does not."
    return Caution("other-seed", "Made with another seed", meaning, places)


def _baselines(material: Material, task: str) -> pl.DataFrame:
    return primary(material, task).filter(pl.col("role") == "baseline")


def _models(material: Material, task: str) -> pl.DataFrame:
    return primary(material, task).filter(pl.col("role") != "baseline", pl.col("estimate").is_not_null())


def _value(row: dict[str, Any]) -> str:
    return with_interval(row["estimate"], row["low"], row["high"])


def solved(material: Material) -> Caution:
    """Data sets that a baseline already solves."""
    places = [
        f"{row['dataset_label']}: {row['model_label']} reaches {TASKS[task].title} {_value(row)}"
        for task in TASKS
        for row in _baselines(material, task).filter(pl.col("estimate") >= SOLVED).to_dicts()
    ]
    meaning = "No model is needed to solve these data sets, so a high value of a model there says nothing about its medical knowledge."
    return Caution("solved-by-baseline", f"A baseline already reaches {SOLVED:.1f}", meaning, places)


def at_chance(material: Material) -> Caution:
    """Data sets at which the interval of every model, in every mode, contains chance, where that is known."""
    places = []
    for name, task in TASKS.items():
        for (label,), rows in (
            _models(material, name).drop_nulls("low").group_by("dataset_label", maintain_order=True) if task.chance is not None else ()
        ):
            if rows.select((pl.col("low") <= task.chance) & (pl.col("high") >= task.chance)).to_series().all():
                best = max(rows["estimate"].to_list())
                places.append(f"{label}: {counted(rows.height, 'cell')}, the highest {task.title} {number(best)}")
    meaning = "Every interval contains 0.5. Gaps between models that all guess are noise: look at the data set, its labels and its prompts."
    return Caution("all-at-chance", "Every model is near chance", meaning, places)


def below_chance(material: Material) -> Caution:
    """Cells whose whole interval lies below chance: a ranking that is right, the wrong way round."""
    places = [
        f"{_cell(material, row)}: {task.title} {_value(row)}"
        for name, task in TASKS.items()
        if task.chance is not None
        for row in _models(material, name).filter(pl.col("high") < task.chance).to_dicts()
    ]
    meaning = "Were prompts or labels swapped? Such a model ranks the images, but the wrong way round; being ahead of it means nothing."
    return Caution("below-chance", "Clearly below 0.5", meaning, places)


def equal_scores(material: Material) -> Caution:
    """Cells whose scores do not differ between samples: every resample gives exactly what guessing gives."""
    places = [
        f"{row['dataset_label']}: {row['model_label']}, {material.params.mode_label(row['mode'])}"
        for name, task in TASKS.items()
        for row in _models(material, name).to_dicts()
        if task.chance is not None and row["estimate"] == row["low"] == row["high"] == task.chance
    ]
    meaning = (
        "Every test image got the same score: the model reads nothing of the images or of the prompts. Look at its tokenizer and weights."
    )
    return Caution("equal-scores", "All samples have equal scores", meaning, places)


def not_above_baseline(material: Material) -> Caution:
    """Data sets at which no model is clearly above the best baseline."""
    places = [
        f"{worth.label}: {worth.baseline} {worth.value}, best model {worth.best} ({worth.metric})"
        for worth in worths(material)
        if worth.models and not worth.above
    ]
    meaning = "The interval of every model reaches down to what the baseline gives: none is shown to use the image's medical content."
    return Caution("not-above-baseline", "No model is clearly above the baseline", meaning, places)


def no_gain(material: Material) -> Caution:
    """Models that are not shown to be above their own answers without their image, or without another part of the question."""
    places = [
        f"{_cell(material, row)}, {row['scoring']}: {number(row['estimate'])}; {material.params.mode_label(row['control'])}: "
        f"{number(row['control_estimate'])}; gain {_gain(row)}"
        for row in material.controls.filter(pl.col("kind") == "mode", pl.coalesce("low", "gain") <= 0).to_dicts()
    ]
    meaning = (
        "What the model gains by its image is 0, or its interval reaches down to 0: its answers are not shown to come from the image. "
        "Such a model may know which answers are likely, and that is no reading of images."
    )
    return Caution("not-above-own-control", "Models that do no better than without their image", meaning, places)


def words_ahead(material: Material) -> Caution:
    """Models that reach less than a count of the words of question and options does."""
    rows = material.controls.filter(pl.col("control") == WORDS, pl.col("gain") < 0)
    places = [
        f"{_cell(material, row)}, {row['scoring']}: {number(row['estimate'])}, the words alone {number(row['control_estimate'])}; "
        f"gain {_gain(row)}"
        for row in rows.to_dicts()
    ]
    meaning = (
        "The right options can be told from their words, learned from other questions of the set, without any image: a high accuracy "
        "there shows no knowledge, and these models do not even reach it."
    )
    return Caution("words-ahead", "The words of the questions alone do better", meaning, places)


def little_mass(material: Material) -> Caution:
    """Cells whose letters often have little probability together."""
    chosen = {"metric": "low_mass", "scoring": "letter", "subset": "all", "method": "percentile"}
    rows = material.metrics.filter(*(pl.col(name) == value for name, value in chosen.items()), pl.col("estimate") > NOTABLE)
    places = [f"{_cell(material, row)}: {row['estimate']:.0%} of the orders" for row in rows.to_dicts()]
    meaning = (
        "All letters together have a probability under 0.5 there: these models begin their answers otherwise. Accuracy by letter then "
        "ranks tokens that the model would not write; read its accuracy by text."
    )
    return Caution("little-letter-mass", "Models that do not answer by letter", meaning, places)


def _gain(row: dict[str, Any]) -> str:
    return with_interval(row["gain"], row["low"], row["high"], sign=True)


def shared_test(material: Material) -> Caution:
    """Test images or groups that also stand in a train or validation split."""
    pair = ["dataset", "split", "other_dataset", "other_split"]
    pixels = (pl.col("kind") == "exact-pixels").any().over(pair)  # these contain the images of equal bytes
    rows = material.overlap.filter(pl.col("split") == "test", pl.col("kind") != NEAR, ~((pl.col("kind") == "exact-image") & pixels))
    places = [
        f"{_label(material, row['dataset'])}: {row['shared']:,} of {counted(row['total'], thing)} of test ({row['kind']}) "
        f"also in {row['other_split']} of {_label(material, row['other_dataset'])}"
        for row in rows.to_dicts()
        for thing in ["group" if row["kind"] == "group" else "image"]
    ]
    meaning = (
        "Adapted models may have seen what they are tested on, so their values there are too high. "
        "The leak-free subsets in tables/metrics.csv leave out test samples with a duplicate in train or validation."
    )
    return Caution("shared-test", "Test data shared with training data or with another data set", meaning, places)


def alike(material: Material) -> Caution:
    """Test images that look like a training image, and equal none."""
    rows = material.overlap.filter(pl.col("split") == "test", pl.col("kind") == NEAR, pl.col("other_split") != "test")
    places = [
        f"{_label(material, row['dataset'])}: {row['shared']:,} of {counted(row['total'], 'image')} of test look like one in "
        f"{row['other_split']} of {_label(material, row['other_dataset'])} (samples {listed(row['examples'][:3])})"
        for row in rows.to_dicts()
    ]
    meaning = (
        "By perceptual hash: the same picture in another encoding or size, or only a similar one, as radiographs of one projection are. "
        "Look at the examples; `near_duplicates: {in_leak_free: true}` in the configuration leaves them out of the leak-free subsets."
    )
    return Caution("near-duplicates", "Test images that look like training images", meaning, places)


def untrained(material: Material) -> Caution:
    """Adapted cells without a certificate that training happened."""
    models, modes = material.params.models, material.params.modes
    adapted = [cell for cell in material.present if modes[cell.mode].kind != "zero-shot" and models[cell.model].role != "baseline"]
    places = [str(cell) for cell in adapted if cell not in material.certificates]
    meaning = "Nothing proves that these adaptations trained at all."
    return Caution("no-certificate", "Adapted cells without a certificate", meaning, places)


def unread(material: Material) -> Caution:
    """Data sets of which many questions are open or closed in name alone."""
    places = [f"{_label(material, name)}: {line}" for name, lines in material.doubts.items() for line in lines]
    meaning = "Accuracy counts there how a model words its answer as much as what it knows, or leaves out what it could count."
    return Caution("doubtful-questions", "Closed questions without options, or open ones of yes or no", meaning, places)


def unreadable(material: Material) -> Caution:
    """Cells of which many closed answers hold no choice, or many answers are empty."""
    places = []
    for row in material.answers.to_dicts():
        closed, every = counted(row["n_closed"], "closed answer"), counted(row["n"], "answer")
        lost = {state: row[state] for state in LOST if row[state]}
        how = ", ".join(f"{n:,} {state}" for state, n in lost.items())
        said = [f"{sum(lost.values()):,} of {closed} hold no choice ({how})"] if _many(sum(lost.values()), row["n_closed"]) else []
        said += [f"{row['refusal']:,} of {every} are refusals"] if _many(row["refusal"], row["n"]) else []
        said += [f"{row['filter']:,} of {every} were held back by the service"] if _many(row["filter"], row["n"]) else []
        empty = row["empty"] - row["filter"]
        said += [f"{empty:,} of {every} are empty"] if _many(empty, row["n"]) else []
        if said:
            places.append(f"{_cell(material, row)}: {', '.join(said)}")
    meaning = (
        "They count as wrong. A model that knows the answer and does not say it in the asked form looks as bad as one that does not "
        "know it: read some of its answers before you believe its accuracy."
    )
    return Caution("unreadable-answers", f"More than {NOTABLE:.0%} of a cell's answers cannot be read", meaning, places)


def cut_off(material: Material) -> Caution:
    """Cells of which many answers were ended by the token budget or went round in circles."""
    places = []
    for row in material.answers.to_dicts():
        said = [f"{row['cut']:,} ended by the token budget"] if _many(row["cut"], row["n"]) else []
        said += [f"{row['repetition']:,} stopped while they went round in circles"] if _many(row["repetition"], row["n"]) else []
        if said:
            places.append(f"{_cell(material, row)}: of {counted(row['n'], 'answer')}, {', '.join(said)}")
    meaning = (
        "What these models wanted to say is not complete. The budget is `max_new_tokens` in config/templates.yaml, or in the model's entry."
    )
    return Caution("cut-off-answers", f"More than {NOTABLE:.0%} of a cell's answers did not end by themselves", meaning, places)


def rounded(material: Material) -> Caution:
    """Cells of which some answers depend on the batch: only in half precision."""
    places = [
        f"{cell}: {record['changed_alone']} of {counted(record['asked_alone'], 'question')} answered otherwise when asked alone"
        for cell, record in material.records.items()
        if record.get("changed_alone")
    ]
    meaning = "In half precision a batch rounds otherwise than a single question. Differences between cells of this size mean nothing."
    return Caution("batch-rounding", "Answers that depend on the batch", meaning, places)


def behind_a_server(material: Material) -> Caution:
    """The same checkpoint here and behind a server, wherever a run has both."""
    places = []
    for row in served.table(material).to_dicts():
        gap = f"{row['gap']:+.3f} {interval(row['low'], row['high'])}".strip() if row["gap"] is not None else row["reason"]
        of = f"{row['n_different']:,} of {counted(row['n'], 'answer')} differ from those of {row['here']}"
        places.append(f"{_cell(material, row)}: {of}; gap in {row['metric'].replace('_', ' ')} {gap}")
    meaning = "What differs is the server's doing: numbers, batches, template, images. Between models, gaps of this size mean nothing."
    return Caution("behind-a-server", "The same checkpoint here and behind a server", meaning, places)


def _many(count: int, total: int) -> bool:
    return count > NOTABLE * total


def _cell(material: Material, row: dict[str, Any]) -> str:
    facts = material.params.models.get(row["model"])
    return f"{_label(material, row['dataset'])}, {facts.label if facts else row['model']}, {material.params.mode_label(row['mode'])}"


def few_groups(material: Material) -> Caution:
    """Data sets with too few independent groups for a verdict."""
    rows = (
        pl.concat([primary(material, task) for task in TASKS])
        .filter(pl.col("few_groups"), pl.col("estimate").is_not_null())
        .group_by("dataset_label", maintain_order=True)
        .agg(pl.col("n_groups", "effective_groups").min(), pl.col("unit").first())
    )
    places = [
        f"{row['dataset_label']}: {row['effective_groups']:.1f} effective of {counted(row['n_groups'], 'group')} (unit: {row['unit']})"
        for row in rows.to_dicts()
    ]
    least = f"{material.params.statistics['min_groups']:.0f}"
    meaning = (
        "Effective groups, of the rarest class where there are classes, count large groups for what they add. Intervals are "
        f"too narrow there, so no verdict is given; under {MIN_GROUPS} there is no interval either."
    )
    return Caution("few-groups", f"Fewer than {least} effective groups", meaning, places)


def unstable(material: Material) -> Caution:
    """Cells whose primary metric is undefined in many resamples."""
    rows = pl.concat([primary(material, task) for task in TASKS]).filter(
        pl.col("estimate").is_not_null(), pl.col("n_undefined") > NOTABLE * pl.col("n_resamples")
    )
    places = [f"{_cell(material, row)}: {row['n_undefined']:,} of {counted(row['n_resamples'], 'resample')}" for row in rows.to_dicts()]
    meaning = "A class was not drawn in these resamples. They are left out, which makes the interval too narrow."
    return Caution("undefined-resamples", f"More than {NOTABLE:.0%} of the resamples are undefined", meaning, places)


def unscored(material: Material) -> Caution:
    """Cells whose primary metric is of a part of the test samples."""
    rows = [row for task in TASKS for row in primary(material, task).drop_nulls("estimate").to_dicts()]
    totals = [(row, n_test(material, row)) for row in rows]
    places = [f"{_cell(material, row)}: {row['n']:,} of {counted(n, 'test sample')}" for row, n in totals if n and row["n"] < n]
    meaning = (
        "Samples whose score is not finite are left out, and from a comparison those that either side lacks: its gap holds for the others "
        "alone, and what a model could not score may be what is hard."
    )
    return Caution("unscored-samples", "Test samples without a score", meaning, places)


def drops(material: Material) -> Caution:
    """Rows that preparation left out."""
    places = [
        f"{_label(material, name)}: {counted(drop['rows'], 'row')} dropped, {reason.replace('-', ' ')} (first: {drop['examples'][0]})"
        for name, card in material.cards.items()
        for reason, drop in card["drops"].items()
    ]
    return Caution("dropped-rows", "Rows left out of the data", "Values hold for the rows that could be read.", places)


def data_notes(material: Material) -> Caution:
    """What was decided while the files were read."""
    places = [f"{_label(material, name)}: {line}" for name, card in material.cards.items() for line in remarks(card)]
    meaning = "This holds for all models alike. Check that it is what you meant; docs/own-data.md says how to say it otherwise."
    return Caution("data-notes", "How the data were read", meaning, places)


def undefined(material: Material) -> Caution:
    """Metrics that are null, by reason."""
    rows = material.metrics.filter(pl.col("estimate").is_null() | pl.col("low").is_null(), pl.col("method") == "percentile")
    places = []
    for (dataset, subset, reason), part in rows.group_by("dataset_label", "subset", "reason", maintain_order=True):
        metrics = listed(part["metric"].unique(maintain_order=True).to_list(), 4)
        cells = [
            f"{model}, {material.params.mode_label(mode)}"
            for model, mode in part.select("model_label", "mode").unique(maintain_order=True).iter_rows()
        ]
        places.append(f"{dataset}, {subset} samples: {reason or 'no reason given'} ({metrics}; {listed(cells, 3)})")
    return Caution("undefined", "Metrics that are undefined", "These are left empty, never counted as 0.", places)


def uncalibrated(material: Material) -> Caution:
    """Zero-shot diagnosis cells, whose threshold was never set."""
    rows = material.metrics.filter("uncalibrated").unique("mode", maintain_order=True)
    places = [
        f"{material.params.mode_label(mode)}: accuracy, balanced accuracy and F1 of every diagnosis data set" for mode in rows["mode"]
    ]
    meaning = (
        "Off the shelf, the class with the highest score wins, and no threshold was ever set on data. AUROC does not depend on a threshold."
    )
    return Caution("uncalibrated", "Thresholds that were never calibrated", meaning, places)


def stale(material: Material) -> Caution:
    """Cells whose predictions were made with other library versions than those that wrote this report."""
    now, places = records.versions(), []
    for cell, record in material.records.items():
        then = {name: record.get("versions", {}).get(name, "none") for name in record.get("libraries", [])}
        if changes := [
            f"{name} {version}, now {now.get(name, 'none')}" for name, version in then.items() if version != now.get(name, "none")
        ]:
            places.append(f"{cell}: {', '.join(changes)}")
    meaning = "What these libraries compute may have changed since. `rerun_on_versions: true` in the configuration makes these cells anew."
    return Caution("stale", "Cells made with other library versions than those installed now", meaning, places)


def versions(material: Material) -> Caution:
    """Libraries of which the run's predictions used more than one version."""
    seen: dict[str, dict[str, int]] = {}
    for record in material.records.values():
        for library, version in record.get("versions", {}).items():
            counts = seen.setdefault(library, {})
            counts[version] = counts.get(version, 0) + 1
    places = [
        f"{library}: " + listed([f"{version} ({counted(count, 'cell')})" for version, count in sorted(found.items())])
        for library, found in sorted(seen.items())
        if len(found) > 1
    ]
    return Caution(
        "mixed-versions",
        "Cells made with different library versions",
        "Small differences between these cells may come from the libraries.",
        places,
    )


def _label(material: Material, dataset: str) -> str:
    facts = material.params.datasets.get(dataset)
    return facts.label if facts else dataset
