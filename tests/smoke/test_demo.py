"""The demo's known truth, from what the models saw: `make run`, then its tables."""

from pathlib import Path

import polars as pl
import pytest

from benchmarks.demo_seeds import ADAPTED, BASELINES, COMPARISONS, IN_DOMAIN, MOST, Comparison, difference, primary
from tests.conftest import Clone

WITHIN = [compared for compared in COMPARISONS if compared.dataset in IN_DOMAIN]


@pytest.fixture(scope="module")
def run(workplace: Clone) -> Clone:
    outcome = workplace.snakemake(configfile="config/config.yaml")
    assert outcome.code == 0, outcome.output[-8000:]
    return workplace


@pytest.fixture
def results(run: Clone) -> Path:
    return run.folder / "results"


@pytest.mark.parametrize("compared", COMPARISONS, ids="{0.dataset}-{0.family}".format)
def test_baselines_do_not_solve_a_phantom(results: Path, compared: Comparison) -> None:
    for model, mode in BASELINES[compared.task]:
        assert primary(results, compared.task, compared.dataset, model, mode)[0] <= MOST[compared.task]


@pytest.mark.parametrize("compared", WITHIN, ids="{0.dataset}-{0.family}".format)
def test_in_domain_specialist_leads_off_the_shelf(results: Path, compared: Comparison) -> None:
    table = pl.read_parquet(results / "gaps/demo/rq1.parquet")
    row = table.filter(pl.col("family") == compared.family, pl.col("dataset") == compared.dataset, pl.col("p_holm").is_not_null())
    assert row["gap"].item() < 0
    assert row["high"].item() < 0
    assert row["verdict"].item() == "specialist"


@pytest.mark.parametrize(("compared", "mode"), [(compared, mode) for compared in WITHIN for mode in ADAPTED[compared.task]])
def test_adaptation_lifts_the_generalist(results: Path, compared: Comparison, mode: str) -> None:
    lift = difference(results, compared.task, compared.dataset, (compared.generalist, mode), (compared.generalist, "ots"))
    assert lift.low > 0, str(lift)


def test_stored_answers_are_words_and_no_constant(results: Path) -> None:
    for compared in (compared for compared in COMPARISONS if compared.task == "vqa"):
        for model in (compared.generalist, compared.specialist):
            for mode in ("ots", "lora"):
                table = pl.read_parquet(results / f"predictions/{compared.dataset}/{model}/{mode}.parquet")
                assert table["answer"].n_unique() >= 5
                assert table["answer"].str.contains(r"^[a-z]+$").mean() > 0.95, table["answer"].unique().to_list()
                assert (table["finish_reason"] == "stop").mean() > 0.95


def test_what_a_specialist_reads_off_the_shelf_is_in_the_image(results: Path) -> None:
    """In its domain, its accuracy falls when the image is grey or another patient's."""
    cell = ("phantom-vqa-radiology", "mini-llava-med")
    for control in ("ots-blank", "ots-shuffled"):
        lost = difference(results, "vqa", cell[0], (cell[1], "ots"), (cell[1], control))
        assert lost.low > 0.05, f"{control}: {lost}"


def test_second_run_has_nothing_to_do(run: Clone) -> None:
    outcome = run.snakemake(configfile="config/config.yaml")
    assert outcome.executed == set()
    assert "Nothing to be done" in outcome.output
