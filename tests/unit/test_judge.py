"""Putting answers to judges: what is asked how often, what is refused, people's labels, questions from notes."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from medbench import cli
from medbench.cells import Cell
from medbench.errors import MedbenchError
from medbench.judging import asking, labels, questions, review
from medbench.judging.asking import Judge, Triple
from medbench.judging.questions import Note, Pair
from medbench.models.answering import Answerer, Prompt, Said
from medbench.verbs import label, make_questions

T = TypeVar("T")
JUDGE = Judge("judge", {"module": "medbench.models.remote.openai", "checkpoint": "judge"}, 100)


class Scripted(Answerer):
    """Replies in turn, the last one for ever."""

    def __init__(self, *replies: str, finish_reason: str = "stop") -> None:
        self.replies, self.finish_reason, self.asked = list(replies), finish_reason, list[Prompt]()

    def answers(self, questions: Any, done: Any, microbatching: Any) -> Iterator[Any]:
        raise NotImplementedError

    def says(self, prompts: Iterable[tuple[T, Prompt]], max_new_tokens: int) -> Iterator[tuple[T, Said]]:
        for tag, prompt in prompts:
            self.asked.append(prompt)
            text = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            yield tag, Said(text, self.finish_reason, "judge-1", f"key{len(self.asked)}")


def reply(score: object) -> str:
    return json.dumps({"justification": "Because.", "score": score})


TRIPLES = [Triple("q", "stroke", "infarction"), Triple("q", "stroke", "tumour"), Triple("q", "stroke", "infarction")]


def test_equal_triples_are_asked_once() -> None:
    judge = Scripted(reply(70))
    found = list(asking.judgements(judge, JUDGE, "strict", TRIPLES, 1))
    assert len(judge.asked) == len(found) == 2 and {one.reading.score for _, _, one in found} == {70}
    assert found[0][2].answered_by == "judge-1" and found[0][2].request == "key1"


def test_what_needs_no_judge_is_not_asked() -> None:
    judge = Scripted(reply(70))
    triples = [Triple("q", "stroke", ""), Triple("q", "stroke", "Stroke."), Triple("q", "stroke", "I cannot tell.", True)]
    found = {triple: one for triple, _, one in asking.judgements(judge, JUDGE, "strict", triples, 2)}
    assert judge.asked == [] and [found[triple].reading.score for triple in triples] == [1, 100, 1]
    assert all(one.answered_by == one.request == "" for one in found.values())


@pytest.mark.parametrize(("scoring", "asked"), [("strict", 2), ("published", 1)])
def test_a_reply_that_cannot_be_read_is_null_after_its_tries(scoring: str, asked: int) -> None:
    judge = Scripted("I would say good.")
    [(_, _, found)] = asking.judgements(judge, JUDGE, scoring, TRIPLES[:1], 1)
    assert len(judge.asked) == asked and found.reading.state == "failed" and found.reading.score is None
    assert len({prompt.round for prompt in judge.asked}) == asked, "another try is another request"


def test_the_second_try_counts() -> None:
    judge = Scripted("no JSON", reply(40))
    [(_, _, found)] = asking.judgements(judge, JUDGE, "strict", TRIPLES[:1], 1)
    assert found.reading.score == 40 and found.request == "key2"


def test_repeats_are_requests_of_their_own_and_the_first_is_that_of_a_run_without_repeats() -> None:
    once, thrice = Scripted(reply(40)), Scripted(reply(40))
    list(asking.judgements(once, JUDGE, "strict", TRIPLES, 1))
    found = list(asking.judgements(thrice, JUDGE, "strict", TRIPLES, 3))
    assert len(found) == 6 and len({(one.text, one.round) for one in thrice.asked}) == 6
    assert {(one.text, one.round) for one in once.asked} < {(one.text, one.round) for one in thrice.asked}


@pytest.mark.parametrize(("reason", "said"), [("length", "max_new_tokens"), ("filter", "filter"), ("refusal", "refusal")])
def test_a_judgement_that_did_not_end_is_null(reason: str, said: str) -> None:
    [(_, _, found)] = asking.judgements(Scripted(reply(90), finish_reason=reason), JUDGE, "strict", TRIPLES[:1], 1)
    assert found.reading.score is None and said in found.reading.reason


def test_a_digest_is_of_prompt_schema_judge_and_budget() -> None:
    one = asking.digest(JUDGE, "strict")
    assert one == asking.digest(JUDGE._replace(name="other"), "strict")
    assert len({one, asking.digest(JUDGE, "published"), asking.digest(JUDGE._replace(max_new_tokens=200), "strict"),
                asking.digest(JUDGE._replace(source={**JUDGE.source, "checkpoint": "x"}), "strict")}) == 4  # fmt: skip


# --- people's labels

CELL = Cell("data", "model", "ots")


def answers(cell: Cell, n: int = 40) -> list[labels.Answer]:
    return [labels.Answer(cell, f"s{i}", f"p{i // 4}", "What?", f"ref {i % 7}", f"={i % 5} answer") for i in range(n)]


def test_a_sheet_is_blind_defused_and_has_equal_answers_once(tmp_path: Path) -> None:
    drawn = [one for cell in (CELL, CELL._replace(model="rival")) for one in labels.sampled(answers(cell), 20, 0)]
    text = labels.sheet(drawn, 20)
    assert "model" not in text and "rival" not in text and "\n=" not in text and ",=" not in text and "'=" in text
    path = tmp_path / "sheet.csv"
    path.write_text(text, encoding="utf-8")
    assert labels.read(path).labels == {} and len(text.splitlines()) - 1 == len({one.id for one in drawn}) < 40


def test_samples_follow_from_names() -> None:
    drawn = labels.sampled(answers(CELL), 10, 0)
    assert len(drawn) == 10 and drawn == labels.sampled(answers(CELL), 20, 0)[:10]
    assert drawn == labels.sampled(list(reversed(answers(CELL))), 10, 0) != labels.sampled(answers(CELL), 10, 1)


def test_every_answer_is_drawn_as_often_whatever_its_group() -> None:
    """The correction is of a mean over answers: one of each group first would draw too many of small groups."""
    mixed = [labels.Answer(CELL, f"s{i}", f"p{i if i < 150 else i // 20 * 20}", "q", "r", "a") for i in range(450)]
    alone = [sum(int(one.sample_id[1:]) < 150 for one in labels.sampled(mixed, 100, seed)) for seed in range(50)]
    assert sum(alone) / 50 == pytest.approx(100 / 3, abs=2)


def by_hand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finished: int, *words: str) -> str:
    """What `label` says while so many cells have answers; each has some that equal others' ones."""
    found = {one: answers(one) for one in (CELL._replace(model=f"m{number}") for number in range(finished))}
    for number, one in enumerate(found):
        found[one] = [row if place < 2 else row._replace(answer=f"{number} says {place}") for place, row in enumerate(found[one])]
    monkeypatch.setattr(label, "_answers", lambda config: found)
    code = cli.main(["label", "demo", *words])
    said = capsys.readouterr()
    assert code in (0, 2) and "Traceback" not in said.err
    return said.out + said.err


def test_labels_stay_once_more_cells_have_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sheet.csv"
    assert "answers of 4 cells" in by_hand(monkeypatch, capsys, 4, "--sheet", str(path), "--n", "80")
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": "50", "drawn": row["drawn"] if place else "2000"} for place, row in enumerate(rows))
    said = by_hand(monkeypatch, capsys, 8, "--read", str(path))
    assert "left out" not in said and all(f"data/m{number}/ots: 20 labels" in said for number in range(4))
    assert "not on the sheet, so without labels: data/m4/ots, data/m5/ots" in said and "data/m7/ots: 0 labels" in said
    rows = [{name: value for name, value in row.items() if name != "drawn"} | {"label": "50"} for row in rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert "of another --n than 80 (its column `drawn` is gone)" in by_hand(monkeypatch, capsys, 8, "--read", str(path), "--n", "80")


@pytest.mark.parametrize("kind", ["sheet", "folder", "link", "no name"])
def test_a_sheet_is_never_written_over(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sheet.csv"
    if kind == "sheet":
        path.write_text("id,label\na1,50\n")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("nowhere")
    said = by_hand(monkeypatch, capsys, 1, "--sheet", "" if kind == "no name" else str(path))
    assert said.startswith("ERROR: ") and ("is no name" if kind == "no name" else "exists already") in said and said.count("\n") == 1
    assert kind != "sheet" or path.read_text() == "id,label\na1,50\n"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_sheet_that_a_spreadsheet_saved_is_read(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "sheet.csv"
    rows = [
        ["id", "question", "reference", "answer", "label"],
        ["a1", "q", "r", "x", "100"],
        ["b2", "q", "r", "y", " 37.5 "],
        ["c3", "q", "r", "z", ""],
    ]
    path.write_text("\ufeff" + "\r\n".join(delimiter.join(row) for row in rows), encoding="utf-8")
    assert labels.read(path).labels == {"a1": 100, "b2": 37.5}


def test_ids_stay_text_in_a_spreadsheet() -> None:
    """Digits alone, or with one e, would come back as 1.23457E+11, and their labels would be lost."""
    names = {answers(CELL, 1)[0]._replace(answer=f"{number}").id for number in range(2000)}
    assert len(names) == 2000 and all(name.isalnum() and name[0] == "a" for name in names)


def one_fault(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(MedbenchError) as error:
        labels.read(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))
    return str(error.value)


def test_wrong_labels_are_named_together(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    said = one_fault(path, "id,label\na,good\nb,0\nc,101\nd,50\ne,85%\nf,nan\ng,-5\n")
    assert "row 2: 'good', row 3: '0', row 4: '101', row 6: '85%', row 7: 'nan' and 1 more" in said
    assert "has not one column label" in one_fault(path, "id,score\na,5\n")
    assert "has not one column id and one label" in one_fault(path, "")
    assert "has not one column label" in one_fault(path, "id,label,label\na,5,80\n"), "two people in two columns"


def test_two_people_are_two_sheets(tmp_path: Path) -> None:
    """The last one would win in silence."""
    path = tmp_path / "sheet.csv"
    said = one_fault(path, "id,label\na,100\nb,50\na,25\na,100\n")
    assert "row 4: '25' for the answer of row 2, which has 100" in said and "two people are two sheets" in said and "row 5" not in said
    path.write_text("id,label\na,100\nb,50\na,100.0\nc,\na,\n")
    assert labels.read(path).labels == {"a": 100, "b": 50}


def test_a_row_whose_answer_lost_its_quotes_is_named(tmp_path: Path) -> None:
    """Its label would be a part of the answer."""
    path = tmp_path / "sheet.csv"
    assert "row 2: 6 values for 5 columns" in one_fault(path, "id,question,reference,answer,label\na,q,r,about 5, 6,100\nb,q,r,x,50\n")
    assert "is no CSV" in one_fault(path, 'id,answer,label\na,"left,100\nb,"right" lung,50\n')


SHEET = [
    ["id", "question", "reference", "answer", "label"], ["a1", "Größe?", "Ödem; links", 'a "spot"', "37,5"], ["b2", "q", "r", "x", " 2 "],
    ["", "", "", "", ""], ["c3", "q", "r", "y"], ["d4", "q", "r", "z", "3", "", ""],
]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize(("first", "delimiter"), [("", ";"), ("", ","), ("", "\t"), ("sep=;\r\n", ";")])
def test_a_sheet_of_any_office_is_read(tmp_path: Path, encoding: str, first: str, delimiter: str) -> None:
    path, text = tmp_path / "sheet.csv", io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(SHEET)
    path.write_bytes((first + text.getvalue()).encode(encoding))
    assert labels.read(path).labels == {"a1": 37.5, "b2": 2, "d4": 3}


def test_what_is_no_sheet_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "sheet.xlsx"
    assert "saved as CSV" in one_fault(path, b"PK\x03\x04\x14\x00\xff\xfe\x81\x8d" * 9)
    for odd in (tmp_path, tmp_path / "nothing.csv"):
        with pytest.raises(MedbenchError, match="cannot be read"):
            labels.read(odd)


# --- questions from notes

NOTE = Note("data_00001.npz", "The cup-to-disc ratio is 0.8 in the left eye; glaucoma is suspected.")


def pair(**fields: str) -> Pair:
    closed = questions.wanted(NOTE.name)
    good = {
        "open_question": "What is the cup-to-disc ratio?",
        "open_answer": "0.8",
        "closed_question": "Is glaucoma suspected?",
        "closed_answer": closed,
    }
    return Pair(**{**good, **fields})


def test_good_questions_have_no_fault() -> None:
    assert list(questions.faults(pair(), NOTE)) == []
    assert questions.read(json.dumps(pair()._asdict() | {}), NOTE).fault  # a key too many
    assert questions.read(json.dumps({name: value for name, value in pair()._asdict().items() if name != "fault"}), NOTE) == pair()


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"open_question": "Is the ratio 0.8 or what is it?"}, "holds its answer"),
        ({"open_answer": "Yes."}, "is yes or no"),
        ({"open_answer": ""}, "empty"),
        ({"open_answer": "a " + "very " * 12 + "long one"}, "long text"),
        ({"closed_answer": "perhaps"}, "not yes or no"),
        ({"closed_answer": "yes" if questions.wanted(NOTE.name) == "no" else "no"}, "not the one that was set"),
        ({"closed_question": "Does the report mention glaucoma?"}, "speaks of the note"),
        ({"open_question": "State the ratio."}, "question mark"),
        ({"open_answer": "0.8\x00"}, "cannot be shown"),
        ({"closed_question": "Is it \ud83d glaucoma?"}, "cannot be shown"),
    ],
)
def test_questions_are_checked(fields: dict[str, str], fault: str) -> None:
    assert any(fault in found for found in questions.faults(pair(**fields), NOTE))


def test_closed_answers_are_balanced_and_a_fault_is_asked_once_more() -> None:
    names = [questions.wanted(f"data_{number:05d}.npz") for number in range(2000)]
    assert 900 < names.count("yes") < 1100
    good = json.dumps({name: value for name, value in pair()._asdict().items() if name != "fault"})
    model = Scripted("nothing", good)
    assert list(questions.make(model, [NOTE], 100)) == [(NOTE, pair())] and len(model.asked) == 2
    assert next(questions.make(Scripted("nothing"), [NOTE], 100))[1].fault == "no JSON object"
    assert questions.read(good.replace("{", '{"open_answer": "0.9", ', 1), NOTE).fault == "no JSON object", "a key stands twice"


def shown(n: int = 4) -> dict[str, tuple[Note, Pair]]:
    notes = [Note(f"data_{number:05d}.npz", '=HYPERLINK("x") of\nvisit 1; "ratio" 0.8') for number in range(n)]
    return {note.name: (note, pair(open_answer="+0.8", closed_answer=questions.wanted(note.name))) for note in notes}


def edited(path: Path, edit: Callable[[list[list[str]]], object], delimiter: str = ",", encoding: str = "utf-8-sig") -> Path:
    """The sheet as a spreadsheet saves it after some edit of its rows."""
    rows = list(csv.reader(io.StringIO(review.sheet(shown().values()).removeprefix("\ufeff"))))
    edit(rows)
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8-sig"), (";", "utf-8"), ("\t", "utf-16")])
def test_a_sheet_that_nobody_edited_changes_nothing(tmp_path: Path, delimiter: str, encoding: str) -> None:
    text = review.sheet(shown().values())
    assert "'=HYPERLINK" in text and "'+0.8" not in text and "\n=" not in text and ",=" not in text, "a number stays"
    path = edited(tmp_path / "review.csv", lambda rows: rows.reverse() or rows.insert(0, rows.pop()), delimiter, encoding)
    assert review.read(path, shown()) == {name: made for name, (_, made) in shown().items()}


def test_what_a_person_left_of_a_sheet(tmp_path: Path) -> None:
    def edit(rows: list[list[str]]) -> None:
        del rows[1]
        rows[1][-1] = " No "
        rows[2][-1], rows[2][2] = "yes", "What is  the ratio?"
        rows[3][5] = {"yes": "no", "no": "yes"}[rows[3][5]]  # a wrong answer is turned

    names = list(shown())
    left = review.read(edited(tmp_path / "review.csv", edit), shown())
    assert list(left) == names[2:] and left[names[2]] == shown()[names[2]][1]._replace(open_question="What is the ratio?")
    assert left[names[3]].closed_answer != questions.wanted(names[3]) and not left[names[3]].fault


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda rows: rows[2].__setitem__(-1, "maybe"), "row 3: right (yes or no) is 'maybe'"),
        (lambda rows: rows[2].__setitem__(0, "other.npz"), "row 3: filename 'other.npz' was not on the sheet"),
        (lambda rows: rows.append(rows[1]), "row 6: filename 'data_00000.npz' stands twice"),
        (lambda rows: rows[4].__setitem__(3, ""), "row 5: a question or an answer is empty"),
        (lambda rows: rows[4].__setitem__(5, "perhaps"), "row 5: the closed answer is not yes or no"),
        (lambda rows: rows[1].append("more"), "row 2: more values than columns"),
        (lambda rows: [row.pop() for row in rows], "has not one column right (yes or no)"),
    ],
)
def test_a_sheet_that_cannot_be_meant_so_is_one_line(tmp_path: Path, edit: Callable[[list[list[str]]], object], fault: str) -> None:
    with pytest.raises(MedbenchError) as error:
        review.read(edited(tmp_path / "review.csv", edit), shown())
    assert fault in str(error.value) and "\n" not in str(error.value)


def notes(path: Path, *rows: tuple[str, str, str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("filename", "note", "use"), *rows])
    return path


def test_empty_notes_are_counted(tmp_path: Path) -> None:
    path = notes(tmp_path / "n.csv", ("a.npz", "=1+1 glaucoma", "training"), ("b.npz", "  ", "test"), ("c.npz", "=1+1 glaucoma", "Test"))
    rows, empty = make_questions.read_notes(path)
    assert [row.note.text for row in rows] == ["=1+1 glaucoma"] * 2 and empty == 1
    with pytest.raises(MedbenchError, match=r"n\.csv: holds no note \(1 rows\)"):
        make_questions.read_notes(notes(path, ("b.npz", " ", "test")))


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (("a.npz", "another", "test"), "row 3: filename 'a.npz' is of the same image as n.csv row 2"),
        (("a.jpg", "another", "test"), "row 3: filename 'a.jpg' is of the same image"),
        (("Test/a.npz", "another", "test"), "row 3: filename 'Test/a.npz' is of the same image"),
        ((" ", "another", "test"), "row 3: filename is ''; name the image or patient"),
        (("b.npz", "another", "dev"), "row 3: use is 'dev'"),
    ],
)
def test_notes_that_belong_to_no_image_of_their_own_are_one_line(tmp_path: Path, row: tuple[str, str, str], fault: str) -> None:
    with pytest.raises(MedbenchError) as error:
        make_questions.read_notes(notes(tmp_path / "n.csv", ("a.npz", "a note", "training"), row))
    assert fault in str(error.value) and "\n" not in str(error.value)
