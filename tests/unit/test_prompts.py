"""prompts: every prompt set as text embeddings, with the model's own scale and bias."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medbench import paths, tables
from medbench.errors import MedbenchError
from medbench.models import loading
from medbench.models.checkpoint import Source
from medbench.stages import prompts
from tests.unit import tiny


@pytest.fixture(params=tiny.ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def params(architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> prompts.Params:
    monkeypatch.chdir(tmp_path)
    tiny.checkpoint(architecture, tmp_path / "model")
    return prompts.Params(Source(loading.module_name("contrastive", architecture), "model")._asdict(), tiny.CLASSES, tiny.PROMPTS)


def test_every_prompt_of_every_set_is_a_row(params: prompts.Params, architecture: str) -> None:
    prompts.run(params, "tiny", "model")
    table = tables.read(tables.Prompts, paths.prompts("tiny", "model"))
    assert table.select("prompt_set", "label", "position", "prompt").rows() == [
        ("main", 0, 0, "a dark square"),
        ("main", 1, 0, "a bright square"),
        ("main", 1, 1, "a white square"),
        ("other", 0, 0, "dim"),
        ("other", 1, 0, "lit"),
    ]
    model = tiny.load(architecture, Path("model"))
    np.testing.assert_allclose(np.array(table["embedding"].to_list()), model.encode_texts(table["prompt"].to_list()).numpy(), rtol=1e-5)
    assert table.select(pl.col("scale").unique(), pl.col("bias").unique()).rows() == [
        (pytest.approx(model.scale, rel=1e-6), pytest.approx(model.bias, rel=1e-6))
    ]
    assert (model.bias == 0) == (architecture != "siglip")


def test_labels_follow_the_classes_not_the_order_of_the_prompts(params: prompts.Params) -> None:
    turned = {name: dict(reversed(of.items())) for name, of in params.prompts.items()}
    prompts.run(params, "tiny", "model")
    prompts.run(params._replace(prompts=turned), "tiny", "turned")
    assert paths.prompts("tiny", "model").read_bytes() == paths.prompts("tiny", "turned").read_bytes()


def test_a_prompt_that_would_be_cut_is_an_error_and_writes_nothing(params: prompts.Params) -> None:
    long: dict[str, dict[str, tuple[str, ...]]] = {"main": {"dark": ("square " * 600,), "bright": ("lit",)}}
    with pytest.raises(MedbenchError, match="the model reads"):
        prompts.run(params._replace(prompts=long), "tiny", "model")
    assert not paths.prompts("tiny", "model").exists()
