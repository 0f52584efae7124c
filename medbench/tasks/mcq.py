"""Task `mcq`: questions with lettered options, about any number of images. A cell is scored twice: by the probabilities that the model
gives the letters (`letter`, where it tells them), and by the answer that it writes (`text`).

Letters are asked in several orders of the options, so that a liking for a letter is told from knowledge; options that speak of
each other ("none of the above") keep their order.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from string import ascii_uppercase
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import paths, tables
from medbench.adapt.asked import AskedChoices, Said
from medbench.metrics.diagnosis import STEP
from medbench.metrics.evaluate_modules.vqa_strict.words import STATES, THINK, Tags, yes_or_no
from medbench.metrics.measure import AS, MIN_LEAK_FREE, REASONING_GAPS, Measure, with_leak_free
from medbench.stats.intervals import at_shares
from medbench.stats.resamples import Groups
from medbench.tables import lists
from medbench.tables.contract import Column, Table
from medbench.tasks import Method, Scores, Task, vqa
from medbench.tasks.reading import is_leak_free, kept

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
LITTLE = 0.5
"""Probability of all letters together below which a model does not answer with a letter."""
KINDS, SOURCES = ("text", "letter", "image"), ("data", "mapped", "none")


class SamplesMcq(Table):
    """data/{dataset}/{train,val,test}.parquet of lettered questions: one row a question, options in the data's order."""

    sample_id = Column(pl.String, key=True)
    group_id = Column(pl.String)
    question = Column(pl.String, min_length=1)  # without the options
    options = Column(pl.List(pl.String))  # texts; the first has the letter A
    answer = Column(pl.String, min_length=1)  # its letter
    option_kind = Column(pl.Enum(KINDS))  # what all options are: letters or numbers that name parts of an image, images; else text
    is_positional = Column(pl.Boolean)  # an option speaks of others ("none of the above", "A and B"): never put into another order
    skill = Column(pl.String, null=True)  # understanding, reasoning, knowledge, diagnosis
    skill_source = Column(pl.Enum(SOURCES))  # data: a person labelled the question; mapped: from another field, by us
    category = Column(pl.String)  # part of the data set: file, subject, modality; empty where it has none
    image_id = Column(pl.String, null=True)  # the first; null for a question without an image
    image_ids = Column(pl.List(pl.String))  # all, in the order in which the question names them
    sex = Column(pl.String, null=True)  # as far as the data set says; so are those below
    age_band = Column(pl.String, null=True)
    race = Column(pl.String, null=True)
    ethnicity = Column(pl.String, null=True)
    language = Column(pl.String, null=True)


class PredictionsMcq(Table):
    """predictions/{dataset}/{model}/{mode}.parquet of lettered questions: all that is needed to score them again."""

    sample_id = Column(pl.String, key=True)
    group_id = Column(pl.String)
    question = Column(pl.String)
    options = Column(pl.List(pl.String))
    reference = Column(pl.String)  # letter in the data's order
    option_kind = Column(pl.Enum(KINDS))
    is_positional = Column(pl.Boolean)
    skill = Column(pl.String, null=True)
    skill_source = Column(pl.Enum(SOURCES))
    category = Column(pl.String)
    n_images = Column(pl.Int32, low=0)
    shifts = Column(pl.List(pl.Int32))  # the orders: letter i stands before option (i + shift) modulo their number
    log_probabilities = Column(pl.List(pl.List(pl.Float64)), null=True)  # of each order, of each letter; null: the model tells none
    mass = Column(pl.List(pl.Float64), null=True)  # of each order: probability of all its letters together
    answer = Column(pl.String)  # as written, to the first of the orders
    finish_reason = Column(pl.Enum(["stop", "length", "repetition", "refusal", "filter"]))
    n_tokens = Column(pl.Int32, low=0)


class ScoresMcq(Table):
    """scores/{dataset}/{model}/{mode}.parquet of lettered questions: one row a question."""

    sample_id = Column(pl.String, key=True)
    group_id = Column(pl.String)
    option_kind = Column(pl.Enum(KINDS))
    is_positional = Column(pl.Boolean)
    skill = Column(pl.String, null=True)
    category = Column(pl.String)
    n_images = Column(pl.Int32, low=0)
    n_words = Column(pl.Int32, low=0)  # of the question without its options
    chance = Column(pl.Float64, low=0, high=1)  # one over the number of options
    letters = Column(pl.List(pl.String))  # of each order: where the right option stands
    right = Column(pl.List(pl.Boolean), null=True)  # of each order: the likeliest letter is right; null where the model tells none
    accuracy_letter = Column(pl.Float64, null=True, low=0, high=1)  # mean over the orders
    all_right_letter = Column(pl.Float64, null=True, low=0, high=1)  # right in every order
    flip_rate_letter = Column(pl.Float64, null=True, low=0, high=1)  # another option in another order; null where there is one order
    letter_mass_letter = Column(pl.Float64, null=True, low=0, high=1.001)  # mean over the orders
    low_mass_letter = Column(pl.Float64, null=True, low=0, high=1)  # share of the orders whose letters have less than 0.5 together
    agreement_letter = Column(pl.Float64, null=True, low=0, high=1)  # letter and text choose alike; null where no choice can be read
    state = Column(pl.Enum(list(STATES)))  # of the text: could a choice be read
    choice = Column(pl.String, null=True)  # of the text, as a letter in the data's order
    accuracy_text = Column(pl.Float64, low=0, high=1)  # what cannot be read is wrong
    as_published = Column(pl.List(pl.Boolean))  # by each parser of `medbench.metrics.mcq_published`, in its order; a draw counts as wrong


def check_entry(entry: Any) -> None:
    """An entry of `config/datasets.yaml` needs nothing more."""


def counts(frame: pl.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Of a table of samples, for the card: options, letters of right answers, skills, images a question, options that keep their order."""
    counted = {
        "options": frame["options"].list.len(), "answers": frame["answer"], "skills": frame["skill"].drop_nulls(),
        "images_per_question": frame["image_ids"].list.len(), "option_kinds": frame["option_kind"].cast(pl.String),
    }  # fmt: skip
    found = {name: {str(value): n for value, n in sorted(Counter(column).items())} for name, column in counted.items()}
    return {**found, "positional": int(frame["is_positional"].sum()), "chance": _chance(frame)}


def _chance(frame: pl.DataFrame) -> float | None:
    return None if frame.is_empty() else round(float((1 / frame["options"].list.len()).mean()), 4)  # type: ignore[arg-type]


def effective_groups(frame: pl.DataFrame, classes: Sequence[str]) -> float:
    """Of a table of samples: those of all questions."""
    return Groups(frame["group_id"].to_list()).effective(np.ones(frame.height, dtype=bool))


def strata(classes: Sequence[str]) -> list[tuple[Any, str]]:
    """Letters of right answers."""
    return [(letter, f"right answer {letter}") for letter in ascii_uppercase[:10]]


def closed_options(question: str, answer: str) -> tuple[tuple[str, ...], str] | None:
    """Options of a closed question in words, and the letter of the right one: yes and no, or what the question names; else None."""
    from medbench.metrics.evaluate_modules.vqa_strict.options import options_of

    if (side := yes_or_no(answer)) is not None:
        return ("yes", "no"), "A" if side == "yes" else "B"
    texts = list(dict.fromkeys(options_of(question, answer).values()))
    right = [place for place, text in enumerate(texts) if _same(text, answer)]
    return (tuple(texts), ascii_uppercase[right[0]]) if len(texts) > 1 and right and all(texts) else None


def asked(dataset: str, split: str, left_out: Collection[str] = ()) -> AskedChoices:
    """One split of lettered questions, without the samples `left_out`. Raises MedbenchError when nothing is left of it."""
    path = paths.samples(dataset, split)
    frame = kept(tables.read(SamplesMcq, path), path, left_out)
    columns = ("sample_id", "group_id", "question", "options", "answer", "is_positional", "image_ids")
    return AskedChoices(*(frame[name].to_list() for name in columns))


def answered(dataset: str, said: Sequence[Said], split: str = "test", left_out: Collection[str] = ()) -> pl.DataFrame:
    """Table of predictions of what was said, in the order of a split without the samples `left_out`."""
    path = paths.samples(dataset, split)
    samples = kept(tables.read(SamplesMcq, path), path, left_out)
    schema = tables.columns(PredictionsMcq)
    own: dict[str, Any] = {
        "n_images": samples["image_ids"].list.len(),
        "shifts": [one.shifts for one in said],
        "log_probabilities": [None if one.letters is None else [letters for letters, _ in one.letters] for one in said],
        "mass": [None if one.letters is None else [mass for _, mass in one.letters] for one in said],
        "answer": [one.text for one in said],
        "finish_reason": [one.finish_reason for one in said],
        "n_tokens": [one.n_tokens for one in said],
    }
    columns = samples.rename({"answer": "reference"}).select(name for name in schema if name not in own)
    frame = columns.with_columns(lists.column(values, schema[name], strict=False).alias(name) for name, values in own.items())
    return frame.select(list(schema))


def score(predictions: pl.DataFrame, where: object, thoughts: Tags = THINK) -> Scores:
    """Both scorings of every question. `thoughts`: the model's marks of its thoughts, which are no part of an answer."""
    rows = [_score(row, thoughts) for row in predictions.iter_rows(named=True)]
    keys = [name for name in tables.columns(ScoresMcq) if name in predictions.columns]
    columns = {name: kind for name, kind in tables.columns(ScoresMcq).items() if name not in keys}
    made = (lists.column([row[name] for row in rows], kind).alias(name) for name, kind in columns.items())
    table = pl.concat([predictions.select(keys), pl.DataFrame(made)], how="horizontal")
    table = table.select(list(tables.columns(ScoresMcq)))
    found = Counter(table["state"])
    lost = {state: found[state] for state in STATES[1:] if found[state]}
    how = ", ".join(f"{n} {state}" for state, n in lost.items())
    return Scores(table, f"no choice can be read from {sum(lost.values())} answers ({how}); they count as wrong" if lost else "")


def _score(row: Mapping[str, Any], thoughts: Tags) -> dict[str, Any]:
    from medbench.metrics.evaluate_modules.vqa_strict.choices import read_choice  # hundreds of patterns: none is needed to plan a run
    from medbench.metrics.mcq_published import PARSERS

    options, shifts, k = row["options"], row["shifts"], len(row["options"])
    gold = ascii_uppercase.index(row["reference"])
    chosen = [(int(np.argmax(values)) + shift) % k for values, shift in zip(row["log_probabilities"] or [], shifts, strict=False)]
    shown = {ascii_uppercase[place]: options[(place + shifts[0]) % k] for place in range(k)}
    found = read_choice(row["answer"], shown, row["question"], row["finish_reason"], thoughts)
    text = None if found.choice is None else (ascii_uppercase.index(found.choice) + shifts[0]) % k

    def is_right(place: int | None) -> bool:
        return place is not None and (place == gold or _same(options[place], options[gold]))  # some sets hold the right option twice

    right, mass = [is_right(place) for place in chosen], row["mass"]
    letter: dict[str, Any] = {}
    if chosen:
        letter = {
            "right": right, "accuracy_letter": float(np.mean(right)), "all_right_letter": float(all(right)),
            "flip_rate_letter": float(len({_plain(options[place]) for place in chosen}) > 1) if len(chosen) > 1 else None,
            "letter_mass_letter": float(np.mean(mass)), "low_mass_letter": float(np.mean(np.array(mass) < LITTLE)),
            "agreement_letter": None if text is None else float(_same(options[text], options[chosen[0]])),
        }  # fmt: skip
    names = [name for name in tables.columns(ScoresMcq) if name not in row]
    published = [read(row["answer"], shown).letter for read in PARSERS.values()]
    made = {
        "as_published": [is_right(None if one is None else (ascii_uppercase.index(one) + shifts[0]) % k) for one in published],
        "chance": 1 / k, "n_words": len(row["question"].split()),
        "letters": [ascii_uppercase[(gold - shift) % k] for shift in shifts], "state": found.state,
        "choice": None if text is None else ascii_uppercase[text], "accuracy_text": float(is_right(text)), **letter,
    }  # fmt: skip
    return {name: made.get(name) for name in names}


def _same(one: str, other: str) -> bool:
    return _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold()


ACCURACIES = (("accuracy", "letter"), ("accuracy", "text"))
SLICED = (*ACCURACIES, ("above_chance", "letter"), ("above_chance", "text"), ("parsed", "text"))
"""Measures of every slice; all others are of the whole test set."""
OF_CATEGORY, OF_LENGTH = "category ", "length "
"""What subsets begin with that have no measures of their own."""
SKILLS = ("skill-reasoning", "skill-understanding")
FIFTHS = (0.2, 0.4, 0.6, 0.8)
BY_LENGTH = REASONING_GAPS[1]


@dataclass(frozen=True)
class ScoredMcq(vqa.ScoredVqa):
    """As for questions in words; some measures are no means of a column: `above_chance`, (accuracy - c) / (1 - c) with c = mean of 1/k,
    `macro_accuracy`, the mean over the categories, `reasoning_gap`, accuracy on reasoning minus on understanding, and
    `reasoning_gap_by_length`, the same within fifths of the questions' lengths, with the weights of Mantel and Haenszel."""

    def measures(self) -> list[Measure]:
        slices = [name for name in self.subsets if not name.startswith((OF_CATEGORY, OF_LENGTH))]
        whole = [Measure(*key, "all") for key in self.values if key[0] != "chance"]
        return [*whole, *(Measure(*key, name) for name in slices if name != "all" for key in SLICED)]

    def evaluate(self, measures: Sequence[Measure], weights: Floats) -> dict[Measure, Floats]:
        parts = {measure: self._parts(measure) for measure in measures if measure.metric != BY_LENGTH}
        needed = list(dict.fromkeys(part for of in parts.values() for part in of))
        made = super().evaluate(needed, weights) if needed else {}
        found = {
            measure: self._put_together(measure, [made[part] for part in parts[measure]]) if measure in parts
            else self._by_length(measure, weights)
            for measure in measures
        }  # fmt: skip
        undefined = np.full(weights.shape[1], np.nan)
        return {measure: undefined if self._is_small(measure) else values for measure, values in found.items()}

    def why_undefined(self, measure: Measure) -> str:
        if not self.used(measure).any() and self.subsets[measure.subset].any() and measure.scoring == "letter":
            return "the model tells no probabilities of letters, or the options have one order only"
        for part in self._rests_on(measure):
            if (n := int(self.used(part).sum())) < MIN_LEAK_FREE:
                return f"{n} question{'' if n == 1 else 's'} of {part.subset}, fewer than {MIN_LEAK_FREE}"
        if measure.metric == BY_LENGTH:
            return "no questions of reasoning and of understanding are of similar length"
        return super().why_undefined(measure)

    def _is_small(self, measure: Measure) -> bool:
        return any(int(self.used(part).sum()) < MIN_LEAK_FREE for part in self._rests_on(measure))

    def _rests_on(self, measure: Measure) -> list[Measure]:
        """The parts of the test set that must not be small."""
        if measure.metric in REASONING_GAPS:
            return [Measure("accuracy", measure.scoring, skill) for skill in SKILLS]
        return [] if measure.subset == "all" else [measure]

    def _parts(self, measure: Measure) -> list[Measure]:
        plain = measure._replace(metric="accuracy")
        if measure.metric == "above_chance":
            return [plain, measure._replace(metric="chance")]
        if measure.metric == "macro_accuracy":
            return [plain._replace(subset=name) for name in self.subsets if name.startswith(OF_CATEGORY)]
        if measure.metric == "reasoning_gap":
            return [plain._replace(subset=skill) for skill in SKILLS]
        return [measure]

    def _put_together(self, measure: Measure, parts: list[Floats]) -> Floats:
        if measure.metric == "above_chance":
            accuracy, chance = parts
            return (accuracy - chance) / (1 - chance)
        if measure.metric == "macro_accuracy":  # a category that a resample does not hold has no part in it
            stacked = np.array(parts)
            there = np.isfinite(stacked)
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.where(there, stacked, 0.0).sum(axis=0) / there.sum(axis=0)  # type: ignore[no-any-return]
        if measure.metric == "reasoning_gap":
            return parts[0] - parts[1]
        return parts[0]

    def _by_length(self, measure: Measure, weights: Floats) -> Floats:
        """Differences [B] within strata of length, weighted by n m / (n + m) of their n and m questions: 0 for one skill alone."""
        right = np.rint(np.nan_to_num(self.values["accuracy", measure.scoring]) * STEP)
        differences, shares = [], []
        for name in self.subsets:
            if not name.startswith(OF_LENGTH):
                continue
            masks = [self.used(Measure("accuracy", measure.scoring, skill)) & self.subsets[name] for skill in SKILLS]
            sums = self._by_group(np.array([np.where(mask, right, 0.0) for mask in masks])) @ weights
            n, m = self._by_group(np.array(masks, dtype=np.float64)) @ weights
            with np.errstate(invalid="ignore", divide="ignore"):
                shares.append(np.nan_to_num(n * m / (n + m)))
                differences.append(np.where((n > 0) & (m > 0), (sums[0] / n - sums[1] / m) / STEP, 0.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            return (np.array(differences) * shares).sum(axis=0) / np.sum(shares, axis=0)  # type: ignore[no-any-return]


def scored(scores: pl.DataFrame, duplicates: pl.Series, where: object, prompt_sets: Sequence[str] = ()) -> ScoredMcq:
    """From a table of scores and the ids of questions of which train or val holds an image too."""
    from medbench.metrics.mcq_published import PARSERS

    is_parsed = pl.col("state") == "parsed"
    named = [name for name in scores.columns if name.endswith(("_letter", "_text"))]
    columns: dict[tuple[str, str], Any] = {
        **{(name.rpartition("_")[0], name.rpartition("_")[2]): pl.col(name) for name in named},
        ("chance", "letter"): pl.when(pl.col("accuracy_letter").is_not_null()).then("chance"),
        ("chance", "text"): pl.col("chance"),
        ("above_chance", "letter"): pl.col("accuracy_letter"),
        ("above_chance", "text"): pl.col("accuracy_text"),
        ("parsed", "text"): is_parsed.cast(pl.Float64),
        **{(state, "text"): (pl.col("state") == state).cast(pl.Float64) for state in STATES[1:]},
        ("accuracy_parsed", "text"): pl.when(is_parsed).then("accuracy_text"),
        **{("accuracy", f"{AS}{name}"): pl.col("as_published").list.get(place) for place, name in enumerate(PARSERS)},
    }
    numbers = scores.select(column.alias(f"{metric} {scoring}") for (metric, scoring), column in columns.items())
    values = {key: numbers[f"{key[0]} {key[1]}"].cast(pl.Float64).fill_null(np.nan).to_numpy() for key in columns}
    values |= _recalls(scores)
    subsets: dict[str, Bools] = {"all": np.ones(len(scores), dtype=bool), **_slices(scores)}
    if set(SKILLS) <= set(subsets):
        has_skill = subsets[SKILLS[0]] | subsets[SKILLS[1]]
        for name, (_, scoring) in product(REASONING_GAPS, ACCURACIES):
            values[name, scoring] = np.where(has_skill, values["accuracy", scoring], np.nan)
        lengths = scores["n_words"].to_numpy()
        fifths = np.searchsorted(at_shares(lengths[has_skill], *FIFTHS), lengths)
        subsets |= {f"{OF_LENGTH}{place}": fifths == place for place in range(len(FIFTHS) + 1)}
    whole = with_leak_free({"all": subsets["all"]}, is_leak_free(scores, duplicates))
    if len(categories := sorted({*scores["category"]} - {""})) > 1:
        subsets |= {f"{OF_CATEGORY}{name}": (scores["category"] == name).to_numpy() for name in categories}
        values |= {("macro_accuracy", scoring): values["accuracy", scoring] for _, scoring in ACCURACIES}
    return ScoredMcq(scores["sample_id"].to_list(), Groups(scores["group_id"].to_list()), subsets | whole, values)


def _recalls(scores: pl.DataFrame) -> dict[tuple[str, str], Floats]:
    """`recall_{letter}`: how often the right option is chosen where it stands behind that letter. An order has it there once at most."""
    long = scores.select("letters", "right").with_row_index("place").drop_nulls("right")
    long = long.with_columns(pl.col("letters").list.head(pl.col("right").list.len())).explode("letters", "right")
    found = {}
    for letter in sorted(set(long["letters"])):
        column = np.full(len(scores), np.nan)
        of = long.filter(pl.col("letters") == letter)
        column[of["place"].to_numpy()] = of["right"].cast(pl.Float64).to_numpy()
        found[f"recall_{letter}", "letter"] = column
    return found


def _slices(scores: pl.DataFrame) -> dict[str, Bools]:
    """Skill, number of images, kind of options, options that keep their order; none that is all or nothing."""
    named = {f"skill-{name}": pl.col("skill") == name for name in sorted(set(scores["skill"].drop_nulls()))}
    named |= {"no-image": pl.col("n_images") == 0, "one-image": pl.col("n_images") == 1, "several-images": pl.col("n_images") > 1}
    named |= {f"{kind}-options": pl.col("option_kind").cast(pl.String) == kind for kind in KINDS}
    named |= {"positional": pl.col("is_positional")}
    masks = {name: scores.select(rule.fill_null(False)).to_series().to_numpy() for name, rule in named.items()}
    return {name: mask for name, mask in masks.items() if mask.any() and not mask.all()}


_ANY = (("generative", "zero-shot"), ("remote", "zero-shot"))
TASK = Task(
    name="mcq",
    rows="choices",
    answered_by=("generative", "remote"),
    noun="question",
    samples=SamplesMcq,
    predictions=PredictionsMcq,
    scores=ScoresMcq,
    repeated={
        **{
            name: name
            for name in ("sample_id", "group_id", "question", "option_kind", "is_positional", "skill", "skill_source", "category")
        },
        "reference": "answer",
    },
    predicted_by={
        ("baseline", "zero-shot"): Method("medbench.predict.choice_baseline", ("model",)),
        **dict.fromkeys(_ANY, Method("medbench.predict.choices", ("images", "model"))),
    },
    adapted_by={},
    validated_by={},
    primary=Measure("accuracy", "letter", "all"),
    fallback=Measure("accuracy", "text", "all"),
    title="accuracy",
    chance=None,  # depends on the questions: see `above_chance`
    stratum="answer",
    strata=strata,
    check_entry=check_entry,
    counts=counts,
    effective_groups=effective_groups,
    score=score,
    scored=scored,
    is_scored_first=True,
    asked=asked,
    answered=answered,
    closed_options=closed_options,
)
