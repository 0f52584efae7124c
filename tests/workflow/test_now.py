"""`snakemake now`: everything that can be built from the cells that exist is built; absent cells stand there with their last error."""

from html import escape

from tests.conftest import Clone

LORA = "results/predictions/nano-radiology/nano-medclip/lora.parquet"


def test_now_after_a_failed_cell(clone: Clone) -> None:
    broken = "contrastive: {learning_rate: 1.0e+30, head_learning_rate: 1.0e+30}"  # cannot train
    also = "generative: {learning_rate: 1.0e+30, projector_learning_rate: 1.0e+30}"
    clone.append("config/modes.yaml", f"\nlora-broken:\n  kind: lora\n  {broken}\n  {also}\n")
    clone.edit("config/nano.yaml", "modes: [ots, lp, lora]", "modes: [ots, lp, lora, lora-broken]")
    failed = clone.snakemake()
    assert failed.code != 0
    assert "ERROR: " in failed.output
    assert not [job for job in failed.executed if "lora-broken" in job]

    outcome = clone.snakemake("now")
    assert outcome.code == 0, outcome.output
    assert outcome.executed == {"gaps nano", "report nano"}
    page = (clone.folder / "results/report/nano/index.html").read_text()
    log = (clone.folder / "logs/adapt/nano-radiology/nano-medclip/lora-broken.log").read_text()
    error = next(line for line in log.splitlines() if line.startswith("ERROR: "))
    assert "nano-radiology/nano-medclip/lora-broken" in error
    assert escape(error.split("; ")[0].removeprefix("ERROR: ")) in page


def test_now_starts_no_model_job_for_a_missing_cell(clone: Clone) -> None:
    (clone.folder / LORA).unlink()
    clone.edit("config/modes.yaml", "lp:\n  kind: probe\n", "lp:\n  kind: probe\n  n_splits: 3\n")  # makes the lp cells stale
    outcome = clone.snakemake("now")
    assert outcome.code == 0, outcome.output
    assert outcome.executed == {"gaps nano", "report nano"}
    assert "nano-medclip/lora" in (clone.folder / "results/report/nano/index.html").read_text()
    assert not (clone.folder / LORA).exists()


def test_now_without_any_cell_says_so(clone: Clone) -> None:
    for path in (clone.folder / "results/predictions").rglob("*.parquet"):
        path.unlink()
    outcome = clone.snakemake("now")
    assert outcome.code != 0
    assert "no cell of run nano exists yet" in outcome.output


def test_now_behind_a_configuration_is_the_target_all_the_same(clone: Clone) -> None:
    """Snakemake reads every word behind `--configfile` as a file: the root link `now` is one."""
    (clone.folder / LORA).unlink()
    outcome = clone.snakemake(configfile="config/nano.yaml now")
    assert outcome.code == 0, outcome.output
    assert outcome.executed == {"gaps nano", "report nano"}
