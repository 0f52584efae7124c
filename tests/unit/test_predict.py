"""predict: zero-shot, probe and adapted towers on the test split; one row a sample, in its order."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from torch.nn.functional import cosine_similarity

from medbench import paths, tables
from medbench.adapt import classifier as classifiers
from medbench.adapt import linear
from medbench.datasets.images import decode
from medbench.errors import MedbenchError
from medbench.jobs.microbatching import Microbatching
from medbench.models import loading, similarity
from medbench.models.checkpoint import Source
from medbench.stages import adapt, embed, predict, prompts
from medbench.tasks.diagnosis import PredictionsDiagnosis, SamplesDiagnosis
from tests.unit import tiny, written

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set embedded by a tiny CLIP and a tiny SigLIP, with prompts."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.dataset()
        for architecture in tiny.ARCHITECTURES:
            checkpoint, module = str(tiny.checkpoint(architecture, Path(architecture))), loading.module_name("contrastive", architecture)
            source = Source(module, checkpoint)._asdict()
            embed.STAGE.execute(embed.Params(source, 8), "tiny", architecture)
            prompts.run(prompts.Params(source, tiny.CLASSES, tiny.PROMPTS), "tiny", architecture)
    return folder


@pytest.fixture(autouse=True)
def _inside(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)


def params(method: str, architecture: str | None = None) -> predict.Params:
    source = tiny.source(architecture, Path(architecture))._asdict() if architecture else None
    return predict.Params(f"medbench.predict.{method}", "diagnosis", source, tiny.CLASSES, adapted=method != "zero_shot")


def predictions(model: str, mode: str) -> tuple[pl.DataFrame, np.ndarray]:
    table = tables.read(PredictionsDiagnosis, paths.predictions("tiny", model, mode))
    return table, np.array(table["scores"].to_list())


def test_images() -> list[bytes]:
    test = tables.read(SamplesDiagnosis, paths.samples("tiny", "test"))
    images = tables.read(tables.Images, paths.images("tiny"))
    return test.join(images, on="image_id", how="left", maintain_order="left")["image"].to_list()


test_images.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_zero_shot_is_the_models_own_classification(architecture: str) -> None:
    predict.STAGE.execute(params("zero_shot"), "tiny", architecture, "ots")
    table, scores = predictions(architecture, "ots")
    test = tables.read(SamplesDiagnosis, paths.samples("tiny", "test"))
    assert table.drop("scores", "draws", "by_prompts").equals(test.select("sample_id", "group_id", "label"))
    model = tiny.load(architecture, Path(architecture))
    texts = model.encode_texts(["a dark square", "a bright square", "a white square"])
    unit = texts / texts.norm(dim=1, keepdim=True)
    classes = np.stack([unit[0].numpy(), unit[1:].mean(dim=0).numpy()])
    images = model.encode_images(model.to_device(np.stack([model.pixels(decode(image)) for image in test_images()]))).embeddings
    cosine = np.stack([cosine_similarity(images, images.new_tensor(of), dim=-1).max(dim=1)[0].numpy() for of in classes], axis=1)
    logits = model.scale * cosine + model.bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_the_best_query_counts_and_prompts_are_averaged_after_normalising() -> None:
    prompts_of = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    texts = similarity.class_embeddings(prompts_of, np.array([0, 1, 1]))
    np.testing.assert_allclose(texts, [[1, 0], [np.sqrt(0.5), np.sqrt(0.5)]])
    images = np.array([[[5.0, 0.0], [0.0, 0.1]], [[-1.0, 0.0], [0.0, -2.0]]], dtype=np.float32)  # [2, 2 queries, 2]
    scores = similarity.scores(images, texts, scale=10.0, bias=3.0)
    logits = 10 * np.array([[1, np.sqrt(0.5)], [0, -np.sqrt(0.5)]])
    np.testing.assert_allclose(scores, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), rtol=1e-6)


def test_only_the_main_prompt_set_decides() -> None:
    predict.STAGE.execute(params("zero_shot"), "tiny", "clip", "ots")
    before = tables.read(PredictionsDiagnosis, paths.predictions("tiny", "clip", "ots"))["scores"]
    path = paths.prompts("tiny", "clip")
    table = tables.read(tables.Prompts, path)
    try:
        tables.write(tables.Prompts, table.filter(pl.col("prompt_set") == "main"), path)
        predict.STAGE.execute(params("zero_shot"), "tiny", "clip", "ots")
        assert tables.read(PredictionsDiagnosis, paths.predictions("tiny", "clip", "ots"))["scores"].equals(before)
        tables.write(tables.Prompts, table.filter((pl.col("prompt_set") != "main") | (pl.col("label") == 0)), path)
        with pytest.raises(MedbenchError, match="prompt set 'main' lacks a class"):
            predict.STAGE.execute(params("zero_shot"), "tiny", "clip", "ots")
    finally:
        tables.write(tables.Prompts, table, path)


def test_a_probe_scores_standardised_features() -> None:
    d, rng = len(tables.read(tables.Embeddings, paths.embeddings("tiny", "clip"))["features"][0]), np.random.default_rng(0)
    saved = linear.Linear(rng.normal(size=d), rng.uniform(1, 2, d), rng.normal(size=(2, d)), rng.normal(size=2))
    linear.write(saved, paths.adapter_weights("tiny", "clip", "lp"))
    written.certificate("tiny", "clip", "lp")
    predict.STAGE.execute(params("probe"), "tiny", "clip", "lp")
    model = tiny.load("clip", Path("clip"))
    features = model.encode_images(model.to_device(np.stack([model.pixels(decode(image)) for image in test_images()]))).features.numpy()
    logits = ((features - saved.mean) / saved.scale) @ saved.coef.T + saved.intercept
    np.testing.assert_allclose(predictions("clip", "lp")[1][:, 1], 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), atol=1e-4)


@pytest.mark.parametrize("architecture", tiny.TRAINED)
def test_an_adapted_tower_predicts_each_sample_with_its_own_image(architecture: str) -> None:
    source = tiny.source(architecture, Path(architecture))
    adapt.STAGE.execute(
        adapt.Params("medbench.adapt.contrastive_lora", "diagnosis", source._asdict(), tiny.RECIPE, tiny.CLASSES, 0),
        "tiny",
        architecture,
        "lora",
    )
    predict.STAGE.execute(params("contrastive_lora", architecture), "tiny", architecture, "lora")
    table, scores = predictions(architecture, "lora")
    model = tiny.load(architecture, Path(architecture))
    plain = model.encode_images(model.to_device(model.pixels(decode(test_images()[0]))[None])).features
    adapted = classifiers.read(paths.adapter_weights("tiny", architecture, "lora"), model)
    logits = adapted.logits([model.pixels(decode(image))[None] for image in test_images()], Microbatching())
    np.testing.assert_allclose(scores[:, 1], 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), atol=1e-5)
    assert len({tuple(row) for row in scores[:-1]}) == len(scores) - 1  # only the last two samples share an image
    assert tuple(scores[-1]) == tuple(scores[-2])
    assert not np.allclose(adapted.features(model.to_device(model.pixels(decode(test_images()[0]))[None])).detach(), plain, atol=1e-4)
    assert len(table) == tiny.SIZES["test"]


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    folder, cell = paths.adapter_weights("tiny", "clip", "broken"), ("tiny", "clip", "broken")
    linear.write(linear.Linear(*[np.zeros(2)] * 4), folder)
    path = (folder / linear.FILE).rename(folder / classifiers.HEAD)
    written.certificate(*cell)
    with pytest.raises(MedbenchError, match="is no readable adapter"):
        predict.STAGE.execute(params("contrastive_lora", "clip"), *cell)
    path.rename(folder / "other.safetensors")
    written.certificate(*cell)
    with pytest.raises(MedbenchError, match="does not exist; run `snakemake --cores all results/adapters"):
        predict.STAGE.execute(params("contrastive_lora", "clip"), *cell)
    assert not paths.predictions(*cell).exists()


def test_weights_that_their_certificate_is_not_about_are_refused() -> None:
    """A flipped byte, a file put in or taken out, another cell's folder, a certificate that failed."""
    d = len(tables.read(tables.Embeddings, paths.embeddings("tiny", "clip"))["features"][0])
    cell = ("tiny", "clip", "bound")
    certificate, folder = paths.adapter_files(*cell)

    def begin() -> None:
        shutil.rmtree(certificate.parent, ignore_errors=True)
        linear.write(linear.Linear(np.zeros(d), np.ones(d), np.ones((2, d)), np.zeros(2)), folder)
        written.certificate(*cell)

    def flip() -> None:
        data = bytearray((folder / linear.FILE).read_bytes())
        data[-1] ^= 1
        (folder / linear.FILE).write_bytes(data)

    def certify(**fields: object) -> None:
        certificate.write_text(json.dumps({**json.loads(certificate.read_text()), **fields}))

    for alter, found in (
        (flip, "probe.safetensors: is not the file that the certificate is about"),
        (lambda: shutil.copy(folder / linear.FILE, folder / "head.safetensors"), "head.safetensors: is not the file"),
        (lambda: (folder / linear.FILE).unlink(), "probe.safetensors: is not the file"),
        (lambda: certify(cell="tiny/clip/other"), "is of cell tiny/clip/other, not tiny/clip/bound"),
        (lambda: certify(failures=["nothing was trainable"]), "does not say that the adaptation passed"),
        *((lambda files=files: certify(files=files), "cannot be read as a certificate") for files in (None, [1], "abc", {})),
        *((lambda text=text: certificate.write_text(text), "cannot be read as a certificate") for text in ("{", "[]", "null")),
    ):
        begin()
        alter()
        with pytest.raises(MedbenchError, match=found):
            predict.STAGE.execute(params("probe"), *cell)
    begin()
    predict.STAGE.execute(params("probe"), *cell)


def test_an_image_without_embedding_is_an_error() -> None:
    path = paths.embeddings("tiny", "siglip")
    table = tables.read(tables.Embeddings, path)
    last = tables.read(SamplesDiagnosis, paths.samples("tiny", "test"))["image_id"][-1]
    try:
        tables.write(tables.Embeddings, table.filter(pl.col("image_id") != last), path)
        with pytest.raises(MedbenchError, match=f"holds no embeddings of image {last}"):
            predict.STAGE.execute(params("zero_shot"), "tiny", "siglip", "ots")
    finally:
        tables.write(tables.Embeddings, table, path)


@pytest.mark.parametrize("method", ["zero_shot", "probe"])
def test_cached_methods_never_import_torch(method: str) -> None:
    if method == "probe":
        d = len(tables.read(tables.Embeddings, paths.embeddings("tiny", "siglip"))["features"][0])
        linear.write(linear.Linear(np.zeros(d), np.ones(d), np.zeros((2, d)), np.zeros(2)), paths.adapter_weights("tiny", "siglip", method))
        written.certificate("tiny", "siglip", method)
    code = f"""import sys
from medbench.stages import predict
predict.STAGE.execute(predict.Params(*{tuple(params(method))!r}), 'tiny', 'siglip', {method!r})
sys.exit(any(name in sys.modules for name in ('torch', 'sklearn', 'transformers')))"""
    assert subprocess.run([sys.executable, "-c", code], check=False, env={"PYTHONPATH": str(ROOT)}).returncode == 0
    assert len(predictions("siglip", method)[0]) == tiny.SIZES["test"]
