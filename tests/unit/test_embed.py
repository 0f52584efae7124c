"""embed: the vectors of a data set, streamed, checked, whole or not at all."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from medbench import paths, tables
from medbench.config import Asking, Config, Model, Pretrain, Run
from medbench.datasets.images import decode
from medbench.errors import MedbenchError
from medbench.models import loading
from medbench.models.baseline.raw_pixels import RawPixels
from medbench.models.checkpoint import Source
from medbench.models.loading import Vectors
from medbench.stages import embed
from tests.unit import tiny

RAW = embed.Params(Source("medbench.models.baseline.raw_pixels", None)._asdict(), 7)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.dataset()
    return tmp_path


def read(model: str) -> pl.DataFrame:
    return tables.read(tables.Embeddings, paths.embeddings("tiny", model))


def test_every_image_has_features_and_what_is_evaluated_has_embeddings(data: Path) -> None:
    folder = tiny.checkpoint("clip", data / "model")
    params = embed.Params(Source("medbench.models.contrastive.clip", str(folder))._asdict(), 8)
    facts = embed.STAGE.execute(params, "tiny", "clip")
    images, found = tables.read(tables.Images, paths.images("tiny")), read("clip")
    assert (facts["images"], facts["image_processor"]) == (len(images), "CLIPImageProcessorPil")
    assert set(facts) == {"images", "image_processor", "images_per_second", "parameters", "flops_per_image", "weights"}
    assert found["image_id"].to_list() == images["image_id"].to_list()
    assert found["embeddings"].is_not_null().to_list() == images["evaluated"].to_list()
    model = tiny.load("clip", folder)
    pixels = np.stack([model.pixels(decode(image)) for image in images["image"]])
    expected = model.encode_images(model.to_device(pixels))
    np.testing.assert_allclose(np.array(found["features"].to_list()), expected.features.numpy(), atol=1e-4)
    evaluated = found.filter(pl.col("embeddings").is_not_null())["embeddings"]
    np.testing.assert_allclose(np.array(evaluated.to_list()), expected.embeddings.numpy()[images["evaluated"].to_numpy()], atol=1e-4)


def test_equal_inputs_give_byte_equal_tables(data: Path) -> None:
    folder = tiny.checkpoint("siglip", data / "model")
    params = embed.Params(Source("medbench.models.contrastive.siglip", str(folder))._asdict(), 8)
    for name in ("one", "two"):
        embed.STAGE.execute(params, "tiny", name)
    assert paths.embeddings("tiny", "one").read_bytes() == paths.embeddings("tiny", "two").read_bytes()


def test_row_groups_do_not_follow_batches_and_change_no_row(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed.STAGE.execute(RAW, "tiny", "whole")
    monkeypatch.setattr(embed, "ROW_GROUP", 10)
    embed.STAGE.execute(RAW, "tiny", "parts")
    assert read("parts").equals(read("whole"))
    file = pq.ParquetFile(paths.embeddings("tiny", "parts"))
    rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert rows == [10] * (len(read("whole")) // 10) + [len(read("whole")) % 10]


def test_a_vector_that_is_not_finite_names_its_image_and_writes_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tables.read(tables.Images, paths.images("tiny"))["image_id"][23]

    class Broken(RawPixels):
        def vectors(self, batches: Any, microbatching: Any) -> Any:
            for batch, vectors in super().vectors(batches, microbatching):
                if bad in batch.image_ids:
                    vectors.features[batch.image_ids.index(bad), 3] = np.nan
                yield batch, Vectors(vectors.features, None)

    monkeypatch.setattr(loading, "load", lambda *args: Broken())
    with pytest.raises(MedbenchError, match=f"image {bad}: the model's output is not finite"):
        embed.STAGE.execute(RAW, "tiny", "broken")
    assert not paths.embeddings("tiny", "broken").parent.exists() and not list(paths.partial("").iterdir())


def test_a_broken_image_writes_nothing(data: Path) -> None:
    images = tables.read(tables.Images, paths.images("tiny"))
    broken = images.with_columns(pl.when(pl.int_range(pl.len()) == 5).then(pl.lit(b"no image")).otherwise("image").alias("image"))
    tables.write(tables.Images, broken, paths.images("tiny"))
    with pytest.raises(MedbenchError, match=f"image {images['image_id'][5]}: cannot be decoded"):
        embed.STAGE.execute(RAW, "tiny", "broken")
    assert not paths.embeddings("tiny", "broken").parent.exists() and not list(paths.partial("").iterdir())


def test_no_images_is_an_error(data: Path) -> None:
    tables.write(tables.Images, tables.empty(tables.Images), paths.images("tiny"))
    with pytest.raises(MedbenchError, match="holds no image"):
        embed.STAGE.execute(RAW, "tiny", "none")
    assert not paths.embeddings("tiny", "none").exists()


def test_the_baseline_is_embedded_without_torch(data: Path) -> None:
    code = f"""import sys
from medbench.stages import embed
embed.STAGE.execute(embed.Params(*{tuple(RAW)!r}), 'tiny', 'raw')
sys.exit('torch' in sys.modules)"""
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], check=False, env={"PYTHONPATH": str(root)}).returncode == 0
    assert len(read("raw")) == len(tables.read(tables.Images, paths.images("tiny")))


def test_params_hold_the_entry_and_modules_its_file() -> None:
    models = {
        "mini": Model(family="clip", role="generalist", architecture="clip", pretrain=Pretrain(corpus=("natural",), steps=1), batch_size=3),
        "hub": Model(family="clip", role="generalist", architecture="siglip", checkpoint="owner/name", revision="abc"),
        "raw-pixels": Model(family="baseline", role="baseline", architecture="raw-pixels", tasks=("diagnosis",), modes=("lp",)),
    }
    config = Config(Run(run="r", models=("mini",), datasets=("d",), modes=("ots",)), models, {}, {}, Asking(), {})
    mini, hub = (embed.params(config, "d", name) for name in ("mini", "hub"))
    assert Source(**mini.source)[:3] == ("medbench.models.contrastive.clip", "results/models/mini", None) and mini.batch_size == 3
    assert Source(**hub.source)[:3] == ("medbench.models.contrastive.siglip", "owner/name", "abc") and hub.batch_size == 64
    assert Source(**embed.params(config, "d", "raw-pixels").source)[:3] == ("medbench.models.baseline.raw_pixels", None, None)
    assert embed.STAGE.uses(embed.params(config, "d", "hub")) == ("medbench.models.contrastive.siglip",)
