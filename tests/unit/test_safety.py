"""What must never happen: code from a checkpoint, unpickling, a path out of `results/`, a shell string made of data."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medbench import cli, paths
from medbench import config as configuration
from medbench.config import Config, Run
from medbench.errors import MedbenchError
from medbench.stages import STAGES, adapt, embed, predict

ROOT = Path(__file__).parents[2]
SOURCES = [*sorted((ROOT / "medbench").rglob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]
RULES = [ROOT / "Snakefile", *sorted((ROOT / "workflow/rules").glob("*.smk"))]
OUTSIDE = ("../up", "a/b", "/etc", "..", "a..b", ".hidden", "$(id)", "a b", "a;b", "a'b", "A", "")


def calls() -> list[tuple[str, str, dict[str, str]]]:
    """Every call of the package: where, the name called, its keywords as source."""
    found = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                keywords = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
                found.append((f"{file.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), keywords))
    return found


LOADERS = ("from_pretrained", "from_config", "_from_config")
"""Methods that may run a checkpoint's code: transformers asks on standard input where nothing is said of it."""
FETCHERS = (
    "pipeline", "create_model_from_pretrained", "create_model_and_transforms", "get_tokenizer", "get_class_from_dynamic_module", "hub.load",
)  # fmt: skip
"""Functions of libraries that follow names of repositories, or load code, without being told not to."""


def unrefused(tree: ast.AST) -> list[int]:
    """Lines where a loader is called without `trust_remote_code=False`, or is handed on as a function."""
    refusing = {
        node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and {word.arg: ast.unparse(word.value) for word in node.keywords}.get("trust_remote_code", "") == "False"
    }
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in LOADERS and node not in refusing]
    by_name = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in LOADERS]
    return [node.lineno for node in (*named, *by_name)]


def test_every_loader_of_the_package_refuses_code_explicitly() -> None:
    n_loaders = 0
    for file in sorted((ROOT / "medbench").rglob("*.py")):
        tree = ast.parse(file.read_text())
        n_loaders += sum(isinstance(node, ast.Attribute) and node.attr in LOADERS for node in ast.walk(tree))
        assert not unrefused(tree), f"{file}: lines {unrefused(tree)}"
    assert n_loaders >= 8, "models are still loaded so"
    for wrong in (
        "AutoTokenizer.from_pretrained(path)",
        "AutoConfig.from_pretrained(path, trust_remote_code=None)",
        "AutoModel.from_config(config, trust_remote_code=True)",
        "partial(AutoModel.from_pretrained, path)",
        "getattr(AutoModel, 'from_pretrained')(path)",
    ):
        assert unrefused(ast.parse(wrong)), wrong


def test_nothing_is_unpickled_and_no_code_of_a_checkpoint_runs() -> None:
    found = calls()
    assert any(name == "torch.load" for _, name, _ in found) and any(name.endswith(".from_pretrained") for _, name, _ in found)
    for where, name, keywords in found:
        assert keywords.get("trust_remote_code", "False") == "False", where
        assert not name.endswith(FETCHERS), where
        assert name not in ("eval", "exec", "os.system", "yaml.unsafe_load") and not re.match(r"c?[pP]ickle\.(load|Unp)", name), where
        assert keywords.get("shell", "False") == "False" and keywords.get("allow_pickle", "False") == "False", where
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", where
        if name.endswith(("np.load", "numpy.load")):
            assert keywords.get("allow_pickle", "False") == "False", where
        assert not name.endswith((".extractall", "unpack_archive")), f"{where}: archives are read member by member"


def test_a_rules_command_holds_wildcards_of_the_slugs_alphabet_its_log_and_what_is_quoted() -> None:
    commands = [match for file in RULES for match in re.findall(r'shell:\s*"(.*)"', file.read_text())]
    assert len(commands) == len(STAGES) + 1, "one of each, and one for a stage without a rule of its own"
    names = {"wildcards.dataset", "wildcards.model", "wildcards.mode", "wildcards.run", "log"}
    for command in commands:
        assert set(re.findall(r"{(.*?)}", command)) <= {*names, "params.rerun_key:q", "params.handed", "params.stage", "params.names"}
    common = (ROOT / "workflow/rules/common.smk").read_text()
    assert 'f"--fingerprint {shlex.quote(text)}"' in common
    assert 'return quickly(lambda wildcards: " ".join(get_names(stage, wildcards)))' in common, "names are those of wildcards"
    for name in ("dataset", "model", "mode", "run"):
        assert f"{name}=paths.SLUG.pattern" in common
    assert not [value for value in OUTSIDE if value != "a..b" and paths.SLUG.fullmatch(value)]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_would_leave_results_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for stage, keys in (("embed", 2), ("predict", 3)):
        assert cli.main([stage, "--", name, *["m"] * (keys - 1)]) == 2
        assert "is an invalid name" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    (tmp_path / "config").mkdir()
    for file in ("models", "datasets", "modes", "templates"):
        (tmp_path / f"config/{file}.yaml").write_text((ROOT / f"config/{file}.yaml").read_text())
    with (tmp_path / "config/modes.yaml").open("a") as file:
        file.write(f'\n"{name}":\n  kind: probe\n')
    with pytest.raises(MedbenchError, match="invalid name"):
        configuration.from_files([ROOT / "config/nano.yaml"], tmp_path)


def test_the_switch_for_deterministic_kernels_is_tracked_where_a_gpu_computes_and_nowhere_else() -> None:
    plain = configuration.from_files([ROOT / "config/nano.yaml"], ROOT)
    switched: Config = plain._replace(run=Run.model_validate({**plain.run.model_dump(), "deterministic": True}))
    dataset, model = plain.run.datasets[0], plain.run.models[0]
    for stage, names in ((embed, (dataset, model)), (adapt, (dataset, model, "lora")), (predict, (dataset, model, "lora"))):
        assert stage.params(plain, *names) != stage.params(switched, *names) and stage.params(switched, *names).deterministic
    for stage, names in ((embed, (dataset, "raw-pixels")), (adapt, (dataset, model, "lp")), (predict, (dataset, model, "ots"))):
        assert stage.params(plain, *names) == stage.params(switched, *names)


def test_deterministic_kernels_are_really_demanded() -> None:
    code = """import os
from medbench.jobs import seeding
seeding.deterministic_kernels()
import torch
assert torch.are_deterministic_algorithms_enabled() and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8" """
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT)})
