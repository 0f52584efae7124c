"""The demo's known truth, from what the models saw: `make run`, then its tables."""

import polars as pl
import pytest

from tests.workflow.conftest import Clone, make_clone

IN_DOMAIN = ("phantom-radiology", "phantom-pathology")
PHANTOMS = (*IN_DOMAIN, "phantom-dermatology", "phantom-ophthalmology")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = make_clone(tmp_path_factory.mktemp("demo") / "clone")
    outcome = clone.snakemake(configfile="config/config.yaml")
    assert outcome.code == 0, outcome.output[-8000:]
    return clone


def gaps(run: Clone, question: str) -> pl.DataFrame:
    table = pl.read_parquet(run.folder / f"results/gaps/demo/{question}.parquet")
    return table.filter(pl.col("metric") == "auroc")


@pytest.mark.parametrize("dataset", PHANTOMS)
def test_raw_pixels_do_not_solve_a_phantom(run: Clone, dataset: str) -> None:
    table = pl.read_parquet(run.folder / f"results/intervals/{dataset}/raw-pixels/lp.parquet")
    row = table.filter((pl.col("metric") == "auroc") & (pl.col("method") == "percentile") & (pl.col("subset") == "all"))
    assert row["estimate"].item() <= 0.70


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize("dataset", IN_DOMAIN)
def test_in_domain_specialist_leads_off_the_shelf(run: Clone, family: str, dataset: str) -> None:
    row = gaps(run, "rq1").filter((pl.col("family") == family) & (pl.col("dataset") == dataset))
    assert row["gap"].item() < 0
    assert row["high"].item() < 0


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize("adaptation", ["lp", "lora"])
def test_adaptation_lifts_the_generalist(run: Clone, family: str, adaptation: str) -> None:
    first, second = gaps(run, "rq1"), gaps(run, "rq2").filter(pl.col("adaptation") == adaptation)
    for dataset in IN_DOMAIN:
        here = (pl.col("family") == family) & (pl.col("dataset") == dataset)
        assert second.filter(here)["gap"].item() > first.filter(here)["gap"].item()


def test_second_run_has_nothing_to_do(run: Clone) -> None:
    outcome = run.snakemake(configfile="config/config.yaml")
    assert outcome.executed == set()
    assert "Nothing to be done" in outcome.output
