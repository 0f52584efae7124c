"""Rounds of the campaign: a training killed and its state cut off; jobs killed, results altered, state lost; each looks for the token.

Of these `make test` has a kill (test_kills.py), a state that is cut off (test_adapt.py) and altered results (test_verify.py).
"""

import json
import os
from pathlib import Path

import pytest

from benchmarks import campaign
from tests.conftest import Clone


@pytest.mark.full
@pytest.mark.parametrize(
    ("disturb", "what"),
    [
        pytest.param(campaign.cut_partial_file, "cut training.pt", id="cut"),
        pytest.param(campaign.kill("job"), "killed ", id="job"),
        pytest.param(campaign.kill("any"), "killed ", id="any"),
        pytest.param(campaign.alter_result, "killed Snakemake and ", id="altered"),
        pytest.param(campaign.forget, "removed its metadata", id="forgotten"),
        pytest.param(campaign.empty_state, "resolved configurations", id="emptied"),
    ],
)
def test_a_disturbed_run_loses_nothing_and_does_nothing_twice(
    finished: Clone, tmp_path: Path, disturb: campaign.Disturbance, what: str
) -> None:
    took = [record["seconds"] for record in map(json.loads, finished.records().values()) if record["stage"] != "pretrain"]
    seconds = sum(took) / (os.cpu_count() or 1)
    whole = campaign.Undisturbed(finished.folder, campaign.tables(finished.folder), seconds)
    for share in (0.4, 0.2, 0.1):  # earlier where the undisturbed run had more company than this one
        line = campaign.play(whole, tmp_path / f"round-{share}", disturb, share * seconds)
        if "nothing was killed" not in line:
            break
    assert what in line and line.endswith("; tables equal"), line
