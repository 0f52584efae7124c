"""Resamples: the same everywhere, paired across cells, and what the metrics make of them equal to a plain loop."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from medbench import paths, tables, tasks
from medbench.metrics import diagnosis
from medbench.metrics.measure import Measure
from medbench.stats.resamples import BLOCK, Groups, Resamples
from medbench.stats.table import Plan, estimates, replicates, rows
from medbench.tasks import vqa
from medbench.tasks.diagnosis import PredictionsDiagnosis, ScoredDiagnosis
from medbench.tasks.vqa import PredictionsVqa, ScoredVqa
from tests.unit import written

FloatArray = NDArray[np.float64]
PRIMARY = {name: tasks.get(name).primary for name in tasks.names()}


def cell(n: int = 120, n_groups: int = 40, seed: int = 0) -> ScoredDiagnosis:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    one = np.round(generator.random(n) / 2 + labels / 4, 2)
    groups = Groups([f"g{number % n_groups:03d}" for number in range(n)])
    return ScoredDiagnosis([f"s{i}" for i in range(n)], groups, {"all": np.ones(n, dtype=bool)}, labels, np.column_stack([1 - one, one]))


def test_groups_are_sorted_and_the_unit_follows_from_repetition() -> None:
    groups = Groups(["b", "a", "b"])
    assert (groups.names, groups.index.tolist(), groups.unit) == (["a", "b"], [1, 0, 1], "group")
    assert Groups(["b", "a"]).unit == "sample"


def test_a_resample_draws_as_many_groups_as_there_are() -> None:
    for n_groups in (1, 2, 7, 100):
        block = Resamples(3, "data", n_groups).block(0)
        assert block.shape == (BLOCK, n_groups)
        assert (block.sum(axis=1, dtype=int) == n_groups).all()


def test_draws_are_uniform() -> None:
    """Chi-square of 1,000 x 50 draws over 50 groups, 49 degrees of freedom: within 5 sd."""
    total = Resamples(0, "data", 50).block(0).sum(axis=0, dtype=float)
    assert abs(((total - BLOCK) ** 2 / BLOCK).sum() - 49) < 5 * np.sqrt(2 * 49)


def test_resamples_depend_on_seed_and_data_set_alone() -> None:
    one = Resamples(0, "data", 30).block(1)
    assert (one == Resamples(0, "data", 30).block(1)).all()
    assert (one != Resamples(1, "data", 30).block(1)).any()
    assert (one != Resamples(0, "other", 30).block(1)).any()
    assert (one != Resamples(0, "data", 30).block(0)).any()


def test_resamples_are_the_same_on_every_machine() -> None:
    """Pinned: a change here changes every published interval."""
    assert Resamples(0, "chexpert", 10).block(0)[:3].tolist() == PINNED


PICKED = [[1, 3], [2, 0], [2, 2]]
PINNED = [[1, 0, 0, 2, 2, 2, 0, 1, 1, 1], [1, 0, 0, 2, 1, 2, 1, 2, 0, 1], [2, 1, 1, 0, 2, 2, 1, 0, 0, 1]]


def test_fewer_resamples_are_the_first_of_more() -> None:
    resamples = Resamples(0, "data", 40)
    auroc = PRIMARY["diagnosis"]
    many = replicates(cell(), [auroc], resamples, BLOCK + 200)[auroc]
    few = replicates(cell(), [auroc], resamples, 150)[auroc]
    assert len(many) == BLOCK + 200
    assert many[:150].tolist() == few.tolist()


def test_auroc_equals_a_loop_over_scikit_learn_on_repeated_samples() -> None:
    scored, resamples = cell(), Resamples(0, "data", 40)
    auroc = PRIMARY["diagnosis"]
    drawn = replicates(scored, [auroc], resamples, 50)[auroc]
    for number, counts in enumerate(resamples.block(0)[:50]):
        repeated = np.repeat(np.arange(120), counts[scored.groups.index])
        expected = roc_auc_score(scored.labels[repeated], scored.scores[repeated, 1])
        assert drawn[number] == pytest.approx(expected, abs=1e-12)


def test_the_order_of_samples_changes_no_replicate() -> None:
    scored, resamples = cell(), Resamples(0, "data", 40)
    order = np.random.default_rng(1).permutation(120)
    names = [scored.groups.names[g] for g in scored.groups.index]
    shuffled = ScoredDiagnosis(
        [scored.ids[i] for i in order],
        Groups([names[i] for i in order]),
        {"all": np.ones(120, dtype=bool)},
        scored.labels[order],
        scored.scores[order],
    )
    for measure, values in replicates(scored, scored.measures(), resamples, 100).items():
        np.testing.assert_array_equal(values, replicates(shuffled, [measure], resamples, 100)[measure])


def test_a_subset_is_a_mask_on_the_same_resamples() -> None:
    """A subset's replicates equal those of the metric computed on the subset's rows with the whole test set's draws."""
    scored = cell()
    half = np.arange(120) % 2 == 0
    masked = ScoredDiagnosis(scored.ids, scored.groups, {"all": np.ones(120, dtype=bool), "leak-free": half}, scored.labels, scored.scores)
    resamples = Resamples(0, "data", 40)
    leak_free = Measure("auroc", "standard", "leak-free")
    [drawn] = resamples.weights(20)
    weights = drawn[scored.groups.index[half]]
    expected = diagnosis.auroc(scored.labels[half], scored.scores[half], weights)
    assert replicates(masked, [leak_free], resamples, 20)[leak_free].tolist() == expected.tolist()


def test_answers_are_means_over_their_subset() -> None:
    generator = np.random.default_rng(0)
    groups, closed, f1 = Groups([f"g{i // 3}" for i in range(60)]), generator.random(60) < 0.5, generator.random(60)
    accuracy = np.where(closed, generator.integers(0, 2, 60), np.nan)
    scored = ScoredVqa(
        [str(i) for i in range(60)],
        groups,
        {"all": np.ones(60, dtype=bool), "closed": closed, "open": ~closed},
        {("closed_accuracy", "strict"): accuracy, ("token_f1", "strict"): f1},
    )
    assert Measure("closed_accuracy", "strict", "all") not in scored.measures()  # no pooled open + closed accuracy
    made = estimates(scored, scored.measures())
    assert made[Measure("token_f1", "strict", "open")] == pytest.approx(f1[~closed].mean(), abs=1e-9)
    assert made[PRIMARY["vqa"]] == np.nanmean(accuracy)
    resamples = Resamples(0, "data", len(groups))
    drawn = replicates(scored, scored.measures(), resamples, 10)
    counts = resamples.block(0)[3][groups.index]
    assert drawn[PRIMARY["vqa"]][3] == np.average(accuracy[closed], weights=counts[closed])


def test_rows_flag_few_groups_and_name_what_is_undefined() -> None:
    plan = Plan(200, 400, 0.95, False, 30)
    few = rows(cell(40, 20), PRIMARY["diagnosis"], Resamples(0, "data", 20), plan)
    assert all(row.few_groups for row in few)
    assert {row.method for row in few} == {"percentile", "logit", "published"}
    lengths = {row.measure.metric: len(row.replicates) for row in few if row.replicates is not None}
    assert lengths["auroc"] == 400 and lengths["accuracy"] == 200

    one_group = rows(cell(40, 1), PRIMARY["diagnosis"], Resamples(0, "data", 1), plan)
    guarded = [row for row in one_group if row.method != "published"]
    assert all(row.estimate is not None and row.interval.low is None and "fewer than 10" in str(row.interval.reason) for row in guarded)


def test_published_rows_resample_samples_whatever_the_groups() -> None:
    """Ten slides have no interval by groups; the study's is that of 1,000 resamples of samples, as a plain loop has it."""
    scored, plan = cell(400, 9), Plan(200, 400, 0.95, False, 30)
    made = {
        row.measure.metric: row for row in rows(scored, PRIMARY["diagnosis"], Resamples(0, "data", 9), plan) if row.method == "published"
    }
    counts = Resamples(0, "data", 400).block(0)[:, Groups(scored.ids).index]
    drawn = np.array([roc_auc_score(scored.labels, scored.scores[:, 1], sample_weight=row) for row in counts])
    auroc = made["auroc"].interval
    assert made["auroc"].n_resamples == 1000 and made["auroc"].few_groups and made["auroc"].replicates is None
    assert (auroc.low, auroc.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    assert auroc.sd == pytest.approx(drawn.std(ddof=1))
    right = scored.scores.argmax(axis=1) == scored.labels
    assert made["accuracy"].interval.sd == pytest.approx(np.std(counts @ right / 400, ddof=1))


def test_published_rows_are_those_of_the_groups_where_each_sample_is_one() -> None:
    scored = cell(120, 120)
    made = rows(scored, PRIMARY["diagnosis"], Resamples(0, "data", 120), Plan(1000, 2000, 0.95, False, 30))
    by_method = {row.method: row.interval for row in made if row.measure.metric == "accuracy"}
    assert by_method["published"] == by_method["percentile"]
    few = rows(scored, PRIMARY["diagnosis"], Resamples(0, "data", 120), Plan(300, 400, 0.95, False, 30))
    assert [row.interval for row in few if row.method == "published"] == [row.interval for row in made if row.method == "published"]


def test_bca_needs_a_jackknife_of_every_group() -> None:
    made = rows(cell(), PRIMARY["diagnosis"], Resamples(0, "data", 40), Plan(1000, 1000, 0.95, True, 30))
    by_method = {row.method: row.interval for row in made if row.measure == PRIMARY["diagnosis"]}
    assert set(by_method) == {"percentile", "logit", "bca", "published"}
    assert by_method["bca"].low == pytest.approx(by_method["percentile"].low, abs=0.03)
    assert by_method["bca"].low != by_method["percentile"].low


CODE = """
import sys
from pathlib import Path
import medbench.tasks
from medbench.stages import gaps, interval, score
people = ("g", "clip", "generalist", ()), ("s", "clip", "specialist", ("data", "questions"))
tasks = {"data": "diagnosis", "questions": "vqa"}
primary = {name: medbench.tasks.get(name).primary for name in tasks.values()}
cells = tuple((dataset, model, "ots") for dataset in tasks for model in "gs")
for cell in cells:
    score.run(score.Params(tasks[cell[0]]), *cell)
    interval.run(interval.Params(tasks[cell[0]], primary[tasks[cell[0]]], 0, 300, 1200, 0.95, True, 30), *cell)
margin, chance = dict.fromkeys(primary, 0.02), dict.fromkeys(primary)
gaps.run(gaps.Params(people, cells, tasks, primary, margin, chance, "ots", (), 0, 300, 1200, 0.95, 30), "run")
for path in sorted(Path("results").rglob("*.parquet")):
    if path.parts[1] in ("scores", "intervals", "gaps"):
        sys.stdout.buffer.write(path.read_bytes())
"""


def test_tables_are_byte_equal_for_any_thread_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores, intervals and gaps of a diagnosis and a question-answering set with duplicates, from their predictions."""
    monkeypatch.chdir(tmp_path)
    for number, model in enumerate("gs"):
        scored = cell(300, 300, seed=number)
        names = [scored.groups.names[g] for g in scored.groups.index]
        labels = cell(300, 300).labels
        columns = {
            "sample_id": scored.ids,
            "group_id": names,
            "label": labels,
            "scores": scored.scores.tolist(),
            "draws": None,
            "by_prompts": None,
        }
        frame = pl.DataFrame(columns, schema=tables.columns(PredictionsDiagnosis))
        written.predictions("diagnosis", frame, "data", model, "ots")
        n = 200
        answers = {
            "sample_id": [f"s{i}" for i in range(n)], "group_id": [f"g{i % 70}" for i in range(n)],
            "answer_type": ["closed", "open"] * (n // 2), "is_yes_no": [True, False] * (n // 2), "question": ["is it?"] * n,
            "reference": ["yes", "left lower lobe"] * (n // 2),
            "answer": ["yes" if i % (3 + number) else "the lower left lobe" for i in range(n)],
            "finish_reason": ["stop"] * n, "n_tokens": [1] * n,
        }  # fmt: skip
        frame = pl.DataFrame(answers, schema=tables.columns(PredictionsVqa))
        written.predictions("vqa", frame, "questions", model, "ots")
    shared = pl.DataFrame(
        [("test", f"s{i}", "train", "exact-image", "t0") for i in range(50)], schema=tables.columns(tables.Duplicates), orient="row"
    )
    for dataset in ("data", "questions"):
        tables.write(tables.Duplicates, shared, paths.duplicates(dataset))
    outputs = []
    for threads in ("1", "2"):
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), threads)
        environment = {**os.environ, **variables, "PYTHONPATH": str(Path(__file__).parents[2])}
        made = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, check=True)
        outputs.append(made.stdout)
    assert outputs[0] == outputs[1] and len(outputs[0]) > 100_000


# --- ratings of judges are drawn anew

OPEN = Measure("judge_score", "strict", "open")
BOUNDS = [Measure(f"judge_score_{end}", "strict", "open") for end in ("lowest", "highest")]


def rated(things: list[int], scores: dict[str, FloatArray], minimum: int = 1) -> ScoredVqa:
    """A cell of open questions, one of each group. `things` [n]: the triple of each; `scores`: judge -> [triples, repeats], NaN is null."""
    n = len(things)
    rows = [
        {
            "sample_id": f"s{place:03d}", "scoring": "strict", "judge": judge, "repeat": repeat,
            "state": "failed" if score is None else "judged", "score": score, "reason": "", "answered_by": judge,
            "request": f"{judge} {thing} {repeat}",
        }
        for place, thing in enumerate(things) for judge, own in scores.items()
        for repeat, score in enumerate(None if np.isnan(one) else one for one in own[thing].tolist())
    ]  # fmt: skip
    table = pl.DataFrame(rows, schema=tables.columns(tables.Judgements))
    subsets = {"all": np.ones(n, dtype=bool), "open": np.ones(n, dtype=bool), "closed": np.zeros(n, dtype=bool)}
    values = {("closed_accuracy", "strict"): np.full(n, np.nan)}
    plain = ScoredVqa([f"s{place:03d}" for place in range(n)], Groups([f"g{place:03d}" for place in range(n)]), subsets, values)
    return vqa.judged(plain, table, ["strict"], minimum)


def test_an_interval_of_repeats_covers_what_the_judge_gives_in_the_long_run() -> None:
    """Few answers, given to many questions: a judge's noise on one of them moves all of its questions at once, which groups do not show."""
    random, things = np.random.default_rng(0), [place % 6 for place in range(60)]
    covered = dict.fromkeys(("groups alone", "with the judge's noise"), 0)
    for trial in range(150):
        truth = np.full(6, 50.0)
        scores = np.clip(np.rint(truth[:, None] + random.normal(0, 12, (6, 3))), 1, 100)
        scored, resamples = rated(things, {"judge": scores}), Resamples(trial, "data", 60)
        for name, of in (("groups alone", replace(scored, ratings=())), ("with the judge's noise", scored)):
            spread = replicates(of, [OPEN], resamples, 100)[OPEN].std()
            covered[name] += abs(estimates(of, [OPEN])[OPEN] - 0.5) < 1.96 * spread
    assert covered["groups alone"] / 150 < 0.75 and covered["with the judge's noise"] / 150 > 0.9, covered


@pytest.mark.parametrize(
    "scores", [np.array([[40.0], [70.0], [10.0]]), np.array([[40.0] * 3, [70.0] * 3, [10.0] * 3])], ids=["one repeat", "equal repeats"]
)
def test_a_judge_without_noise_changes_no_bit(scores: FloatArray) -> None:
    scored, resamples = rated([0, 1, 2, 1] * 10, {"judge": scores}), Resamples(0, "data", 40)
    assert scored.ratings == ()
    plain = np.concatenate([scored.evaluate([OPEN], weights)[OPEN] for weights in resamples.weights(BLOCK + 50)])
    np.testing.assert_array_equal(replicates(scored, [OPEN], resamples, BLOCK + 50)[OPEN], plain)


def test_ratings_are_drawn_as_a_plain_loop_has_them() -> None:
    """Two of three repeats with replacement, equal triples alike, in the score and in both of its bounds."""
    things, scores = [0, 1, 1, 2, 0] * 6, np.array([[10.0, 20, 60], [90, np.nan, 70], [np.nan, np.nan, np.nan]])
    scored, resamples = rated(things, {"judge": scores}), Resamples(0, "data", 30)
    drawn = replicates(scored, [OPEN, *BOUNDS], resamples, BLOCK + 3)
    for number in (0, 7, BLOCK + 2):
        counts = resamples.block(number // BLOCK)[number % BLOCK].astype(float)
        means = np.full(3, np.nan)
        for thing, valid in ((0, scores[0]), (1, scores[1][[0, 2]])):
            key = "\n".join(f"judge {thing} {repeat}" for repeat in range(3))
            means[thing] = valid[resamples.picks(key, len(valid), range(number, number + 1))[:, 0]].mean()
        of_samples = means[things]
        known = ~np.isnan(of_samples)
        for measure, null in ((OPEN, None), (BOUNDS[0], 1), (BOUNDS[1], 100)):
            used = known if null is None else np.ones(30, dtype=bool)
            filled = np.where(known, of_samples, 0 if null is None else null)
            assert drawn[measure][number] == pytest.approx((counts * filled)[used].sum() / counts[used].sum() / 100, abs=1e-8)


def test_equal_answers_of_two_cells_are_judged_alike_in_every_resample() -> None:
    """Their difference is that of the answers that differ; whatever order the questions have, and whatever else is drawn."""
    random, resamples = np.random.default_rng(1), Resamples(0, "data", 40)
    scores = np.rint(random.uniform(1, 100, (5, 4)))
    first, second = ([place % 4 for place in range(40)] for _ in range(2))
    second[7] = 4
    one, other = (replicates(rated(things, {"judge": scores}), [OPEN], resamples, 200)[OPEN] for things in (first, second))
    assert np.array_equal(one, replicates(rated(first, {"judge": scores}), [OPEN], resamples, 200)[OPEN])
    hit = resamples.block(0)[:200, 7] > 0
    assert np.abs(one - other)[~hit].max() < 1e-12 and np.abs(one - other)[hit].max() > 0.001


def test_of_a_panel_the_judges_are_drawn_and_of_one_that_is_left_its_repeats() -> None:
    strict, lenient = np.array([[20.0, 30.0]]), np.array([[80.0, 90.0]])
    resamples = Resamples(0, "data", 20)
    drawn = replicates(rated([0] * 20, {"a": strict, "b": lenient}, 2), [OPEN], resamples, 200)[OPEN]
    assert {round(value, 6) for value in drawn} == {0.25, 0.85}
    alone = replicates(rated([0] * 20, {"a": strict, "b": np.full((1, 2), np.nan)}), [OPEN], resamples, 200)[OPEN]
    assert {round(value, 6) for value in alone} == {0.2, 0.3}
    assert not rated([0] * 20, {"a": strict, "b": np.full((1, 2), np.nan)}, 2).used(OPEN).any(), "fewer than the minimum"


def test_draws_of_ratings_are_uniform_and_depend_on_the_thing() -> None:
    resamples = Resamples(0, "data", 40)
    picks = resamples.picks("one", 4, range(BLOCK))
    assert picks.shape == (3, BLOCK) and np.array_equal(picks[:, 5:9], resamples.picks("one", 4, range(5, 9)))
    total = np.bincount(picks.ravel(), minlength=4)
    assert len(total) == 4 and (abs(total - 750) < 5 * np.sqrt(750 * 0.75)).all()
    for other in (resamples.picks("other", 4, range(BLOCK)), resamples.picks("one", 4, range(BLOCK, 2 * BLOCK))):
        assert (picks != other).any()
    assert resamples.picks("one", 4, range(2)).tolist() == PICKED
