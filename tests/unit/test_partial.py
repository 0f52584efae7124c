"""Unfinished work: whole batches only, one process only, equal inputs only; and the same bytes as an undisturbed run."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from medbench import cli, paths, tables
from medbench.adapt import generative_lora
from medbench.errors import Interrupted, MedbenchError
from medbench.jobs import digests, files, partial, records, rerun
from medbench.jobs.microbatching import Microbatching
from medbench.jobs.partial import Journal
from medbench.jobs.stage import Stage
from medbench.models.checkpoint import Source
from medbench.models.contrastive.clip import Clip
from medbench.models.generative_base import Generative
from medbench.predict import generative
from medbench.stages import adapt, embed, predict
from tests.unit import asked, tiny

ROOT = Path(__file__).parents[2]


class _Killed(BaseException):
    """Stands for a signal: nothing of ours catches it."""


# --- the journal


def written(path: Path, n: int) -> list[int]:
    """Lengths of the file after each of n tables."""
    ends = [0]
    with Journal(path) as journal:
        for number in range(n):
            journal.append(pa.table({"x": [float(number)] * (number + 1), "name": ["é"] * (number + 1)}))
            ends.append(path.stat().st_size)
    return ends


def test_whole_tables_come_back_exactly(tmp_path: Path) -> None:
    written(tmp_path / "j", 3)
    with Journal(tmp_path / "j") as journal:
        assert [table.to_pydict() for table in journal] == [{"x": [float(n)] * (n + 1), "name": ["é"] * (n + 1)} for n in range(3)]
        journal.append(pa.table({"x": [9.0], "name": ["e"]}))
        assert len(journal) == 4 and [table.num_rows for table in journal] == [1, 2, 3, 1]


def test_a_file_cut_anywhere_keeps_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "j"
    ends = written(path, 3)
    data = path.read_bytes()
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        with Journal(path) as journal:
            assert len(journal) == sum(end <= cut for end in ends[1:])
            assert path.stat().st_size == ends[len(journal)]


def test_a_damaged_table_and_what_follows_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "j"
    ends = written(path, 3)
    data = bytearray(path.read_bytes())
    data[ends[1] + 40] ^= 1
    path.write_bytes(bytes(data))
    with Journal(path) as journal:
        assert len(journal) == 1
        journal.append(pa.table({"x": [5.0], "name": ["e"]}))
    with Journal(path) as journal:
        assert [table["x"].to_pylist() for table in journal] == [[0.0], [5.0]]


# --- one process at a time

HOLD = """import sys, time
from pathlib import Path
from medbench.jobs import partial
with partial.hold(Path("held"), "embed d/m"):
    (Path("held") / "batches").write_bytes(b"12345")
    print("in", flush=True)
    time.sleep(600)
"""


def holder(folder: str = "held") -> "subprocess.Popen[str]":
    """Another process that holds a folder of the working directory."""
    program, found = HOLD.replace('"held"', repr(folder)), {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=found)
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    return process


def test_a_second_process_gets_one_line_and_a_killed_one_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    process = holder()
    try:
        with pytest.raises(MedbenchError, match=rf"held: process {process.pid} \(embed d/m\) works on embed d/m; wait for it"):  # noqa: SIM117
            with partial.hold(Path("held"), "embed d/m"):
                pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with partial.hold(Path("held"), "embed d/m") as folder:
        assert (folder / "batches").read_bytes() == b"12345"
    assert list(tmp_path.iterdir()) == []


def test_clean_removes_what_no_live_process_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = paths.partial("held")
    process = holder(str(folder))
    try:
        assert cli.main(["clean", "--partial"]) == 0
        assert (folder / "batches").exists() and "nothing" in capsys.readouterr().out
    finally:
        process.kill()
        process.wait()
    assert cli.main(["clean", "--partial"]) == 0
    assert list(paths.partial("").iterdir()) == []
    said = capsys.readouterr().out
    assert str(folder) in said and "embed d/m" in said and "5 bytes" in said


@pytest.mark.parametrize(("error", "kept"), [(MedbenchError, False), (Interrupted, True), (OSError, True), (_Killed, True)])
def test_what_another_try_can_use_is_kept(tmp_path: Path, error: Any, kept: bool) -> None:
    with pytest.raises(error), partial.hold(tmp_path / "work", "job") as folder:
        (folder / "batches").write_bytes(b"1")
        raise error("where", "found", "remedy")
    assert (tmp_path / "work" / "batches").exists() == kept


# --- stages: interrupted and undisturbed runs end in the same bytes


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.dataset()
    return tmp_path


def decodes(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[int]:
    """Sizes of the images that a stage decodes from now on."""
    seen: list[int] = []
    plain = module.decode
    monkeypatch.setattr(module, "decode", lambda given: seen.append(len(given)) or plain(given))
    return seen


def dies_after(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """Kill this process, so to speak, when n batches are kept."""
    append = Journal.append

    def dying(self: Journal, table: pa.Table) -> None:
        append(self, table)
        if len(self) == n:
            raise _Killed

    monkeypatch.setattr(Journal, "append", dying)


def killed(monkeypatch: pytest.MonkeyPatch, n: int, stage: Stage, params: Any, *names: str) -> None:
    """A job that dies when n batches are kept."""
    with monkeypatch.context() as patch:
        dies_after(patch, n)
        with pytest.raises(_Killed):
            stage.execute(params, *names)


def test_an_interrupted_embed_equals_an_undisturbed_one_and_decodes_nothing_twice(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.checkpoint("clip", data / "model")
    params = embed.Params(Source("medbench.models.contrastive.clip", str(folder))._asdict(), 8)
    path = paths.embeddings("tiny", "clip")
    embed.STAGE.execute(params, "tiny", "clip")
    undisturbed, n_images = path.read_bytes(), 81
    path.unlink()
    killed(monkeypatch, 7, embed.STAGE, params, "tiny", "clip")
    assert not path.exists()
    [journal] = paths.partial("").glob("*/batches")
    journal.write_bytes(journal.read_bytes()[:-3])  # the seventh batch is cut off
    seen = decodes(monkeypatch, embed)
    embed.STAGE.execute(params, "tiny", "clip")
    assert len(seen) == n_images - 6 * 8
    assert path.read_bytes() == undisturbed
    assert list(paths.partial("").iterdir()) == []


def test_an_interrupted_lora_prediction_equals_an_undisturbed_one(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny.source("clip", tiny.checkpoint("clip", data / "model"))._asdict()
    adapt.STAGE.execute(
        adapt.Params("medbench.adapt.contrastive_lora", "diagnosis", source, {**tiny.RECIPE, "epochs": 1}, tiny.CLASSES, 0),
        "tiny",
        "clip",
        "lora",
    )
    params = predict.Params("medbench.predict.contrastive_lora", "diagnosis", source, tiny.CLASSES, adapted=True)
    path = paths.predictions("tiny", "clip", "lora")
    predict.STAGE.execute(params, "tiny", "clip", "lora")
    undisturbed = path.read_bytes()
    killed(monkeypatch, 2, predict.STAGE, params, "tiny", "clip", "lora")
    from medbench.predict import contrastive_lora

    seen = decodes(monkeypatch, contrastive_lora)
    predict.STAGE.execute(params, "tiny", "clip", "lora")
    assert len(seen) == 23 - 2 * 8  # images of the test split
    assert path.read_bytes() == undisturbed


def test_an_interrupted_questioning_equals_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(2, 1, 5))
    source = {"module": asked.MODULE, "checkpoint": str(asked.checkpoint(tmp_path / "model")), "revision": None, "batch_size": 7}
    params = predict.Params("medbench.predict.generative", "vqa", source, (), asking=asked.ASKING._asdict())
    path = paths.predictions("d", "tiny", "ots")
    predict.STAGE.execute(params, "d", "tiny", "ots")
    undisturbed, n_questions = path.read_bytes(), 40
    killed(monkeypatch, 3, predict.STAGE, params, "d", "tiny", "ots")
    seen = decodes(monkeypatch, generative)
    predict.STAGE.execute(params, "d", "tiny", "ots")
    assert 0 < len(seen) <= n_questions - 3 * 7, "nothing of a finished batch; an image that a batch shares once"
    assert path.read_bytes() == undisturbed


def changed_image(data: Path) -> None:
    path = paths.images("tiny")
    path.write_bytes(path.read_bytes())


def changed_weights(data: Path) -> None:
    os.utime(tiny.weights(paths.model_folder("clip"))[0], ns=(1, 1))


def changed_batch_size(data: Path) -> None:
    pass


@pytest.mark.parametrize("change", [changed_image, changed_weights, changed_batch_size])
def test_other_inputs_or_parameters_do_not_go_on(data: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]) -> None:
    folder = tiny.checkpoint("clip", paths.model_folder("clip"))  # as the workflow makes it: another's bytes are a parameter
    params = embed.Params(Source("medbench.models.contrastive.clip", str(folder))._asdict(), 8)
    killed(monkeypatch, 4, embed.STAGE, params, "tiny", "clip")
    change(data)
    seen = decodes(monkeypatch, embed)
    embed.STAGE.execute(params._replace(batch_size=9) if change is changed_batch_size else params, "tiny", "clip")
    assert len(seen) == 81


def test_other_code_does_not_go_on(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = embed.Params(Source("medbench.models.baseline.raw_pixels", None)._asdict(), 8)
    killed(monkeypatch, 4, embed.STAGE, params, "tiny", "raw")
    monkeypatch.setattr(rerun, "code_digest", lambda modules: "other code")
    seen = decodes(monkeypatch, embed)
    embed.STAGE.execute(params, "tiny", "raw")
    assert len(seen) == 81


def test_other_versions_of_libraries_do_not_go_on(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run record names one version of each: a table is not half of one and half of another."""
    params = embed.Params(Source("medbench.models.baseline.raw_pixels", None)._asdict(), 8)
    killed(monkeypatch, 4, embed.STAGE, params, "tiny", "raw")
    installed = records.versions()
    monkeypatch.setattr(records, "versions", lambda: {**installed, "numpy": "99.0"})
    seen = decodes(monkeypatch, embed)
    embed.STAGE.execute(params, "tiny", "raw")
    assert len(seen) == 81


def test_other_weights_of_one_name_do_not_go_on(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a repository without a pinned revision has them after its owner's next commit."""
    folder = tiny.checkpoint("clip", data / "model")
    params = embed.Params(Source("medbench.models.contrastive.clip", str(folder))._asdict(), 8)
    killed(monkeypatch, 4, embed.STAGE, params, "tiny", "clip")
    tiny.replace(folder, {name: value + 0.1 if "norm" in name else value for name, value in tiny.tensors(folder).items()})
    embed.STAGE.execute(params, "tiny", "clip")
    mixed = paths.embeddings("tiny", "clip").read_bytes()
    embed.STAGE.execute(params, "tiny", "clip")
    assert paths.embeddings("tiny", "clip").read_bytes() == mixed, "all by the weights of now"


# --- out of memory: the device of these tests raises as a GPU does


def small_device(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, limit: int) -> list[int]:
    """Let a method of a model run out of memory beyond `limit` samples; the sizes that went through."""
    plain, sizes = getattr(owner, method), list[int]()

    def limited(self: Any, given: Any, *rest: Any) -> Any:
        n = len(given["input_ids"] if isinstance(given, dict) else given)
        if n > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        sizes.append(n)
        return plain(self, given, *rest)

    monkeypatch.setattr(owner, method, limited)
    return sizes


def vectors(name: str) -> Any:
    return np.array(tables.read(tables.Embeddings, paths.embeddings("tiny", name))["features"].to_list())


def test_embed_halves_its_batches_says_so_and_goes_on_with_what_fitted(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = embed.Params(Source("medbench.models.contrastive.clip", str(tiny.checkpoint("clip", data / "model")))._asdict(), 16)
    embed.STAGE.execute(params, "tiny", "whole")
    sizes = small_device(monkeypatch, Clip, "encode_images", 5)
    killed(monkeypatch, 2, embed.STAGE, params, "tiny", "halved")
    assert "16 samples at once do not fit the memory of the GPU; going on with 8" in capsys.readouterr().err
    sizes.clear()
    facts = embed.STAGE.execute(params, "tiny", "halved")
    assert "do not fit" not in capsys.readouterr().err
    assert facts["samples_at_once"] == 4 and set(sizes) == {4, 1}  # 81 = 5 * 16 + 1
    np.testing.assert_allclose(vectors("halved"), vectors("whole"), atol=1e-4)


def test_answers_are_the_same_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked.dataset("d", patients=(2, 1, 5))
    source = {"module": asked.MODULE, "checkpoint": str(asked.checkpoint(tmp_path / "model")), "revision": None, "batch_size": 16}
    params = predict.Params("medbench.predict.generative", "vqa", source, (), asking=asked.ASKING._asdict())
    predict.STAGE.execute(params, "d", "whole", "ots")
    sizes = small_device(monkeypatch, Generative, "generate", 9)
    assert predict.STAGE.execute(params, "d", "halved", "ots")["samples_at_once"] == 8
    assert max(sizes) == 8
    assert paths.predictions("d", "halved", "ots").read_bytes() == paths.predictions("d", "whole", "ots").read_bytes()


def trained_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Of all files of an adaptation."""
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def test_accumulated_gradients_keep_the_batch(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dropout, training in parts ends where training whole does, up to the order of summation."""
    source = tiny.source("clip", tiny.checkpoint("clip", data / "model"))._asdict()
    params = adapt.Params(
        "medbench.adapt.contrastive_lora", "diagnosis", source, {**tiny.RECIPE, "epochs": 2, "dropout": 0.0}, tiny.CLASSES, 0
    )
    tensors = []
    for limit in (99, 3):
        with monkeypatch.context() as patch:
            small_device(patch, Clip, "encode_images", limit)
            facts = adapt.STAGE.execute(params, "tiny", "m", "lora")
        tensors.append(trained_tensors(paths.adapter_weights("tiny", "m", "lora")))
    trained = [value for name, value in tensors[0].items() if name not in ("head.mean", "head.deviation")]
    weights = {"checkpoint": f"sha256 {digests.tree(Path(source['checkpoint']))}"}
    written = {str(file): digests.sha256(file) for file in paths.adapter_weights("tiny", "m", "lora").iterdir()}
    n_trained = sum(value.numel() for value in trained)
    assert facts == {"samples_at_once": 2, "parameters_trained": n_trained, "weights": weights, "sha256": written}
    for name, value in tensors[0].items():
        torch.testing.assert_close(tensors[1][name], value, atol=1e-4, rtol=1e-3)


def test_accumulated_gradients_of_answers_weigh_every_token_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked.dataset("d")
    asked.checkpoint(tmp_path / "tiny")
    tensors = []
    for limit in (99, 5):
        with monkeypatch.context() as patch:
            small_device(patch, Generative, "loss", limit)
            job = asked.job("d", tmp_path / "tiny", tmp_path / f"work-{limit}", {"dropout": 0.0})
            adapted = generative_lora.adapt(job)
        assert adapted.certificate.failures == []
        tensors.append(trained_tensors(adapted.weights))
    assert job.work.facts() == {"samples_at_once": 4}
    for name, value in tensors[0].items():
        torch.testing.assert_close(tensors[1][name], value, atol=1e-4, rtol=1e-3)


def test_one_sample_that_does_not_fit_is_one_line_and_keeps_the_work(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = embed.Params(Source("medbench.models.contrastive.clip", str(tiny.checkpoint("clip", data / "model")))._asdict(), 16)
    small_device(monkeypatch, Clip, "encode_images", 0)
    with pytest.raises(Interrupted, match="the GPU: its memory does not hold the model with a single sample; end what else uses it"):
        embed.STAGE.execute(params, "tiny", "clip")
    assert len(list(paths.partial("").glob("*/batches"))) == 1


def test_another_error_is_no_matter_of_memory(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clip, "encode_images", lambda self, pixels: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embed.STAGE.execute(
            embed.Params(Source("medbench.models.contrastive.clip", str(tiny.checkpoint("clip", data / "model")))._asdict(), 16),
            "tiny",
            "clip",
        )


def test_what_a_killed_process_left_beside_a_file_goes_when_the_file_is_written_again(tmp_path: Path) -> None:
    file, host = tmp_path / "table.parquet", socket.gethostname()
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True, text=True)
    dead = tmp_path / f".{file.name}.{host}.{ended.stdout.strip()}.partial"
    living = tmp_path / f".{file.name}.{host}.{os.getppid()}.partial"
    elsewhere = tmp_path / f".{file.name}.another-{host}.{ended.stdout.strip()}.partial"
    for left in (dead, living, elsewhere):
        left.write_text("half")
    with files.atomic(file) as aside:
        aside.write_text("whole")
    assert file.read_text() == "whole"
    assert sorted(tmp_path.iterdir()) == sorted([file, living, elsewhere])


def test_the_memory_of_a_machine_without_gpu_is_halved_for_too(capsys: pytest.CaptureFixture[str]) -> None:
    """By torch's real error: 2^50 bytes a sample beyond four are more than any machine gives."""
    microbatching = Microbatching()
    done = microbatching.run(list(range(10)), lambda part: torch.empty(2**50 if len(part) > 4 else len(part)).numel())
    assert (done, microbatching.size) == ([2, 2, 2, 2, 2], 2)
    assert "10 samples at once do not fit the memory of this machine; going on with 5" in capsys.readouterr().err
    with pytest.raises(Interrupted, match="this machine: its memory does not hold the model with a single sample"):
        microbatching.run([0], lambda part: torch.empty(2**50))
