"""Make the mini models that come with medbench: train by the registry's recipes with seed 0, and write `resources/models/`.

python -m medbench.verbs.ship nano-clip ...
"""

import argparse
import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from medbench import command, config
from medbench.demo.shipped import FOLDER, RECIPE, Recipe, train
from medbench.stages import pretrain

CARD, WEIGHTS = "README.md", "model.safetensors"
_VERSIONS = ("torch", "transformers", "tokenizers", "numpy")


def write(model: str, recipe: Recipe, trained: Path, label: str) -> Path:
    """Make a trained model's folder the one that comes with medbench: weights in half precision, recipe, card. The folder."""
    target = FOLDER / model
    with tempfile.TemporaryDirectory() as name:
        aside = Path(name, "model")
        shutil.copytree(trained, aside)
        _halve(aside)
        digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(aside.iterdir())}
        versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
        stored = {"recipe": recipe._asdict(), "versions": versions, "files": digests}
        (aside / RECIPE).write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        (aside / CARD).write_text(_card(model, label, recipe, versions, digests[WEIGHTS]), encoding="utf-8")
        for file in aside.iterdir():
            file.chmod(0o644)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(aside, target)
    return target


def _halve(folder: Path) -> None:
    """Store the weights as float16, half the bytes; on a CPU they are loaded as float32, as every checkpoint is."""
    tensors = {name: value.half() if value.is_floating_point() else value for name, value in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _card(model: str, label: str, recipe: Recipe, versions: dict[str, str], digest: str) -> str:
    saw = ", ".join("everyday pictures" if source == "natural" else f"phantoms of {source}" for source in recipe.corpus)
    rows = {**recipe._asdict(), "corpus": ", ".join(recipe.corpus)}
    return "\n".join((
        "---", "license: apache-2.0", "library_name: transformers", f"tags: [{recipe.architecture}, synthetic]", "---",
        f"# {label} (`{model}`)", "",
        f"A small {recipe.architecture} model for medbench's demo, which saw drawn pictures alone: {saw}. It knows nothing of",
        "real patients, and is good for nothing but showing how an evaluation behaves whose truth is known.", "",
        "| recipe | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), "",
        f"Made with {', '.join(f'{name} {version}' for name, version in versions.items())}, then stored in half precision.",
        f"SHA-256 of `{WEIGHTS}`: `{digest}`; of every file: `{RECIPE}`.", "",
        f"`python -m medbench.verbs.ship {model}` makes it anew. Equal recipes give equal bytes on one machine; another CPU rounds",
        "otherwise, and the weights drift apart a little.", "",
    ))  # fmt: skip


def main(models: list[str]) -> None:
    """Train the named models, and write their folders."""
    registry = config.from_files([command.ROOT / "config" / "config.yaml"], command.ROOT)
    for model in models:
        recipe = pretrain.params(registry, model).recipe
        with tempfile.TemporaryDirectory() as name:
            said = train(recipe, Path(name, "trained"))
            folder = write(model, recipe, Path(name, "trained"), registry.models[model].about.label or model)
        print(f"{folder}: loss {said.loss_first:.3f} -> {said.loss_last:.3f} in {said.steps} steps, {said.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="names in config/models.yaml that have `pretrain`")
    main(parser.parse_args().models)
