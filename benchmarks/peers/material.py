"""What both sides read: a clone with questions, images and checkpoints, and the same questions and images as the peers take them.

Phantoms, or the real data sets of the folder that MEDBENCH_REAL_DATA names.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizerFast

from benchmarks.campaign import ROOT, copy_sources
from medbench import paths, tables
from medbench.models.asking import Asking
from medbench.tasks.diagnosis import SamplesDiagnosis
from medbench.tasks.vqa import SamplesVqa

REAL = bool(os.environ.get("MEDBENCH_REAL_DATA"))
QUESTIONS, IMAGES, FEWER = "peers-questions", "peers-images", "peers-fewer-images"
MODEL, LARGE = "bench-llava", "bench-clip"
N_QUESTIONS = 200
SIZES = {IMAGES: 798, FEWER: 96}
"""Images of a data set."""
CONFIG = "config/bench.yaml"
TASK = "peers_questions"
VISION: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 2, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 64},
    "b32": {"layers": 12, "width": 768, "patch_size": 32, "image_size": 224},
}
TEXT = {
    "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
_TASK = f"""
task: {TASK}
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: %s}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function medbench_task.doc_to_visual
doc_to_text: !function medbench_task.doc_to_text
doc_to_messages: !function medbench_task.doc_to_messages
doc_to_target: reference
generation_kwargs: {{max_new_tokens: 32, temperature: 0, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
_FUNCTIONS = """
import io
from PIL import Image
def doc_to_visual(doc):
    return [Image.open(io.BytesIO(doc["image"])).convert("RGB")]
def doc_to_text(doc, *more):
    return doc["text"]
def doc_to_messages(doc, *more):
    [image] = doc_to_visual(doc)
    return [{"role": "user", "content": [{"type": "image", "url": image}, {"type": "text", "text": doc["text"]}]}]
"""


def clone(folder: Path) -> None:
    """Sources, registries with the data sets and models of the benchmark, and all that both sides read."""
    copy_sources(folder)
    registries = {name: folder / "config" / f"{name}.yaml" for name in ("datasets", "models")}
    entries = {name: yaml.safe_load(file.read_text(encoding="utf-8")) for name, file in registries.items()}
    datasets, registered = entries["datasets"], entries["models"]
    datasets[QUESTIONS] = dict(datasets["vqa-rad" if REAL else "phantom-vqa-radiology"])
    for name in SIZES:
        datasets[name] = dict(datasets["mednist" if REAL else "phantom-radiology"])
        if not REAL:
            datasets[name]["options"] = {"kind": "radiology", "n_patients": {"train": 400, "val": 200, "test": 250}}
    registered[MODEL] = {
        "family": "llava", "role": "generalist", "architecture": "llava", "pretrained_on": ["everyday"],
        "checkpoint": str(ROOT / "resources" / "models" / "mini-llava"), "max_new_tokens": 32,
    }  # fmt: skip
    for name, file in registries.items():
        file.write_text(yaml.safe_dump(entries[name], sort_keys=False), encoding="utf-8")
    configure(folder, 1)
    for name in (QUESTIONS, IMAGES):
        prepare = [sys.executable, "-m", "medbench", "prepare", name, "--configfile", CONFIG]
        subprocess.run(prepare, cwd=folder, check=True, capture_output=True)
    here = Path.cwd()
    os.chdir(folder)
    try:
        _cut_questions()
        _cut_images()
        for size in VISION:
            open_clip(Path(size), size)
        Path("checkpoint.json").write_text(json.dumps(registered[MODEL]["checkpoint"]), encoding="utf-8")
    finally:
        os.chdir(here)


def configure(folder: Path, batch_size: int) -> None:
    """The run and the batch size of its generative model."""
    file = folder / "config" / "models.yaml"
    entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    entries[MODEL]["batch_size"] = batch_size
    file.write_text(yaml.safe_dump(entries, sort_keys=False), encoding="utf-8")
    run = {"run": "bench", "models": [MODEL], "datasets": [QUESTIONS], "modes": ["ots"]}
    (folder / CONFIG).write_text(yaml.safe_dump(run), encoding="utf-8")


def _cut_questions() -> None:
    """The first questions of test with their images, and lmms-eval's task of the same, in the words in which medbench puts them."""
    path = paths.samples(QUESTIONS, "test")
    test = tables.read(SamplesVqa, path).head(N_QUESTIONS)
    tables.write(SamplesVqa, test, path)
    images = tables.read(tables.Images, paths.images(QUESTIONS)).join(test.select("image_id").unique(), on="image_id", how="semi")
    tables.write(tables.Images, images, paths.images(QUESTIONS))
    words = yaml.safe_load(Path("config/templates.yaml").read_text(encoding="utf-8"))
    put = Asking(**{name: words[name] for name in Asking._fields})
    rows = test.join(images.select("image_id", "image"), on="image_id", how="left", maintain_order="left").select(
        "sample_id", "image", pl.col("question").map_elements(put.text, return_dtype=pl.String).alias("text"), reference="answer"
    )
    task = Path("task")
    task.mkdir()
    rows.write_parquet(task / "questions.parquet")
    (task / "medbench_task.yaml").write_text(_TASK % (task / "questions.parquet").resolve(), encoding="utf-8")
    (task / "medbench_task.py").write_text(_FUNCTIONS, encoding="utf-8")


def _cut_images() -> None:
    """Data sets of just so many images, and their files as torchvision's ImageFolder takes them."""
    splits = {split: tables.read(SamplesDiagnosis, paths.samples(IMAGES, split)) for split in paths.SPLITS}
    every = tables.read(tables.Images, paths.images(IMAGES))
    for name, size in SIZES.items():
        shares = {"train": size // 2, "val": size // 6}
        shares["test"] = size - sum(shares.values())
        kept = {split: rows.unique("image_id", maintain_order=True).sample(shares[split], seed=0) for split, rows in splits.items()}
        wanted = pl.concat(list(kept.values())).select("image_id", "label")
        assert wanted["image_id"].n_unique() == size, f"{name} has {wanted['image_id'].n_unique()} images, not {size}"
        images = every.join(wanted.select("image_id"), on="image_id", how="semi")
        tables.write(tables.Images, images, paths.images(name))
        encoded = dict(images.select("image_id", "image").iter_rows())
        for split, rows in kept.items():
            tables.write(SamplesDiagnosis, rows, paths.samples(name, split))
            for image_id, label in rows.select("image_id", "label").iter_rows():
                suffix = (Image.open(io.BytesIO(encoded[image_id])).format or "PNG").lower()
                file = Path("files") / name / split / f"class-{label}" / f"{image_id}.{suffix}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encoded[image_id])


def open_clip(folder: Path, size: str) -> None:
    """An untrained checkpoint of open_clip with a small BERT: its name is a folder here for the peer, and one in `folder` for medbench."""
    from open_clip.model import CustomTextCLIP

    berts = Path("bert"), folder / "bert"
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *(chr(97 + place) for place in range(26)),
        *(f"##{chr(97 + p)}" for p in range(26)),
    ]
    core = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = BertTokenizerFast(tokenizer_object=core)
    for place in (folder, *berts):
        tokenizer.save_pretrained(place)
    for place in berts:
        (place / "config.json").write_text(json.dumps({**TEXT, "vocab_size": len(words)}), encoding="utf-8")
    text = {"hf_model_name": "bert", "hf_tokenizer_name": "bert", "hf_model_pretrained": False, "context_length": 48,
            "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler"}  # fmt: skip
    config = {"embed_dim": 64 if size == "tiny" else 512, "vision_cfg": VISION[size], "text_cfg": text}
    scaling = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711], "size": VISION[size]["image_size"]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": scaling}), encoding="utf-8")
    torch.manual_seed(0)
    save_file(CustomTextCLIP(**config).state_dict(), folder / "open_clip_model.safetensors")  # type: ignore[arg-type]
