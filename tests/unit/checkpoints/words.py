"""Tiny tokenizers of the real kinds, with the real special tokens in the real order, in the files that the real repositories have."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.convert_slow_tokenizer import SentencePieceExtractor

from medbench.demo import minillava
from tests.unit.checkpoints.layout import write

CAPTIONS = ("a dark square", "a bright white square", "lit and dim", "this is a photo of the chest x-ray, clear or with nodules")
CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
QWEN_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3_WORDS = QWEN_WORDS.replace(r"\p{N}|", r"\p{N}{1,3}|")


def entry(token: str, special: bool = True, normalized: bool = False) -> dict[str, Any]:
    """A token as `added_tokens_decoder` of tokenizer_config.json has it."""
    return {
        "content": token, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False, "special": special,
    }  # fmt: skip


def special_map(**tokens: str) -> dict[str, Any]:
    """special_tokens_map.json with whole entries."""
    return {name: {key: value for key, value in entry(token).items() if key != "special"} for name, token in tokens.items()}


@cache
def _merges(suffix: str, words: str, texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """What byte-level BPE learns from texts."""
    core = Tokenizer(models.BPE(end_of_word_suffix=suffix) if suffix else models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), "removed" if suffix else "isolated", invert=bool(suffix)), _bytes()]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=700, end_of_word_suffix=suffix, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(sorted(texts), trainer)
    return tuple((first, second) for first, second in json.loads(core.to_str())["model"]["merges"])


def _bytes() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _byte_level(folder: Path, suffix: str, words: str, texts: tuple[str, ...], files: bool = True) -> tuple[dict[str, int], Any]:
    """Writes vocab.json and merges.txt; gives vocabulary and model. Bytes come first, merged pieces after them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges(suffix, words, texts)
    pieces = dict.fromkeys([*alphabet, *(f"{one}{suffix}" for one in alphabet if suffix), *(first + second for first, second in merges)])
    if suffix:
        pieces |= dict.fromkeys(("<|startoftext|>", "<|endoftext|>"))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    folder.mkdir(parents=True, exist_ok=True)
    if files:
        write(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
        write(folder / "merges.txt", "#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in merges))
    more = {"end_of_word_suffix": suffix, "unk_token": "<|endoftext|>", "continuing_subword_prefix": ""} if suffix else {}
    return vocabulary, models.BPE(vocab=vocabulary, merges=list(merges), **more)


def clip(folder: Path) -> int:
    """CLIP's: words end with `</w>`, begin and end have the two largest ids. Gives the vocabulary's size."""
    vocabulary, model = _byte_level(folder, "</w>", CLIP_WORDS, CAPTIONS)
    core = Tokenizer(model)
    core.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(CLIP_WORDS), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    begin, end = "<|startoftext|>", "<|endoftext|>"
    core.post_processor = processors.RobertaProcessing((end, vocabulary[end]), (begin, vocabulary[begin]), False, False)
    core.add_special_tokens([AddedToken(begin, normalized=True), AddedToken(end, normalized=False)])
    core.save(str(folder / "tokenizer.json"))
    return len(vocabulary)


def chatml(folder: Path, added: list[str], plain: frozenset[str] = frozenset()) -> dict[str, int]:
    """Qwen's: bytes, pieces, then the added tokens. Gives their ids. `plain`: those that are not special."""
    vocabulary, model = _byte_level(folder, "", QWEN_WORDS, tuple(minillava.texts()))
    core = Tokenizer(model)
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"), _bytes()])
    core.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return _with_added(core, folder, vocabulary, added, plain)


def llama_3(folder: Path, added: list[str], bos: str | None) -> dict[str, int]:
    """Llama 3's: tokenizer.json alone. `bos`: written before every text by the tokenizer itself."""
    vocabulary, model = _byte_level(folder, "", LLAMA_3_WORDS, tuple(minillava.texts()), files=False)
    core = Tokenizer(model)
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA_3_WORDS), "isolated"), _bytes()])
    steps: Any = [processors.ByteLevel(trim_offsets=False)]
    if bos:
        steps.append(processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, len(vocabulary) + added.index(bos))]))
    core.post_processor = processors.Sequence(steps)
    return _with_added(core, folder, vocabulary, added, frozenset())


def _with_added(core: Any, folder: Path, vocabulary: dict[str, int], added: list[str], plain: frozenset[str]) -> dict[str, int]:
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken(token, special=token not in plain, normalized=False) for token in added])
    core.save(str(folder / "tokenizer.json"))
    return {token: len(vocabulary) + place for place, token in enumerate(added)}


def wordpiece(folder: Path, specials: tuple[str, ...], lower: bool = True, fast: bool = False) -> int:
    """BERT's vocab.txt, and tokenizer.json where the repository has one. Gives the vocabulary's size."""
    vocabulary = _wordpieces(specials, lower)
    write(folder / "vocab.txt", "".join(f"{word}\n" for word in vocabulary))
    if fast:
        core = Tokenizer(models.WordPiece({word: number for number, word in enumerate(vocabulary)}, unk_token="[UNK]"))
        core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(lowercase=lower), pre_tokenizers.BertPreTokenizer()
        core.post_processor = processors.BertProcessing(("[SEP]", specials.index("[SEP]")), ("[CLS]", specials.index("[CLS]")))
        core.decoder = decoders.WordPiece()
        core.add_special_tokens([word for word in specials if not word.startswith("[unused")])
        core.save(str(folder / "tokenizer.json"))
    return len(vocabulary)


def size(specials: tuple[str, ...], lower: bool = True) -> int:
    """Words of `wordpiece`."""
    return len(_wordpieces(specials, lower))


def _wordpieces(specials: tuple[str, ...], lower: bool) -> list[str]:
    letters = [chr(code) for code in range(33, 127) if not (lower and chr(code).isupper())]
    whole = sorted({word for text in CAPTIONS for word in text.replace(",", " ").replace("-", " ").split()} - set(letters))
    return [*specials, *letters, *(f"##{one}" for one in letters if one.isalnum()), *whole]


@cache
def _trained(texts: tuple[str, ...], **settings: Any) -> bytes:
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=stream, num_threads=1, minloglevel=2, hard_vocab_limit=False, **settings
    )
    return stream.getvalue()


def siglip(folder: Path) -> int:
    """SigLIP's spiece.model: that of T5, with `<pad>`, `</s>`, `<unk>` as its first pieces. Gives the vocabulary's size."""
    texts = tuple(sorted(text.lower() for text in minillava.texts()))
    data = _trained((*CAPTIONS * 9, *texts), model_type="unigram", vocab_size=300, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    return _spm(folder / "spiece.model", data)


def llama_2(folder: Path) -> int:
    """Llama's and Mistral's tokenizer.model: BPE with bytes to fall back on. Gives the vocabulary's size."""
    data = _trained(
        tuple(sorted(minillava.texts())), model_type="bpe", vocab_size=700, byte_fallback=True, split_digits=True, unk_id=0, bos_id=1,
        eos_id=2, pad_id=-1, normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
    )  # fmt: skip
    return _spm(folder / "tokenizer.model", data)


def gemma(folder: Path, specials: tuple[str, ...]) -> int:
    """Gemma's tokenizer.model: its turns and images are pieces of the vocabulary; no mark before the first word. Gives its size."""
    data = _trained(
        tuple(sorted(minillava.texts())), model_type="bpe", vocab_size=700, byte_fallback=True, split_digits=True, pad_id=0, eos_id=1,
        bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", user_defined_symbols=",".join(specials),
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, add_dummy_prefix=False,
    )  # fmt: skip
    return _spm(folder / "tokenizer.model", data)


def _spm(path: Path, data: bytes) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return int(sentencepiece.SentencePieceProcessor(model_proto=data).vocab_size())


def fast_from_spm(folder: Path, kind: str, added: list[str]) -> None:
    """tokenizer.json beside tokenizer.model, as transformers 4 converted it. `kind`: llama or gemma; `added` tokens follow the pieces."""
    pieces = SentencePieceExtractor(str(folder / "tokenizer.model")).extract(models.BPE)
    bos, specials = ("<s>", ["<unk>", "<s>", "</s>"]) if kind == "llama" else ("<bos>", ["<pad>", "<eos>", "<bos>", "<unk>"])
    core = Tokenizer(models.BPE(vocab=pieces["vocab"], merges=pieces["merges"], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if kind == "llama":  # a mark before the text, and before each stretch of text behind a special token
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        steps.append(decoders.Strip(" ", 1, 0))
    else:
        core.normalizer, core.pre_tokenizer = normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous")
    core.decoder = decoders.Sequence(steps)
    core.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, pieces["vocab"][bos])]
    )
    core.add_special_tokens([AddedToken(token, normalized=False) for token in (*specials, *added)])
    core.save(str(folder / "tokenizer.json"))
