"""Tokenizers and processors of the mini models, saved so that the `Auto*` classes load them offline."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    SiglipProcessor,
)

IMAGE_SIZE = 64
TEXT_LENGTH = 24
SPECIALS = ("<pad>", "<unk>", "<mask>", "<bos>", "<eos>")
"""In the order of their ids. The third place is filled on purpose: CLIP reads `eos_token_id == 2` as a marker of old
checkpoints and then pools at the largest id instead of at the end."""


def train_tokenizer(architecture: str, texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A lower-case BPE tokenizer of the texts' words; CLIP's adds begin and end, SigLIP's the end alone."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    alphabet = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(sorted(texts), trainer)
    template = "<bos> $A <eos>" if architecture == "clip" else "$A <eos>"
    core.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(name, SPECIALS.index(name)) for name in ("<bos>", "<eos>")]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        model_max_length=TEXT_LENGTH,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_input_names=["input_ids", "attention_mask"] if architecture == "clip" else ["input_ids"],
    )


def save_processor(architecture: str, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes tokenizer and image processor into `folder`: CLIP crops the centre, SigLIP squashes."""
    if architecture == "clip":
        image = CLIPImageProcessor(size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
        CLIPProcessor(image, tokenizer).save_pretrained(folder)  # type: ignore[no-untyped-call]
    else:
        squash = SiglipImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
        SiglipProcessor(squash, tokenizer).save_pretrained(folder)  # type: ignore[no-untyped-call]
