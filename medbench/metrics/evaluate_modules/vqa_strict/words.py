"""Words of an answer as they are compared, and the words for yes and no by language. Needs the standard library only."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, TypeAlias

State: TypeAlias = Literal["parsed", "refused", "truncated", "unparsed", "filtered"]
STATES: tuple[State, ...] = ("parsed", "refused", "truncated", "unparsed", "filtered")
HELD: dict[str, State] = {"refusal": "refused", "filter": "filtered"}
"""Reason why an answer ended -> its state, whatever it says."""
"""Of a closed answer: see `choices.Choice`."""
Tags: TypeAlias = Sequence[tuple[str, str]]
THINK: Tags = (("<think>", "</think>"),)
"""Opening and closing marks of a model's thoughts, where it has no others."""

_UNITS = "zero one two three four five six seven eight nine ten"
_TEENS = "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
_AUXILIARIES = "is are was were do does did can could has have had will would should may might must"
_ASKING = "what which where when who whose why how"
_FILLERS = "there this that these those it its in on at of to by for from with as image picture scan"
NUMBERS = {word: str(number) for number, word in enumerate(f"{_UNITS} {_TEENS}".split())}
ARTICLES = ("a", "an", "the")
AUXILIARIES, ASKING = frozenset(_AUXILIARIES.split()), frozenset(_ASKING.split())
FILLERS = AUXILIARIES | frozenset(_FILLERS.split())
_NAMING = "type|subtype|class|group|grade|stage|category|vitamin|hepatitis|influenza|ha?emophilia|protein"

YES_NO = {
    "en": ("yes yeah yep yup", "no nope nah"),
    "ar": ("نعم", "لا"),
    "bg": ("да", "не"),
    "bn": ("হ্যাঁ", "না"),
    "cs": ("ano", "ne"),
    "da": ("ja jo", "nej"),
    "de": ("ja jawohl", "nein"),
    "el": ("ναι", "όχι"),
    "es": ("sí si", "no"),
    "fa": ("بله", "خیر نه"),
    "fi": ("kyllä", "ei"),
    "fr": ("oui", "non"),
    "he": ("כן", "לא"),
    "hi": ("हाँ हां", "नहीं"),
    "hu": ("igen", "nem"),
    "id": ("ya iya", "tidak bukan"),
    "it": ("sì si", "no"),
    "ja": ("はい あり ある あります", "いいえ なし ない ありません"),
    "ko": ("예 네 있음", "아니요 아니오 없음"),
    "nb": ("ja jo", "nei"),
    "nl": ("ja", "nee neen"),
    "pl": ("tak", "nie"),
    "pt": ("sim", "não nao"),
    "ro": ("da", "nu"),
    "ru": ("да", "нет"),
    "sk": ("áno ano", "nie"),
    "sv": ("ja jo", "nej"),
    "th": ("ใช่", "ไม่ ไม่ใช่"),
    "tr": ("evet", "hayır"),
    "uk": ("так", "ні"),
    "vi": ("có vâng đúng", "không"),
    "zh": ("是 是的 有 有的 对 對 对的 存在 正确 可以 能", "否 不 不是 没有 沒有 无 無 没 不对 不存在 不正确 不能 不可以 不是的"),
}
"""Language -> words for yes, words for no: what a reference or a whole answer says in it."""
_MEANING = {word: side for sides in YES_NO.values() for side, words in zip(("yes", "no"), sides, strict=True) for word in words.split()}
_COMMON = "da ei jo ne nem nie no nu si ya не لا na có"
COMMON = frozenset(_COMMON.split())
"""Words for yes or no that are everyday words of another language: they count where a language is known to be meant."""

_EVERYDAY = {
    "de": "kein keine der die das ist sind oder und nicht ein eine einen im auf zu welche welches bild wird liegt zeigt",
    "es": "el los las es son o y una en esta este cuál qué imagen hay está muestra se",
    "fr": "pas aucun aucune le les est sont ou et une des cette cet ce dans sur il quelle quel l'image s'agit-il y",
    "it": "il lo gli è sono o e una nella questa questo quale immagine di che",
    "nl": "de het is zijn of en een niet op in welke dit deze afbeelding",
    "pt": "não nenhum nenhuma o os as é são ou e uma na esta este qual imagem há está",
}
_EN = "the is are was were this there does do did what which in of image you any an or and can has have"
_ENGLISH = frozenset(_EN.split())
_SCRIPTS = {"zh": "[\u4e00-\u9fff]", "ja": "[\u3040-\u30ff]", "ko": "[\uac00-\ud7af]", "ru": "[\u0400-\u04ff]"}

_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Scripts that put no space between words: Thai, Lao, Burmese, Khmer, kana, Han. A character is a token."""
_MARKS = "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"  # Thai vowels and tones that sit on a consonant
_CHARACTER = re.compile(f"([{UNSPACED}][{_MARKS}]*)")
_UNIT_NAMES = (
    (r"milli ?met(?:er|re)s?", "mm"),
    (r"centi ?met(?:er|re)s?", "cm"),
    (r"micro ?met(?:er|re)s?|microns?", "μm"),
    (r"millilit(?:er|re)s?", "ml"),
    (r"milligrams?", "mg"),
    (r"kilograms?", "kg"),
    (r"per ?cent", "%"),
    (r"degrees?", "°"),
    (r"hounsfield units?", "hu"),
    (r"years? old", "years"),
)
_UNIT = re.compile("|".join(f"(?P<u{place}>\\b(?:{names})\\b)" for place, (names, _) in enumerate(_UNIT_NAMES)))
_UNIT_AFTER = re.compile(r"(?<=\d)(?=(?:mm|cm|m|μm|um|ml|l|mg|kg|g|hu|kv|years?|%|°)(?:\d|\b|$|[²³])|[%°])")


def visible(text: str) -> str:
    """Without characters that nobody sees, letters with accents in one piece, apostrophes and full-width marks as on a keyboard."""
    text = re.sub("[\u2018\u2019\u02bc]", "'", unicodedata.normalize("NFC", _UNSEEN.sub("", text)))
    return re.sub("[\uff01-\uff5e]", lambda found: unicodedata.normalize("NFKC", found[0]), text)


def tokens(text: str) -> list[str]:
    """Words after NFKC, lower-cased, without punctuation and articles; number words as digits, numbers and units in one form.

    An apostrophe vanishes, other punctuation parts words, and a point between digits stays: 1.5 is not 15. Signs stay (ER+ is not
    ER-negative, -2.5 is not 2.5), and so does an "A" that is a name (hepatitis A). In scripts without spaces every character is a word.
    Where nothing would be left (a reference "the"), what was there stays.
    """
    joined = re.sub(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))", "", _UNSEEN.sub("", text))
    cased = unicodedata.normalize("NFKC", joined).strip()
    named = _LONE_A.sub(lambda found: _NAME_A if is_name(cased, found.start()) else found[0], cased).lower()
    spaced = re.sub(r"(?<!\d)[.,]|[.,](?!\d)", " ", _numbers(re.sub("['\u2018\u2019]", "", named)))
    spaced = _CHARACTER.sub(r" \1 ", _UNIT_AFTER.sub(" ", _UNIT.sub(lambda found: f" {_unit(found)} ", spaced)))
    parted = "".join(" " if _is_punctuation(letter) else letter for letter in spaced).replace("\N{MINUS SIGN}", "-")
    words = [NUMBERS.get(word, word) for word in parted.split()]
    return [word.replace(_NAME_A, "a") for word in words if word not in ARTICLES] or words or cased.lower().split()


_LONE_A = re.compile(r"(?<![\w'\u2019])[aA](?![\w'\u2019])")
_NAME_A = "\ue00a"  # in place of an "a" that stays, while articles are dropped
_NOUN_FOLLOWS = re.compile(r"\s+(?:\.\d|[^\w\s.,;:!?)\]}/|]*(?!(?:or|and|is|was|vs|versus)\b)\w)", re.IGNORECASE)
_NAMING_WORD = re.compile(rf"\b(?:{_NAMING})[\s-]+$", re.IGNORECASE)
_WORD_BEFORE = re.compile(r"(\w+)[^\S\n]+$")


def is_name(text: str, place: int) -> bool:
    """Whether the lone "a" at a place of a text is a name and no article.

    It is one where no noun follows it ("influenza A", "A or B"), behind a word that takes letters ("type a dissection"), and as a capital
    within a sentence ("Stanford A dissection").
    """
    before = text[max(0, place - 40) : place]
    if _NOUN_FOLLOWS.match(text, place + 1) is None or _NAMING_WORD.search(before):
        return True
    if text[place] == "a" or text == text.upper() or (word := _WORD_BEFORE.search(before)) is None:
        return False
    return word[1].lower() not in FILLERS - {"image", "picture", "scan"}


def _numbers(text: str) -> str:
    """Numbers in one form: 1,000 is 1000; 2,5 and 2.50 are 2.5; .5 is 0.5. A minus before a number becomes a sign that is no dash."""
    text = re.sub(r"(?<![\w.,)\]])[-\u2212\u2013](?=\.?\d)", "\N{MINUS SIGN}", text)
    text = re.sub(r"(?<![\w.,)\]])\+(?=\.?\d)", "", text)
    text = re.sub(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])", lambda found: found[0].replace(",", ""), text)
    text = re.sub(r"(?<![\d.,])(\d+),(\d{1,2})(?![\d,]|\.\d)", r"\1.\2", text)
    text = re.sub(r"(?<![\w.])\.(?=\d)", "0.", text)
    return re.sub(r"(?<![\d.])(\d+)\.(\d*?)0+(?![\d.]\d|\d)", lambda found: f"{found[1]}.{found[2]}".rstrip("."), text)


def _unit(found: re.Match[str]) -> str:
    return _UNIT_NAMES[int(str(found.lastgroup)[1:])][1]


def _is_punctuation(letter: str) -> bool:
    return (letter not in ".,%" and unicodedata.category(letter)[0] == "P") or letter in "`^"


def yes_or_no(reference: str) -> str | None:
    """What a reference says that is a word for yes or no, and nothing else, in a language of `YES_NO`; else None."""
    return _MEANING.get(_word(reference))


def languages(reference: str) -> frozenset[str]:
    """Languages in which a reference is yes or no: those that its answer may use, besides English."""
    word = _word(reference)
    return (
        frozenset(code for code, sides in YES_NO.items() if any(word in side.split() for side in sides))
        if word in _MEANING
        else frozenset()
    )


def _word(reference: str) -> str:
    return visible(reference).strip().rstrip(".。!").strip().lower()


def spoken(text: str) -> frozenset[str]:
    """Languages that a text may be in: by its script, or by most everyday words."""
    lowered = text.lower()
    words = set(re.findall(r"[^\W\d_][\w'’-]*", lowered))
    english = len(words & _ENGLISH)
    known = {code: len(words & set(everyday.split())) for code, everyday in _EVERYDAY.items()}
    most = max(known.values())
    latin = [code for code, n in known.items() if n == most > english or (n == most == english > 1)]
    if english and not latin:
        latin = ["en"]
    return frozenset([*latin, *(code for code, script in _SCRIPTS.items() if re.search(script, lowered))])
