"""Words and numbers as the report writes them: three decimals everywhere, intervals in brackets, questions in plain sentences."""

QUESTIONS = {
    "rq1": "Off the shelf: is the best generalist as good as the best in-domain specialist?",
    "rq2": "Does a generalist, adapted, reach the best in-domain specialist off the shelf? Only one side is adapted.",
    "rq3": "Outside the specialists' domain, both adapted: is the generalist as good?",
    "rq4": "In the specialists' domain, both adapted: is the generalist as good?",
}
NOTHING = "\N{EN DASH}"


def number(value: float | None) -> str:
    """0.8123 -> 0.812; null -> a dash."""
    return NOTHING if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float | None) -> str:
    """0.8123 -> +0.812; what rounds to zero has no sign."""
    if value is None:
        return NOTHING
    text = f"{value:+.3f}"
    return "0.000" if text[1:] == "0.000" else text.replace("-", "\N{MINUS SIGN}")


def interval(low: float | None, high: float | None, sign: bool = False) -> str:
    """[0.712, 0.893]; null -> empty."""
    if low is None or high is None:
        return ""
    write = signed if sign else number
    return f"[{write(low)}, {write(high)}]"


def with_interval(value: float | None, low: float | None, high: float | None, sign: bool = False) -> str:
    """0.812 [0.712, 0.893]; without limits the value alone."""
    return f"{(signed if sign else number)(value)} {interval(low, high, sign)}".strip()


def p_value(value: float | None) -> str:
    """0.04984 -> 0.0498: three digits, since near 0.05 the third decides; below a thousandth -> <0.001."""
    if value is None:
        return NOTHING
    return "<0.001" if value < 0.001 else f"{value:#.3g}"


def question_title(question: str, mode: str) -> str:
    """`RQ2, linear probe` of a question and its mode in words."""
    return f"{question.upper()}, {mode}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 image`, `2 images`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listed(names: list[str], limit: int = 8) -> str:
    """`a, b and c`; beyond `limit` names the rest is counted."""
    if len(names) > limit:
        return f"{', '.join(names[:limit])} and {len(names) - limit} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
