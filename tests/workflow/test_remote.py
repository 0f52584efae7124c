"""A run with a model behind a real server: equal tables, its cost, no key anywhere; and what becomes of a model that is shut down."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import make_clone
from tests.unit import served

KEY = "sk-planted-0123456789abcdefghij"
NANO = served.ROOT / "resources/models/nano-llava"
LOCAL, REMOTE = (f"nano-vqa-radiology/{name}/ots" for name in ("nano-llava", "nano-served"))
ENTRY = """
nano-served:
  family: llava
  role: generalist
  architecture: openai
  checkpoint: {model}
  pretrained_on: [everyday]
  modes: [ots]
  same_as: nano-llava
  endpoint: {{url: "${{NANO_URL}}", key: PLANTED_KEY, price: openai/gpt-4o-mini}}
"""
RUN = """
run: served
seed: 0
models: [nano-llava, nano-served]
datasets: [nano-vqa-radiology]
modes: [ots]
warm: false
"""
CONFIG = "config/served.yaml"
TABLES = [f"results/{stage}/{REMOTE}.parquet" for stage in ("predictions", "scores", "intervals")]


@pytest.fixture
def watched() -> Iterator[list[str]]:
    """Command lines of all processes of this machine, while a test runs."""
    lines: set[str] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.1):
            for place in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    lines.add(place.read_text(errors="replace"))

    thread = threading.Thread(target=look)
    thread.start()
    found: list[str] = []
    yield found
    stop.set()
    thread.join()
    found += lines
    assert any("snakemake" in line for line in found)
    assert not [line for line in found if KEY in line], "the key stands in a process list"


def test_a_model_behind_a_server(tmp_path: Path, watched: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clone = make_clone(tmp_path / "clone")
    monkeypatch.setenv("PLANTED_KEY", KEY)
    clone.append("config/models.yaml", ENTRY.format(model=NANO))
    (clone.folder / CONFIG).write_text(RUN)
    with served.serving(NANO, tmp_path / "log") as server:
        monkeypatch.setenv("NANO_URL", server.url)
        outcome = clone.snakemake(configfile=CONFIG)
    assert outcome.code == 0, outcome.output
    assert "COST: nano-served: about " in outcome.output and " $ by genai-prices" in outcome.output
    for stage in ("predictions", "scores", "intervals"):
        remote, local = (pl.read_parquet(clone.folder / f"results/{stage}/{cell}.parquet") for cell in (REMOTE, LOCAL))
        assert remote.equals(local), stage
    record = json.loads((clone.folder / f"results/predictions/{REMOTE}.run.json").read_text())
    assert record["torch"] is False and record["weights"] == {"model": f"{NANO}@main"} and record["endpoint"]["requests"] > 0
    cost = pl.read_csv(clone.folder / "results/report/served/cost.csv").filter(
        pl.col("model") == "nano-served", pl.col("stage") == "predict"
    )
    assert cost["dollars"].item() == pytest.approx(record["dollars"]) and record["dollars"] > 0

    served_here = pl.read_csv(clone.folder / "results/report/served/tables/served.csv")
    assert served_here.select("model", "here", "n_different", "gap").rows() == [("nano-served", "nano-llava", 0, 0.0)]
    assert "0 of " in (page := (clone.folder / "results/report/served/index.html").read_text()) and "behind a server" in page

    files = [place for place in clone.folder.rglob("*") if place.is_file()]
    assert not [place for place in files if KEY.encode() in place.read_bytes()] and KEY not in outcome.output

    # An edit of the code that asks, no key and no server: all is read from the store.
    tables = {name: (clone.folder / name).read_bytes() for name in TABLES}
    clone.edit("medbench/models/remote/openai.py", '{"temperature": 0, self.chosen.budget', '{"temperature": 0.0 * 0, self.chosen.budget')
    monkeypatch.delenv("PLANTED_KEY")
    monkeypatch.setenv("NANO_URL", "http://127.0.0.1:9/v1")
    outcome = clone.snakemake(configfile=CONFIG)
    assert outcome.code == 0 and f"predict {REMOTE}" in outcome.executed, outcome.output
    assert tables == {name: (clone.folder / name).read_bytes() for name in TABLES}

    # Shut down: what is kept is used, in the store and in the results. Without either the cell is absent with that reason.
    clone.edit(
        "config/models.yaml",
        "  same_as: nano-llava\n",
        '  same_as: nano-llava\n  retired_on: "2020-01-01"\n',
    )
    (clone.folder / TABLES[0]).unlink()
    outcome = clone.snakemake(configfile=CONFIG)
    assert outcome.code == 0 and tables == {name: (clone.folder / name).read_bytes() for name in TABLES}, outcome.output
    shutil.rmtree(clone.folder / "store")
    assert clone.plan(configfile=CONFIG) == []
    for name in TABLES:
        (clone.folder / name).unlink()
    shutil.rmtree(clone.folder / "results/.answers")
    outcome = clone.snakemake(configfile=CONFIG)
    assert outcome.code == 0 and outcome.executed == {"gaps served", "report served"}, outcome.output
    absent = pl.read_csv(clone.folder / "results/report/served/tables/absent.csv")
    assert absent["error"].to_list() == [f"{NANO} was shut down on 2020-01-01, and none of its answers is kept in store"]
    assert clone.plan(configfile=CONFIG) == []
