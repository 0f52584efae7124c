"""pretrain: the folder of a mini model appears whole or not at all, and follows from its params."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from medbench import config as configuration
from medbench import paths
from medbench.errors import MedbenchError
from medbench.models.checkpoint import Source
from medbench.stages import pretrain

PARAMS = pretrain.Params("tests.unit.maker", "clip", ("natural",), 3, 8, 40, 5)


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Stands for the module that trains: writes what it was called with."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("maker")

    def make(architecture: str, corpus: list[str], folder: Path, seed: int, steps: int, batch_size: int, pool_size: int) -> None:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(repr((architecture, corpus, seed, steps, batch_size, pool_size)))

    module.pretrain = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, PARAMS.module, module)
    return module


def test_the_folder_is_put_in_place_whole(maker: types.ModuleType) -> None:
    old = paths.model_folder("mini")
    old.mkdir(parents=True)
    (old / "of an older run").touch()
    pretrain.run(PARAMS, "mini")
    assert [file.name for file in old.iterdir()] == ["model.safetensors"]
    assert (old / "model.safetensors").read_text() == "('clip', ['natural'], 5, 3, 8, 40)"
    assert [file.name for file in old.parent.iterdir()] == ["mini"]


@pytest.mark.parametrize(("raised", "seen"), [(ValueError("corpus: unknown"), MedbenchError), (KeyboardInterrupt(), KeyboardInterrupt)])
def test_a_failure_leaves_nothing(maker: types.ModuleType, raised: BaseException, seen: type[BaseException]) -> None:
    def make(architecture: str, corpus: list[str], folder: Path, *args: Any, **kwargs: Any) -> None:
        folder.mkdir(parents=True)
        raise raised

    maker.pretrain = make  # type: ignore[attr-defined]
    with pytest.raises(seen):
        pretrain.run(PARAMS, "mini")
    assert not paths.model_folder("mini").parent.exists()


def test_params_come_from_the_entry_and_the_runs_seed() -> None:
    root = Path(configuration.__file__).parents[1]
    config = configuration.from_files([root / "config" / "nano.yaml"], root)
    name = config.run.models[0]
    made = config.models[name].pretrain
    assert made is not None
    moved = config._replace(run=config.run.model_copy(update={"seed": 7}))
    found = pretrain.params(moved, name)
    assert found == ("medbench.demo.minimodels", "clip", made.corpus, made.steps, made.batch_size, made.pool_size, 7 + made.seed_offset)
    assert pretrain.modules(found) == ("medbench.demo.minimodels",)
    with pytest.raises(MedbenchError, match="is not pretrained by the workflow"):
        pretrain.params(config, "raw-pixels")


def test_a_real_mini_model_is_loaded_as_any_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medbench.demo import minimodels
    from medbench.models import base

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(minimodels.pretrain, "__defaults__", (*minimodels.pretrain.__defaults__[:-2], 64, 1e-3))  # type: ignore[index]
    pretrain.run(PARAMS._replace(module="medbench.demo.minimodels"), "mini")
    model = base.load(Source("medbench.models.contrastive.clip", str(paths.model_folder("mini"))))
    assert model.encode_texts(["a red circle"]).isfinite().all()
