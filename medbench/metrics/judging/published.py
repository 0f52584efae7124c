"""The study's judge: its prompt, its reading of the first line, and its shortcut for exact matches, as its public code has them.

Where that code drops a judgement that failed, the answer is null here and counted; `dropped` of the interval table is the study's mean.
A score outside 1 to 100, which that code would take, is null too. Replies come without the blank lines around them.
"""

import math

from medbench.metrics.judging import HIGHEST, LOWEST, Message, Reading

SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer of medical VQA task"
RULE = (
    "We would like to request your feedback on the performance of the AI assistant in response to the user question displayed above, "
    "with reference to the provided ground truth answer. Please rate the helpfulness, relevance, accuracy, and level of detail of the "
    "assistant's response. Assign an overall score on a scale of 1 to 100, where a higher score indicates better overall performance. "
    "Please first output a single line containing only the score (a single numeric value). In the subsequent line, please provide a "
    "comprehensive explanation of your evaluation, referencing the ground truth answer to justify your score. Ensure your judgment is "
    "unbiased and objective."
)
SCHEMA = None
TRIES = 1  # of a reply that cannot be read


def messages(question: str, reference: str, answer: str) -> list[Message]:
    """The system's words and one message of the user, in the study's marks."""
    query = (
        f"[Question]\n{question}\n\n"
        f"[True Answer]\n{reference}\n\n[End of True Answer]\n\n"
        f"[Prediction]\n{answer}\n\n[End of prediction]\n\n"
        f"[System]\n{RULE}\n\n"
    )
    return [Message("system", SYSTEM), Message("user", query)]


def unasked(reference: str, answer: str, is_refused: bool) -> Reading | None:
    """An answer that is its reference letter by letter; all others are asked."""
    return Reading("exact", float(HIGHEST), "exact match") if answer == reference else None


def read(reply: str, answer: str) -> Reading:
    """The first line as a number; the last line is the reason."""
    lines = reply.split("\n")
    first, last = lines[0].strip(), lines[-1].strip()
    try:
        score = float(first)
    except ValueError:
        return Reading("failed", None, f"the first line is no number: {first[:80]!r}")
    if not (math.isfinite(score) and LOWEST <= score <= HIGHEST):
        return Reading("failed", None, f"the score {first[:80]} is not within {LOWEST} and {HIGHEST}")
    return Reading("judged", score, last)
