"""Rounds of the campaign: a training killed and its state cut off; jobs killed, results altered, state lost; each looks for the token."""

import json
import os
from pathlib import Path

import pytest

from benchmarks import campaign
from tests.conftest import Clone


@pytest.mark.parametrize(
    ("disturb", "what"),
    [
        pytest.param(campaign.cut_partial_file, "cut training.pt", id="cut"),
        pytest.param(campaign.kill("job"), "killed ", id="job", marks=pytest.mark.full),
        pytest.param(campaign.kill("any"), "killed ", id="any", marks=pytest.mark.full),
        pytest.param(campaign.alter_result, "killed Snakemake and ", id="altered", marks=pytest.mark.full),
        pytest.param(campaign.forget, "removed its metadata", id="forgotten", marks=pytest.mark.full),
        pytest.param(campaign.empty_state, "resolved configurations", id="emptied", marks=pytest.mark.full),
    ],
)
def test_a_disturbed_run_loses_nothing_and_does_nothing_twice(
    finished: Clone, tmp_path: Path, disturb: campaign.Disturbance, what: str
) -> None:
    took = [record["seconds"] for record in map(json.loads, finished.records().values()) if record["stage"] != "pretrain"]
    seconds = sum(took) / (os.cpu_count() or 1)
    whole = campaign.Undisturbed(finished.folder, campaign.tables(finished.folder), seconds)
    line = campaign.play(whole, tmp_path / "round", disturb, 0.4 * seconds)
    assert what in line and line.endswith("; tables equal"), line
