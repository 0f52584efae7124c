"""Edit -> jobs that rerun. Each edit is made in a copy of the package, and the rerun keys of nano's jobs are compared."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEYS = """
import json
from pathlib import Path
from medbench import cells, config, stages
from medbench.errors import MedbenchError
from medbench.jobs import digests
loaded = config.from_files([Path("config/config.yaml"), Path("config/nano.yaml")], Path("."))
names = [{**cell._asdict(), "run": loaded.run.run} for cell in cells.grid(loaded)]
found = {}
for stage in map(stages.get, stages.STAGES):
    for job in dict.fromkeys(tuple(each[key] for key in stage.keys) for each in names):
        try:
            found[" ".join((stage.name, *job))] = digests.digest(stage.fingerprint(stage.params(loaded, *job)))
        except MedbenchError:  # no such job: a mode that adapts nothing, say
            pass
print(json.dumps(found))
"""
CLIP = {f"{stage} {model}" for stage in ("embed", "prompts", "adapt lora", "predict lora") for model in ("clip", "medclip")}


def keys(folder: Path) -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", KEYS], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout)
    return found


def copied(folder: Path) -> Path:
    for name in ("medbench", "config", "resources"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return keys(copied(tmp_path_factory.mktemp("before")))


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "medbench" / file
        text = path.read_text()
        assert text.count(old) >= 1, f"{file} does not hold {old!r} any more"
        path.write_text(text.replace(old, new, 1))

    return edit


def append(file: str, text: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        with (folder / "medbench" / file).open("a") as stream:
            stream.write(text)

    return edit


def rename(old: str, new: str) -> Callable[[Path], None]:
    """A module under another name, and every place that names it."""

    def edit(folder: Path) -> None:
        package = folder / "medbench"
        package.joinpath(*old.split(".")).with_suffix(".py").rename(package.joinpath(*new.split(".")).with_suffix(".py"))
        (was_in, was), (is_in, now) = ((f"medbench.{name}".rpartition(".")[::2]) for name in (old, new))
        assert was_in == is_in
        for file in package.rglob("*.py"):
            text = re.sub(rf"\bmedbench\.{re.escape(old)}\b", f"medbench.{new}", file.read_text())
            imports = rf"(from {re.escape(was_in)} import (?:[\w, ]+, )?){was}\b"
            if re.search(imports, text):
                text = re.sub(rf"\b{was}\.(?=\w)", f"{now}.", re.sub(imports, rf"\g<1>{now}", text))
            file.write_text(text)

    return edit


def both(*edits: Callable[[Path], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        for one in edits:
            one(folder)

    return edit


NOTHING: set[str] = set()
COUNTING = "from dataclasses import replace\n\nfrom medbench.tasks import vqa\n\nTASK = replace(vqa.TASK, name='counting')\n"
MOMENTS = "import math\n\nimport numpy as np\nfrom numpy.typing import NDArray\n\nFloats = NDArray[np.float64]\n\n\n"
METHOD = '        ("contrastive", "lora"): Method("medbench.adapt'


def move(folder: Path) -> None:
    """`standard_deviation` into a module of its own."""
    source = folder / "medbench/stats/intervals.py"
    definition = _definition(source, "standard_deviation")
    (folder / "medbench/stats/moments.py").write_text(MOMENTS + definition)
    text = source.read_text().replace(definition, "")
    source.write_text(
        text.replace("import numpy as np\n", "import numpy as np\n\nfrom medbench.stats.moments import standard_deviation\n", 1)
    )


EDITS: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "a helper added to paths": (append("paths.py", "\n\ndef more() -> Path:\n    return RESULTS\n"), NOTHING),
    "a changed helper of wiring": (replace("jobs/files.py", ".partial", ".unfinished"), NOTHING),
    "a new table contract": (append("tables/__init__.py", "\n\nclass More(Table):\n    name = Column(pl.String, key=True)\n"), NOTHING),
    "a new task kind": (append("tasks/counting.py", COUNTING), NOTHING),
    "a new architecture": (
        append("models/remote/fresh.py", "def answerer(source, change=None):\n    raise NotImplementedError\n"),
        NOTHING,
    ),
    "a new method beside the others": (
        replace("tasks/diagnosis.py", METHOD, f'        ("contrastive", "more"): Method("medbench.adapt.more", ()),\n{METHOD}'),
        {"report"},  # which reads the whole task
    ),
    "docstring, comment, annotation": (
        both(
            replace("adapt/training.py", '"""', '"""Reworded: '),
            replace("models/similarity.py", "scale: float, bias: float) -> F64:", "scale: Any, bias: Any) -> Any:  # any"),
        ),
        NOTHING,
    ),
    "the wording of an error": (replace("predict/zero_shot.py", "lacks a class", "has no prompt for a class"), NOTHING),
    "what a job asks of a scheduler": (replace("stages/interval.py", "minutes=30", "minutes=60"), NOTHING),
    "a renamed shared module": (rename("models.similarity", "models.cosine"), NOTHING),
    "a renamed module that is loaded by name": (rename("predict.zero_shot", "predict.class_prompts"), NOTHING),
    "a renamed module of many": (rename("datasets.stored", "datasets.cached"), NOTHING),
    "a definition moved to another module": (move, NOTHING),
    "the seeding function": (replace("jobs/seeding.py", "random.seed(seed)", "random.seed(seed + 1)"), {"adapt lora"}),
    "kernels that sum in a fixed order": (
        replace("jobs/seeding.py", "benchmark = False", "benchmark = True"),
        {"embed", "adapt", "predict", "validate"},
    ),
    "an architecture": (replace("models/contrastive/clip.py", "class Clip(", "SIDE = 1\n\n\nclass Clip("), CLIP),
    "a shared module of models": (
        replace("models/similarity.py", "scale * cosine + bias", "bias + scale * cosine"),
        {"predict ots", "validate radiology"},
    ),
    "how hub models answer": (replace("models/hub_answerer.py", "WINDOW = 256", "WINDOW = 128"), {"predict llava", "validate llava"}),
    "a metric": (replace("metrics/diagnosis.py", "N_BINS = ", "N_BINS = 1 + "), {"interval radiology", "gaps", "report"}),
    "a table contract": (
        replace("tables/__init__.py", "class Embeddings(Table):", "class Embeddings(Table):\n    more = Column(pl.Int8, null=True)"),
        {"adapt", "predict", "validate radiology"},
    ),
    "the verdict": (replace("stats/paired.py", "POWER = 0.8", "POWER = 0.9"), {"gaps"}),
    "scoring of answers": (replace("tasks/vqa.py", "def score(predictions", "def score(predictions, *more"), {"score vqa", "report"}),
    "a layout": (replace("datasets/layouts/phantom_vqa.py", "source.seed), key", "source.seed + 1), key"), {"prepare vqa"}),
    "the page's words": (replace("report/words.py", "Off the shelf:", "Untouched:"), {"report"}),
}


ALL_OF_NOTHING = "all that rerun nothing, at once"
EDITS[ALL_OF_NOTHING] = (both(*(edit for edit, expected in EDITS.values() if expected is NOTHING)), NOTHING)


def _definition(path: Path, name: str) -> str:
    text = path.read_text()
    found = re.search(rf"^def {name}\(.*?(?=^\S|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert found
    return found.group(0)


def _is_part(name: str) -> bool:
    """Of the edits at once; alone in `make test-all`, which then names the one that reruns something."""
    return EDITS[name][1] is NOTHING and name != ALL_OF_NOTHING


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.full] * _is_part(name)) for name in EDITS])
def test_an_edit_reruns_what_uses_it(name: str, before: dict[str, str], tmp_path: Path) -> None:
    edit, expected = EDITS[name]
    edit(copied(tmp_path))
    after = keys(tmp_path)
    assert after.keys() == before.keys()
    changed = {job for job in before if before[job] != after[job]}
    unexpected = sorted(job for job in changed if not any(_is_meant(job, words) for words in expected))
    unmoved = sorted(words for words in expected if not any(_is_meant(job, words) for job in changed))
    assert (unexpected, unmoved) == ([], [])


def _is_meant(job: str, words: str) -> bool:
    """`adapt lora`: a job of stage adapt with `lora` among its names, or as a part of one."""
    stage, *parts = words.split()
    name, *names = job.split()
    return name == stage and all(any(part in one.split("-") for one in names) for part in parts)
