"""Rerun keys: what an edit reruns follows from them. By definition, not by file: what decides nothing changes no key."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from medbench import paths, stages
from medbench.jobs import integrity, records, rerun

ROOT = Path(__file__).parents[2]
USE = ("medbench.job:run",)
SOURCES = {
    "__init__": "",
    "job": '''"""The job's own module."""

import numpy as np

from medbench import numbers, places, wording
from medbench.facade import outer
from medbench.shapes import Square, decorated


def run(params: dict, scale: int = numbers.SCALE) -> list:
    """What a stage runs."""
    from medbench.late import finish

    if scale < 0:
        raise ValueError(f"scale {scale} is negative")
    count = 2  # no `numbers.count`
    values = [numbers.twice(x) for x in range(count)]
    return finish(outer(np.array(values)), Square(scale).area(), places.folder(), wording)


def unused() -> int:
    """Of no job."""
    return numbers.unused() + SPARE


SPARE = 3
''',
    "namesake": "def deep(x):\n    return x * x\n",
    "numbers": """from medbench import namesake

EDGE = 1
RIM = 1
FLANK = 1
ROWS = 1
SCALE: int = 4
STEPS = (1, 2)
TABLE = {"a": 1}
TABLE["b"] = 2  # an act at import


def twice(x: int) -> int:
    return deep(x) * 2, named(), namesake.deep(x)


def deep(x: int) -> int:
    return x + STEPS[0]


def named(EDGE=EDGE, *, RIM=RIM):
    return [ROWS for ROWS in ROWS], lambda FLANK=FLANK: FLANK


def count() -> int:
    return 7


def unused() -> int:
    import scipy

    return scipy.__version__
""",
    "facade": 'from medbench.inner import outer\n\n__all__ = ["outer"]\n',
    "inner": "def outer(x):\n    return core(x)\n\n\ndef core(x):\n    return x\n",
    "shapes": '''import functools


class Shape:
    """A base."""

    def area(self):
        return self.side ** POWER


POWER = 2


def decorated(function):
    @functools.wraps(function)
    def inner(*given):
        return function(*given)
    return inner


class Square(Shape):
    side: int = 1

    def __init__(self, side, *, unit=None):
        self.side = side

    @decorated
    def grow(self):
        return self
''',
    "late": "from PIL import Image\n\n\ndef finish(*given):\n    assert given, 'nothing'\n    return Image, given\n",
    "wording": "WORDS = ('a', 'b')\n\n\ndef said():\n    return WORDS\n",
    "places": "TRACKED = False\n\n\ndef folder():\n    return 'results'\n",
}


class Package:
    """A small package in place of medbench, and what its job's key is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in SOURCES.items():
            self.write(name, text)

    def write(self, module: str, text: str) -> None:
        """All of a module."""
        (self.folder / f"{module}.py").write_text(text)
        forget()

    def edit(self, module: str, old: str, new: str) -> None:
        """Replace a text that stands in a module exactly once."""
        text = (self.folder / f"{module}.py").read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {module}"
        self.write(module, text.replace(old, new))

    def rename(self, old: str, new: str) -> None:
        """A module gets another name, and every import of it is rewritten."""
        (self.folder / f"{old}.py").rename(self.folder / f"{new}.py")
        for file in self.folder.glob("*.py"):
            text = file.read_text().replace(f"medbench.{old} ", f"medbench.{new} ")
            text = text.replace(f"import {old}, ", f"import {new}, ").replace(f"{old}.", f"{new}.")
            file.write_text(text)
        forget()

    def digest(self) -> str:
        """Of the code of its job."""
        return rerun.code_digest(USE)


def forget() -> None:
    read = (rerun.definition, rerun._module, rerun._statement, rerun._answers)
    for function in (rerun.code_digest, rerun.closure, rerun.libraries, *read):
        function.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    folder = tmp_path / "medbench"
    folder.mkdir()
    monkeypatch.setattr(rerun, "PACKAGE", folder)
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "cache"))
    yield Package(folder)
    forget()


def test_relative_imports_are_followed(package: Package) -> None:
    """Of a module, of its package, and inside a function; an edit behind one changes the key."""
    (package.folder / "sub").mkdir()
    package.write("sub/__init__", "from .leaf import grown\n\n\ndef shown():\n    return grown()\n")
    late = "    from .core import late\n\n    return core.inner(numbers.STEPS), late()\n"
    package.write("sub/leaf", f"from .. import numbers\nfrom . import core\n\n\ndef grown():\n{late}")
    package.write("sub/core", "def inner(x):\n    return x\n\n\ndef late():\n    return 1\n")
    found = rerun.closure(("medbench.sub:shown",))
    leaves = {"medbench.sub.core:inner", "medbench.sub.core:late", "medbench.sub.leaf:grown", "medbench.numbers:STEPS"}
    assert set(found) >= {"medbench.sub:shown", *leaves}
    before = rerun.code_digest(("medbench.sub:shown",))
    package.write("sub/core", "def inner(x):\n    return x\n\n\ndef late():\n    return 2\n")
    assert rerun.code_digest(("medbench.sub:shown",)) != before


def test_closure_follows_what_definitions_use(package: Package) -> None:
    found = set(rerun.closure(USE))
    assert found == {
        "medbench.job:run", "medbench.numbers:SCALE", "medbench.numbers:twice", "medbench.numbers:deep", "medbench.numbers:STEPS",
        "medbench.numbers:TABLE", "medbench.numbers:named", "medbench.namesake:deep", "medbench.numbers:EDGE",
        "medbench.numbers:RIM", "medbench.numbers:FLANK", "medbench.numbers:ROWS", "medbench.numbers:",
        "medbench.inner:outer", "medbench.inner:core", "medbench.shapes:Shape", "medbench.shapes:POWER",
        "medbench.shapes:decorated", "medbench.shapes:Square", "medbench.late:finish", "medbench.wording:WORDS",
        "medbench.wording:said",
    }  # fmt: skip
    assert set(rerun.closure(("medbench.job",))) > found, "a module stands for all that is defined in it"


class Edit(NamedTuple):
    """A text of a module, and what stands there after the edit."""

    module: str
    old: str
    new: str


NOTHING: dict[str, Edit] = {
    "docstring of a module": Edit("job", '"""The job\'s own module."""', '"""Another text."""'),
    "docstring of a function": Edit("job", '    """What a stage runs."""\n', '    """It runs."""\n'),
    "a docstring that goes": Edit("shapes", '    """A base."""\n\n', ""),
    "comment": Edit("job", "  # no `numbers.count`", ""),
    "layout": Edit("numbers", "(1, 2)", "(\n    1,\n    2,\n)"),
    "annotation of an argument": Edit("job", "params: dict", "params: object"),
    "annotation of what comes back": Edit("numbers", "def deep(x: int) -> int", "def deep(x: int) -> float"),
    "annotation of a constant": Edit("numbers", "SCALE: int = 4", "SCALE: float = 4"),
    "annotation of a field": Edit("shapes", "side: int = 1", "side: float = 1"),
    "wording of an error": Edit("job", 'f"scale {scale} is negative"', '"give a scale above 0"'),
    "a definition that nothing uses": Edit("job", "SPARE = 3", "SPARE = 4"),
    "a function that only another job uses": Edit("numbers", "return scipy.__version__", "return 0"),
    "a local name's namesake": Edit("numbers", "return 7", "return 8"),
    "an added definition": Edit("numbers", "def twice", "NEW = 9\n\n\ndef new():\n    return NEW\n\n\ndef twice"),
    "an added definition of a module that is handed on by name": Edit("inner", "def core", "def other():\n    return 1\n\n\ndef core"),
    "an added import": Edit("numbers", "SCALE: int", "import json\nfrom medbench import late\n\nSCALE: int"),
    "an added import inside": Edit("late", "    return Image", "    import json\n    return Image"),
    "another order": Edit("inner", "def outer(x):\n    return core(x)\n\n\ndef core(x):\n    return x\n",
                          "def core(x):\n    return x\n\n\ndef outer(x):\n    return core(x)\n"),
    "an import beside": Edit("facade", "from medbench.inner", "from medbench import inner\nfrom medbench.inner"),
    "what decides no result": Edit("places", "return 'results'", "return 'elsewhere'"),
}  # fmt: skip

SOMETHING: dict[str, Edit] = {
    "the job itself": Edit("job", "count = 2", "count = 3"),
    "through a module's name": Edit("numbers", "deep(x) * 2,", "deep(x) * 3,"),
    "one deeper": Edit("numbers", "x + STEPS[0]", "x - STEPS[0]"),
    "a constant two deeper": Edit("numbers", "STEPS = (1, 2)", "STEPS = (2, 2)"),
    "a default": Edit("numbers", "SCALE: int = 4", "SCALE: int = 5"),
    "another default": Edit("job", "scale: int = numbers.SCALE", "scale: int = 4"),
    "a default of a keyword": Edit("shapes", "unit=None", "unit=POWER"),
    "behind a re-export": Edit("inner", "    return core(x)", "    return core(x) + 1"),
    "deeper behind a re-export": Edit("inner", "    return x\n", "    return -x\n"),
    "a re-export of something else": Edit("facade", "import outer\n", "import core as outer\n"),
    "a class's base": Edit("shapes", "self.side ** POWER", "self.side + POWER"),
    "what a base uses": Edit("shapes", "POWER = 2", "POWER = 3"),
    "a field's value": Edit("shapes", "side: int = 1", "side: int = 2"),
    "a field's name": Edit("shapes", "side: int = 1", "edge: int = 1"),
    "a decorator": Edit("shapes", "return function(*given)", "return None"),
    "which decorator": Edit("shapes", "    @decorated\n", ""),
    "a function imported inside a function": Edit("late", "return Image, given", "return given"),
    "which error": Edit("job", "raise ValueError", "raise KeyError"),
    "an assertion": Edit("late", "assert given", "assert not given"),
    "a module that is handed on": Edit("wording", "('a', 'b')", "('a', 'c')"),
    "a new definition in a module that is handed on": Edit("wording", "def said", "MORE = 1\n\n\ndef said"),
    "a statement that acts": Edit("numbers", 'TABLE["b"] = 2', 'TABLE["b"] = 3'),
    "what an acting statement uses": Edit("numbers", 'TABLE = {"a": 1}', 'TABLE = {"a": 2}'),
    "a call at import": Edit("numbers", "def twice", "TABLE.clear()\n\n\ndef twice"),
    "a loop that acts": Edit("numbers", "def twice", "for key in 'xy':\n    TABLE[key] = [one for one in key]\n\n\ndef twice"),
    "another library's function": Edit("job", "np.array", "np.asarray"),
    "a function of the same name from another library": Edit("late", "from PIL import Image", "from altair import Image"),
    "a definition of the same name in another module": Edit("numbers", "return deep(x)", "return namesake.deep(x)"),
    "a default that is named like its argument": Edit("numbers", "EDGE = 1", "EDGE = 2"),
    "a keyword's default that is named like its argument": Edit("numbers", "RIM = 1", "RIM = 2"),
    "a lambda's default that is named like its argument": Edit("numbers", "FLANK = 1", "FLANK = 2"),
    "what a comprehension runs over, named like what it makes": Edit("numbers", "ROWS = 1", "ROWS = 2"),
}


@pytest.mark.parametrize("edit", NOTHING.values(), ids=NOTHING)
def test_what_decides_nothing_changes_no_key(package: Package, edit: Edit) -> None:
    before = package.digest()
    package.edit(*edit)
    assert package.digest() == before


@pytest.mark.parametrize("edit", SOMETHING.values(), ids=SOMETHING)
def test_an_edit_of_what_is_used_changes_the_key(package: Package, edit: Edit) -> None:
    before = package.digest()
    package.edit(*edit)
    assert package.digest() != before


def moved(package: Package) -> None:
    """A definition, into a module of its own."""
    package.write("elsewhere", "from medbench.numbers import STEPS\n\n\ndef deep(x: int) -> int:\n    return x + STEPS[0]\n")
    package.edit("numbers", "def deep(x: int) -> int:\n    return x + STEPS[0]\n", "")
    package.edit("numbers", "SCALE: int", "from medbench.elsewhere import deep\n\nSCALE: int")


def moved_and_called_by_its_module(package: Package) -> None:
    """As before, and now through the name of its module."""
    moved(package)
    package.edit("numbers", "from medbench.elsewhere import deep", "from medbench import elsewhere")
    package.edit("numbers", "return deep(x)", "return elsewhere.deep(x)")


def moved_with_its_constant(package: Package) -> None:
    package.write("elsewhere", "STEPS = (1, 2)\n\n\ndef deep(x: int) -> int:\n    return x + STEPS[0]\n")
    package.edit("numbers", "def deep(x: int) -> int:\n    return x + STEPS[0]\n", "")
    package.edit("numbers", "STEPS = (1, 2)\n", "from medbench.elsewhere import deep\n")


def renamed(package: Package) -> None:
    package.rename("numbers", "figures")


def made_a_package(package: Package) -> None:
    (package.folder / "late").mkdir()
    (package.folder / "late.py").rename(package.folder / "late/__init__.py")
    forget()


def imported_by_name(package: Package) -> None:
    """Instead of through its module."""
    package.edit("job", "from medbench.facade import outer", "from medbench.facade import outer\nfrom medbench.numbers import twice")
    package.edit("job", "numbers.twice(x)", "twice(x)")


def imported_at_the_top(package: Package) -> None:
    """Instead of inside the function."""
    package.edit("job", "    from medbench.late import finish\n\n", "")
    package.edit("job", "from medbench.facade import outer", "from medbench.facade import outer\nfrom medbench.late import finish")


def no_re_export(package: Package) -> None:
    package.edit("job", "from medbench.facade import outer", "from medbench.inner import outer")


def another_name_of_a_library(package: Package) -> None:
    package.edit("job", "import numpy as np", "from numpy import array")
    package.edit("job", "np.array", "array")
    package.edit("job", "from numpy import array", "import numpy")
    package.edit("job", "outer(array(", "outer(numpy.array(")


@pytest.mark.parametrize(
    "change",
    [
        moved, moved_and_called_by_its_module, moved_with_its_constant, renamed, made_a_package, imported_by_name, imported_at_the_top,
        no_re_export, another_name_of_a_library,
    ],
)  # fmt: skip
def test_where_a_definition_stands_changes_no_key(package: Package, change: Callable[[Package], None]) -> None:
    before = package.digest()
    change(package)
    assert package.digest() == before


def test_a_job_without_the_module_has_the_key_that_it_had(package: Package) -> None:
    """What is loaded by name may have no file yet."""
    assert rerun.code_digest((*USE, "medbench.models.planned")) == rerun.code_digest(USE)
    with pytest.raises(KeyError):
        rerun.definition("medbench.job:nothing")


def test_a_local_name_is_none_of_its_module(package: Package) -> None:
    package.write(
        "job",
        """
from medbench import numbers
from medbench.wording import said

value, key, error, item = 1, 2, 3, 4


def run(said, *rest, numbers=None, **more):
    value = said + 1
    for key in rest:
        value += key
    with open(rest) as item:
        value += [error for error in item][0]
    return (lambda value: value)(numbers)
""",
    )
    assert rerun.closure(USE) == USE
    assert rerun.closure(("medbench.job:value",)) == ("medbench.job:value",)
    package.edit("job", "value = said + 1", "total = said + value")
    package.edit("job", "lambda value: value", "lambda other: item")
    assert rerun.closure(USE) == USE, "still bound in the function: by its loop, and by `with`"


def test_a_name_of_a_comprehension_holds_inside_it_alone(package: Package) -> None:
    package.write("job", "x = 1\n\n\ndef run(many):\n    return [x for x in many]\n")
    assert rerun.closure(USE) == USE
    package.write("job", "x = 1\n\n\ndef run(many):\n    return [x for x in many], x\n")
    assert rerun.closure(USE) == (*USE, "medbench.job:x")


def test_what_is_not_tracked_is_left_out(package: Package) -> None:
    assert not any(name.startswith("medbench.places") for name in rerun.closure(USE))
    assert rerun.code_digest(("medbench.places",)) == rerun.code_digest(())
    before = package.digest()
    package.edit("places", "TRACKED = False\n", "")
    assert package.digest() != before and "medbench.places:folder" in rerun.closure(USE)


def test_libraries_are_those_that_used_definitions_use(package: Package) -> None:
    assert rerun.libraries(USE) == ("numpy", "pillow"), "scipy is used by no job, only imported in a module of this one"
    assert rerun.libraries(("medbench.numbers:unused",)) == ("scipy",)
    assert rerun.libraries(("medbench.numbers",)) == ("scipy",)
    package.edit(
        "late", "    return Image", "    import json\n    import sklearn.metrics\n    return sklearn.metrics.f1_score, json, Image"
    )
    assert rerun.libraries(USE) == ("numpy", "pillow", "scikit-learn", "scipy")


def test_params_name_no_module_of_ours(package: Package) -> None:
    """A method that moves to another file is the same method: its code is in the digest."""

    class Params(NamedTuple):
        method: str
        source: dict[str, object]

    first, second = (rerun.fingerprint(Params(f"medbench.{one}", {"module": f"medbench.{one}", "size": 3}), USE) for one in "ab")
    assert first == second
    assert first != rerun.fingerprint(Params("medbench.a", {"module": "medbench.a", "size": 4}), USE)
    defaults = rerun.fingerprint(Params("medbench.a", MappingProxyType({"module": "medbench.a", "size": 3})), USE)
    assert first == defaults, "an unchangeable default counts as its dictionary"


def test_answers_are_kept_for_these_very_sources(package: Package, tmp_path: Path) -> None:
    """A later process reads no definition, but after an edit it does; a cut file is no answer."""

    def ask() -> tuple[str, bool]:
        code = f"""import pathlib
from medbench.jobs import rerun
rerun.PACKAGE = pathlib.Path({str(package.folder)!r})
print(rerun.code_digest({USE!r}), rerun._module.cache_info().misses > 0)"""
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
        digest, has_read = done.stdout.split()
        return digest, has_read == "True"

    first = ask()
    assert first == (package.digest(), True) and ask() == (first[0], False)
    package.edit("numbers", "SCALE: int = 4", "SCALE: int = 5")
    edited = ask()
    assert edited == (package.digest(), True) and edited[0] != first[0]
    for left in ("", "[]", "7", '{"code'):
        for kept in (tmp_path / "cache").rglob("*.json"):
            kept.write_text(left)
        assert ask() == (edited[0], True)
    assert ask() == (edited[0], False)


# --- of medbench itself


@pytest.mark.parametrize("name", stages.STAGES)
def test_no_stage_tracks_where_files_lie(name: str) -> None:
    """`paths`, progress, the console and the command line decide no result: a helper added there reruns nothing."""
    declared = stages.get(name)
    used = rerun.closure((f"{declared.run.__module__}:{declared.run.__name__}",))
    assert f"{declared.run.__module__}:run" in used
    untracked = (
        "medbench.paths",
        "medbench.cli",
        "medbench.config",
        "medbench.jobs.progress",
        "medbench.jobs.console",
        "medbench.jobs.partial",
    )
    assert not [one for one in used if one.partition(":")[0] in untracked]


def test_a_task_that_is_added_is_tracked_by_no_job_of_another() -> None:
    from medbench.stages import interval, score

    scored, measured = score.Params("diagnosis"), interval.Params("diagnosis", ("auroc", "standard", "all"), 0, 100, 100, 0.95, False, 30)
    for module, params in ((interval, measured), (score, scored)):
        used = rerun.closure(module.STAGE.code(params))
        assert [one for one in used if one.startswith("medbench.tasks.diagnosis:")]
        assert not [one for one in used if one.startswith("medbench.tasks.vqa:")]


def test_run_record_paths_of_names_with_dots() -> None:
    assert paths.run_record(paths.predictions("a", "qwen2.5-vl", "ots")).name == "ots.run.json"
    assert paths.run_record(paths.embeddings("a", "qwen2.5-vl")).name == "qwen2.5-vl.run.json"
    assert paths.run_record(paths.model_folder("qwen2.5-vl")).name == "qwen2.5-vl.run.json"


# --- run records


def test_a_result_without_a_readable_record_counts_as_made_now(package: Package, tmp_path: Path) -> None:
    package.write("job", "import numpy\n\n\ndef run():\n    return numpy.ones(3)\n")
    path = tmp_path / "x.run.json"
    for text in (None, "{", "{}", "[]", '{"versions": 1}'):
        if text is not None:
            path.write_text(text)
        made = records.made(integrity.read(path), USE)
        assert made.then == made.now == {"numpy": records.versions()["numpy"]}
    path.write_text('{"versions": {"numpy": "1.0", "torch": "1.0"}}')
    made = records.made(integrity.read(path), USE)
    assert made.then == {"numpy": "1.0"} != made.now


def test_a_process_knows_when_it_started() -> None:
    code = "import time; time.sleep(0.3); from medbench.jobs import records; print(records.process_start())"
    before = time.time()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert before - 0.05 <= float(done.stdout) <= before + 0.25
