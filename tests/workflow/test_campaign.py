"""Three rounds of the campaign: any process killed, a job killed, a state cut off. The planted token is looked for in each."""

import pytest

from benchmarks import campaign


def test_three_rounds_lose_nothing_and_do_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign.main(["--rounds", "3", "--seed", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.endswith("tables equal") for line in lines[1:]), lines
    assert "cut training.pt" in lines[3]
