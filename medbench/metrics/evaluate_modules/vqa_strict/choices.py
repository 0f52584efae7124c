"""One reader of choices: yes or no, options that a question names, lettered options. Needs the standard library only.

The answer's text is read as a careful person would: thoughts never count, an explicit answer counts before a mention, and what is denied,
only possible, or a refusal is no choice.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from . import statements
from .cues import CUES, SORRY, pattern
from .options import Lettered, Named, text_pattern
from .words import COMMON, FILLERS, HELD, THINK, UNSPACED, YES_NO, State, Tags, spoken, tokens, visible

BINARY: Mapping[str, str] = {"yes": "yes", "no": "no"}
"""The options of a question that wants yes or no."""


_LONGEST = 8000  # characters: of a longer answer the beginning and the end are read, where a choice stands
_SPAN = 300  # characters of what is announced as the answer


class Choice(NamedTuple):
    """What was read.

    `state`: parsed; refused (the model says that it cannot or will not tell); truncated (it, or its thoughts, ended before a choice was
    said); filtered (the service held it back); unparsed (all else).
    """

    state: State
    choice: str | None = None  # a key of the options; None but for parsed


def read_choice(
    answer: str,
    options: Mapping[str, str],
    question: str = "",
    finish_reason: str = "stop",
    thoughts: Tags = THINK,
    languages: frozenset[str] = frozenset(),
) -> Choice:
    """The choice that an answer makes.

    `options`: choice -> its text: `BINARY`; texts that the question names; or letters ("A" to "Z"), where a text may be empty.
    `finish_reason`: stop, or what else ended the answer. `thoughts`: opening and closing marks. `languages`: of the options.
    """
    if finish_reason in HELD:
        return Choice(HELD[finish_reason])
    text, is_open = without_thoughts(visible(answer), thoughts)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}\n{text[-_LONGEST // 2 :]}"
    if cut := before_question(text, question):
        before, is_other = cut
        found = read_choice(before, options, question, languages=languages)
        if is_other or found.state == "parsed":
            return found
    codes = _codes(languages, question)
    plain = _plain(text)
    read: _Binary | Lettered | Named
    if options.keys() == BINARY.keys():
        read = _Binary(question, codes)
    elif all(re.fullmatch("[A-Z]", key) for key in options):
        options = {key: _plain(text) for key, text in options.items()}
        read = Lettered(options, question, codes)
    else:
        read = Named(options, question, codes, may_shorten=True)
    announced = _announced(text)
    for said in reversed(announced):
        if (choice := read.explicit(said)) is not None:
            return Choice("parsed", choice)
    rest, has_refused = _without_refusals(_without_echo(plain, question, codes), question, codes, tuple(options.values()))
    has_refused = has_refused or any(_without_refusals(said, question, codes)[1] for said in announced)
    is_cut = finish_reason != "stop"
    if not (is_cut and _REASONING.match(rest)) and (choice := read.anywhere(rest)) is not None:
        return Choice("parsed", choice)
    if is_open:
        return Choice("truncated")
    if has_refused or SORRY.search(plain.lower()):
        return Choice("refused")
    return Choice("truncated" if is_cut else "unparsed")


def _codes(languages: frozenset[str], question: str) -> frozenset[str]:
    """Languages to read an answer in: English, the question's own, and those of the options as far as the question leaves them open."""
    asked = spoken(question)
    return (languages & asked or languages) | asked | {"en"}


def without_thoughts(text: str, thoughts: Tags = THINK) -> tuple[str, bool]:
    """What is left of a text without its thoughts, and whether they never end. A closing mark alone ends thoughts too."""
    is_open = False
    for start, end in thoughts:
        kept: list[str] = []
        inside = False
        for part in re.split(f"({re.escape(start)}|{re.escape(end)})", text, flags=re.IGNORECASE):
            if part.lower() == start.lower() and not inside:
                inside = True
            elif part.lower() == end.lower():
                kept = kept if inside else []
                inside = False
            elif not inside:
                kept.append(part)
        text, is_open = "\n".join(kept), is_open or inside
    return text, is_open


_OF_THE_MATTER = re.compile(r"\b(?:indeterminate|inconclusive|undetermined|unclear|uncertain|unknown|not (?:clear|certain|known))\b")
_OF_THE_MODEL = re.compile(r"(?<!type )(?<!grade )(?<!class )(?<!stage )\b(?:i|we|me|my|our)\b(?!\.)|\b(?:unable|not able) to\b")


def is_refusal(answer: str, question: str = "", thoughts: Tags = THINK, reference: str = "") -> bool:
    """Whether an answer only declines: it says that it cannot or will not tell, and nothing else.

    What it says of the matter ("the nodule is indeterminate") is an answer, and so is all that reads like a refusal where `reference`
    does, or says that there is nothing.
    """
    expected = _plain(visible(reference)).lower().strip(_MARKS)
    if expected in ("no", "none", "nothing") or pattern("refusal", _codes(frozenset(), reference)).search(expected):
        return False
    plain = _plain(without_thoughts(visible(answer), thoughts)[0])
    if _OF_THE_MATTER.search(plain.lower()) and not _OF_THE_MODEL.search(plain.lower()) and not SORRY.search(plain.lower()):
        return False
    codes = _codes(frozenset(), question)
    rest, has_refused = _without_refusals(_without_echo(plain, question, codes), question, codes)
    said = {word for word in tokens(SORRY.sub(" ", rest.lower())) if any(letter.isalnum() for letter in word)}
    return (has_refused or SORRY.search(plain.lower()) is not None) and not said - FILLERS - {"i", "im", "am", "so", "but"} - set(
        tokens(question)
    )


# --- what an answer announces as its answer

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_TAGGED = re.compile(r"<(answer|final_answer|choice)>(.*?)(?:</\1>|$)", re.IGNORECASE | re.DOTALL)
_KEYED = re.compile(
    r"""["'](?:final[_ ]?)?(?:answer|choice|option|prediction|result|response|label|output)["']\s*:\s*"""
    r"""\[?\s*(?:"([^"]*)"|'([^']*)'|(\w+))""",
    re.IGNORECASE,
)
_HEADING = re.compile(r"^\W*(?:final |the |my |correct )*(?:answer|response|conclusion)\W*\n+([^\n]+)", re.IGNORECASE | re.MULTILINE)
_SPEAKER = re.compile(r"^\W*(?:assistant|response|model|bot|gpt|a)\s*:\s*", re.IGNORECASE)
_REASONING = re.compile(
    (
        r"\W*(?:let'?s\b|let me\b|to (?:answer|solve|determine)|step \d|first(?:ly)?\b|okay|ok,|hmm|reasoning|the (?:question|"
        r"user) (?:asks|is asking|wants))"
    ),
    re.IGNORECASE,
)
_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mathit|textit|operatorname)\s*\{([^{}]*)\}")


def _plain(text: str) -> str:
    """Without what only formats it: LaTeX, marks of emphasis, headings, fences."""
    text = _BOXED.sub(lambda found: f" {found[1]} ", _WRAPPED.sub(r" \1 ", text))
    text = re.sub(r"(\*{1,3}|__)(\w+)\1(?=[a-z])", r"\2", text)  # "**b**ilateral" is one word
    text = re.sub(r"\\[()\[\]]|\$|```\w*|[*`]|~~|(?<!\w)_+|_+(?!\w)|</?[a-z]\w*>|<\|[\w ]+\|>|\[/?INST\]", " ", text)
    return re.sub(r"^[ \t]*(?:#+|>)[ \t]*", "", re.sub(r"[ \t]+", " ", text), flags=re.MULTILINE).strip()


def _announced(text: str) -> list[str]:
    """What stands where an answer is announced ("the answer is", a box, a tag, a key of JSON), in the order of the text."""
    found = [(match.start(), match[1]) for match in _BOXED.finditer(text)]
    found += [(match.start(), match[2]) for match in _TAGGED.finditer(text)]
    found += [(match.start(), match[1] or match[2] or match[3] or "") for match in _KEYED.finditer(text)]
    plain = _plain(text)
    scale = len(text) / (len(plain) or 1)  # places in the text without its marks, as places in the text
    found += [(int(match.start() * scale), match[1]) for match in _HEADING.finditer(plain)]
    for match in pattern("announced", frozenset(CUES)).finditer(plain.lower() if len(plain.lower()) == len(plain) else plain):
        if re.search(r"\bif\b[^.\n]*$", plain[max(0, match.start() - _SPAN) : match.start()], re.IGNORECASE):
            continue  # "if there were a mass, the answer would be yes"
        rest = plain[match.end() :].lstrip(" :\n\"'(")
        found.append((int(match.start() * scale), rest.split("\n", 1)[0]))
    spans = [said[:_SPAN] for _, said in sorted(found, key=lambda pair: pair[0])]
    return [_plain(said) for said in reversed(dict.fromkeys(reversed(spans)))]


# --- what says nothing by itself

_MARKS = " \n\t.,;:!?\"'()[]{}<>|/-–—。、"
_SENTENCE = re.compile(r"(?<=[.!?。!?;])(?!(?<=\b[A-Z]\.)\s+[a-z])\s+|(?<=[。!?])|\n+")
_CONTRAST = re.compile(r",?\s*\b(?:but|however|though|nevertheless|yet|that said|aber|mais|pero|ma|mas)\b,?|但是?|不过|然而", re.IGNORECASE)
_CONCESSION = re.compile(r"\W*(?:while|although|though|even though|obwohl|bien que|aunque|虽然)\b", re.IGNORECASE)


_ASKED = re.compile(
    r"(?:^|\n|(?<=[.!?])\s)[^\w\n]*(?:<\|im_start\|>\s*user\b|\[INST\]|<\|user\|>|"
    r"(?:question|q|user|human|frage|pregunta|pergunta|instruction)\s?\d*\s*:)",
    re.IGNORECASE,
)


def before_question(text: str, question: str) -> tuple[str, bool] | None:
    """What stands before the first question within an answer that is not the one asked, and whether it asks for something else.

    Models go on with a question of their own after their answer, and answer that one too.
    """
    asked = tokens(re.split(r"[?？\n]", question.strip())[0])
    for found in _ASKED.finditer(text):
        line = tokens(re.split(r"[?？\n]", text[found.end() : found.end() + 2 * len(question) + 100].strip(_MARKS + "*_#"))[0])
        if (not asked or line != asked) and re.search(r"\w", text[: found.start()]):
            telling = set(asked) - FILLERS
            return text[: found.start()], bool(telling) and 2 * len(telling & set(line)) <= len(telling)
    return None


def _without_echo(text: str, question: str, codes: frozenset[str]) -> str:
    """Without the question, and without what asks for yes or no, where the answer repeats them."""
    yes, no = (_alternatives(words) for words in _words(codes))
    either = rf"\W?\b(?:{yes}|y)\b\W{{0,3}}\s*(?:/|\||\bor\b|\boder\b|\bou\b|\bo\b|\be\b|\bof\b|或者?|还是)\s*\W{{0,2}}(?:{no}|n)\b\W?"
    ask = (
        r"(?:please |kindly |bitte |veuillez )?(?:only )?(?:answer|respond|reply|antworten?(?: sie)?|répond\w*|responda?\w*|"
        r"请?回答)\b(?: only)?(?: the question)?(?: with| in| mit| nur| par| con)?(?: only| either| just| a single "
        r"word)*\s*:?\s*"
    )
    echo = re.compile(rf"(?:{ask})?{either}(?: only)?\s*[.:?]?", re.IGNORECASE)
    asked = question.strip()
    if asked and (place := text.lower().find(asked.lower())) >= 0:
        text = text[:place] + "\n" + text[place + len(asked) :]
    text = echo.sub("\n", text)
    text = re.sub(r"^\W*(?:question|q|frage|instruction)\s*:", "", text.strip(), flags=re.IGNORECASE)
    return _SPEAKER.sub("", text.strip()).strip()


def _without_refusals(text: str, question: str, codes: frozenset[str], options: Sequence[str] = ()) -> tuple[str, bool]:
    """Without the sentences, or parts of sentences, that decline to answer, and whether there are any.

    An option may read like a refusal, and so may an answer to a question after what can be told.
    """
    refusal, kept, has_refused = pattern("refusal", codes), list[str](), False
    if any(text_pattern(option).search(text.lower()) for option in options if refusal.search(option.lower())):
        return text, False

    def refuses(part: str) -> bool:
        found = refusal.search(part.lower().strip(_MARKS))
        return found is not None and not any(word[:5] in question.lower() for word in found[0].split()[-1:] if len(word) > 3)

    for sentence in _SENTENCE.split(text):
        parts = [sentence]
        if refuses(sentence):
            has_refused = True
            parts = _CONTRAST.split(sentence)
            if len(parts) == 1 and _CONCESSION.match(sentence):
                parts = sentence.split(",", 1)
        kept += [part for part in parts if not refuses(part)]
    return "\n".join(part for part in kept if part.strip()), has_refused


@cache
def _words(codes: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Words for yes and for no: those of some languages, and of all others where they mean nothing else."""
    sides = [
        frozenset(word for code in YES_NO for word in YES_NO[code][side].split() if code in codes or word not in COMMON) for side in (0, 1)
    ]
    return sides[0], sides[1]


@cache
def _alternatives(words: frozenset[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


# --- yes or no


class _Binary:
    """Reads yes or no."""

    def __init__(self, question: str, codes: frozenset[str]) -> None:
        self.question, self.codes = question, codes
        yes, no = _words(codes)
        self.words = {"yes": yes | {"y", "true"}, "no": no | {"n", "false"}}
        self.particle = _particle(_alternatives(yes), _alternatives(no))

    def explicit(self, said: str) -> str | None:
        """The choice of a text that is announced as the answer."""
        said = _without_echo(said, self.question, self.codes)
        rest, _ = _without_refusals(said, self.question, self.codes)
        return self.anywhere(rest)

    def anywhere(self, text: str) -> str | None:
        """The choice of any text."""
        lowered = text.lower()
        bare = lowered.strip(_MARKS)
        for side, words in self.words.items():
            if bare in words:
                return side
        if (ticked := _ticked(lowered)) is not None and (chosen := self._side(ticked)) is not None:
            return chosen
        labelled = list(_LABELLED.finditer(lowered))
        own = {self._side(label["value"]) for label in labelled if statements.takes_up(label["name"], self.question, self.codes)} - {None}
        others = [label.span("value") for label in labelled if statements.is_other(label["name"], self.question, self.codes)]
        for label in labelled:
            if label.span("value") in others and self._side(label["value"]) == "no":
                start, end = label.start("name"), label.end("value")
                lowered = lowered[:start] + " " * (end - start) + lowered[end:]  # it says nothing else
        found = [
            ("yes" if match["yes"] else "no", match)
            for match in self.particle.finditer(lowered)
            if not any(start <= match.start("word") < end for start, end in others)
        ]
        if others and len(own) == 1 and not (found and not re.search(r"\w", lowered[: found[0][1].start()])):
            return own.pop()
        if found:
            return self._said(found, lowered)
        if own:
            return own.pop() if len(own) == 1 else None
        return statements.yes_or_no(lowered, self.question, self.codes)

    def _side(self, word: str) -> str | None:
        return next((side for side, words in self.words.items() if word in words), None)

    def _said(self, found: list[tuple[str, "re.Match[str]"]], text: str) -> str | None:
        """Of words that say yes or no: the first where it leads, else the one on which all agree, else the last line's."""
        (first, match), *others = found
        if {side for side, _ in found} == {"yes", "no"} and not re.search(r"\w", self.particle.sub("", text)):
            return None
        leads = not re.search(r"\w", text[: match.start()])
        if leads and others and others[0][0] != first:
            between = text[match.end("word") : others[0][1].start("word")]
            if re.fullmatch(r"[^\S\n,/&|]*(?:[,/&|]|and|or|et|und|y|和)?[^\S\n,/&|]*", between):  # yes and no
                return None
        turned = [
            side
            for side, other in others
            if re.search(r"\b(?:wait|actually|correction|rather|on reflection)\W*$", text[: other.start("word")].rstrip())
        ]
        if turned:
            return turned[-1]
        if leads or {side for side, _ in found} == {first}:
            return first
        last_line = text.strip().rsplit("\n", 1)[-1]
        own = [side for side, other in found if other.start("word") >= len(text.rstrip()) - len(last_line)]
        return own[0] if len(set(own)) == 1 and len(tokens(last_line)) < 4 else None


# What may follow a word that stands for itself: the end, a closing quotation mark, any mark but one that opens something or belongs to a
# number, and a parenthesis that ends its sentence: "No (the lungs are expanded).", not "no (acute) abnormality".
_ENDS = (
    r"(?:[\"'”“»«]|\s*(?:$|[\"'](?!\w)|[^\w\s\"'“„«‹([{<>+±~≤≥#%$–-]|[–-](?!\w)|\n|"
    r"\([^()\n]*\)\s*(?:[^\w\s]|$|\n)|\[[^\[\]\n]*\]\s*(?:[^\w\s]|$|\n)))"
)


_LABELLED = re.compile(r"""(?:^|[\n.;,{(])[^\w\n.;,{(]*(?P<name>\w[^\n.;,:{}]{1,60}?)["'*]*\s*(?::|=|\s[-–—]\s)\s*["'*]*(?P<value>\w+)""")
"""A value behind the name of what it is about: "effusion: no", {"effusion": false}."""


def _ticked(text: str) -> str | None:
    """The word behind the only ticked box, where another one is empty."""
    found = re.findall(r"(?:\[ *[x✓✔] *\]|[☑☒✅])\s*(\w+)", text)
    return found[0] if len(found) == 1 and re.search(r"\[ *\]|☐", text) else None


@cache
def _particle(yes: str, no: str) -> "re.Pattern[str]":
    """Yes or no as a word of its own: "no." and "no, ..." and "no there is none", not the "no" of "no mass is seen"."""
    after = (
        rf"(?={_ENDS}|\s+(?:there|it|this|that|they|these|those|he|she|i|we|the|and|or|because|since|as|yes|es|il|elle)\b|"
        r"\s+(?:in|on|from|based on|according to) (?:the|this|that|these|those|what)\b)"
    )
    free = rf"[{UNSPACED}]"
    spaced_yes = "|".join(word for word in yes.split("|") if not re.match(free, word))
    spaced_no = "|".join(word for word in no.split("|") if not re.match(free, word))
    unspaced_yes = "|".join(word for word in yes.split("|") if re.match(free, word))
    unspaced_no = "|".join(word for word in no.split("|") if re.match(free, word))
    lone = f"(?={_ENDS})"
    start = r"(?<!\w)(?<!\w')"
    return re.compile(
        rf"(?P<word>(?P<yes>{start}(?:yes|yeah|yep|yup)\b(?=\W|$)|{start}(?:{spaced_yes})\b{after}|"
        rf"(?<![{UNSPACED}])(?:{unspaced_yes}){lone})"
        rf"|(?:{start}(?:{spaced_no})\b{after}|(?<![{UNSPACED}])(?:{unspaced_no}){lone}))"
    )
