"""README and docs: the example runs, links and anchors resolve, and every file and definition that a page names exists."""

import ast
import csv
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from PIL import Image
from pydantic import TypeAdapter

from medbench import config
from tests.conftest import ROOT, make_clone

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"`((?:medbench|workflow|config|profiles|tests|benchmarks|resources|docs)/[\w./-]+)`(?:,?\s+`(\w[\w.]*)`)?")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len(README.encode()) <= 6000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_anchors_resolve(page: Path) -> None:
    for target in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists() and found.is_relative_to(ROOT), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(found), f"{page.name}: {target} has no such heading"


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    linked = set(LINK.findall(README))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


@cache
def defined(file: Path) -> set[str]:
    """Names that a module defines, and those of its classes as `Class.name`."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_and_definitions_exist(page: Path) -> None:
    """`medbench/file.py`, and `medbench/file.py` followed by `definition`. CHANGELOG.md names what is gone."""
    for name, definition in FILE.findall(page.read_text(encoding="utf-8")) if page.name != "CHANGELOG.md" else ():
        file = ROOT / name
        assert file.exists(), f"{page.name} names {name}"
        assert not (definition and file.suffix == ".py") or definition in defined(file), f"{page.name}: {name} defines no {definition}"


def test_your_own_images_in_ten_lines(tmp_path: Path) -> None:
    """The block as it stands, dry; then its data set is really prepared from drawn images."""
    (block,) = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    yaml = [line for line in block.splitlines() if not line.startswith(("cat", "END"))]
    assert len(yaml) == 10, "it says so"
    folder = make_clone(tmp_path / "clone").folder
    (folder / "my-moles").mkdir()
    with (folder / "my-moles/labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "split", "group"])
        for number in range(24):
            Image.new("RGB", (48, 40), (10 * number, 90, 120)).save(folder / f"my-moles/{number}.png")
            split = "test" if number >= 16 else "train"
            table.writerow([f"{number}.png", ("benign", "malignant")[number % 2], split, f"patient-{number // 2}"])
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(script: str) -> str:
        done = subprocess.run(["bash", "-ec", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    planned = run(block.replace("snakemake --cores all", "snakemake --cores all --dry-run"))
    assert "run moles: 4 cells (4 diagnosis), 1 of baselines" in planned
    for job in ("rule prepare:", "rule embed:", "rule adapt:", "rule predict:", "rule gaps:", "rule report:"):
        assert job in planned
    run("python -m medbench prepare my-moles --configfile my-run.yaml")
    card = json.loads((folder / "results/data/my-moles/card.json").read_text())
    assert {name: split["samples"] for name, split in card["splits"].items()} == {"train": 12, "val": 4, "test": 8}


def imported() -> dict[str, set[str]]:
    """Package of medbench -> packages that its files import, at their top or inside functions; not for type checks alone."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "medbench").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        checks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
        skipped = {id(inner) for node in checks for inner in ast.walk(node)}
        names = found.setdefault(file.relative_to(ROOT / "medbench").parts[0].removesuffix(".py"), set())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and id(node) not in skipped and (node.module or "").split(".")[0] == "medbench":
                names |= {f"{node.module}.{alias.name}".split(".")[1] for alias in node.names}
            elif isinstance(node, ast.Import) and id(node) not in skipped:
                names |= {(f"{alias.name}.version").split(".")[1] for alias in node.names if alias.name.split(".")[0] == "medbench"}
    return found


def test_layers_are_those_of_the_architecture() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([\w, ]*)\|$", text, re.MULTILINE)
    found, above = imported(), set[str]()
    for package, allowed in rows:
        may = {package, *(above if allowed.strip() == "all of the above" else allowed.replace(" ", "").split(","))}
        assert found[package] <= may, f"docs/architecture.md does not let {package} import {sorted(found[package] - may)}"
        above.add(package)
    assert above == {name for name in found if not name.startswith("__")}


OWN = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")


def blocks(language: str, begin: str) -> list[str]:
    """Blocks of own-data.md in a language that hold a line."""
    return [block for block in re.findall(rf"^```{language}\n(.*?)^```", OWN, re.MULTILINE | re.DOTALL) if begin in block]


@pytest.mark.parametrize(("kind", "n"), [("data set", 2), ("model", 2), ("mode", 1)])
def test_the_entries_of_own_data_are_valid(kind: str, n: int) -> None:
    kinds = {"data set": config.Dataset, "model": config.Model}
    found = blocks("yaml", f"# {kind}\n")
    assert len(found) == n
    for entry in (entry for block in found for entry in yaml.safe_load(block).values()):
        kinds[kind].model_validate(entry) if kind in kinds else TypeAdapter(config.Mode).validate_python(entry)


def test_the_layout_and_the_stage_of_own_data_work(tmp_path: Path) -> None:
    """One file each, and one registry entry: a rule, a verb and a log follow."""
    clone = make_clone(tmp_path / "clone")
    (layout,), (stage,) = blocks("python", "one_list.py"), blocks("python", "balance.py")
    (clone.folder / "medbench/datasets/layouts/one_list.py").write_text(layout)
    (clone.folder / "medbench/stages/balance.py").write_text(stage)
    clone.edit("medbench/stages/__init__.py", '"overlap", "report",', '"overlap", "report", "balance",')
    entry = {"task": "diagnosis", "layout": "one-list", "raw_dir": "raw", "modality": "x-ray", "specialty": "radiology"}
    prompts = {"main": {"a": ["an a"], "b": ["a b"]}}
    clone.append("config/datasets.yaml", yaml.safe_dump({"listed": {**entry, "classes": ["a", "b"], "prompts": prompts}}))
    (clone.folder / "raw").mkdir()
    for number in range(20):
        Image.new("RGB", (40, 40), (10 * number, 0, 0)).save(clone.folder / f"raw/{number}.png")
    lines = [f"{number}.png {'ab'[number % 2]} p{number}" for number in range(20)]
    (clone.folder / "raw/list.txt").write_text("\n".join(lines))
    done = clone.snakemake("results/balance/listed.json")
    assert done.code == 0 and done.executed == {"prepare listed", "balance listed"}, done.output
    assert json.loads((clone.folder / "results/balance/listed.json").read_text())["test"] == [2, 2]
    assert (clone.folder / "logs/balance/listed.log").exists()
