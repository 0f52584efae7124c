"""Options by their texts or letters, and those that a question names. Needs the standard library only."""

import re
from collections.abc import Mapping
from functools import cache
from itertools import pairwise

from . import statements
from .cues import pattern
from .terms import spelled
from .words import ARTICLES, ASKING, AUXILIARIES, FILLERS, NUMBERS, UNSPACED, is_name, tokens, visible

NUMBER_NAMES = {digits: word for word, digits in NUMBERS.items()}

# --- by their texts

_FAVOURS = re.compile(
    r"\b(?:most (?:likely|probabl\w+|appropriate|consistent)|best|correct|consistent with|answer|therefore|thus|hence|"
    r"diagnosis is|likely to be|characteristic of|indicat\w+|suggest\w*)\b"
)
_BESIDE = re.compile(
    r"\b(?:less (?:likely|common|probable|consistent)|would|not as likely|other (?:options|conditions|\w+ such as)|(?:can|could|"
    r"may) also|rare|unlike|compared (?:to|with))\b"
)


_LABEL = re.compile(r"[a-z]|\d+|[ivx]+")
"""What tells options of one name apart: type A, grade 2, type II."""


class Named:
    """Reads options by their texts.

    `may_shorten`: the word that tells an option apart may name it: "left" of "left kidney", "B" of "type B".
    """

    def __init__(self, options: Mapping[str, str], question: str, codes: frozenset[str], may_shorten: bool = False) -> None:
        self.codes, self.question = codes, question
        self.patterns = {key: text_pattern(text) for key, text in options.items() if text.strip()}
        first = {key: key.partition(" ")[0] for key in options}
        is_shorter = may_shorten and len(set(first.values())) == len(first) > 1 and first != dict(options)
        self.shorter = Named(first, question, codes) if is_shorter else None
        last = {key.rpartition(" ")[2]: key for key in options}
        is_labelled = may_shorten and len(set(first.values())) == 1 < len(last) and all(map(_LABEL.fullmatch, last))
        self.labels = last if is_labelled else {}

    def explicit(self, said: str) -> str | None:
        """The choice of a text that is announced as the answer."""
        return self.anywhere(said)

    def anywhere(self, text: str) -> str | None:
        """The choice of any text."""
        found = self._chosen(text)
        if found is None and self.labels:
            asked = FILLERS | set(tokens(self.question)) - self.labels.keys()
            said = [word for word in tokens(re.split(r"[.,;:()\n]", text.strip())[0]) if word not in asked]
            return self.labels.get(said[0]) if len(said) == 1 else None
        return self.shorter._chosen(text) if found is None and self.shorter else found

    def _chosen(self, text: str) -> str | None:
        lowered = _SIGN.sub(_MINUS, text.lower())
        found, rejected = list[tuple[str, set[str]]](), set[str]()
        for clause in statements.clauses(lowered):
            named, refused = self._named(clause) if pattern("hedge", self.codes).search(clause) is None else (set[str](), set[str]())
            rejected |= refused
            if named:
                found.append((clause, named))
        chosen = set[str]().union(*(named for _, named in found))
        if not chosen and self.patterns.keys() == {"normal", "abnormal"}:
            return {"yes": "normal", "no": "abnormal"}.get(statements.yes_or_no(lowered, "is it normal?", self.codes) or "")
        if not chosen:
            left = self.patterns.keys() - rejected
            return left.pop() if rejected and len(left) == 1 and len(self.patterns) == len(rejected) + 1 else None
        if len(chosen) == 1:
            return chosen.pop()
        found = [(clause, named) for clause, named in found if not _BESIDE.search(clause)]
        favoured = {key for clause, named in found if len(named) == 1 and _FAVOURS.search(clause) for key in named}
        if len(favoured) == 1:
            return favoured.pop()
        alone = {key for clause, named in found if len(named) == 1 for key in named if self.patterns[key].fullmatch(clause)}
        if len(alone) == 1:
            return alone.pop()
        asked = set(tokens(self.question)) - FILLERS
        ranked = sorted(((len(asked & set(tokens(clause))), place) for place, (clause, _) in enumerate(found)), reverse=True)
        if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
            return None
        best = found[ranked[0][1]][1]
        return best.pop() if len(best) == 1 else None

    def _named(self, clause: str) -> tuple[set[str], set[str]]:
        """Options that a clause names, and those that it denies. A longer text counts before one that it contains."""
        matches = [(key, match.span()) for key, pattern_ in self.patterns.items() for match in pattern_.finditer(clause)]
        matches = [
            (key, (start, end))
            for key, (start, end) in matches
            if not any(first <= start and end <= last and last - first > end - start for _, (first, last) in matches)
        ]
        if (than := re.search(r"\b(?:than|over)\b", clause)) and (side := self._side(clause[: than.start()])) is not None:
            matches = [(key, span) for key, span in matches if (span[0] < than.start()) == side]
        is_not = {
            key
            for key, (start, end) in matches
            if statements.denied(clause, start, end, self.codes) != bool(re.search(r"(?<!\w)non[- ]$", clause[:start]))
        }
        return {key for key, span in matches} - is_not, is_not

    def _side(self, text: str) -> bool | None:
        """Whether a comparison chooses what stands before its "than": "more likely A than B", "A is bigger than B" where that is asked."""
        if re.search(r"\b(?:likely|probabl\w+|favou?r\w*|rather)\b", text):
            return True
        words = set(re.findall(r"\w+", text))
        asked = set(re.findall(r"\w+", self.question.lower()))
        if "more" in words and not asked & {"more", "less", "fewer"}:
            return True
        for more, less in _COMPARED:
            if bool(asked & more) != bool(asked & less) and words & (more | less):
                return bool(words & (more if asked & more else less))
        return None


_COMPARED = tuple(
    (frozenset(more.split()), frozenset(less.split()))
    for more, less in (
        ("larger bigger greater wider", "smaller"),
        ("higher upper", "lower"),
        ("denser brighter", "darker"),
        ("more", "less fewer"),
    )
)


_MINUS = "\N{MINUS SIGN}"
_SIGN = re.compile(rf"(?<![\w.,)\]])(?:[-\u2013{_MINUS}]|minus\s+)(?=\.?\d)")
_BEHIND = "type grade class stage group level option image figure panel"
_BEHIND_NAME = "|".join(rf"(?<=\b{word} )" for word in _BEHIND.split())


@cache
def text_pattern(text: str) -> "re.Pattern[str]":
    """A text within a longer one: whole words, whatever stands between them, and plural or not."""
    text = re.sub(r"(?<![\w.])\.(?=\d)", "0.", visible(text))
    words = [
        word
        for found in re.finditer(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+(?:[.,]\d+)*|[-+<>=%]", text)
        if (word := found[0].lower()) not in ARTICLES or len(text) < 3 or (word == "a" and is_name(text, found.start()))
    ]
    if words in (["a"], ["i"]):  # no article, no pronoun
        return re.compile(rf"(?:{_BEHIND_NAME}){words[0]}(?![\w'])|(?<!\w){words[0]}(?=\s*(?:[.,;:)\]!?/]|$)|\s+(?:or|and|&)\s)")
    signed = [word for word in words if word not in ("-", "+") or len(words) > 1]
    parts = [_plural(word) for word in signed]
    if not parts:
        return re.compile("(?!)")  # of marks alone: nothing says it
    marks = r"[\s\-/,.:;()'^*$\\]*"  # those of formulas too
    gap = rf"{marks}(?:(?:the|a|an)\b{marks})?"
    body = parts[0] + "".join(rf"[\s-]*{part}" if part == "a" else gap + part for part in parts[1:])  # no "hepatitis, a ..."
    start = rf"(?<![\w{_MINUS}])(?<!\d[.,])" if re.match(r"\w", text.strip()) else ""
    if re.match(r"\d", text.strip()):
        start += "(?<![.,])"  # no ".5"
    if re.match(rf"[{UNSPACED}]", text.strip()):
        return re.compile(body)
    same = _ALIASES.get(" ".join(words))
    return re.compile(rf"{start}(?:{body}{f'|{same}' if same else ''})(?![\w]|[.,]\d)")


_ALIASES = {
    "mri": "mr|magnetic resonance(?: imaging)?", "ct": "computed tomography|cat scan", "ct scan": "ct|computed tomography",
    "x ray": "radiograph|xray|plain film",
    "ultrasound": "sonograph\\w+|ultrasonograph\\w+", "pa": "posteroanterior|posterior-anterior|posterior anterior",
    "ap": "anteroposterior|anterior-posterior|anterior posterior", "female": "woman|girl", "male": "man|boy",
    "axial": "transverse", "transverse": "axial",
    "malignant": "malignancy",
    "1": "single(?! (?:\\w+ ){0,2}(?:view|image|projection|slice|scan|film|radiograph|x-?ray|plane|frame))",
    "0": "none(?=\\W*$| (?:is|are) (?:seen|visible|present|identified|noted|shown)\\b)",
}  # fmt: skip


def _plural(word: str) -> str:
    if word == "%":
        return "%?"
    if word == "-":
        return f"[-{_MINUS}]"
    if re.match(r"0[.,]\d", word):
        return f"0?{re.escape(word[1:])}"
    if word in NUMBER_NAMES:
        return f"(?:{word}|{NUMBER_NAMES[word]})"
    return spelled(word.removesuffix("s") if len(word) > 4 and not word.endswith("ss") else word) + (
        "(?:s|es)?" if len(word) > 3 and word.isalpha() else ""
    )


# --- by their letters

_CHOOSING = (
    r"cho?ose|think|say|guess|believe|select(?:ed)?|pick(?:ed)?|go(?:ing)? (?:with|for)|so|thus|hence|therefore|it is|"
    r"it's|it must be|is|would be|"
    r"probably|likely|but"
)

_SPECIES = re.compile(
    r"(?:aureus|albicans|anthracis|botulinum|burgdorferi|cereus|coli|difficile|diphtheriae|faecalis|gondii|granulosus|henselae|"
    r"histolytica|influenzae|jejuni|jirovecii|perfringens|pertussis|pestis|pneumoniae|pylori|tetani|trachomatis|tuberculosis)\b"
)
"""Species, whose genus is written by its letter."""


_BULLET = re.compile(r"(?:[-–—*•·>→]\s+|[^\w\s()\[\]{}<>【\"'“”.,:;$\\+=%~*-]+\s*)")
_NONE = re.compile(r"none(?: of (?:the )?(?:above|these|those|them|options|listed)(?: options)?)?")


class Lettered:
    """Reads options by their letters, else by their texts."""

    def __init__(self, options: Mapping[str, str], question: str, codes: frozenset[str]) -> None:
        self.options = options
        self.letters = "".join(options)
        self.codes = codes
        self.named = Named(options, question, codes)
        part = r"\(?(?:\d+|[a-z]|[ivx]+)\s*[.):=-]+"
        self.matched = re.compile(rf"(?:^|\s){part}\s*[{self.letters}](?=\s*(?:[,;.]|$|\n|{part}))")

    def explicit(self, said: str) -> str | None:
        """The choice of a text that is announced as the answer."""
        return self._leading(said, True) or self._letter(said) or self.named.anywhere(said.split(". ")[0])

    def anywhere(self, text: str) -> str | None:
        """The choice of any text."""
        text = self._without_list(text)
        if len(self.matched.findall(text)) > 1:
            return None  # a letter each for several parts: "1. B 2. D"
        if (letter := self._leading(text, False)) is not None:
            return letter
        last = text.strip().rsplit("\n", 1)[-1]
        if "\n" in text.strip() and (letter := self._leading(last, False)) is not None and not self._lines(text) > 1:
            return letter
        return self._letter(text) or self._beside(text) or self.named.anywhere(text)

    def _lines(self, text: str) -> int:
        """How many lines start with a letter: more than one is a list."""
        return sum(self._leading(line, False) is not None for line in text.split("\n"))

    def _leading(self, said: str, is_announced: bool) -> str | None:
        """The letter, or the whole text, that an answer begins with."""
        said = said.strip(" \n\t\"'“”.:;,")
        nothing = [key for key, text in self.options.items() if text.lower().startswith("none of")]
        if len(nothing) == 1 and _NONE.fullmatch(said.lower()):
            return nothing[0]
        words, bare = tokens(said), re.findall(r"\w+", said.lower())
        for key, text in self.options.items():
            if text and (bare == re.findall(r"\w+", f"{key} {text}".lower()) or (len(text) > 1 and said.lower() == text.lower())):
                return key  # to the letter, before "B. a,c" is read as "b,c"
        for key, text in self.options.items():
            if text and words == tokens(text) and (len(words) > 1 or len(words[0]) > 1 or words[0].upper() not in self.options):
                return key
        said = said.removeprefix(bullet[0]) if (bullet := _BULLET.match(said)) else said
        if (number := re.fullmatch(r"(\d{1,2})\s*[).]\s*([A-Za-z]\W*)", said)) and number[1] not in self.options.values():
            said = number[2]  # "1) B"
        found = re.match(
            (
                r"(?i:(?:the|la|le|il|die|der) )?(?i:(?:correct )?(?:option|choice|answer|letter|"
                r"选项?)\s*(?:is\s*)?)?[\[({<【]?\s*([A-Za-z])\s*(?![\w'’])([\])}>】.:,;!?。]?)(.*)"
            ),
            said,
            re.DOTALL,
        )
        if found is None or found[1].upper() not in self.options:
            return None
        letter, mark, rest = found[1].upper(), found[2], found[3].strip()
        named = [key for key, text in self.options.items() if text[:2] == f"{letter}." and text_pattern(text).match(said.lower())]
        if named:
            return max(named, key=lambda key: len(self.options[key]))  # "E. coli"
        if found[1].islower() and not (mark or not rest or said[0] in "([{"):
            return None
        if re.match(
            r"(?:[,;]|/|&|\band\b|\bor\b|和|或)\s*[\[(]?(?!I\s+[a-z])(?:[A-Z]|[IVX]+)(?![\w'’])", f"{mark}{rest}" if mark in ",;" else rest
        ) or ("\n" in said and re.fullmatch(rf"(?!{letter}\b)[{self.letters}]\W*", rest)):
            return None  # several
        if re.match(
            r"(?:is|seems|can be|was|are)\s+(?:\w+\s+)?(?:wrong|incorrect|false|not|unlikely|excluded|ruled out|eliminated)\b", rest
        ):
            return None  # it is denied
        goes_on = re.match(r"\s*\n|\s*(?:[–—=(/:]|-(?!\w)|is\b|because\b|since\b|as\b)", found[3])  # no "C-section"
        is_bare = not mark and rest and said[0] not in "([{" and not goes_on
        text = self.options[letter]
        own = re.match(rf"(?:(?:an?|the)\b\W*)?(?:{text_pattern(text).pattern})", rest.lower().lstrip("- ")) if text else None
        if is_bare and (letter in "AI" or not is_announced) and own is None:
            return None  # the article, the pronoun, the first of many words
        if own is None and _SPECIES.match(rest):
            return None  # "E. coli"
        if not is_announced and self._list_follows(rest[own.end() :] if own else rest, letter):
            return None  # the letters of its own text ("a: ozone, b: ...") are no list
        return letter

    def _list_follows(self, rest: str, letter: str) -> bool:
        """Whether more letters with their own marks follow: a list of options, or of answers."""
        return bool(re.search(rf"(?:^|[\s(])(?!{letter})[{self.letters}]\s*[).:]\s", rest, re.IGNORECASE)) and not re.search(
            r"\b(?:because|since|rather|not|incorrect|wrong)\b", rest.lower()
        )

    def _letter(self, text: str) -> str | None:
        """The last letter that is chosen: "option B", "I choose B.", "so B.", "B is correct"."""
        letter = rf"[\[(]?([{self.letters}])(?![\w'’])[\])]?"
        ways = (
            rf"(?:\b(?i:option|choice|letter|answer|antwort|réponse|respuesta|risposta|resposta)\s+|选项?\s*){letter}",
            rf"\b(?i:{_CHOOSING})\s*[:,]?\s+(?i:the\s+)?(?i:option\s+|choice\s+)?{letter}(?=\s*(?:[.,;:!。]|$|\n|because\b|since\b))",
            rf"{letter}\s+(?:is|seems|would be)\s+(?:the\s+)?(?:\w+\s+)?(?:correct|right|best|most likely|answer)\b",
            rf"{letter}\s+(?:fits|matches)\b",
        )
        found = sorted((match.start(1), match[1]) for way in ways for match in re.finditer(way, text))
        chosen = [
            key
            for place, key in found
            if not re.search(r"(?:\bnot|n't|neither|nor|exclude|eliminate|rule out)\s+(?:\w+\s+)?$", text[:place])
        ]
        return chosen[-1] if chosen else None

    def _beside(self, text: str) -> str | None:
        """The only letter in parentheses: "it is most likely pneumonia (B)"."""
        found = set(re.findall(rf"\(([{self.letters}])\)", text))
        return found.pop() if len(found) == 1 and not re.search(r"\b(?:not|n't|neither)\b[^.]*\([A-Z]\)", text) else None

    def _without_list(self, text: str) -> str:
        """Without the list of options, where the answer repeats it: at least three of them, or all, one after the other."""
        spans = []
        for key, option in self.options.items():
            if option and (match := re.search(rf"(?:^|[\s(]){key}\s*[).:]\s*{text_pattern(option).pattern}", text, re.IGNORECASE)):
                spans.append((match.start(), match.end()))
        spans.sort()
        if len(spans) < min(3, len(self.options)) or any(later[0] - earlier[1] > 5 for earlier, later in pairwise(spans)):
            return text
        return text[: spans[0][0]] + "\n" + text[spans[-1][1] :]


# --- those that a question names


_OR = re.compile(r"\b(?:or|oder|ou|o)\b|还是|或者?")


def options_of(question: str, reference: str) -> dict[str, str]:
    """Alternatives that a question names ("A or B", "A, B or C"), by their own words; none where the reference is not among them.

    Where the first begins and the last ends ("in the left or right lung") cannot be seen from the question: such an end is
    the reference where it has the reference's words, else it is known by its word beside the "or".
    """
    expected = tokens(reference)
    lettered = _lettered_in(question)
    if len(expected) == 1 and re.fullmatch("[a-z]", expected[0]):
        letter = expected[0].upper()
        if letter in lettered:
            return lettered
        if letter <= "J" and reference.strip(" .()").upper() == letter:
            return dict.fromkeys("ABCDEFGHIJ", "")
    if not _OR.search(question.lower()):
        return {}
    for sentence in re.split(r"[?!:;？]|\.(?!\d)", visible(question)):
        pieces = [words for piece in re.split(rf",|{_OR.pattern}", sentence, flags=re.IGNORECASE) if (words := tokens(piece))]
        openers = [place for place, words in enumerate(pieces) if words[0] in AUXILIARIES | ASKING]
        pieces = pieces[openers[-1] if openers else 0 :]
        if not _OR.search(sentence.lower()) or len(pieces) < 2:
            continue
        first, *middle, last = pieces
        inner = [_end(first, True, last, expected)] if first[0] not in ASKING or not middle else []
        # else "which is larger, A or B": what comes before the first comma is no alternative
        named = [words for words in (*inner, *middle, _end(last, False, first, expected)) if words]
        if expected and _LABEL.fullmatch(expected[-1]):  # "influenza A or B"
            named = [expected[:-1] + words if len(words) == 1 and _LABEL.fullmatch(words[0]) else words for words in named]
        if expected in named and len(named) > 1:
            tail = expected[1:]  # "more or less dense": each of the two
            named = [words + tail if len(words) == 1 and last[: len(expected)] == words + tail else words for words in named]
            return {" ".join(words): " ".join(words) for words in named}
    return {}


def _lettered_in(question: str) -> dict[str, str]:
    """Options that a question lists by letters: "A. liver B. kidney", "(A) ...", one after the other from A."""
    found = [(match[1], match.end(), match.start()) for match in re.finditer(r"(?:^|[\s(])([A-J])\s*[).:]\s*", question)]
    letters = [letter for letter, _, _ in found]
    if len(letters) < 2 or letters != list("ABCDEFGHIJ"[: len(letters)]):
        return {}
    ends = [start for _, _, start in found[1:]] + [len(question)]
    return {letter: question[begin:end].strip(" ,;.\n") for (letter, begin, _), end in zip(found, ends, strict=True)}


def _end(piece: list[str], is_first: bool, other: list[str], reference: list[str]) -> list[str]:
    """The alternative at the end of the first piece of a question, or at the beginning of its last one.

    It is the reference where it has its words, or its first word, the others standing in the other piece: "left or right lung".
    """
    near = piece[-len(reference) :] if is_first else piece[: len(reference)]
    is_label = bool(near and reference and _LABEL.fullmatch(near[-1]) and _LABEL.fullmatch(reference[-1]))
    if near == reference or (is_label and near[:-1] == reference[:-1]):  # "type A" beside "type B"
        return near
    if reference and re.match(f"[{UNSPACED}]", reference[0]):
        return near  # as many characters as the reference has
    telling = [word for word in piece if word not in FILLERS]
    words = telling[-1:] if is_first else telling[:1]
    if not is_first and words and words[0] in ("no", "non", "not", "without"):
        words = telling[:2]
    if words and words == reference[:1] and len(reference) > 1 and set(reference[1:]) <= set(piece + other):
        return reference
    if words and [word for word in reference if word not in FILLERS] == words:
        return reference
    return words
