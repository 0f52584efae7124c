"""The study's open models as the hub has them, but tiny and untrained: what tests of loading start from.

`build(name, folder)` makes a folder, `cached(name, root)` the hub's cache. Lists and formats of files, names and number formats of
tensors, fields of configurations and kinds of tokenizers are the real ones (MODELS-2.md); widths, layers, words and pixels are fewer.
"""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from tests.unit.checkpoints import contrastive, generative, originals, qwen, vila
from tests.unit.checkpoints.layout import hub_cache

MEDCLIP = "https://storage.googleapis.com/pytrial/medclip-vit-pretrained.zip"


class Repository(NamedTuple):
    """A repository of the hub: its id, the commit that public code names (zeros where none was seen), what writes its files."""

    name: str
    commit: str
    write: Callable[[Path], None]


NONE_SEEN = "0" * 40
_CLINICAL_BERT = Repository(
    "emilyalsentzer/Bio_ClinicalBERT", "d5892b39a4adaed74b92212a44081509db72f87b", originals.clinical_bert
)  # fmt: skip
_BIOMED_BERT = Repository(
    "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract", "d673b8835373c6fa116d6d8006b33d48734e305d", originals.biomed_bert
)
_TOWER = Repository("openai/clip-vit-large-patch14-336", "ce19dc912ca5cd21c8a653c79e251e808ccabcd1", originals.clip_tower)
_OPENAI, _PUBMED = "openai/clip-vit-base-patch32", "flaviagiammarino/pubmed-clip-vit-base-patch32"
_BIOMED = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
REPOSITORIES: dict[str, tuple[Repository, ...]] = {
    "clip": (Repository(_OPENAI, "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268", contrastive.clip),),
    "blip-2": (Repository("Salesforce/blip2-itm-vit-g", "520bf73fd0ef6ccce791cd3f06908040aef2d8cc", contrastive.blip2),),
    "medclip": (Repository(MEDCLIP, NONE_SEEN, originals.medclip), _CLINICAL_BERT),
    "pubmedclip": (Repository(_PUBMED, "26c0c67f6da303ad2a38909130bd35744ea93517", contrastive.pubmedclip),),
    "plip": (Repository("vinid/plip", NONE_SEEN, contrastive.plip),),
    "biomedclip": (Repository(_BIOMED, "9f341de24bfb00180f1b847274256e9b65a3a32e", originals.biomedclip), _BIOMED_BERT),
    "siglip": (Repository("google/siglip-base-patch16-224", "7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed", contrastive.siglip),),
    "medsiglip": (Repository("google/medsiglip-448", "9cea28a1a1195f665105faa6e8544c112fd960a4", contrastive.medsiglip),),
    "llava-1.5": (Repository("llava-hf/llava-1.5-7b-hf", "b234b804b114d9e37bb655e11cbbb5f5e971b7a9", generative.llava),),
    "llava-med": (
        Repository("microsoft/llava-med-v1.5-mistral-7b", "91bb16c122001ddc9cf1fd36ce1dae09448943a2", originals.llava_med),
        _TOWER,
    ),
    "qwen2-vl": (Repository("Qwen/Qwen2-VL-7B-Instruct", "eed13092ef92e448dd6875b2a00151bd3f7db0ac", qwen.qwen2_vl),),
    "qwen2.5-vl": (Repository("Qwen/Qwen2.5-VL-7B-Instruct", "cc594898137f460bfe9f0759e9844b3ce807cfb5", qwen.qwen2_5_vl),),
    "lingshu": (Repository("lingshu-medical-mllm/Lingshu-7B", "b98aecd41dfd9d7545a6b8e2f4743ae8471bd7a9", qwen.lingshu),),
    "qwen3-vl": (Repository("Qwen/Qwen3-VL-8B-Instruct", "0c351dd01ed87e9c1b53cbc748cba10e6187ff3b", qwen.qwen3_vl),),
    "gemma-3": (Repository("google/gemma-3-4b-it", "093f9f388b31de276ce2de164bdc2081324b9767", generative.gemma3),),
    "medgemma": (Repository("google/medgemma-4b-it", "290cda5eeccbee130f987c4ad74a59ae6f196408", generative.medgemma),),
    "vila-1.5": (Repository("Efficient-Large-Model/Llama-3-VILA1.5-8B-Fix", NONE_SEEN, vila.vila),),
    "vila-1.5-may-2024": (Repository("Efficient-Large-Model/Llama-3-VILA1.5-8b", "40f9b452727d7fd944f3f8a65274d87d76fc2676", vila.vila),),
    "vila-m3": (Repository("MONAI/Llama3-VILA-M3-8B", "df60e0276e2ae10624c86dabe909847a03b2a5cb", vila.vila_m3),),
    "internvl3": (Repository("OpenGVLab/InternVL3-8B-hf", "259a3b64a14623c0ec91a045cb43f7c5af5fa6af", qwen.internvl3),),
}
"""Registry entry -> its repository, and those that its configuration or its code names."""
COMPANIONS = {one.name: one.commit for _, *seconds in REPOSITORIES.values() for one in seconds}
"""Second repositories -> commit."""
VARIANTS: dict[str, tuple[Repository, ...]] = {
    "clip, converted": (Repository(_OPENAI, "c237dc49a33fc61debc9276459120b7eac67e7ef", contrastive.clip_converted),),
    "plip, legacy": (Repository("vinid/plip", NONE_SEEN, contrastive.plip_legacy),),
}
"""Other forms of the same: another commit, or what is not settled."""


def build(name: str, folder: Path) -> Path:
    """A folder as a user downloads it; each second repository lies in it below its own id."""
    main, *seconds = (REPOSITORIES | VARIANTS)[name]
    shutil.copytree(_made(main), folder)
    for second in seconds:
        shutil.copytree(_made(second), folder / second.name)
    return folder


def cached(name: str, root: Path) -> str:
    """The hub's cache below `root` with all that an entry needs; gives the checkpoint as the registry has it.

    What is no repository, MedCLIP's zip, is not put there.
    """
    repositories = (REPOSITORIES | VARIANTS)[name]
    for one in repositories:
        if "://" not in one.name:
            hub_cache(root, one.name, one.commit, _made(one))
    return repositories[0].name


def medclip_zip(path: Path) -> None:
    """MedCLIP's archive."""
    originals.medclip_zip(path, _made(REPOSITORIES["medclip"][0]))


@cache
def _made(repository: Repository) -> Path:
    """Once a session, from the same seed."""
    folder = Path(tempfile.mkdtemp(prefix="medbench-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        repository.write(folder)
    return folder
