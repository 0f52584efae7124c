"""Results against their run records: every alteration is found, nothing untouched is, and a damaged record is one finding."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from medbench import paths
from medbench.jobs import integrity, records

TABLE = Path("results/scores/d/m/lp.parquet")
MADE = json.dumps({"params": {"seed": 0}, "code": "ab"})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(output: Path = TABLE, inputs: tuple[Path, ...] = (), text: str = "table") -> None:
    """An output with its run record, as a job leaves them."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
    records.write_run_record("score", ("d", "m", "lp"), [output], [*inputs], (), MADE, 0.0, {})


def edit(**fields: Any) -> None:
    """The record with other fields."""
    path = paths.run_record(TABLE)
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def kinds(fingerprint: str | None = MADE, exact: bool = False) -> list[str]:
    return [str(finding).removeprefix("results/scores/d/m/") for finding in integrity.inspect([TABLE], fingerprint, exact)]


def test_an_untouched_result_has_no_finding_and_a_touched_or_copied_one_neither() -> None:
    write()
    assert kinds() == kinds(exact=True) == kinds(None) == []
    os.utime(TABLE)
    data = TABLE.read_bytes()
    TABLE.unlink()
    TABLE.write_bytes(data)
    assert kinds() == kinds(exact=True) == []


def test_times_that_are_set_back_hide_nothing() -> None:
    write()
    before = TABLE.stat()
    TABLE.write_text("Table")
    os.utime(TABLE, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert kinds() == kinds(exact=True) == ["lp.parquet: is not the file that its job wrote"]


ENTRY = {"sha256": "0" * 64, "stamp": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    "damage",
    [
        *({"outputs": value} for value in ([1], None, "x", 3, {str(TABLE): "x"}, {str(TABLE): {"sha256": "0"}}, {str(TABLE): [1]})),
        *({"outputs": {str(TABLE): ENTRY}, "inputs": value} for value in (["a"], None, {"a": 1}, {"results/data": None}, "x")),
    ],
)
def test_a_damaged_record_is_one_that_nobody_can_read(damage: dict[str, Any]) -> None:
    write()
    edit(**damage)
    assert (
        kinds()
        == kinds(exact=True)
        == kinds(None)
        == ["lp.parquet: its run record cannot be read, or holds no digests: how it was made is not known"]
    )
    assert integrity.of_inputs([TABLE])[str(TABLE)] == integrity.digests.file_digest(TABLE), "and others go by the bytes"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', "[" * 200_000, "\x00", "{}"])
def test_what_is_no_record_is_unrecorded(text: str) -> None:
    write()
    paths.run_record(TABLE).write_text(text)
    (found,) = integrity.inspect([TABLE], MADE)
    assert found.kind == "unrecorded"


@pytest.mark.timeout(30)
def test_a_pipe_in_place_of_a_record_is_not_waited_for() -> None:
    write()
    paths.run_record(TABLE).unlink()
    os.mkfifo(paths.run_record(TABLE))
    (found,) = integrity.inspect([TABLE], MADE)
    assert found.kind == "unrecorded"


def test_the_record_of_another_job_is_none() -> None:
    write(Path("results/scores/d/other/lp.parquet"))
    write()
    paths.run_record(TABLE).write_text(paths.run_record(Path("results/scores/d/other/lp.parquet")).read_text())
    assert kinds() == ["lp.parquet: lies beside the run record of another job"]


def test_folders_are_compared_file_by_file() -> None:
    certificate, weights = paths.adapter_files("d", "m", "lp")
    weights.mkdir(parents=True)
    (weights / "probe.safetensors").write_text("weights")
    certificate.write_text("{}")
    outputs = [certificate, weights]
    records.write_run_record("adapt", ("d", "m", "lp"), outputs, [], (), MADE, 0.0, {})
    (weights / ".hidden").write_text("of the system")
    assert not [*integrity.inspect(outputs, MADE, True)]
    (weights / "model.safetensors.index.json").write_text("{}")
    (added,) = integrity.inspect(outputs, MADE)
    assert added.path.name == "model.safetensors.index.json" and added.found == "was written by no job"
    (weights / "model.safetensors.index.json").unlink()
    (weights / "probe.safetensors").unlink()
    (gone,) = integrity.inspect(outputs, MADE)
    assert gone.path.name == "probe.safetensors" and gone.found.startswith("is gone")
    assert not [*integrity.inspect([certificate], None)], "of one output, its own files"


def test_what_a_job_read_is_compared_with_what_is_there_now() -> None:
    """An input that is altered afterwards, official files too; not one that was read as it is now, whatever its own record says."""
    made, own = Path("results/predictions/d/m/lp.parquet"), Path("own/labels.csv")
    own.parent.mkdir()
    own.write_text("a,0")
    write(made)
    write(inputs=(made, own))
    assert kinds() == []
    before = own.stat()
    own.write_text("a,1")
    os.utime(own, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert kinds() == ["lp.parquet: was made from another own/labels.csv"]
    made.write_text("edited")
    write(inputs=(made, own))
    assert kinds() == [], "made of the edited table: that is the finding of the table's own job"
    own.unlink()
    assert kinds() == [], "what is gone says nothing"


def test_what_changed_is_named_and_a_long_list_is_cut() -> None:
    write()
    assert kinds(json.dumps({"params": {"seed": 7}, "code": "cd"})) == ["lp.parquet: was made otherwise (seed: 0 -> 7; its code changed)"]
    many = json.dumps({"params": {"seed": 0, **{f"x{number}": number for number in range(9)}}, "code": "ab"})
    assert kinds(many) == ["lp.parquet: was made otherwise (x0: null -> 0; x1: null -> 1; x2: null -> 2; and 6 more)"]
    assert kinds(json.dumps({"params": {"seed": 0, "x": {}}, "code": "ab"})) == ["lp.parquet: was made otherwise (its parameters changed)"]
    edit(params=None)
    assert kinds() == ["lp.parquet: was made otherwise (its parameters are not known)"]


def test_code_that_another_python_wrote_out_is_not_compared() -> None:
    """Each minor version writes code in its own way, so jobs in an environment of their own would run again for ever."""
    write()
    edit(versions={"python": "3.99.1"})
    assert kinds(json.dumps({"params": {"seed": 0}, "code": "cd"})) == []
    assert kinds(json.dumps({"params": {"seed": 1}, "code": "cd"})) == ["lp.parquet: was made otherwise (seed: 0 -> 1)"]


@pytest.mark.parametrize("name", ["own.json", "own.run", "own.parquet", "a.safetensors"])
def test_names_that_would_share_a_run_record_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no file's ending"):
        paths.slug(name)
