"""Pins: what was loaded is known, what is not what the registry says is refused, and half of a checkpoint is one line."""

import io
import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from medbench import cli, config, stages
from medbench.config import needs, sources
from medbench.errors import Interrupted, MedbenchError
from medbench.jobs import digests, limits, network
from medbench.models import checkpoint, generative_base, hub, loading
from medbench.models.checkpoint import Source
from medbench.verbs.lock_models import lock
from tests.unit import tiny, tiny_generative
from tests.unit.hubserver import COMMIT, Hub, serving

ROOT = Path(__file__).parents[2]
CLIP = loading.module_name("contrastive", "clip")
OTHER = "f" * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny CLIP."""
    return tiny.checkpoint("clip", tmp_path / "m")


def load(folder: Path, **pins: object) -> loading.Contrastive:
    """Through the project's own loader."""
    loaded: loading.Contrastive = loading.load(Source(CLIP, str(folder), **pins))  # type: ignore[arg-type]
    return loaded


def weights(folder: Path) -> Path:
    """Its file of weights."""
    return tiny.weights(folder)[0]


# --- what was loaded


def test_a_folder_is_known_by_the_digest_of_what_is_read(folder: Path, tmp_path: Path) -> None:
    before = load(folder).weights
    assert before == {"checkpoint": f"sha256 {digests.tree(folder)}"}
    (folder / "README.md").write_text("a card")
    (folder / ".git").mkdir()
    (folder / ".git/config.json").write_text("{}")
    assert load(folder).weights == before, "what no loader reads changes nothing"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/words.json").write_text("{}")
    (folder / "behind").symlink_to(tmp_path / "elsewhere")
    linked = load(folder).weights
    (tmp_path / "elsewhere/words.json").write_text("[]")
    assert before != linked != load(folder).weights, "what a loader may read behind a link counts"
    (folder / "behind").unlink()
    config_file = folder / "config.json"
    config_file.write_text(config_file.read_text() + "\n")
    assert load(folder).weights != before


def test_equal_sizes_and_times_do_not_hide_other_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest is kept by size, times and inode: what is put in another file's place differs in one of them, whatever times it is given."""
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "cache"))
    assert digests._SETTLED > 0, "what changed a moment ago is not kept"
    monkeypatch.setattr(digests, "_SETTLED", -1.0)
    file, other = tmp_path / "w.safetensors", tmp_path / "other"
    for path, text in ((file, b"one"), (other, b"two")):
        path.write_bytes(text)
        os.utime(path, (1_000_000, 1_000_000))
    first = digests.sha256(file)
    assert digests.sha256(file) == first
    [note] = (tmp_path / "cache/digests").rglob("*.json")
    assert note.parent.parent.name == "digests", "no folder holds them all: a write looks through its folder"
    shutil.move(other, file)
    assert digests.sha256(file) != first
    second = digests.sha256(file)
    with file.open("r+b") as stream:
        stream.write(b"six")  # in place: the inode stays
    os.utime(file, (1_000_000, 1_000_000))
    assert digests.sha256(file) not in (first, second)
    for note in (tmp_path / "cache/digests").rglob("*.json"):
        note.write_text("half a no")
    assert digests.sha256(file) != first, "a damaged note is computed anew"


def test_a_snapshot_of_the_hub_is_known_by_its_commit(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--o--n/snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    assert load(snapshot).weights == {"checkpoint": f"commit {COMMIT}"}
    assert load(snapshot, revision=COMMIT).weights == {"checkpoint": f"commit {COMMIT}"}
    with pytest.raises(MedbenchError, match=f"holds commit {COMMIT}, the registry pins {OTHER}; fetch that one"):
        load(snapshot, revision=OTHER)


def test_a_folder_that_the_hubs_client_filled_says_its_commit(folder: Path) -> None:
    notes = folder / ".cache/huggingface/download"
    notes.mkdir(parents=True)
    (notes / "config.json.metadata").write_text(f"{COMMIT}\netag\n1700000000.0\n")
    assert load(folder, revision=COMMIT).weights["checkpoint"].startswith("sha256 "), "its files may have changed since"
    with pytest.raises(MedbenchError, match=f"holds commit {COMMIT}, the registry pins {OTHER}"):
        load(folder, revision=OTHER)


def test_another_checksum_than_pinned_is_refused(folder: Path) -> None:
    name, right = weights(folder).name, digests.sha256(weights(folder))
    load(folder, checksums={name: right})
    with pytest.raises(MedbenchError, match=f"{name}: has the SHA-256 {right}, the registry pins {'0' * 64}; fetch it again"):
        load(folder, checksums={name: "0" * 64})
    with pytest.raises(MedbenchError, match=r"absent.safetensors: is absent; the registry pins its checksum; fetch the whole checkpoint"):
        load(folder, checksums={"absent.safetensors": right})


def test_a_configuration_names_no_repository_that_the_registry_does_not(tmp_path: Path) -> None:
    folder = tiny.checkpoint("open-clip", tmp_path / "m")
    settings = json.loads((folder / "open_clip_config.json").read_text())
    settings["model_cfg"]["text_cfg"]["hf_model_name"] = "somebody/tower"
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    with pytest.raises(
        MedbenchError, match=r"names somebody/tower, which the registry does not; add `companions: \{somebody/tower: <commit>"
    ):
        loading.load(Source(loading.module_name("contrastive", "open-clip"), str(folder)))


def test_an_adapter_goes_into_no_other_weights() -> None:
    checkpoint.require_weights(Path("a"), {"checkpoint": "commit 1"}, {"checkpoint": "commit 1"})
    with pytest.raises(MedbenchError, match="was trained on checkpoint commit 1, and this is commit 2; delete it and run `adapt` again"):
        checkpoint.require_weights(Path("a"), {"checkpoint": "commit 1"}, {"checkpoint": "commit 2"})
    with pytest.raises(MedbenchError, match="was trained on o/n None, and this is commit 3"):
        checkpoint.require_weights(Path("a"), {"checkpoint": "commit 1"}, {"checkpoint": "commit 1", "o/n": "commit 3"})


# --- half of a checkpoint, or too much of one


def sharded(folder: Path) -> Path:
    """The weights cut in two, with an index."""
    tensors = tiny.tensors(folder)
    for old in [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*")]:
        old.unlink()
    names = sorted(tensors)
    parts = {f"model-0000{number + 1}-of-00002.safetensors": names[number::2] for number in range(2)}
    for part, own in parts.items():
        save_file({name: tensors[name].contiguous() for name in own}, folder / part, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {name: part for part, own in parts.items() for name in own}}))
    return index


def extra(folder: Path) -> str:
    tiny.replace(folder, {**tiny.tensors(folder), "visual_projection.bias": torch.zeros(3)})
    return "1 tensors are unknown to CLIPModel, visual_projection.bias first; give a checkpoint of this architecture"


def lacking(folder: Path) -> str:
    tensors = tiny.tensors(folder)
    del tensors["logit_scale"]
    tiny.replace(folder, tensors)
    return "1 tensors are missing or of another shape, logit_scale first; fetch the whole checkpoint"


def absent_shard(folder: Path) -> str:
    sharded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    return "names 2 shards, 1 are there, model-00002-of-00002.safetensors is absent; fetch the whole checkpoint"


def no_index(folder: Path) -> str:
    sharded(folder).unlink()
    (folder / "model-00001-of-00002.safetensors").unlink()
    return "holds 1 of 2 shards"


def rename_shard(folder: Path, name: str) -> None:
    """In the index, as JSON has it."""
    index = sharded(folder)
    index.write_text(index.read_text().replace("model-00002-of-00002.safetensors", name))


def index_outside(folder: Path) -> str:
    rename_shard(folder, "../model-00002-of-00002.safetensors")
    return "names '../model-00002-of-00002.safetensors', which is not in its folder"


def index_of_root(folder: Path) -> str:
    rename_shard(folder, "/etc/passwd")
    return "names '/etc/passwd', which is not in its folder"


def index_through_a_link(folder: Path) -> str:
    index = sharded(folder)
    outside = folder.parent / "elsewhere.safetensors"
    shutil.move(folder / "model-00002-of-00002.safetensors", outside)
    (folder / "model-00002-of-00002.safetensors").symlink_to(outside)
    assert index.is_file()
    return "names 'model-00002-of-00002.safetensors', which is not in its folder"


def index_of_a_circle(folder: Path) -> str:
    sharded(folder)
    file = folder / "model-00002-of-00002.safetensors"
    file.unlink()
    file.symlink_to(file)
    return "names 'model-00002-of-00002.safetensors', which is not in its folder|is absent"


def index_of_a_long_name(folder: Path) -> str:
    rename_shard(folder, f"{'x' * 5000}.safetensors")
    return "which is not in its folder|is absent"


def index_with_a_null(folder: Path) -> str:
    rename_shard(folder, "a\\u0000b.safetensors")
    return "which is not in its folder"


def index_without_a_map(folder: Path) -> str:
    sharded(folder).write_text(json.dumps({"weight_map": ["model-00001-of-00002.safetensors"]}))
    return "is no readable index of shards"


def index_of_thousands(folder: Path) -> str:
    sharded(folder).write_text(json.dumps({"weight_map": {f"t{place}": f"m{place}.safetensors" for place in range(2000)}}))
    return "names 2000 shards, more than 1000"


def header_of_gigabytes(folder: Path) -> str:
    weights(folder).unlink()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write((2**27).to_bytes(8, "little"))
        stream.truncate(2**27 + 16)
    return "has a header of 134217728 bytes, more than"


def adapter_inside(folder: Path) -> str:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somebody/else", "peft_type": "LORA"}))
    return "adapter_config.json: makes transformers put an adapter into other weights"


def broken_index(folder: Path) -> str:
    sharded(folder).write_text("{")
    return "is no readable index of shards"


def cut_shard(folder: Path) -> str:
    sharded(folder)
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    return r"model-00002-of-00002.safetensors: has \d+ bytes, its header promises \d+; fetch it again"


def empty_weights(folder: Path) -> str:
    weights(folder).unlink()
    (folder / "model.safetensors").touch()
    return "holds no readable header of safetensors"


def empty_pickle(folder: Path) -> str:
    weights(folder).write_bytes(b"")
    return "cannot be read safely"


def not_tensors(folder: Path) -> str:
    weights(folder).unlink()
    torch.save({"state_dict": {"logit_scale": torch.zeros(())}, "epoch": 3}, folder / "pytorch_model.bin")
    return "cannot be read safely|holds more than tensors|tensors are missing"


def no_tokenizer(folder: Path) -> str:
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    return "holds no tokenizer; add the tokenizer's files"


def half_a_tokenizer(folder: Path) -> str:
    no_tokenizer(folder)
    (folder / "vocab.json").write_text("{}")
    return "holds vocab.json without merges.txt"


def foreign_tokenizer(folder: Path) -> str:
    from medbench.demo.hubformat import train_tokenizer

    no_tokenizer(folder)
    words = [f"word{number} " + "".join(chr(97 + number * step % 26) for step in range(2, 9)) for number in range(400)]
    train_tokenizer("siglip", words).save_pretrained(folder)
    return r"its tokenizer gives tokens up to \d+, the model knows \d+; give its own tokenizer"


@pytest.mark.parametrize(
    "spoil",
    [
        extra, lacking, absent_shard, no_index, index_outside, index_of_root, index_through_a_link, index_of_a_circle,
        index_of_a_long_name, index_with_a_null, index_without_a_map, index_of_thousands, header_of_gigabytes, adapter_inside,
        broken_index, cut_shard, empty_weights, empty_pickle, not_tensors,
        no_tokenizer, half_a_tokenizer, foreign_tokenizer,
    ],
)  # fmt: skip
def test_a_spoilt_checkpoint_is_one_line(folder: Path, spoil: Callable[[Path], str]) -> None:
    expected = spoil(folder)
    with pytest.raises(MedbenchError, match=expected) as error:
        load(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_shards_of_the_hubs_cache_are_links_and_load(folder: Path, tmp_path: Path) -> None:
    sharded(folder)
    snapshot, blobs = tmp_path / "models--o--n/snapshots" / COMMIT, tmp_path / "models--o--n/blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(folder, blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    load(snapshot)


# --- code and names in configurations


EVIL = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": [None, "evil.Evil"], "AutoImageProcessor": "evil.Evil"}
CONTRASTIVE = (*tiny.ARCHITECTURES,)


def any_checkpoint(name: str, folder: Path) -> tuple[Path, Source]:
    """Of a contrastive architecture or a generative family."""
    kind, maker = ("contrastive", tiny) if name in CONTRASTIVE else ("generative", tiny_generative)
    maker.checkpoint(name, folder)
    return folder, Source(loading.module_name(kind, name), str(folder), None, 4)


@pytest.mark.parametrize("name", [*CONTRASTIVE, *tiny_generative.ALL])
def test_code_that_a_configuration_names_is_refused_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each of its files, at any depth, and whatever standard input says."""
    marker = tmp_path / "ran"
    folder, source = any_checkpoint(name, tmp_path / "m")
    for place in {file.parent for file in folder.rglob("*config.json")}:
        (place / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: ...\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 99))
    for file in sorted(folder.rglob("*.json")):
        text = file.read_text()
        fields = json.loads(text)
        if not file.name.endswith("config.json"):
            continue
        nested = {**fields, "text_config": {**fields.get("text_config", {}), "deep": [{"auto_map": EVIL}]}}
        for changed in ({**fields, "auto_map": EVIL}, nested, {**fields, "custom_pipelines": {"x": {"impl": "evil.Evil"}}}):
            file.write_text(json.dumps(changed))
            with pytest.raises(MedbenchError, match=f"{file}: names code of its own \\((auto_map|custom_pipelines) .*medbench never runs"):
                loading.load(source)
        file.write_text(json.dumps({**fields, "auto_map": EVIL}).replace("auto_map", "auto\\u005fmap"))
        with pytest.raises(MedbenchError, match="names code of its own"):
            loading.load(source)
        file.write_text(text)
    for extra in ("video_preprocessor_config.json", "text/processor.json"):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_text(json.dumps({"auto_map": EVIL}))
        with pytest.raises(MedbenchError, match="names code of its own"):
            loading.load(source)
        (folder / extra).unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/processor.json").write_text(json.dumps({"auto_map": EVIL}))
    (folder / "behind").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MedbenchError, match=r"behind/processor\.json: names code of its own"):
        loading.load(source)
    (folder / "behind").unlink()
    (folder / "custom_generate").mkdir()
    with pytest.raises(MedbenchError, match="custom_generate: names code of its own"):
        loading.load(source)
    assert not marker.exists()


def test_words_of_a_vocabulary_are_no_code(folder: Path) -> None:
    (folder / "words.json").write_text(json.dumps({"auto_map": 17, "custom_generate": 18}))
    (folder / "lines.json").write_text('{"auto_map": {"a": 1}}\n{"auto_map": {}}\n')  # no JSON, so no loader reads it
    load(folder)


def open_clip_config(folder: Path, tower: str, key: str, value: object) -> None:
    path = folder / "open_clip_config.json"
    fields = json.loads(path.read_text())
    fields["model_cfg"][tower][key] = value
    path.write_text(json.dumps(fields))


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Everything that somebody tries to connect to."""
    tried: list[object] = []

    def connect(self: socket.socket, address: object) -> None:
        tried.append(address)
        raise OSError("no network")

    def look_up(host: str, *given: object, **more: object) -> object:
        tried.append(host)
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return tried


@pytest.mark.parametrize(
    ("tower", "key", "value", "expected"),
    [
        ("vision_cfg", "timm_model_name", "hf-hub:somebody/net", "names the image tower 'hf-hub:somebody/net'"),
        ("vision_cfg", "timm_model_name", "hf_hub:somebody/net", "names the image tower 'hf_hub:somebody/net'"),
        ("vision_cfg", "timm_model_name", "local-dir:/etc", "names the image tower 'local-dir:/etc'"),
        ("vision_cfg", "timm_model_pretrained", True, None),
        ("text_cfg", "hf_tokenizer_name", "somebody/words", "names the tokenizer 'somebody/words', which the registry does not"),
        ("text_cfg", "hf_model_name", "somebody/tower", "names somebody/tower, which the registry does not"),
        ("text_cfg", "hf_model_name", "../../etc", "which is no repository"),
        ("text_cfg", "hf_model_name", "/etc", "which is no repository"),
        ("text_cfg", "hf_model_name", "x" * 5000, "which is no repository"),
        ("text_cfg", "hf_model_name", ["a"], "holds no usable open_clip_config.json"),
        ("text_cfg", "hf_model_pretrained", True, None),
        ("text_cfg", "context_length", 10**18, "has context_length 1000000000000000000, its text tower reads"),
    ],
)
def test_open_clip_asks_for_no_repository(
    tower: str, key: str, value: object, expected: str | None, tmp_path: Path, addresses: list[object]
) -> None:
    folder, source = any_checkpoint("open-clip", tmp_path / "m")
    open_clip_config(folder, tower, key, value)
    if expected:
        with pytest.raises(MedbenchError, match=expected) as error:
            loading.load(source)
        assert len(str(error.value)) < 1000
    else:
        loading.load(source)
    assert not addresses


def test_a_tower_of_the_hub_is_not_asked_for(tmp_path: Path, addresses: list[object]) -> None:
    """A family of transformers whose configuration names a repository: libraries get nothing from the hub while a model is made."""
    folder, source = any_checkpoint("llava", tmp_path / "m")
    fields = json.loads((folder / "config.json").read_text())
    fields["vision_config"] = {"model_type": "timm_wrapper", "architecture": "hf-hub:somebody/net"}
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(MedbenchError, match=r"cannot be read safely \((LocalEntryNotFound|OfflineModeIsEnabled)"):
        loading.load(source)
    assert not addresses


def test_the_hub_is_open_again_after_a_load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    seen: list[bool] = []
    for before in (False, True):
        seen.clear()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", before)
        monkeypatch.setattr(network, "snapshot_download", lambda *given, **more: seen.append(constants.HF_HUB_OFFLINE) or str(folder))
        loading.load(Source(CLIP, "owner/name"))
        assert set(seen) == {before} and constants.HF_HUB_OFFLINE is before


# --- values that no model has


def change(file: Path, dotted: str, value: object) -> None:
    """One field of a JSON file."""
    fields = json.loads(file.read_text())
    inner = fields
    *way, last = dotted.split(".")
    for key in way:
        inner = inner.setdefault(key, {})
    inner[last] = value
    file.write_text(json.dumps(fields))


SIZES = [
    ("clip", "config.json", "text_config.num_hidden_layers"),
    ("clip", "config.json", "vision_config.hidden_size"),
    ("clip", "config.json", "text_config.vocab_size"),
    ("clip", "config.json", "vision_config.image_size"),
    ("clip", "config.json", "text_config.max_position_embeddings"),
    ("clip", "config.json", "text_config.num_labels"),
    ("siglip", "config.json", "vision_config.num_hidden_layers"),
    ("siglip", "config.json", "vision_config.intermediate_size"),
    ("blip2", "config.json", "num_query_tokens"),
    ("blip2", "config.json", "qformer_config.num_hidden_layers"),
    ("medclip", "config.json", "swin.depths"),
    ("medclip", "config.json", "bert.vocab_size"),
    ("open-clip", "open_clip_config.json", "model_cfg.embed_dim"),
    ("llava", "config.json", "text_config.num_hidden_layers"),
    ("llava", "config.json", "text_config.intermediate_size"),
    ("qwen2-vl", "config.json", "vision_config.depth"),
    ("qwen2-5-vl", "config.json", "num_hidden_layers"),
    ("internvl", "config.json", "text_config.vocab_size"),
    ("gemma3", "config.json", "text_config.num_hidden_layers"),
    ("llava-med", "config.json", "vocab_size"),
    ("llava-med", "config.json", "num_hidden_layers"),
    ("vila", "llm/config.json", "num_hidden_layers"),
    ("vila", "vision_tower/config.json", "hidden_size"),
]


@pytest.mark.parametrize("value", [10**9, 10**6], ids=["1e9", "1e6"])
@pytest.mark.parametrize(("name", "file", "key"), SIZES)
def test_sizes_that_the_weights_do_not_have_are_one_line(name: str, file: str, key: str, value: int, tmp_path: Path) -> None:
    """Before anything is made of them: most of these took all memory, or hours."""
    folder, source = any_checkpoint(name, tmp_path / "m")
    change(folder / file, key, [2, value] if key.endswith("depths") else value)
    with pytest.raises(MedbenchError) as error:
        loading.load(source)
    assert "\n" not in str(error.value) and str(folder) in str(error.value), "named by its file"
    assert not isinstance(error.value, Interrupted), "the memory was not tried"


def test_a_model_of_twice_its_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, source = any_checkpoint("llava", tmp_path / "m")
    monkeypatch.setattr(limits, "NUMBERS_FREE", 0)
    monkeypatch.setattr(limits, "NUMBERS_OF_TENSOR", 0)
    loading.load(source)
    monkeypatch.setattr(limits, "NUMBERS_PER_BYTE", 0.25)
    with pytest.raises(MedbenchError, match=r"config.json: describes a model of more than \d+ million numbers, its weights have \d+ bytes"):
        loading.load(source)


WRONG = ["x", [], {}, None, -1, 0, True, 0.5]


@pytest.mark.parametrize(
    ("name", "file", "key"),
    [
        ("clip", "config.json", "text_config.hidden_size"),
        ("clip", "config.json", "vision_config"),
        ("clip", "config.json", "vision_config.patch_size"),
        ("clip", "preprocessor_config.json", "image_mean"),
        ("clip", "preprocessor_config.json", "size"),
        ("clip", "preprocessor_config.json", "resample"),
        ("clip", "tokenizer_config.json", "model_max_length"),
        ("clip", "tokenizer_config.json", "tokenizer_class"),
        ("siglip", "config.json", "text_config.num_attention_heads"),
        ("blip2", "config.json", "qformer_config.hidden_size"),
        ("medclip", "config.json", "swin.depths"),
        ("open-clip", "open_clip_config.json", "model_cfg"),
        ("open-clip", "open_clip_config.json", "model_cfg.text_cfg.context_length"),
        ("open-clip", "open_clip_config.json", "preprocess_cfg.mean"),
        ("open-clip", "open_clip_config.json", "model_cfg.vision_cfg.timm_pool"),
        ("llava", "config.json", "text_config.hidden_size"),
        ("llava", "generation_config.json", "eos_token_id"),
        ("gemma3", "preprocessor_config.json", "size.height"),
        ("llava-med", "config.json", "mm_vision_tower"),
        ("llava-med", "config.json", "mm_vision_select_layer"),
        ("vila", "config.json", "s2"),
        ("vila", "llm/config.json", "model_type"),
        ("vila", "vision_tower/preprocessor_config.json", "size"),
    ],
)
def test_a_value_of_the_wrong_type_is_no_traceback(name: str, file: str, key: str, tmp_path: Path) -> None:
    folder, source = any_checkpoint(name, tmp_path / "m")
    text = (folder / file).read_text()
    refused = 0
    for value in WRONG:
        change(folder / file, key, value)
        try:
            model = loading.load(source) if name in CONTRASTIVE else generative_base.load(source)
            loading.costs(model)
        except MedbenchError as error:
            assert "\n" not in str(error)
            refused += 1
        (folder / file).write_text(text)
    assert refused, "some of these no model can have"


@pytest.mark.parametrize("name", ["clip", "open-clip", "medclip", "llava", "llava-med", "vila"])
@pytest.mark.parametrize("text", ["[1]", "3", '"x"', "null", '{"model_type": ', "", "\udcff", "[" * 99_999, '{"a": ' * 99_999, "1" * 5000])
def test_a_file_that_is_no_object_is_named(name: str, text: str, tmp_path: Path) -> None:
    folder, source = any_checkpoint(name, tmp_path / "m")
    for file in sorted(folder.rglob("*config.json")):
        kept = file.read_bytes()
        file.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(MedbenchError, match=f"^{file}: (is no readable JSON|holds a )") as error:
            loading.load(source)
        assert "\n" not in str(error.value) and len(str(error.value)) < 400
        file.write_bytes(kept)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": {"type": "BPE"}}', "[" * 99_999])
@pytest.mark.parametrize("name", ["clip", "llava", "vila"])
def test_a_broken_tokenizer_is_one_line(name: str, text: str, tmp_path: Path) -> None:
    folder, source = any_checkpoint(name, tmp_path / "m")
    place = folder / "llm" if name == "vila" else folder
    for other in hub.VOCABULARIES:
        (place / other).unlink(missing_ok=True)
    (place / "tokenizer.json").write_text(text)
    with pytest.raises(MedbenchError, match=r"tokenizer|usable processor") as error:
        loading.load(source)
    assert "\n" not in str(error.value)


def test_files_that_are_read_whole_have_a_largest_size(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "config.json"):
        folder, source = any_checkpoint("clip", tmp_path / name)
        os.truncate(folder / name, 2**27)
        with pytest.raises(MedbenchError, match=f"{name}: has 134217728 bytes, more than the"):
            loading.load(source)


@pytest.mark.parametrize("field", ["size", "crop_size"])
def test_an_image_processor_makes_no_huge_images(folder: Path, field: str) -> None:
    change(folder / "preprocessor_config.json", field, 10**6)
    with pytest.raises(MedbenchError, match=r"its image processor makes images with \w+ 1000000, more than 4096"):
        load(folder)


def test_an_image_takes_no_more_tokens_than_the_model_reads(tmp_path: Path) -> None:
    folder, source = any_checkpoint("llava", tmp_path / "m")
    said = {10**9: "has num_additional_image_tokens 1000000000, more than", 10**4: r"makes 10\d+ tokens of a small image"}
    for value, expected in said.items():
        change(folder / "processor_config.json", "num_additional_image_tokens", value)
        with pytest.raises(MedbenchError, match=expected):
            generative_base.load(source)


@pytest.mark.parametrize("family", tiny_generative.ALL)
def test_no_family_answers_without_its_own_tokenizer(family: str, tmp_path: Path) -> None:
    folder = tiny_generative.checkpoint(family, tmp_path / "m")
    for name in (*hub.VOCABULARIES, "merges.txt"):
        for file in folder.rglob(name):
            file.unlink()
    with pytest.raises(MedbenchError, match="holds no tokenizer; add the tokenizer's files"):
        tiny_generative.load(family, folder)


def test_tokens_that_a_decoder_does_not_know_are_refused(tmp_path: Path) -> None:
    folder = tiny_generative.checkpoint("qwen2-5-vl", tmp_path / "m")
    loaded = tiny_generative.load("qwen2-5-vl", folder)
    loaded.tokenizer.add_tokens([f"another{number}" for number in range(1000)])
    with pytest.raises(MedbenchError, match=r"its tokenizer gives tokens up to \d+, the model knows \d+; give its own tokenizer"):
        type(loaded)(loaded.model, loaded.processor)


def test_shards_are_one_checkpoint(folder: Path) -> None:
    whole = load(folder).model.state_dict()
    sharded(folder)
    parts = load(folder).model.state_dict()
    assert all(torch.equal(parts[name], value) for name, value in whole.items())


def test_buffers_of_older_versions_are_no_tensors_too_many(folder: Path) -> None:
    older = {"text_model.embeddings.position_ids": torch.arange(32)[None], "vision_model.embeddings.position_ids": torch.arange(17)[None]}
    tiny.replace(folder, {**tiny.tensors(folder), **older})
    load(folder)


def test_a_feature_extractor_of_late_2022_is_an_image_processor(folder: Path) -> None:
    from PIL import Image

    picture = Image.effect_noise((90, 60), 80).convert("RGB")
    expected = load(folder).pixels(picture)
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    for key in ("image_processor_type", "feature_extractor_type"):
        fields = {name: value for name, value in processor.items() if not name.endswith("_type")}
        (folder / "preprocessor_config.json").write_text(json.dumps({**fields, key: "CLIPFeatureExtractor"}))
        assert (load(folder).pixels(picture) == expected).all(), key


# --- the registry


def settings(models: dict[str, dict[str, object]], tmp_path: Path, run: tuple[str, ...] = ()) -> tuple[config.Config, Path]:
    """A configuration whose registry of models is this one."""
    for name in ("datasets", "modes", "templates"):
        (tmp_path / "config").mkdir(exist_ok=True)
        shutil.copy(ROOT / f"config/{name}.yaml", tmp_path / f"config/{name}.yaml")
    path = tmp_path / "config/models.yaml"
    path.write_text("# A comment that stays.\n\n" + yaml.safe_dump(models, sort_keys=False))
    chosen = {"run": "r", "models": list(run or models), "datasets": ["phantom-radiology", "phantom-vqa-radiology"], "modes": ["ots"]}
    return config.load(chosen, tmp_path), path


ENTRY: dict[str, object] = {"family": "clip", "role": "generalist", "architecture": "clip"}


def test_a_replaced_local_folder_is_another_source(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_WEIGHTS", str(folder))
    models = {"mine": {**ENTRY, "checkpoint": "${MY_WEIGHTS}"}, "theirs": {**ENTRY, "checkpoint": "o/n", "revision": COMMIT}}
    before, _ = settings(models, tmp_path)
    assert sources.weights(before, "mine")["checkpoint"] == str(folder)
    assert sources.weights(before, "mine")["digest"] == digests.tree(folder) and sources.weights(before, "theirs")["digest"] is None
    tensors = tiny.tensors(folder)
    tensors["logit_scale"] += 1
    tiny.replace(folder, tensors)
    after, _ = settings(models, tmp_path)
    assert sources.weights(after, "mine") != sources.weights(before, "mine")
    assert sources.weights(after, "theirs") == sources.weights(before, "theirs")
    monkeypatch.delenv("MY_WEIGHTS")
    with pytest.raises(MedbenchError, match=r"model mine: checkpoint .* needs the variable MY_WEIGHTS, which is not set"):
        settings(models, tmp_path)


def test_what_is_not_pinned_is_said(folder: Path, tmp_path: Path) -> None:
    models = {
        "pinned": {**ENTRY, "checkpoint": "o/pinned", "revision": COMMIT},
        "branch": {**ENTRY, "checkpoint": "o/branch", "revision": "main"},
        "why": {**ENTRY, "checkpoint": "o/why", "about": {"unpinned": "nobody knows"}},
        "tower": {**ENTRY, "architecture": "open-clip", "checkpoint": "o/tower", "revision": COMMIT, "companions": {"o/text": None}},
        "local": {**ENTRY, "checkpoint": str(folder)},
        "zip": {**ENTRY, "architecture": "medclip", "checkpoint": "https://example.org/w.zip"},
        "summed": {**ENTRY, "architecture": "medclip", "checkpoint": "https://example.org/w.zip", "checksums": {"w.zip": "0" * 64}},
        "llava": {**ENTRY, "family": "llava", "architecture": "llava", "checkpoint": "o/llava", "revision": COMMIT},
    }
    said = cli.unpinned(settings(models, tmp_path)[0])
    assert [line.split(":")[0] for line in said] == [
        "model branch, o/branch", "model why, o/why", "model tower, o/text", "model zip, https",
    ]  # fmt: skip
    assert "nobody knows" in said[1] and "make lock-models" in said[0]


def test_the_shipped_registry_is_pinned_but_for_what_it_explains() -> None:
    shipped = config.from_files([ROOT / "config/config.yaml"], ROOT)
    every = shipped._replace(run=shipped.run.model_copy(update={"models": tuple(shipped.models)}))
    said = {line.split(",")[0].removeprefix("model "): line for line in cli.unpinned(every)}
    assert said.keys() == {"plip", "vila-1.5", "mimo-vl-sft", "mimo-vl-rl"}
    assert all("no commit of" in line for line in said.values())
    biomed = shipped.models["biomedclip"]
    assert biomed.companions["microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"] == "d673b8835373c6fa116d6d8006b33d48734e305d"
    assert set(shipped.models["medclip"].checksums) == {"medclip-vit-pretrained.zip", "pytorch_model.bin"}
    for entry in every.models.values():
        assert not entry.checkpoint or not entry.has_file or entry.endpoint or entry.about.licence, entry


def test_commits_are_written_into_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a server on this machine that answers as the hub does; the hub itself was not reachable from here."""
    models = {
        "loose": {**ENTRY, "checkpoint": "o/loose", "about": {"label": "x"}},
        "branch": {**ENTRY, "checkpoint": "o/branch", "revision": "main"},
        "pinned": {**ENTRY, "checkpoint": "o/pinned", "revision": OTHER},
        "tower": {**ENTRY, "architecture": "open-clip", "checkpoint": "o/tower", "companions": {"o/text": None}},
        "llava": {**ENTRY, "family": "llava", "architecture": "llava", "checkpoint": "o/llava", "revision": OTHER},
    }
    found, path = settings(models, tmp_path)
    with serving() as hub:
        hub.repositories = {"o/loose", "o/branch", "o/tower", "o/text"}  # what is pinned is not asked for
        monkeypatch.setattr("medbench.verbs.lock_models.HfApi", lambda: _api(hub))
        pinned = lock(found, path)
        assert [one[:2] for one in pinned] == [("loose", "o/loose"), ("branch", "o/branch"), ("tower", "o/tower"), ("tower", "o/text")]
        assert path.read_text().startswith("# A comment that stays.\n")
        again = config.load(found.run.model_dump(), tmp_path)
        assert {again.models[name].revision for name in ("loose", "branch", "tower")} == {COMMIT}
        assert again.models["tower"].companions == {"o/text": COMMIT} and again.models["pinned"].revision == OTHER
        assert lock(again, path) == [] and cli.unpinned(again) == []
        before = path.read_text()
        path.write_text(before.replace(f"\n  revision: {COMMIT}", "", 1))
        hub.faults["info"] = ["gated"]
        with pytest.raises(MedbenchError, match="is gated and access was refused"):
            lock(config.load(found.run.model_dump(), tmp_path), path)
        path.write_text(
            "loose: {family: clip, role: generalist, architecture: clip, checkpoint: o/loose}\n" + before[before.index("branch:") :]
        )
        with pytest.raises(MedbenchError, match=f"the entry of loose is not written line by line; add `revision` by hand: {COMMIT}"):
            lock(config.load(found.run.model_dump(), tmp_path), path)


@pytest.mark.parametrize("named", ["mine/models.yaml", "${MINE}/models.yaml", "{here}/mine/models.yaml"])
def test_commits_are_written_into_a_registry_of_ones_own(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into it alone: what comes with medbench is not asked for, nor a folder, nor what a service calls its model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINE", "mine")
    served = {**ENTRY, "architecture": "openai", "endpoint": {"url": "https://example.org/v1"}, "checkpoint": "o3"}
    models = {"loose": {**ENTRY, "checkpoint": "o/loose"}, "local": {**ENTRY, "checkpoint": "weights"}, "served": served}
    for folder in ("mine", "weights"):
        Path(folder).mkdir()
    Path("mine/models.yaml").write_text(yaml.safe_dump(models, sort_keys=False))
    run = {"run": "r", "registries": {"models": named.format(here=tmp_path) if "{here}" in named else named}, "modes": ["ots"]}
    Path("run.yaml").write_text(yaml.safe_dump({**run, "models": ["loose"], "datasets": ["phantom-radiology"]}))
    with serving() as hub:
        hub.repositories = {"o/loose"}
        monkeypatch.setattr("medbench.verbs.lock_models.HfApi", lambda: _api(hub))
        for said in ("loose: o/loose at ", "every model of "):
            assert cli.main(["lock-models", "--configfile", "run.yaml"]) == 0
            assert capsys.readouterr().out.startswith(said)
    assert yaml.safe_load(Path("mine/models.yaml").read_text())["loose"]["revision"] == COMMIT


def _api(hub: Hub) -> object:
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.address)


# --- what is asked of a scheduler


def of_rules(name: str, chosen: config.Config) -> Callable[[str], Callable[[tuple[str, ...], int], int]]:
    """A helper of the rules for `resources`; where Snakemake hands it wildcards, here the names themselves."""
    text = (ROOT / "workflow/rules/common.smk").read_text()
    code = re.search(rf"^def {name}\(.*?\n(?=\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert code is not None, "the rules have it"
    scope = {"quickly": lambda function: function, "get_needs": lambda stage, names: stages.get(stage).needs(chosen, *names)}
    exec(code[0], scope)
    return scope[name]


def test_memory_follows_the_checkpoint_and_doubles_at_a_retry(folder: Path, tmp_path: Path) -> None:
    shipped = config.from_files([ROOT / "config/config.yaml"], ROOT)

    def asked(stage: str, *names: str, attempt: int = 1) -> int:
        return of_rules("get_memory", shipped)(stage)(names, attempt)

    seven = "vqa-rad", "llava-med"
    assert asked("adapt", *seven, "lora") == int(4000 + 1.3 * 2 * 7566219264 / 1e6)
    assert asked("adapt", *seven, "lora", attempt=3) == 4 * asked("adapt", *seven, "lora")
    assert asked("predict", *seven, "ots") > 20_000
    probe = "ham10000", "medsiglip"
    assert asked("adapt", *probe, "lp") == asked("predict", *probe, "ots") == 3000
    assert asked("embed", *probe) > 8000
    local, _ = settings({"mine": {**ENTRY, "checkpoint": str(folder)}, "unknown": {**ENTRY, "checkpoint": "o/n"}}, tmp_path, run=("mine",))
    assert needs.weights_mb(local, "mine") == pytest.approx(weights(folder).stat().st_size / 1e6)
    assert needs.model_job(local, "embed", {"dataset": "phantom-radiology", "model": "unknown"}, True).memory_mb == 20_000


def test_time_follows_task_model_and_data() -> None:
    shipped = config.from_files([ROOT / "config/config.yaml"], ROOT)

    def asked(stage: str, model: str, dataset: str, mode: str, attempt: int = 1) -> int:
        return of_rules("get_runtime", shipped)(stage)((dataset, model, mode), attempt)

    assert asked("adapt", "llava-med", "pathvqa", "lora") > asked("adapt", "llava-med", "vqa-rad", "lora") > 60
    assert asked("adapt", "lingshu-32b", "slake", "lora") > asked("adapt", "lingshu", "slake", "lora")
    assert asked("predict", "clip", "ham10000", "ots") == 60 and asked("predict", "clip", "ham10000", "ots", 2) == 120
    assert asked("adapt", "lingshu-32b", "pathvqa", "lora", 6) == needs.LONGEST
