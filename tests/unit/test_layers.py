"""The packages stand in layers: nothing imports upward, nothing imports itself through others; models and metrics need little."""

import subprocess
import sys

import grimp
import pytest

# From the top to the bottom: each imports only from what stands below it.
LAYERS = (
    "__main__", "cli", "verbs", "command", "trial", "doctor", "planning", "schedule", "supplies", "export", "stages", "report",
    "analysis", "judging", "predict", "datasets", "cells", "config", "tasks", "adapt", "models", "demo", "stats", "metrics", "tables",
    "remote", "jobs", "paths", "errors",
)  # fmt: skip


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("medbench", exclude_type_checking_imports=True, cache_dir=None)


def layer(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_package_stands_in_a_layer(graph: grimp.ImportGraph) -> None:
    assert {layer(module) for module in graph.modules} - {""} == set(LAYERS)


def test_nothing_imports_upward(graph: grimp.ImportGraph) -> None:
    place = {name: number for number, name in enumerate(LAYERS)}
    upward = [
        f"{module} imports {used}"
        for module in sorted(graph.modules)
        for used in sorted(graph.find_modules_directly_imported_by(module))
        if layer(module) and layer(used) and layer(module) != layer(used) and place[layer(used)] < place[layer(module)]
    ]
    assert upward == []


def test_no_module_imports_itself_through_others(graph: grimp.ImportGraph) -> None:
    circles = [
        f"{module} <-> {used}"
        for module in sorted(graph.modules)
        for used in graph.find_modules_directly_imported_by(module)
        if graph.chain_exists(importer=used, imported=module)
    ]
    assert circles == []


LIGHT = """
import importlib, sys
for name in ("torch", "transformers"):
    sys.modules[name] = None
for name in ("models.answering", "models.remote.openai", "predict.generative", "tasks.vqa"):
    importlib.import_module(f"medbench.{name}")
print("openai" in sys.modules)
"""


def test_whoever_asks_an_endpoint_needs_no_torch() -> None:
    """What needs no polars: test_models.py."""
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr[-2000:]
