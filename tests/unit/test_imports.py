"""What a job imports: no pandas, sqlalchemy and rich, no torch without a model, no compiler and no bitsandbytes that it does not use."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from medbench import cli, config, paths, stages, tables
from medbench.jobs import lazy, rerun
from medbench.stages import STAGES, duplicates, gaps, interval, overlap, score
from medbench.tasks.diagnosis import PredictionsDiagnosis, ScoresDiagnosis
from tests.unit import written

ROOT = Path(__file__).parents[2]
WITHOUT_MODEL = ("fetch", "prepare", "score", "duplicates", "interval", "gaps", "overlap", "report")
LOOKED_FOR = ("bitsandbytes", "pandas", "pydantic", "rich", "sqlalchemy", "torch")
FOUND = f"print([name for name in {LOOKED_FOR} if name in sys.modules])"


def run(code: str, folder: Path = ROOT) -> str:
    """What a fresh process prints at last."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_stages_without_a_model_import_no_torch_at_any_depth() -> None:
    named = tuple(f"medbench.stages.{stage}" for stage in WITHOUT_MODEL)
    modules = sorted({*named, *(use.partition(":")[0] for use in rerun.closure(named))})
    imported = [
        name for name in modules if not name.startswith(("medbench.metrics.evaluate_modules.vqa", "medbench.models", "medbench.adapt"))
    ]
    assert run(f"import importlib\nfor name in {imported}: importlib.import_module(name)\n{FOUND}") == "['pydantic']"


def test_a_job_that_is_handed_over_imports_hardly_anything() -> None:
    """Each of hundreds of jobs starts a process for it: these took a third of that."""
    looked_for = ("json", "pathlib", "re", "subprocess", "threading", "traceback", "typing")
    assert (
        run(f"before = {{*sys.modules}}\nfrom medbench.jobs import warm\nprint(sorted(({{*sys.modules}} - before) & {{*{looked_for}}}))")
        == "[]"
    )


def test_tables_made_from_batches_import_no_pandas(tmp_path: Path) -> None:
    code = (
        "import numpy as np\nfrom medbench.datasets import ingest\nfrom medbench.models.loading import Batch, Vectors\n"
        "from medbench.stages import embed\n"
        "from pathlib import Path\n"
        "ingest.write_table(Path('images.parquet'), [(ingest.Checked('a', 'b', 2**63, b'image', None), True)])\n"
        "ingest.mark_evaluated(Path('images.parquet'), [False])\n"
        "vectors = Vectors(np.ones((2, 3), np.float32), np.ones((2, 1, 4), np.float32))\n"
        "embed._write([embed._table(Batch(['a', 'b'], [True, False], None), vectors)], Path('embeddings.parquet'))\n"
    )
    assert run(code + FOUND, tmp_path) == "['pydantic']"


def test_a_plan_of_all_tasks_imports_no_reader_of_answers() -> None:
    """Hundreds of patterns: the start of a workflow, and every job that reads a configuration, would compile them."""
    readers = ("medbench.metrics.evaluate_modules.vqa_strict.choices", "medbench.metrics.mcq_published")
    code = (
        "from medbench import stages, tasks\nfor name in stages.STAGES: stages.get(name)\nfor name in tasks.names(): tasks.get(name)\n"
        f"print([name for name in {readers} if name in sys.modules])"
    )
    assert run(code) == "[]"


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, str]:
    """A cell with predictions in the working directory."""
    monkeypatch.chdir(tmp_path)
    columns = {
        "sample_id": ["a", "b"],
        "group_id": ["a", "b"],
        "label": [0, 1],
        "scores": [[0.9, 0.1], [0.6, 0.4]],
        "draws": [None, None],
        "by_prompts": [None, None],
    }
    frame = pl.DataFrame(columns, schema=tables.columns(PredictionsDiagnosis))
    written.predictions("diagnosis", frame, "d", "m", "ots")
    return "d", "m", "ots"


def test_a_handed_job_reads_no_configuration_and_records_the_same(cell: tuple[str, str, str]) -> None:
    fingerprint = score.STAGE.fingerprint(score.Params("diagnosis"))
    text = f'{fingerprint} {{"numpy":"2.0","polars":"2.0"}}'
    code = f"from medbench import cli\nassert cli.main(['score', *{cell}, '--fingerprint', {text!r}]) == 0\n{FOUND}"
    assert run(code, Path()) == "[]"
    record = json.loads(paths.run_record(paths.scores(*cell)).read_text())
    assert record["params"] == json.loads(fingerprint) and record["libraries"] == ["numpy", "polars"]
    assert tables.read(ScoresDiagnosis, paths.scores(*cell))["correct"].to_list() == [1.0, 0.0]


def test_no_handed_stage_imports_what_its_rule_did_for_it_or_its_task_may_not_use() -> None:
    """With the modules of all tasks: these read no image, and hold no patterns for answers before one is scored."""
    handed = [f"medbench.stages.{name}" for name in STAGES if stages.get(name).is_handed]
    code = f"""
import importlib
for name in {handed}: importlib.import_module(name)
from medbench import tasks
for name in tasks.names(): tasks.get(name)
unused = "medbench.config", "pydantic", "yaml", "PIL", "pyarrow", "scipy", "medbench.metrics.evaluate_modules.vqa_strict.choices"
print([name for name in unused if name in sys.modules])
"""
    assert run(code) == "[]"


def test_versions_are_those_of_importlib_without_its_parser() -> None:
    code = """
from medbench.jobs import records, rerun
found = records.versions()
assert "email.feedparser" not in sys.modules
from importlib import metadata
assert found["numpy"] == metadata.version("numpy")
assert all(version == metadata.version(name) for name, version in found.items() if name != "python")
rerun.LIBRARIES |= {"nowhere": ("nowhere-at-all",), "PIL": ("Pillow",), "open_clip": ("open_clip.torch",)}
records.versions.cache_clear()
again = records.versions()
print("nowhere-at-all" not in again and again["Pillow"] == found["pillow"] and again["open_clip.torch"] == found["open-clip-torch"])
"""
    assert run(code) == "True"


HANDED: list[tuple[Any, Any]] = [
    (score, score.Params("vqa")),
    (interval, interval.Params("diagnosis", ("auroc", "standard", "all"), 0, 1000, 10_000, 0.95, False, 30)),
    (duplicates, duplicates.Params(None)),
    (overlap, overlap.Params(("one", "two"), 4)),
]


@pytest.mark.parametrize(("module", "params"), HANDED)
def test_parameters_come_back_as_they_were(module: Any, params: Any) -> None:
    fingerprint = module.STAGE.fingerprint(params)
    given = cli._handed(module.STAGE, f"{fingerprint} {{}}")
    assert (given.params, given.fingerprint, given.libraries) == (params, fingerprint, ())


def test_every_handed_stage_is_tested() -> None:
    assert {module.STAGE.name for module, _ in HANDED} | {"gaps"} == {name for name in STAGES if stages.get(name).is_handed}


def test_gaps_have_the_same_rows_in_the_same_order_by_hand_and_in_a_run() -> None:
    """Data sets stand in the order of the configuration there, and sorted in what a rule hands on."""
    params = gaps.STAGE.params(config.from_files([ROOT / "config/config.yaml"], ROOT), "demo")
    given = cli._handed(gaps.STAGE, f"{gaps.STAGE.fingerprint(params)} {{}}").params
    for name, own, other in zip(params._fields, params, given, strict=True):
        assert list(own.items()) == list(other.items()) if isinstance(own, Mapping) else own == other, name


MODEL_JOB = """
from medbench.jobs import lazy
lazy.without_unused()
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel
from medbench.jobs import seeding
from medbench.adapt import classifier, contrastive_lora, generative_lora, tuned
from medbench.models.contrastive import clip
from medbench.models.generative import llava
from medbench.predict import contrastive_lora, generative
seeding.seed_everything(0)
assert torch.are_deterministic_algorithms_enabled()
sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)
class Tiny:
    vision = CLIPVisionModel(CLIPVisionConfig(**sizes))
    model = torch.nn.ModuleDict({"vision": vision})
    lora_targets, device = clip.Clip.lora_targets, torch.device("cpu")
model = classifier.build(Tiny, 8, 2, 2, 4, 0.0)
optimiser = torch.optim.AdamW(model.adapters().values())
Tiny.vision(torch.zeros(1, 3, 8, 8)).pooler_output.sum().backward()
optimiser.step()
UNUSED = "torch._dynamo.convert_frame", "torch._inductor", "bitsandbytes", "pandas", "sqlalchemy"
UNUSED += "scipy.optimize._optimize", "torch.distributed.tensor", "sympy", "torch.onnx", "torch.export._trace"
UNUSED += "torchvision.models.resnet", "torchvision.datasets.mnist", "torchvision.ops.poolers", "triton.runtime"
from torch.utils.flop_counter import FlopCounterMode
from transformers.masking_utils import BlockMask
from torch.nn.attention.flex_attention import _DEFAULT_SPARSE_BLOCK_SIZE as size, create_block_mask
assert not isinstance(torch.ones(1), BlockMask)
def imported(): return [name for name in UNUSED if name in sys.modules]
before = imported()
from torch._dynamo.utils import counters
import torch._dynamo.utils
assert torch._dynamo.utils.counters is counters
mask = create_block_mask(lambda b, h, q, k: q >= k, None, None, 256, 256, device="cpu")
assert isinstance(mask, BlockMask) and not isinstance(torch.ones(1), BlockMask)
assert torch.nn.attention.flex_attention._DEFAULT_SPARSE_BLOCK_SIZE == size
import torchvision, torchvision.ops.poolers
assert torchvision.ops.box_iou(*[torch.tensor([[0.0, 0.0, 1.0, 1.0]])] * 2).item() == 1
import importlib.util
if importlib.util.find_spec("triton"):  # which torch's builds for CPUs lack
    import triton
    assert triton.JITFunction is sys.modules["triton.runtime.jit"].JITFunction and not isinstance(triton.JITFunction, lazy._Class)
assert torchvision.models.resnet18 and torchvision.datasets.MNIST and torch.export.Dim("x")
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
print(before, imported()[0])
"""


def test_a_model_job_imports_the_compiler_only_when_it_is_used() -> None:
    assert run(MODEL_JOB) == "[] torch._dynamo.convert_frame"


def test_what_transformers_finds_in_its_files_is_kept_as_it_was() -> None:
    code = """
from medbench.jobs import lazy
lazy.without_unused()
import transformers.models
from transformers.utils import import_utils
kept = import_utils.create_import_structure_from_path
folder = transformers.models.__path__[0]
print(isinstance(kept, lazy._Structure) and kept(folder) == kept.scan(folder) == kept(f"{folder}/__init__.py"))
"""
    assert run(code) == "True"


def test_files_of_models_are_read_again_once_they_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "models" / "clip").mkdir(parents=True)
    file = tmp_path / "models" / "clip" / "modeling_clip.py"
    file.write_text("first")
    read = []

    def scan(path: str) -> Any:
        read.append(path)
        return {frozenset(("torch",)): {"clip.modeling_clip": {file.read_text()}}}

    def found() -> Any:
        """What a process finds, asked twice."""
        structure = lazy._Structure(scan)
        assert structure(tmp_path / "models") == structure(str(tmp_path / "models"))
        return structure(tmp_path / "models")

    assert found() == found() == {frozenset(("torch",)): {"clip.modeling_clip": {"first"}}} and len(read) == 1
    file.write_text("second")
    assert found() == {frozenset(("torch",)): {"clip.modeling_clip": {"second"}}} and len(read) == 2
    [kept] = (tmp_path / "cache" / "code").iterdir()
    for damaged in (b"", b"no", kept.read_bytes()[:-9], kept.read_bytes().partition(b"\n")[0] + b"\nx"):
        kept.write_bytes(damaged)
        assert found() == {frozenset(("torch",)): {"clip.modeling_clip": {"second"}}}
    assert len(read) == 6


def test_polars_takes_the_cores_that_the_job_was_given() -> None:
    """Snakemake says them by OMP_NUM_THREADS; polars would take all of a cluster's node."""
    program = """
import os, runpy, sys
os._exit = lambda code: print(__import__("polars").thread_pool_size())
sys.argv = ["medbench", "docs", "--check"]
runpy.run_module("medbench", run_name="__main__")
"""
    environment = {name: value for name, value in os.environ.items() if name != "POLARS_MAX_THREADS"}
    for given, taken in (("1", "1"), ("3", "3"), ("3,1", str(len(os.sched_getaffinity(0))))):  # the last is of nested teams of threads
        command = [sys.executable, "-c", program]
        said = subprocess.run(command, cwd=ROOT, env={**environment, "OMP_NUM_THREADS": given}, capture_output=True, text=True, check=True)
        assert said.stdout.split()[-1] == taken
