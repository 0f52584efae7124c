"""Who is compared with whom, and what a missing cell does: the gaps' logic on made-up numbers, then the stage on tables."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from medbench import paths, tables, tasks
from medbench.analysis.gaps import (
    NOBODY,
    Estimate,
    Pair,
    Study,
    Unpaired,
    confirmatory_table,
    global_table,
    pooled_table,
    rq_table,
    with_a_choice,
)
from medbench.cells import Candidate, Cell
from medbench.errors import MedbenchError
from medbench.metrics.measure import Measure
from medbench.stages import gaps, interval, score
from medbench.stats.intervals import one_sided_p, quantile
from medbench.stats.paired import paired_gap
from medbench.tasks.diagnosis import PredictionsDiagnosis
from medbench.tasks.vqa import PredictionsVqa
from tests.unit import written

PRIMARY = {name: tasks.get(name).primary for name in tasks.names()}
MARGIN = dict.fromkeys(PRIMARY, 0.02)
CHANCE = {name: tasks.get(name).chance for name in tasks.names()}
AUROC, ACCURACY = PRIMARY["diagnosis"], Measure("accuracy", "standard", "all")
B = 9999


class Numbers:
    """Estimates by cell; replicates are the estimate plus noise that all cells of a data set have in common, plus a little of their own."""

    def __init__(
        self, values: dict[Cell, float | None], n_groups: int = 100, unpaired: tuple[Cell, ...] = (), effective: float | None = None
    ) -> None:
        self.values, self.n_groups, self.unpaired = values, n_groups, unpaired
        self.effective = n_groups if effective is None else effective

    def measures(self, cell: Cell) -> list[Measure]:
        return [AUROC, ACCURACY] if self.values.get(cell) is not None else []

    def estimate(self, cell: Cell, measure: Measure) -> Estimate:
        value = self.values.get(cell)
        return Estimate(value, None if value is not None else "no intervals", None if value is None else value - 0.05)

    def pair(self, first: Cell, second: Cell, measure: Measure) -> Pair | Unpaired:
        if {first, second} & set(self.unpaired):
            return Unpaired("sample ids differ")
        a, b = self.values[first], self.values[second]
        assert a is not None and b is not None
        noise = np.random.default_rng(list(f"{first}{second}".encode())).normal(0, 0.01, B)
        return Pair(a, b, a - b + noise, 100, self.n_groups, self.effective)


def study(
    candidates: tuple[Candidate, ...], cells: list[Cell], datasets: tuple[str, ...] = ("xray",), adapted: tuple[str, ...] = ("lp",)
) -> Study:
    return Study(candidates, frozenset(cells), dict.fromkeys(datasets, "diagnosis"), "ots", adapted, 0.95, 30, PRIMARY, MARGIN, CHANCE)


def candidate(model: str, role: str, *in_domain: str, family: str = "clip") -> Candidate:
    return Candidate(model, family, role, frozenset(in_domain))


PEOPLE = (
    candidate("g1", "generalist"),
    candidate("g2", "generalist"),
    candidate("s1", "specialist", "xray"),
    candidate("s2", "specialist"),
)
XRAY = {
    Cell("xray", "g1", "ots"): 0.60, Cell("xray", "g2", "ots"): 0.65, Cell("xray", "s1", "ots"): 0.80, Cell("xray", "s2", "ots"): 0.95,
    Cell("xray", "g1", "lp"): 0.90, Cell("xray", "g2", "lp"): 0.85, Cell("xray", "s1", "lp"): 0.99, Cell("xray", "s2", "lp"): 0.88,
}  # fmt: skip


def primary(frame: pl.DataFrame) -> list[dict[str, object]]:
    return list(frame.filter(pl.col("metric") == "auroc").iter_rows(named=True))


def test_the_questions_pick_their_sides() -> None:
    """s1 is in its domain on xray, s2 is not: RQ1 and RQ2 face s1 off the shelf, RQ3 s2 and RQ4 s1 adapted, whoever is better."""
    who, numbers = study(PEOPLE, list(XRAY)), Numbers(dict(XRAY))
    expected = {
        "rq1": ("ots", "g2", "ots", "s1", "ots", 0.65 - 0.80, "specialist"),
        "rq2": ("lp", "g1", "lp", "s1", "ots", 0.90 - 0.80, "generalist"),
        "rq3": ("lp", "g1", "lp", "s2", "lp", 0.90 - 0.88, "undecided"),
        "rq4": ("lp", "g1", "lp", "s1", "lp", 0.90 - 0.99, "specialist"),
    }
    for question, (adaptation, generalist, mode, specialist, other_mode, gap, verdict) in expected.items():
        (row,) = primary(rq_table(question, who, numbers))
        assert (row["adaptation"], row["generalist"], row["generalist_mode"]) == (adaptation, generalist, mode)
        assert (row["specialist"], row["specialist_mode"]) == (specialist, other_mode)
        assert row["gap"] == pytest.approx(gap)
        assert row["exceeds"] == (gap > 0)
        assert row["verdict"] == verdict
        assert row["low"] < row["gap"] < row["high"]
        assert row["reason"] is None


def test_other_metrics_are_exploratory() -> None:
    frame = rq_table("rq1", study(PEOPLE, list(XRAY)), Numbers(dict(XRAY))).filter(pl.col("metric") == "accuracy")
    assert frame["p"].null_count() == 0
    assert frame["p_holm"].null_count() == frame["verdict"].null_count() == len(frame) == 1


def test_holm_runs_over_a_questions_rows_and_adaptations_apart() -> None:
    datasets = ("a", "b", "c")
    people = (candidate("g", "generalist"), candidate("s", "specialist", *datasets))
    values = {Cell(d, m, mode): 0.8 if m == "g" else 0.7 for d in datasets for m in "gs" for mode in ("ots", "lp", "lora")}
    frame = rq_table("rq2", study(people, list(values), datasets, ("lp", "lora")), Numbers(values))
    rows = primary(frame)
    assert [row["adaptation"] for row in rows] == ["lp"] * 3 + ["lora"] * 3
    p = one_sided_p(1 / (B + 1), 100.0)
    assert all(row["p_generalist"] == p for row in rows)
    assert all(row["p_holm"] == pytest.approx(3 * 2 * p) for row in rows)


def test_a_tie_does_not_exceed_and_is_equivalent() -> None:
    values = {**XRAY, Cell("xray", "g1", "lp"): 0.88}
    who = study(PEOPLE, list(values))._replace(margin={"diagnosis": 0.03})
    (row,) = primary(rq_table("rq3", who, Numbers(values)))
    assert (row["gap"], row["exceeds"], row["verdict"]) == (0.0, False, "equivalent")
    assert row["p_equivalent"] < 0.01
    (row,) = primary(rq_table("rq3", who._replace(margin={"diagnosis": 0.01}), Numbers(values)))
    assert row["verdict"] == "undecided"


def test_ahead_and_yet_within_the_margin_keeps_both_p_values() -> None:
    values = {**XRAY, Cell("xray", "g2", "lp"): 0.90, Cell("xray", "g1", "lp"): 0.92}
    (row,) = primary(rq_table("rq3", study(PEOPLE, list(values))._replace(margin={"diagnosis": 0.1}), Numbers(values)))
    assert row["verdict"] == "generalist" and row["p_holm"] < 0.05 and row["p_equivalent"] < 0.05


def test_no_verdict_where_other_resamples_could_say_otherwise() -> None:
    """A p of about 0.05: there was a verdict for `generalist` although the interval beside it had zero inside."""
    people = (candidate("g", "generalist"), candidate("s", "specialist", "xray"))
    values = {Cell("xray", "g", "ots"): 0.8202, Cell("xray", "s", "ots"): 0.80}
    (row,) = primary(rq_table("rq1", study(people, list(values)), Numbers(values)))
    assert row["p_holm"] == pytest.approx(0.05, abs=0.006) and row["verdict"] is None
    assert row["reason"] == "p is too near 0.05 for 9,999 resamples (`n_test_resamples`): no verdict"


def test_the_minimum_detectable_difference_counts_candidates_and_comparisons() -> None:
    """One generalist against one specialist, alone and as one of three comparisons of the question, with 100 groups."""
    found = []
    for datasets in (("a",), ("a", "b", "c")):
        people = (candidate("g", "generalist"), candidate("s", "specialist", *datasets))
        values = {Cell(d, m, "ots"): 0.8 if m == "g" else 0.7 for d in datasets for m in "gs"}
        row = primary(rq_table("rq1", study(people, list(values), datasets), Numbers(values)))[0]
        found.append(row["minimum_detectable_difference"] / row["sd"])
    assert found == [pytest.approx(quantile(0.025 / rows, 100.0) + stats.norm.isf(0.2)) for rows in (1, 3)]
    assert found == [pytest.approx(2.84, abs=0.005), pytest.approx(3.29, abs=0.005)]  # 2.80 and 3.24 with many groups


@pytest.mark.parametrize("metric", ["ece", "judge_score_failed"])
def test_of_errors_and_failures_the_lower_is_better(metric: str) -> None:
    class Errors(Numbers):
        def measures(self, cell: Cell) -> list[Measure]:
            return [Measure(metric, "standard", "all")]

    rows = rq_table("rq1", study(PEOPLE, list(XRAY)), Errors(dict(XRAY))).filter(pl.col("metric") == metric)
    row = rows.row(0, named=True)
    assert (row["generalist"], row["specialist"], row["exceeds"]) == ("g1", "s1", True)  # 0.60 against 0.80
    assert row["gap"] == pytest.approx(-0.2)


def test_a_missing_cell_is_named_and_the_rest_comes_out() -> None:
    values: dict[Cell, float | None] = {**XRAY, Cell("xray", "g2", "ots"): None}
    (row,) = primary(rq_table("rq1", study(PEOPLE, list(XRAY)), Numbers(values)))
    assert row["generalist"] == "g1"
    assert row["gap"] == pytest.approx(-0.2)
    assert row["verdict"] is None
    assert row["reason"] == "xray/g2/ots: no intervals; no verdict on incomplete sets"


def test_a_side_without_any_cell_is_a_row_with_a_reason() -> None:
    values: dict[Cell, float | None] = {**XRAY, Cell("xray", "g1", "ots"): None, Cell("xray", "g2", "ots"): None}
    (row,) = primary(rq_table("rq1", study(PEOPLE, list(XRAY)), Numbers(values)))
    assert (row["generalist"], row["gap"], row["exceeds"]) == (NOBODY, None, None)
    assert row["reason"] == "xray/g1/ots: no intervals; xray/g2/ots: no intervals"


def test_few_groups_give_a_gap_but_no_verdict() -> None:
    (row,) = primary(rq_table("rq1", study(PEOPLE, list(XRAY)), Numbers(dict(XRAY), effective=29.9)))
    assert row["gap"] is not None and row["p"] is not None
    assert row["verdict"] is None and row["p_holm"] is None
    assert row["reason"] == "29 effective groups, fewer than 30: no verdict"
    (row,) = primary(rq_table("rq1", study(PEOPLE, list(XRAY)), Numbers(dict(XRAY), effective=9.9)))
    assert row["gap"] is not None and row["low"] is None and row["p"] is None and row["verdict"] is None
    assert row["reason"] == "9 effective groups, fewer than 10: no interval, no verdict"


@pytest.mark.parametrize(("baseline", "verdict"), [(0.79, None), (0.70, "specialist")])
def test_no_verdict_where_neither_side_is_above_the_baseline(baseline: float, verdict: str | None) -> None:
    values = {**XRAY, Cell("xray", "raw-pixels", "lp"): baseline, Cell("other", "raw-pixels", "lp"): 0.99}
    (row,) = primary(rq_table("rq1", study(PEOPLE, list(values)), Numbers(values)))
    assert (row["gap"], row["verdict"]) == (pytest.approx(-0.15), verdict)
    assert row["p_holm"] < 0.05  # it stays in Holm's family: what is left out depends on the data
    assert row["reason"] == (None if verdict else "neither side is above the baseline: no verdict")


def test_no_winner_that_is_itself_at_chance() -> None:
    """Swapped prompts: 0.519 against 0.032."""
    values = {Cell("xray", "g1", "ots"): 0.519, Cell("xray", "g2", "ots"): 0.51, Cell("xray", "s1", "ots"): 0.032}
    (row,) = primary(rq_table("rq1", study(PEOPLE, list(values)), Numbers(values)))
    assert (row["verdict"], row["reason"]) == (None, "the generalist is ahead but itself at chance: no verdict")
    values |= {Cell("xray", "g1", "ots"): 0.6}
    assert primary(rq_table("rq1", study(PEOPLE, list(values)), Numbers(values)))[0]["verdict"] == "generalist"


def test_cells_that_cannot_be_paired_have_estimates_and_a_reason() -> None:
    (row,) = primary(rq_table("rq1", study(PEOPLE, list(XRAY)), Numbers(dict(XRAY), unpaired=(Cell("xray", "s1", "ots"),))))
    assert (row["generalist_estimate"], row["specialist_estimate"], row["gap"]) == (0.65, 0.80, None)
    assert row["reason"] == "sample ids differ"


def test_a_family_without_one_side_has_no_row() -> None:
    people = (candidate("g", "generalist"), candidate("s", "specialist", "xray", family="other"))
    cells = [Cell("xray", model, mode) for model in "gs" for mode in ("ots", "lp")]
    assert rq_table("rq1", study(people, cells), Numbers(dict.fromkeys(cells, 0.5))).is_empty()


def test_a_pair_has_one_gap_however_many_tables_ask_for_it() -> None:
    pair = Pair(0.8, 0.7, 0.1 + np.random.default_rng(0).normal(0, 0.02, 1000), 100, 50, 50.0)
    assert pair.gap(0.95) is pair.gap(0.95) and pair.gap(0.95) == paired_gap(pair.differences, 0.95, 50.0) != pair.gap(0.9)


def test_global_view_has_best_and_second_best_over_all_families() -> None:
    people = (*PEOPLE, candidate("s3", "specialist", "xray", family="siglip"))
    values = {**XRAY, Cell("xray", "s3", "ots"): 0.87, Cell("xray", "s3", "lp"): 0.5}
    rows = primary(global_table(study(people, list(values)), Numbers(values)))
    found = {(row["question"], row["generalist"], row["rank"]): (row["specialist"], row["exceeds"]) for row in rows}
    assert found == {
        ("global-rq2", "g1", 1): ("s3", True), ("global-rq2", "g1", 2): ("s1", True),
        ("global-rq2", "g2", 1): ("s3", False), ("global-rq2", "g2", 2): ("s1", True),
        # one specialist qualifies: it is best and second best
        ("global-rq3", "g1", 1): ("s2", True), ("global-rq3", "g1", 2): ("s2", True),
        ("global-rq3", "g2", 1): ("s2", False), ("global-rq3", "g2", 2): ("s2", False),
    }  # fmt: skip
    assert all(row["verdict"] is None and row["family"] == "all" for row in rows)
    within = primary(global_table(study(people, list(values)), Numbers(values), within_family=True))
    assert {row["specialist"] for row in within if row["question"] == "global-rq2"} == {"s1"}


def test_the_confirmatory_analysis_tests_what_validation_chose() -> None:
    """g1 is the best adapted on test, g2 on validation: g2 is tested, once, and on the same resamples."""
    reached = {Cell("xray", "g1", "ots"): 0.7, Cell("xray", "g2", "ots"): 0.7, Cell("xray", "g1", "lp"): 0.8, Cell("xray", "g2", "lp"): 0.9}
    who, numbers = study(PEOPLE, list(XRAY)), Numbers(dict(XRAY))
    assert with_a_choice(who) == list(reached), "a specialist is alone on its side, in its domain and out of it"
    rows = confirmatory_table(who, numbers, lambda cell: Estimate(reached[cell], None)).to_dicts()
    found = {
        row["question"]: (row["generalist"], row["specialist"], row["generalist_validation"], row["specialist_validation"]) for row in rows
    }
    assert found == {
        "rq1": ("g1", "s1", 0.7, None), "rq2": ("g2", "s1", 0.9, None), "rq3": ("g2", "s2", 0.9, None), "rq4": ("g2", "s1", 0.9, None)
    }  # fmt: skip
    assert {row["metric"] for row in rows} == {"auroc"} and {row["n_generalists"] for row in rows} == {1}
    assert {row["selection_bias"] for row in rows} == {0.0} and [row["verdict"] for row in rows][:2] == ["specialist", "generalist"]
    assert rows[1]["gap"] == pytest.approx(0.85 - 0.80) and rows[1]["p_holm"] == pytest.approx(rows[1]["p"])  # one pair, one row


def test_without_a_value_of_every_model_of_a_side_nothing_is_chosen() -> None:
    def validation(cell: Cell) -> Estimate:
        return Estimate(None, "mode lp keeps no value") if cell.model == "g1" and cell.mode == "lp" else Estimate(0.7, None)

    rows = confirmatory_table(study(PEOPLE, list(XRAY)), Numbers(dict(XRAY)), validation).to_dicts()
    assert [row["generalist"] for row in rows] == ["g1", NOBODY, NOBODY, NOBODY]
    assert [row["verdict"] for row in rows][1:] == [None] * 3
    assert {row["reason"] for row in rows[1:]} == {"no choice on validation data: xray/g1/lp: mode lp keeps no value"}


def test_a_model_that_validation_chose_and_test_lacks_leaves_no_gap() -> None:
    values: dict[Cell, float | None] = {**XRAY, Cell("xray", "g2", "lp"): None}
    rows = confirmatory_table(
        study(PEOPLE, list(values)), Numbers(values), lambda cell: Estimate(ord(cell.model[1]) / 100, None)
    ).to_dicts()
    assert (rows[1]["gap"], rows[1]["reason"]) == (None, "xray/g2/lp: no intervals")


def test_selection_bias_is_what_equal_models_show() -> None:
    """Two against four, equal in truth and as good as independent: expected maxima of 2 and 4 normals are 0.564 and 1.029 sd."""
    people = (*(candidate(f"g{i}", "generalist") for i in range(2)), *(candidate(f"s{i}", "specialist", "xray") for i in range(4)))
    values = {Cell("xray", one.model, "ots"): 0.8 + 0.001 * place for place, one in enumerate(people)}

    class Independent(Numbers):
        def pair(self, first: Cell, second: Cell, measure: Measure) -> Pair | Unpaired:
            noise = {cell: np.random.default_rng(list(str(cell).encode())).normal(0, 0.01, B) for cell in (first, second)}
            gap = values[first] - values[second]
            return Pair(values[first], values[second], gap + noise[first] - noise[second], 100, 100, 100)

    (row,) = primary(rq_table("rq1", study(people, list(values)), Independent(dict(values))))
    assert row["selection_bias"] == pytest.approx(0.01 * (0.564 - 1.029), abs=0.0003)
    assert (row["n_generalists"], row["n_specialists"]) == (2, 4)


def test_pooling_over_data_sets() -> None:
    datasets = ("a", "b", "c")
    people = (candidate("g", "generalist"), candidate("s", "specialist", *datasets))
    values = {Cell(d, m, mode): 0.8 if m == "g" else 0.7 for d in datasets for m in "gs" for mode in ("ots", "lp")}
    frame = pooled_table(rq_table("rq1", study(people, list(values), datasets), Numbers(values)), 0.95, PRIMARY.values())
    assert frame.select("k", "metric").rows() == [(3, "auroc")]
    assert frame["gap"][0] == pytest.approx(0.1)
    two = {cell: value for cell, value in values.items() if cell.dataset != "c"}
    other = pooled_table(rq_table("rq1", study(people, list(two), datasets), Numbers(two)), 0.95, PRIMARY.values())
    assert other["gap"].to_list() == [None]


# --- the stage

N = 80


def predict(cell: Cell, quality: float, spoil: dict[int, float] | None = None, ids: list[str] | None = None) -> None:
    """Predictions, scores and intervals of a cell. `spoil`: row -> score of both classes."""
    labels = np.arange(N) % 2
    one = np.clip(0.5 + quality * (labels - 0.5) + np.random.default_rng(list(str(cell).encode())).normal(0, 0.2, N), 0, 1)
    scores = np.column_stack([1 - one, one])
    for row, value in (spoil or {}).items():
        scores[row] = value
    columns = {
        "sample_id": ids or [f"s{i:03d}" for i in range(N)],
        "group_id": [f"g{i // 2}" for i in range(N)],
        "label": labels,
        "scores": scores.tolist(),
        "draws": None,
        "by_prompts": None,
    }
    frame = pl.DataFrame(columns, schema=tables.columns(PredictionsDiagnosis))
    written.predictions("diagnosis", frame, *cell)
    score.run(score.Params("diagnosis"), *cell)
    interval.run(interval.Params("diagnosis", AUROC, 0, 200, 400, 0.95, False, 30), *cell)


def run(cells: list[Cell], task: str = "diagnosis") -> dict[str, pl.DataFrame]:
    """The gaps stage over a generalist `g` and a specialist `s`."""
    people = (("g", "clip", "generalist", ()), ("s", "clip", "specialist", ("xray",)))
    params = gaps.Params(
        people, tuple(tuple(cell) for cell in cells), {"xray": task}, PRIMARY, MARGIN, CHANCE, "ots", ("lp",), 0, 200, 400, 0.95, 30
    )
    gaps.run(params, "demo")
    return {path.stem: tables.read(gaps.SCHEMAS.get(path.stem, tables.Gaps), path) for path in paths.gaps("demo")}


ALL = [Cell("xray", model, mode) for model in "gs" for mode in ("ots", "lp")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_duplicates([])


def write_duplicates(sample_ids: list[str]) -> None:
    """Table `duplicates` of the data set: these samples of test stand in train too."""
    rows = [("test", sample_id, "train", "exact-image", "t0") for sample_id in sample_ids]
    tables.write(tables.Duplicates, pl.DataFrame(rows, schema=tables.columns(tables.Duplicates), orient="row"), paths.duplicates("xray"))


def auroc(frame: pl.DataFrame) -> dict[str, object]:
    return frame.filter(pl.col("metric") == "auroc").row(0, named=True)


def test_stage_on_a_whole_grid() -> None:
    for cell in ALL:
        predict(cell, {"g": 0.05, "s": 0.3}[cell.model] + 0.2 * (cell.mode == "lp"))
    predict(Cell("xray", "raw-pixels", "lp"), 0.0)
    made = run([*ALL, Cell("xray", "raw-pixels", "lp")])
    row = auroc(made["rq1"])
    assert row["verdict"] == "specialist"
    stored = [tables.read(tables.Intervals, paths.intervals("xray", model, "ots")).row(0, named=True) for model in "gs"]
    differences = np.array(stored[0]["replicates"]) - np.array(stored[1]["replicates"])
    assert row["gap"] == stored[0]["estimate"] - stored[1]["estimate"]
    share, effective = (1 + min((differences <= 0).sum(), (differences >= 0).sum())) / 401, row["effective_groups"]
    assert row["p"] == 2 * one_sided_p(share, effective)
    tail = stats.norm.sf(quantile(0.025, effective))
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(differences, [tail, 1 - tail])))
    assert (row["n_pair"], row["n_groups"]) == (N, 40)
    assert made["rq3"].is_empty()  # the only specialist is in its domain
    everyone = {
        name for frame in (made["rq1"], made["rq2"], made["global"]) for column in ("generalist", "specialist") for name in frame[column]
    }
    assert everyone == {"g", "s"}  # the baseline never enters


def test_leak_free_rows_are_exploratory() -> None:
    """They stand beside the others with gap, interval and p, but neither Holm nor a verdict, and are not pooled."""
    write_duplicates([f"s{i:03d}" for i in range(30)])
    for cell in ALL:
        predict(cell, {"g": 0.05, "s": 0.3}[cell.model])
    made = run(ALL)
    leak_free = made["rq1"].filter(pl.col("subset") == "leak-free")
    assert len(leak_free) == 7 and leak_free["gap"].null_count() == leak_free["p"].null_count() == leak_free["low"].null_count() == 0
    assert set(leak_free["n_pair"]) == {50}
    for name in ("p_generalist", "p_specialist", "p_holm", "verdict"):
        assert leak_free[name].null_count() == 7
    primary = auroc(made["rq1"])
    assert (primary["subset"], primary["verdict"], primary["n_pair"]) == ("all", "specialist", N)
    assert primary["p_holm"] == 2 * primary["p_specialist"]  # of one row: the leak-free ones are not counted
    assert made["pooled"]["question"].to_list() == ["rq1", "rq2", "rq4"]  # the primary measure alone


def test_under_30_leak_free_samples_a_gap_is_null_with_its_reason() -> None:
    write_duplicates([f"s{i:03d}" for i in range(51)])
    for cell in ALL:
        predict(cell, 0.3)
    rows = run(ALL)["rq1"]
    leak_free = rows.filter(pl.col("subset") == "leak-free")
    assert leak_free["gap"].null_count() == len(leak_free) == 7
    assert leak_free["reason"][0] == "xray/g/ots: 29 leak-free samples, fewer than 30; xray/s/ots: 29 leak-free samples, fewer than 30"
    assert rows.filter(pl.col("subset") == "all")["gap"].null_count() == 0


def test_a_leak_free_sample_null_in_one_cell_is_dropped_from_both() -> None:
    write_duplicates([f"s{i:03d}" for i in range(49)])
    for cell in ALL:
        predict(cell, 0.3, spoil={70: float("nan")} if cell == Cell("xray", "g", "ots") else None)
    rows = run(ALL)["rq1"]
    assert set(rows.filter(pl.col("subset") == "leak-free")["n_pair"]) == {30}
    write_duplicates([f"s{i:03d}" for i in range(50)])
    for cell in ALL[:1] + ALL[2:3]:
        interval.run(interval.Params("diagnosis", AUROC, 0, 200, 400, 0.95, False, 30), *cell)
    leak_free = run(ALL)["rq1"].filter(pl.col("subset") == "leak-free")
    assert leak_free["gap"].null_count() == 7 and "29 leak-free samples, fewer than 30" in leak_free["reason"][0]


def test_a_sample_null_in_one_cell_is_dropped_from_both(capsys: pytest.CaptureFixture[str]) -> None:
    for cell in ALL:
        predict(cell, 0.3, spoil={5: float("nan")} if cell == Cell("xray", "g", "ots") else None)
    assert "1 of 80 samples have no finite score" in capsys.readouterr().err
    row = auroc(run(ALL)["rq1"])
    assert row["n_pair"] == N - 1
    # the same as if both had lost it
    predict(Cell("xray", "s", "ots"), 0.3, spoil={5: float("nan")})
    again = auroc(run(ALL)["rq1"])
    assert {name: again[name] for name in ("gap", "low", "high", "p")} == {name: row[name] for name in ("gap", "low", "high", "p")}


def test_other_sample_ids_are_named_not_paired() -> None:
    for cell in ALL:
        predict(cell, 0.3, ids=["x", *(f"s{i:03d}" for i in range(1, N))] if cell == Cell("xray", "g", "ots") else None)
    made = run(ALL)
    assert "row 0 (s000) has sample_id 'x', the test split 's000' (1 such)" in str(auroc(made["rq1"])["reason"])
    assert auroc(made["rq1"])["gap"] is None
    assert auroc(made["rq2"])["gap"] is not None


def test_absent_cells_are_listed_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    for cell in ALL[:1] + ALL[2:]:
        predict(cell, 0.3)
    capsys.readouterr()
    made = run(ALL)
    assert auroc(made["rq1"])["gap"] is not None
    assert auroc(made["rq2"])["reason"] == "xray/g/lp: no intervals"
    error = capsys.readouterr().err
    assert "xray/g/lp: no intervals" in error
    assert "gaps/demo/rq2: 14 of 14 rows have no gap" in error


def test_a_metric_absent_from_one_cell_is_named() -> None:
    for cell in ALL:
        predict(cell, 0.3)
    path = paths.intervals(*ALL[0])
    tables.write(tables.Intervals, tables.read(tables.Intervals, path).filter(pl.col("metric") != "f1"), path)
    made = run(ALL)["rq1"]
    row = made.filter(pl.col("metric") == "f1").row(0, named=True)
    assert (row["gap"], row["reason"]) == (None, "xray/g/ots: no f1 (standard, all)")
    assert made.filter(pl.col("metric") != "f1")["gap"].null_count() == 0


def test_other_resamples_are_named_not_paired() -> None:
    for cell in ALL:
        predict(cell, 0.3)
    interval.run(interval.Params("diagnosis", AUROC, 0, 200, 300, 0.95, False, 30), *ALL[0])
    assert auroc(run(ALL)["rq1"])["reason"] == "xray/g/ots has 300 resamples, xray/s/ots 400"


def test_a_class_absent_from_test_leaves_the_other_metrics() -> None:
    for cell in ALL:
        predict(cell, 0.3)
        path = paths.predictions(*cell)
        frame = pl.read_parquet(path).with_columns(label=pl.lit(0, dtype=pl.Int16))
        written.predictions("diagnosis", frame, *cell)
        interval.run(interval.Params("diagnosis", AUROC, 0, 200, 400, 0.95, False, 30), *cell)
    made = run(ALL)["rq1"]
    assert auroc(made)["gap"] is None
    assert "no sample of class 1 among 80" in str(auroc(made)["reason"])
    assert made.filter(pl.col("metric") == "accuracy")["gap"].null_count() == 0


def test_one_group_gives_a_gap_without_interval_and_p() -> None:
    """Every resample is the test set itself: an interval of no width and a tiny p would be false certainty."""
    for cell in ALL:
        predict(cell, 0.3)
        path = paths.predictions(*cell)
        written.predictions("diagnosis", pl.read_parquet(path).with_columns(group_id=pl.lit("g")), *cell)
        interval.run(interval.Params("diagnosis", AUROC, 0, 200, 400, 0.95, False, 30), *cell)
    for frame in (run(ALL)["rq1"], run(ALL)["global"]):
        assert frame["gap"].null_count() == 0
        for name in ("sd", "low", "high", "p", "minimum_detectable_difference", "verdict"):
            assert frame[name].null_count() == len(frame)
        assert set(frame["reason"]) <= {f"{n} effective group{'' if n else 's'}, fewer than 10: no interval, no verdict" for n in (0, 1)}


def test_no_open_question_leaves_the_closed_ones() -> None:
    cells = [Cell("xray", model, "ots") for model in "gs"]
    for cell in cells:
        right = np.random.default_rng(list(cell.model.encode())).random(N) < 0.7
        columns = {
            "sample_id": [f"s{i:03d}" for i in range(N)], "group_id": [f"g{i // 2}" for i in range(N)], "answer_type": ["closed"] * N,
            "is_yes_no": [True] * N, "question": ["is it?"] * N, "reference": ["yes"] * N,
            "answer": ["yes" if one else "no" for one in right], "finish_reason": ["stop"] * N, "n_tokens": [1] * N,
        }  # fmt: skip
        frame = pl.DataFrame(columns, schema=tables.columns(PredictionsVqa))
        written.predictions("vqa", frame, *cell)
        score.run(score.Params("vqa"), *cell)
        interval.run(interval.Params("vqa", PRIMARY["vqa"], 0, 200, 400, 0.95, False, 30), *cell)
    made = run(cells, "vqa")["rq1"]
    closed = made.filter(pl.col("metric") == "closed_accuracy", pl.col("subset") == "closed").row(0, named=True)
    assert closed["verdict"] is not None and closed["n_pair"] == N
    unasked = made.filter(pl.col("subset") == "open")
    assert unasked["gap"].null_count() == len(unasked) > 5
    assert set(unasked["reason"]) == {"xray/g/ots: no open question; xray/s/ots: no open question"}
    assert made.filter(pl.col("subset") == "closed")["gap"].null_count() == 0


def test_params_are_of_the_configured_run_alone() -> None:
    from medbench import config

    chosen = config.from_files([Path(__file__).parents[2] / "config" / "config.yaml"], Path(__file__).parents[2])
    params = gaps.params(chosen, chosen.run.run)
    assert params.off_the_shelf == "ots"
    assert params.margin == {"diagnosis": 0.02, "vqa": 0.02}
    wider = chosen.run.statistics.model_copy(update={"margins": {"closed_accuracy": 0.05}})
    other = gaps.params(chosen._replace(run=chosen.run.model_copy(update={"statistics": wider})), chosen.run.run)
    assert other.margin == {"diagnosis": 0.02, "vqa": 0.05}
    assert set(params.adapted) == set(chosen.run.modes) - {"ots", "ots-blank", "ots-shuffled"}
    assert {model for model, *_ in params.candidates} == set(chosen.run.models)
    with pytest.raises(MedbenchError, match="the configuration is of run"):
        gaps.params(chosen, "another")
