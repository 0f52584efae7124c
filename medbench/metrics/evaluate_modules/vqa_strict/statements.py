"""Yes or no from a statement: "no abnormality is seen" to "is it normal?" is yes. Needs the standard library only.

A statement is read clause by clause: does it take up what the question claims, and is that denied there? Where clauses differ, a
conclusion decides, else the last one.
"""

import re
from functools import cache
from typing import NamedTuple

from .cues import SEEN, pattern
from .terms import ASKS, EMPTY, FINDING, ORGANS, RIVALS, SAME, spelled
from .words import spoken

_PREPOSITIONS = r"(?<![\w-])(?:in|on|at|of|from|within|under|near|by|for|along|around|over|with|secondary to|due to|to)(?![\w-])"
_ELSEWHERE = r"\b(?:in|im|auf|an|am|bei|unter|dans|sur|au|aux|en|bajo|sobre|nel|nella|nei|sul|sulla|em|op|aan)\b"
_NORMAL_CLAIM = r"\b(?:normal(?:ly)?|healthy|unremarkable|intact|clear|ok|okay|fine)\b"
_HEAD_FIRST = frozenset(("fr", "es", "it", "pt"))  # the noun comes first: épanchement pleural
_CERTAIN = re.compile(
    r"\b(?:(?:there is |there's |with(?:out)? |beyond )?(?:no|any|a|without|little) (?:doubt|question)(?: (?:that|"
    r"about))?|undoubtedly|not only|(?:cannot|can't|can not) (?:deny|overlook)|"
    r"no (?:other|further|additional) \w+)\b|"
    r", (?:is|are|was|were|does|do|has|have)n't (?:there|it|they|this)\b(?=\W*$)|"
    r"(?:ohne|kein) zweifel|sans (?:aucun )?doute|sin (?:ninguna )?duda|毫无疑问|没有疑问"
)
_UNCHANGED = re.compile(r"\bno (?:(?:significant|interval|substantial|appreciable) )*(?:change|resolution|improvement) (?:in|of)\b")
_ABOUT_CHANGE = re.compile("chang|improv|resol|progress|worse")
_OUTER = re.compile(
    r"\b(?:(?:not|\w+n't) (?:true|correct|the case|right)|(?:in|un)correct to say|false|untrue|wrong) (?:that|to say)\b|并非"
)
_BREAK = re.compile(
    r"[;\n。;!?!?]+|(?<!\b[a-z])\.(?:\s+|$)|,?\s*\b(?:(?<!anything )(?<!nothing )but(?! also)|however|"
    r"although|though|whereas|nevertheless|yet|aber|jedoch|"
    r"sondern|mais|cependant|pero|sino|sin embargo|ma|però|mas|porém|maar)\b,?"
    r"|,\s*(?:and\s+)?(?=(?:the|there|it|this|they|both|one|which|i)\s)|,?\s+(?:and|while|as|because|since|"
    r"so)\s+(?=(?:the|there|it|this|they|both|a|an)\s)"
    r"|,\s*(?=(?:\w+ ){1,4}(?:is|are|seems?|appears?) (?:much |the )?(?:more|most|less) likely)"
    r"|,\s*(?=(?:indicating|suggesting|suggestive of|confirming|consistent with)\b)|:\s+(?=(?:the|there|it|this|they)\b)|\s[-–—]\s"
    r"|(?:但是|但|而是|不过|然而)|[,,](?=[\u4e00-\u9fff])"
)
_CONCLUSION = re.compile(
    r"\b(?:therefore|thus|hence|overall|in conclusion|in summary|so|consequently|concluding|daher|donc|por lo tanto|因此|所以|"
    r"综上)\b"
)
_COMPARED = re.compile(r"\b(?:more|less|fewer|larger|bigger|greater|smaller|higher|lower) than\b|\bat (?:least|most)\b|\bexactly\b")
_LACK = re.compile("absence of|lack")
_SHOWS = re.compile(
    r"\b(?:indicates|suggests|confirms|supports|favou?rs|means|represents|is (?:consistent|compatible|typical|"
    r"diagnostic|suggestive|indicative))\b"
)  # what is lacking ends here: "the absence of lung markings indicates a pneumothorax"
_SUBJECT = r"(?:it|this|that|they|these|those|there|i|he|she|we|you)"
_VERB = r"(?:is|are|was|were|does|do|did|can|could|has|have|had)"
_IT = r"(?:(?:it|this|that)(?: is|'s| seems| appears) )?"
_VERY = r"(?:(?:very|highly|most|quite) )?"
_HERE = r"(?: (?:in|on|at|from|by|for|here)\b.*)?"
_YES = re.compile(
    rf"{_SUBJECT} (?:\w+ly )?{_VERB}(?: (?:indeed|correct|right|true|the case|so))?|that's right|that is right|"
    rf"{_IT}(?:of course|absolutely|certainly|definitely|indeed|exactly|correct|true|the case|affirmative|positive|confirmed|sure|agreed)|"
    rf"{_IT}(?:{_VERY}(?:likely|probably|probable)|present{_HERE}|visible{_HERE}|seen{_HERE}|y)|there (?:is|are) (?:one|some|several|many)|"
    r"(?:wahrscheinlich|richtig|stimmt|vorhanden|vrai|présente?|verdadero|cierto|vero|verdadeiro|presente)|(?:可能是|正确|存在|可见)"
)
"""A clause that affirms and says nothing else."""
_NO = re.compile(
    rf"{_SUBJECT} (?:{_VERB} not|{_VERB}n't|cannot|can't)(?: (?:correct|right|true|the case|so|any))?|"
    rf"{_IT}(?:(?:of course|absolutely|certainly|definitely|{_VERY}(?:probably|likely)) )?not"
    rf"(?: really| at all| that i can see| likely| true| correct| right| (?:{SEEN}))?{_HERE}|"
    rf"{_IT}(?:{_VERY}(?:unlikely|improbable|doubtful)|negative|false|incorrect|wrong|untrue|denied|excluded|ruled out|"
    rf"absent{_HERE}|n|never|neither)|"
    rf"(?:it )?(?:does not|doesn't) (?:look|seem|appear) (?:like it|so|to be)|(?:(?:i (?:can )?(?:see|find)|there (?:is|"
    rf"are)) )?none(?: .*)?|"
    rf"(?:(?:i (?:can )?(?:see|find)|there (?:is|are)) )?no (?:evidence|signs?|such \w+)(?: of (?:it|that|this))?{_HERE}|nothing{_HERE}|"
    r"(?:nicht|falsch|keine?r?s?|wahrscheinlich nicht|faux|aucune?|falso|ningun[oa]|nessun[oa]|nenhum[a]?)|(?:不存在|不可见|未见|错误)"
)
"""A clause that denies and says nothing else."""


class _Claim(NamedTuple):
    """What a question claims."""

    words: tuple[re.Pattern[str], ...]  # any of them takes it up
    others: tuple[re.Pattern[str], ...]  # its other telling words
    normality: int  # 1: that something is normal; -1: that it is not; 0: something else
    denied: bool  # the question denies it: is there no ...
    compared: str  # "more than", which a clause must say too
    rivals: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]  # what it names, and what would exclude it
    organ: re.Pattern[str] | None
    is_finding: bool


def yes_or_no(text: str, question: str, codes: frozenset[str]) -> str | None:
    """The choice that statements of a lower-cased text make on a question; None where they make none."""
    claim = _claim(question.lower(), codes)
    codes |= spoken(text)  # an answer may be in another language than its question
    if not _ABOUT_CHANGE.search(question.lower()):
        text = _UNCHANGED.sub(" ", text)
    found: list[tuple[bool, bool]] = []  # is it a conclusion, is the claim true
    for clause in clauses(text):
        hedged = pattern("hedge", codes).search(clause)
        if not hedged and (value := _value(clause, claim, codes)) is not None:
            found.append((_CONCLUSION.search(clause) is not None, value))
    decisive = [value for concludes, value in found if concludes] or [value for _, value in found]
    return ("yes" if decisive[-1] else "no") if decisive else None


def takes_up(name: str, question: str, codes: frozenset[str]) -> bool:
    """Whether the name of a value is about what a question claims."""
    claim = _claim(question.lower(), codes)
    if claim.normality:
        return _says_normal(name, codes) is (claim.normality > 0)
    is_excluded = any(other.search(name) and not own.search(name) for own, other in claim.rivals)
    return not is_excluded and _is_about(name, claim) and any(word.search(name) for word in claim.words)


def is_other(name: str, question: str, codes: frozenset[str]) -> bool:
    """Whether the name of a value is that of a finding that a question does not ask about, as far as that can be told."""
    claim = _claim(question.lower(), codes)
    if claim.normality < 0 and _is_about(name, claim):
        return False  # any finding is what is asked about
    organ = claim.organ
    is_name = len(name.split()) < 7 and re.match(r"(?:based|given|due|because|since|with)\b", name) is None
    return is_name and FINDING.search(name) is not None and not (organ and organ.search(name)) and not takes_up(name, question, codes)


def clauses(text: str) -> list[str]:
    """Clauses of a lower-cased text, without those that are empty."""
    return [clause for part in _BREAK.split(_CERTAIN.sub(" ", text)) if (clause := part.strip(" \t,:-–—*\"'()[]"))]


def denied(clause: str, start: int, end: int, codes: frozenset[str]) -> bool:
    """Whether what stands at a place of a clause is denied there."""
    outer = [found.span() for found in _OUTER.finditer(clause, 0, start)]
    before = [found for found in pattern("before", codes).finditer(clause, 0, start) if not any(a <= found.start() < b for a, b in outer)]
    is_denied = (
        any(not (_LACK.match(found[0]) and _SHOWS.search(clause, found.end(), start)) for found in before)
        or pattern("after", codes).search(clause, end) is not None
    )
    return is_denied != bool(len(outer) % 2)


def _value(clause: str, claim: _Claim, codes: frozenset[str]) -> bool | None:
    """Whether a clause says that the claim holds; None where it says nothing of it."""
    if _YES.fullmatch(clause):
        return True
    if _NO.fullmatch(clause):
        return False
    if claim.normality:
        return _normality(clause, claim, codes)
    for own, other in claim.rivals:
        named = [found for found in own.finditer(clause) if not denied(clause, *found.span(), codes)]
        excluded = [found for found in other.finditer(clause) if not denied(clause, *found.span(), codes)]
        if excluded and not named and (own.search(clause) or _is_about(clause, claim)):
            return claim.denied
    matched = [found for word in claim.words for found in word.finditer(clause)]
    if matched and _is_about(clause, claim) and (claim.compared in clause or any(own.search(clause) for own, _ in claim.rivals)):
        is_denied = any(denied(clause, *found.span(), codes) or found["un"] for found in matched)
        is_denied = is_denied or any(
            re.search(r"(?:\bnot|n't)(?: \w+)? $", clause[: found.start()]) for word in claim.others for found in word.finditer(clause)
        )
        if not all(word.search(clause) for word in claim.words) and _says_normal(
            clause, codes
        ):  # the heart is normal, it was asked whether it is enlarged
            return claim.denied
        return is_denied == claim.denied
    if claim.is_finding and _is_about(clause, claim) and (says := _says_normal(clause, codes)) is not None and says:
        return claim.denied
    return None


def _normality(clause: str, claim: _Claim, codes: frozenset[str]) -> bool | None:
    """For a claim that something is (ab)normal."""
    says = _says_normal(clause, codes)
    if says is None:
        matched = list(FINDING.finditer(clause))
        if matched and "en" in codes:
            says = all(denied(clause, *found.span(), codes) for found in matched)
    if says is None or not _is_about(clause, claim):
        return None
    return (says == (claim.normality > 0)) != claim.denied


def _says_normal(clause: str, codes: frozenset[str]) -> bool | None:
    """Whether the last word on it in a clause is that something is normal."""
    words = [(found, True) for found in pattern("normal", codes).finditer(clause)]
    words += [(found, False) for found in pattern("abnormal", codes).finditer(clause)]
    if not words:
        return None
    found, is_normal = max(words, key=lambda pair: pair[0].start())
    return is_normal != denied(clause, *found.span(), codes)


def _is_about(clause: str, claim: _Claim) -> bool:
    """Whether a clause can be about what the question asks: it names that organ, or none."""
    if claim.organ is None or claim.organ.search(clause):
        return True
    return not any(organ.search(clause) for organ in ORGANS)


@cache
def _claim(question: str, codes: frozenset[str]) -> _Claim:
    core = re.split(r"[?？]", question)[0]
    is_denied = bool(re.search(r"\b(?:no|not|without|free of|free from|absence of|lack of|absent|missing|n't)\b", core))
    if re.search("[\u3040-\u30ff\u4e00-\u9fff]", core):
        return _unspaced_claim(core, codes)
    normal = re.search(_NORMAL_CLAIM, core) or (pattern("normal", codes - {"en"}).search(core) if codes - {"en"} else None)
    abnormal = pattern("abnormal", codes).search(core)
    every = re.findall(r"[^\W_][\w'’-]*", core)
    words = [word for word in every if word not in EMPTY and word not in ("absent", "missing")] or every[-1:]
    places = _PREPOSITIONS if not codes - {"en"} else _ELSEWHERE
    main = re.split(
        places,
        re.sub(
            (
                r"\bfree (?:of|from)\b|\b(?:absence|lack) of\b|\b(?:absent|missing)\b|\b(?:evidence|signs?|part|image|picture|"
                r"view) of\b|\bsuffering from\b"
            ),
            " ",
            core,
        ),
    )[0]
    telling = [word for word in re.findall(r"[^\W_][\w'’-]*", main) if word not in EMPTY] or words
    is_existence = bool(
        re.search(
            r"\b(?:is|are|was|were) there\b|\b(?:do|can|could) (?:you|we|one)\b|\b(?:present|seen|visible|visuali[sz]ed|"
            r"identified|evident|noted|detected|found|observed|shown)\b|"
            r"\b(?:show|have|has|contain|demonstrate|reveal)\b|\bany\b|\bevidence\b",
            core,
        )
    ) or bool(codes - {"en"})
    organs = [organ.pattern for organ in ORGANS if organ.search(core)]
    chosen = telling if is_existence and codes & _HEAD_FIRST else telling[-1:]
    return _Claim(
        tuple(_alike(word) for word in chosen),
        tuple(_alike(word) for word in words if word not in chosen),
        1 if normal and not abnormal else -1 if abnormal else 0,
        is_denied,
        found[0] if (found := _COMPARED.search(core)) else "",
        tuple(_rivals(core)),
        re.compile("|".join(organs)) if organs else None,
        FINDING.search(" ".join(chosen)) is not None or bool(codes - {"en"}),  # findings are known in English alone
    )


def _unspaced_claim(core: str, codes: frozenset[str]) -> _Claim:
    """Of a question in Chinese or Japanese: what is left of it without the words that make it a question."""
    telling = re.sub(rf"{'|'.join(ASKS)}|[,,。?？\s]", " ", core).split()
    normal, abnormal = pattern("normal", codes).search(core), pattern("abnormal", codes).search(core)
    words = tuple(re.compile(f"(?P<un>非)?{re.escape(word)}") for word in telling)
    return _Claim(words, (), 1 if normal and not abnormal else -1 if abnormal else 0, False, "", (), None, False)


def _rivals(core: str) -> list[tuple[re.Pattern[str], re.Pattern[str]]]:
    """What a question names, and what would exclude it."""
    found = []
    for sides in RIVALS:
        named = [side for side in sides if side.search(core)]
        if len(named) == 1:
            found.append((named[0], re.compile("|".join(side.pattern for side in sides if side is not named[0]))))
    return found


@cache
def _alike(word: str) -> re.Pattern[str]:
    """A word in its other forms: inflamed, inflammation; and a few that mean the same."""
    same = [others for names, others in SAME if re.match(names, word)]
    forms = f"{re.escape(word)}s?\\b" if len(word) < 4 else spelled(_stem(word)) + r"[^\W\d_]{0,6}"
    return re.compile(rf"\b(?P<un>non[- ]?|un)?(?:{'|'.join([forms, *same])})")


_ENDINGS = "x is us atation ication ations ation ements ement ments ment ions ion ated ates ate ied ies ing ed es s e y"


def _stem(word: str) -> str:
    """Without its ending, as far as at least four letters stay."""
    for ending in _ENDINGS.split():
        if word.endswith(ending) and len(word) - len(ending) >= (3 if ending == "s" else 4) and not (ending == "s" and word.endswith("ss")):
            word = word[: -len(ending)]
            break
    return re.sub(r"([^aeiou])\1$", r"\1", word) if len(word) > 4 else word
