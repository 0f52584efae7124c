"""The interval stage: rows, nulls with reasons, pairing digests, and that it stays light."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medbench import config, paths, tables, tasks
from medbench.metrics.measure import Measure
from medbench.stages import interval, score
from medbench.tasks.diagnosis import PredictionsDiagnosis
from medbench.tasks.vqa import PredictionsVqa
from tests.unit import written

CELL = "data", "model", "lp"
PARAMS = interval.Params("diagnosis", tasks.get("diagnosis").primary, 0, 200, 400, 0.95, False, 30)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_duplicates([])


def write_duplicates(sample_ids: list[str], split: str = "test") -> None:
    """Table `duplicates` of the data set: these samples stand in train too."""
    rows = [(split, sample_id, "train", "exact-image", "t0") for sample_id in sample_ids]
    tables.write(tables.Duplicates, pl.DataFrame(rows, schema=tables.columns(tables.Duplicates), orient="row"), paths.duplicates(CELL[0]))


def questions(n: int = 60) -> pl.DataFrame:
    """Answers of which two in three are closed; 9 in 10 of the closed ones are right."""
    closed = [i % 3 > 0 for i in range(n)]
    return pl.DataFrame(
        {
            "sample_id": [f"s{i:03d}" for i in range(n)], "group_id": [f"g{i // 2}" for i in range(n)],
            "answer_type": ["closed" if one else "open" for one in closed], "is_yes_no": closed, "question": ["is it?"] * n,
            "reference": ["yes" if one else "left lung" for one in closed],
            "answer": ["maybe" if i % 10 == 1 else "yes" if one else "lung" for i, one in enumerate(closed)],
            "finish_reason": ["stop"] * n, "n_tokens": [1] * n,
        },
        schema=tables.columns(PredictionsVqa),
    )  # fmt: skip


def answered(frame: pl.DataFrame) -> dict[tuple[str, str, str], dict[str, object]]:
    """The percentile rows of a question-answering cell by metric, scoring and subset."""
    written.predictions("vqa", frame, *CELL)
    score.run(score.Params("vqa"), *CELL)
    interval.run(PARAMS._replace(task="vqa", primary=tasks.get("vqa").primary), *CELL)
    made = tables.read(tables.Intervals, paths.intervals(*CELL)).filter(pl.col("method") == "percentile")
    return {(row["metric"], row["scoring"], row["subset"]): row for row in made.iter_rows(named=True)}


def predictions(
    n: int = 100, n_classes: int = 2, n_groups: int | None = None, labels: np.ndarray | None = None, seed: int = 0
) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes if labels is None else labels
    raw = generator.random((n, n_classes)) + 0.5 * np.eye(n_classes)[labels]
    columns = {
        "sample_id": [f"s{i:03d}" for i in range(n)],
        "group_id": [f"g{i % (n_groups or n):03d}" for i in range(n)],
        "label": labels,
        "scores": (raw / raw.sum(axis=1, keepdims=True)).tolist(),
        "draws": None,
        "by_prompts": None,
    }
    return pl.DataFrame(columns, schema=tables.columns(PredictionsDiagnosis))


def make(frame: pl.DataFrame, params: interval.Params = PARAMS, cell: tuple[str, str, str] = CELL) -> pl.DataFrame:
    written.predictions("diagnosis", frame, *cell)
    interval.run(params, *cell)
    return tables.read(tables.Intervals, paths.intervals(*cell))


def test_every_metric_has_both_intervals_and_its_replicates() -> None:
    made = make(predictions(n_classes=3)).filter(pl.col("subset") == "all")
    assert made["method"].to_list() == ["percentile", "logit", "published"] * 7
    percentile = made.filter(pl.col("method") == "percentile")
    assert percentile["replicates"].list.len().to_list() == [400, 200, 200, 200, 200, 200, 200]
    assert made.filter(pl.col("method") == "logit")["replicates"].null_count() == 7
    inside = made.filter(pl.col("metric") != "ece").select((pl.col("low") <= pl.col("estimate")) & (pl.col("estimate") <= pl.col("high")))
    assert inside.to_series().all()
    auroc = percentile.row(0, named=True)
    assert (auroc["metric"], auroc["unit"], auroc["n"], auroc["n_groups"], auroc["few_groups"]) == ("auroc", "sample", 100, 100, False)
    assert auroc["n_resamples"] == 400 and percentile["n_resamples"][1] == 200
    assert (auroc["low"], auroc["high"]) == tuple(np.quantile(auroc["replicates"], [0.025, 0.975]))


def test_published_rows_have_the_studys_level_whatever_the_runs() -> None:
    narrow, wide = (make(predictions(), PARAMS._replace(level=level)) for level in (0.8, 0.95))
    of = [frame.filter(pl.col("method") == "published").drop("replicates") for frame in (narrow, wide)]
    assert of[0].equals(of[1]) and set(of[0]["level"]) == {0.95}
    assert set(narrow.filter(pl.col("method") != "published")["level"]) == {0.8}


def test_groups_widen_the_interval_and_are_named() -> None:
    """Four copies of every sample: the same estimate, but no more information than one copy has."""
    single = predictions(50)
    copies = pl.concat([single.with_columns(sample_id=pl.col("sample_id") + f"-{copy}") for copy in range(4)])
    grouped, separate = make(copies).row(0, named=True), make(copies.with_columns(group_id=pl.col("sample_id"))).row(0, named=True)
    assert (grouped["unit"], separate["unit"]) == ("group", "sample")
    assert grouped["estimate"] == separate["estimate"]
    assert grouped["sd"] > 1.6 * separate["sd"]
    assert grouped["sd"] == make(single).row(0, named=True)["sd"]


def test_an_absent_class_is_null_with_a_reason() -> None:
    made = make(predictions(60, 3, labels=np.arange(60) % 2)).filter(pl.col("subset") == "all")
    undefined = made.filter(pl.col("metric") == "auroc")
    assert undefined["estimate"].null_count() == 3
    assert set(undefined["reason"]) == {"no sample of class 2 among 60"}
    assert undefined["n_undefined"].to_list() == [400, 400, 1000]
    assert made.filter(pl.col("metric").is_in(["accuracy", "ece"]))["low"].null_count() == 0


def test_a_rare_class_leaves_undefined_resamples_counted() -> None:
    made = make(predictions(40, labels=(np.arange(40) < 2).astype(int))).row(0, named=True)
    expected = sum(value is None for value in made["replicates"])
    assert 10 < made["n_undefined"] == expected < 200


def guarded(made: pl.DataFrame) -> pl.DataFrame:
    """Without the rows that are as the study publishes them, which have no guard, but are resampled by samples."""
    published = made.filter(pl.col("method") == "published", pl.col("estimate").is_not_null(), pl.col("subset") == "all")
    assert published["low"].null_count() == published["sd"].null_count() == 0 and set(published["unit"]) == {"sample"}
    return made.filter(pl.col("method") != "published")


def test_few_groups_and_one_group() -> None:
    def paired(n_groups: int) -> pl.DataFrame:  # both classes in every group
        return predictions(n_groups * 2).with_columns(group_id=pl.format("g{}", pl.int_range(n_groups * 2) // 2))

    assert make(paired(29))["few_groups"].all() and make(paired(29))["low"].null_count() < 10
    assert not make(paired(30))["few_groups"].any()
    nine = guarded(make(paired(9)))
    assert nine["low"].null_count() == len(nine) and "9 effective groups, fewer than 10: no interval" in set(nine["reason"])
    one = guarded(make(predictions(100, n_groups=1)))
    assert one["low"].null_count() == one["sd"].null_count() == len(one)
    assert one["estimate"].null_count() == 0
    assert set(one["reason"]) == {"1 effective group, fewer than 10: no interval"}


def test_the_guard_counts_effective_groups_of_the_rarest_class() -> None:
    """100 patients, of whom few have the disease: what needs both classes is few, what is a mean over samples is not."""
    labels = np.arange(100) % 100 < 12
    made = make(predictions(100, labels=labels.astype(int))).filter(pl.col("subset") == "all", pl.col("method") == "percentile")
    rows = {row["metric"]: row for row in made.iter_rows(named=True)}
    assert (rows["auroc"]["n_groups"], rows["auroc"]["effective_groups"], rows["auroc"]["few_groups"]) == (100, 12, True)
    assert (rows["accuracy"]["effective_groups"], rows["accuracy"]["few_groups"]) == (100, False)
    uneven = predictions(100, labels=labels.astype(int)).with_columns(
        group_id=pl.when(pl.col("sample_id") < "s009").then(pl.lit("g")).otherwise("group_id")
    )
    row = make(uneven).row(0, named=True)  # 9 samples of one patient and 3 of one each
    assert row["effective_groups"] == pytest.approx(12**2 / (81 + 3))
    assert row["estimate"] is not None and row["low"] is None
    assert row["reason"] == "1 effective group, fewer than 10: no interval"


def test_a_start_names_prepared_data_sets_without_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = config.from_files([ROOT / "config" / "config.yaml"], ROOT)
    name = next(one for one in chosen.run.datasets if len(chosen.datasets[one].classes) == 2)
    assert interval.no_verdicts(chosen) == []
    for labels, expected in (
        (np.arange(80) < 9, [f"{name}: 9 effective groups, fewer than 30, behind its AUROC"]),
        (np.arange(80) < 30, []),
    ):
        written.predictions("diagnosis", predictions(80, labels=labels.astype(int)), name, "model", "lp")
        assert interval.no_verdicts(chosen) == expected


def test_a_start_names_the_studys_small_test_sets_before_they_are_prepared() -> None:
    chosen = config.from_files([ROOT / "config/config.yaml", ROOT / "config/paper.yaml"], ROOT)
    assert interval.no_verdicts(chosen) == [
        "camelyon17: 10 groups at most, fewer than 30 effective ones, behind its AUROC",
        "papila: 28 groups at most, fewer than 30 effective ones, behind its AUROC",
    ]


def test_scores_that_are_not_finite_are_left_out() -> None:
    whole = predictions()
    spoilt = whole.with_columns(scores=pl.when(pl.col("sample_id") < "s010").then([float("nan")] * 2).otherwise("scores"))
    made = make(spoilt)
    assert made["n"].to_list() == [90] * 42
    assert made["sample_digest"][0] != make(whole)["sample_digest"][0]
    none_left = make(whole.with_columns(scores=pl.lit([float("nan")] * 2)))
    assert none_left["estimate"].null_count() == 42
    assert set(none_left["reason"]) == {"no sample with a finite score", "0 leak-free samples, fewer than 30"}


def test_digest_names_ids_groups_and_what_was_used() -> None:
    one = predictions()
    first = make(one)["sample_digest"][0]
    assert make(one.sample(fraction=1, shuffle=True, seed=1))["sample_digest"][0] == first
    assert make(one.with_columns(group_id=pl.lit("g")))["sample_digest"][0] != first
    assert make(one.with_columns(sample_id=pl.col("sample_id") + "x"))["sample_digest"][0] != first


def test_rows_in_another_order_give_the_same_numbers() -> None:
    one = predictions(90, 3, n_groups=45)
    assert make(one).equals(make(one.sample(fraction=1, shuffle=True, seed=1)))


def test_answers_by_type() -> None:
    frame = questions()
    rows = answered(frame)
    accuracy = rows["closed_accuracy", "strict", "closed"]
    assert (accuracy["estimate"], accuracy["n"]) == (0.9, 40)
    assert len(accuracy["replicates"]) == 400  # type: ignore[arg-type]
    assert rows["parsed", "strict", "closed"]["estimate"] == 0.9
    assert ("closed_accuracy", "strict", "all") not in rows and ("accuracy", "published", "all") not in rows
    assert rows["token_recall", "strict", "open"]["n"] == 20
    only_closed = answered(frame.filter(pl.col("answer_type") == "closed"))
    assert only_closed["token_recall", "strict", "open"]["reason"] == "no open question"
    assert only_closed["closed_accuracy", "strict", "closed"]["estimate"] == 0.9


def test_every_metric_of_diagnosis_also_on_leak_free_samples() -> None:
    """What the leak-free rows say is what the metrics say of those samples alone; the replicates are those of the whole test's draws."""
    whole = predictions(100, 3)
    write_duplicates([f"s{i:03d}" for i in range(40)])
    made = make(whole)
    leak_free, everything = (made.filter(pl.col("subset") == name) for name in ("leak-free", "all"))
    assert leak_free["metric"].to_list() == everything["metric"].to_list()
    assert (set(leak_free["n"]), set(everything["n"])) == ({60}, {100})
    assert everything.equals(alone := make_without_duplicates(whole).filter(pl.col("subset") == "all"))
    left = make_without_duplicates(whole.filter(pl.col("sample_id") >= "s040")).filter(pl.col("subset") == "all")
    assert leak_free["estimate"].to_list() == left["estimate"].to_list() != alone["estimate"].to_list()
    assert leak_free["sample_digest"][0] != everything["sample_digest"][0]


def make_without_duplicates(frame: pl.DataFrame) -> pl.DataFrame:
    write_duplicates([])
    return make(frame)


def test_without_a_duplicate_leak_free_is_all() -> None:
    """But for the number of resamples: the primary measure has more."""
    first = make(predictions(), PARAMS._replace(n_test_resamples=200))
    for made in (first, tables.read(tables.Intervals, paths.intervals(*CELL))):
        numbers = [name for name in made.columns if name not in ("subset", "replicates")]
        leak_free, everything = (made.filter(pl.col("subset") == name).select(numbers) for name in ("leak-free", "all"))
        assert leak_free.equals(everything)


def test_only_duplicates_of_test_count() -> None:
    """A sample of train that test holds too has a row of its own in the table; ids may repeat across splits."""
    write_duplicates([f"s{i:03d}" for i in range(40)], split="train")
    assert set(make(predictions())["n"]) == {100}


def test_under_30_leak_free_samples_every_row_is_there_and_null_with_its_reason() -> None:
    write_duplicates([f"s{i:03d}" for i in range(71)])
    made = make(predictions())
    leak_free = made.filter(pl.col("subset") == "leak-free")
    assert len(leak_free) == 21 and set(leak_free["n"]) == {29}
    assert leak_free["estimate"].null_count() == leak_free["low"].null_count() == 21
    assert set(leak_free["reason"]) == {"29 leak-free samples, fewer than 30"}
    assert set(leak_free["n_undefined"]) == {200, 1000}
    assert made.filter(pl.col("subset") == "all")["estimate"].null_count() == 0
    write_duplicates([f"s{i:03d}" for i in range(70)])
    assert make(predictions()).filter(pl.col("subset") == "leak-free")["estimate"].null_count() == 0


def test_every_metric_of_answers_also_on_leak_free_questions() -> None:
    """`leak-free` beside `all`, and its parts beside open and closed, so that what has no overall value has none there either."""
    frame = questions(180)
    write_duplicates([f"s{i:03d}" for i in range(0, 180, 4)])
    rows = answered(frame)
    parts = {"all": "leak-free", "open": "leak-free-open", "closed": "leak-free-closed"}
    plain = {key for key in rows if key[2] in parts}
    assert set(rows) - plain == {(metric, scoring, parts[subset]) for metric, scoring, subset in plain}
    left = answered(frame.filter(pl.int_range(180) % 4 > 0))
    for metric, scoring, subset in plain:
        leak_free = rows[metric, scoring, parts[subset]]
        assert (leak_free["estimate"], leak_free["n"]) == (left[metric, scoring, subset]["estimate"], left[metric, scoring, subset]["n"])
    assert rows["closed_accuracy", "strict", "leak-free-closed"]["n"] == 90


def test_under_30_leak_free_questions_of_a_type() -> None:
    write_duplicates([f"s{i:03d}" for i in range(45)])
    rows = answered(questions(120))
    assert rows["closed_accuracy", "strict", "leak-free-closed"]["n"] == 50
    assert rows["closed_accuracy", "strict", "leak-free-closed"]["reason"] is None
    few = rows["token_recall", "strict", "leak-free-open"]
    assert (few["estimate"], few["n"], few["reason"]) == (None, 25, "25 leak-free open questions, fewer than 30")


def test_params_follow_the_configuration_without_the_margin() -> None:
    chosen = config.from_files([ROOT / "config" / "config.yaml"], ROOT)
    params = interval.params(chosen, chosen.run.datasets[0], chosen.run.models[0], "ots")
    assert params.n_resamples == chosen.run.statistics.n_resamples
    assert "margin" not in params._asdict()


def test_what_decides_where_a_model_tells_no_letters_is_in_the_params(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a task with another one has its intervals made anew."""
    chosen = config.load({"run": "r", "models": ["nano-llava"], "datasets": ["nano-mcq-radiology"], "modes": ["ots"]}, ROOT)
    cell = ("nano-mcq-radiology", "nano-llava", "ots")
    before, other = interval.params(chosen, *cell), Measure("accuracy", "text", "positional")
    changed = replace(tasks.get("mcq"), fallback=other)
    monkeypatch.setattr(tasks, "get", lambda name: changed)
    assert before.fallback == ("accuracy", "text", "all") and interval.params(chosen, *cell).fallback == other


def test_no_job_of_the_statistics_imports_torch_or_scikit_learn() -> None:
    code = "import sys, medbench.stages.score, medbench.metrics.vqa, medbench.stages.interval, medbench.stages.gaps; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "sklearn", "scipy", "nltk", "evaluate", "transformers"} & set(modules)
