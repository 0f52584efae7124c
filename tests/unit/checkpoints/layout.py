"""Files as repositories of the hub hold them, and the hub's cache as its client lays it out."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

LFS = (".bin", ".safetensors", ".msgpack", ".h5", ".model")
"""Suffixes of files that the hub keeps outside git: the cache names their blobs by SHA-256, all others by git's own digest."""
WORDY: dict[str, Any] = {
    "_name_or_path": "", "add_cross_attention": False, "architectures": None, "bad_words_ids": None, "begin_suppress_tokens": None,
    "bos_token_id": None, "chunk_size_feed_forward": 0, "cross_attention_hidden_size": None, "decoder_start_token_id": None,
    "diversity_penalty": 0.0, "do_sample": False, "early_stopping": False, "encoder_no_repeat_ngram_size": 0, "eos_token_id": None,
    "exponential_decay_length_penalty": None, "finetuning_task": None, "forced_bos_token_id": None, "forced_eos_token_id": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "is_decoder": False, "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "length_penalty": 1.0, "max_length": 20, "min_length": 0, "no_repeat_ngram_size": 0,
    "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1, "output_attentions": False, "output_hidden_states": False,
    "output_scores": False, "pad_token_id": None, "prefix": None, "problem_type": None, "pruned_heads": {}, "remove_invalid_values": False,
    "repetition_penalty": 1.0, "return_dict": True, "return_dict_in_generate": False, "sep_token_id": None, "suppress_tokens": None,
    "task_specific_params": None, "temperature": 1.0, "tf_legacy_loss": False, "tie_encoder_decoder": False, "tie_word_embeddings": True,
    "tokenizer_class": None, "top_k": 50, "top_p": 1.0, "torch_dtype": None, "torchscript": False, "typical_p": 1.0, "use_bfloat16": False,
}  # fmt: skip
"""What transformers 4 wrote into every configuration inside another (evidence: public copies of VILA1.5-3b's config.json)."""


def write(path: Path, content: Any) -> None:
    """JSON as `save_pretrained` writes it; a text as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def card(folder: Path, *junk: str) -> None:
    """README and .gitattributes; `junk`: files for other frameworks, which nothing may read."""
    write(folder / "README.md", "---\nlibrary_name: transformers\n---\n\n# Model card\n")
    write(folder / ".gitattributes", "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS))
    for name in junk:
        (folder / name).write_bytes(b"not weights: whoever reads this file fails")


def safetensors(folder: Path, tensors: dict[str, torch.Tensor], shards: int = 1) -> None:
    """One file, or shards with their index; consecutive names lie in one shard."""
    folder.mkdir(parents=True, exist_ok=True)
    if shards == 1:
        save_file(_whole(tensors), folder / "model.safetensors", {"format": "pt"})
        return
    names, where = list(tensors), {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        mine = names[len(names) * number // shards : len(names) * (number + 1) // shards]
        save_file(_whole({name: tensors[name] for name in mine}), folder / file, {"format": "pt"})
        where |= dict.fromkeys(mine, file)
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
    write(folder / "model.safetensors.index.json", index)


def pickled(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """As `torch.save` writes a state dict."""
    torch.save(_whole(tensors), path)


def _whole(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}


def renamed(model: torch.nn.Module, names: dict[str, str], dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A state dict in a number format, its names with other beginnings: of `names`, the first that fits."""
    found = {}
    for name, value in model.state_dict().items():
        start = next((start for start in names if name.startswith(start)), "")
        new = names.get(start, "") + name.removeprefix(start)
        found[new] = value.to(dtype) if value.is_floating_point() else value
    return found


@torch.no_grad()
def randomise(model: torch.nn.Module, std: float = 0.2) -> None:
    """Matrices of larger numbers than a fresh model's: at a tiny width those would hardly differ from token to token."""
    for value in model.parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=std)


def hub_cache(root: Path, repo: str, commit: str, folder: Path) -> Path:
    """Lay the files of a folder out as the hub's client keeps `repo` below `root`; gives the snapshot's folder."""
    place = root / f"models--{repo.replace('/', '--')}"
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = file.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # what git calls the file
        blob = place / "blobs" / (hashlib.sha256(data).hexdigest() if file.suffix in LFS else git)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = place / "snapshots" / commit / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * (len(file.relative_to(folder).parts) + 1), "blobs", blob.name))
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs/main").write_text(commit)
    return place / "snapshots" / commit
