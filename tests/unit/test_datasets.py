"""Layouts: what each yields from its files, and what each says of files that are wrong."""

import csv
import json
import os
import re
import shutil
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medbench import paths
from medbench.datasets import layouts
from medbench.demo import phantoms, questions
from medbench.errors import MedbenchError
from medbench.jobs import limits
from medbench.stages import prepare
from tests.unit.test_data_helpers import (
    CLASSES,
    HUB,
    HUB_IMAGE,
    LABELS,
    asked,
    card,
    edit,
    entry,
    hub,
    labelled,
    picture,
    samples,
    shard,
    write_csv,
)

REAL = os.environ.get("MEDBENCH_REAL_DATA")
real = pytest.mark.skipif(not REAL, reason="MEDBENCH_REAL_DATA names no folder of real data")


def refused(params: prepare.Params) -> str:
    """The message of a run that must fail; without the data set's name."""
    shutil.rmtree("results", ignore_errors=True)
    with pytest.raises(MedbenchError) as caught:
        prepare.run(params, "toy")
    assert not paths.card("toy").exists()
    return str(caught.value).removeprefix("data set toy: ")


# --- table ---------------------------------------------------------------------------------------------------------


def test_table_as_parquet_equals_csv(raw: Path) -> None:
    labelled(raw)
    prepare.run(entry(raw), "toy")
    files = [path for path in paths.data("toy") if path.suffix == ".parquet"]
    from_csv = [path.read_bytes() for path in files]
    pl.read_csv(raw / "labels.csv").with_columns(pl.col("label").cast(pl.Categorical)).write_parquet(raw / "labels.parquet")
    prepare.run(entry(raw, options={"index": "labels.parquet"}), "toy")
    assert [path.read_bytes() for path in files] == from_csv


@pytest.mark.parametrize("name", ["labels.json", "labels.jsonl", "labels.NDJSON"])
def test_table_of_json_objects_equals_csv(raw: Path, name: str) -> None:
    """Fields stand in any order, and the first object lacks one that is not read."""
    prepare.run(entry(labelled(raw)), "toy")
    files = [path for path in paths.data("toy") if path.suffix == ".parquet"]
    from_csv = [path.read_bytes() for path in files]
    rows = [dict(reversed(row.items())) for row in pl.read_csv(raw / "labels.csv").with_columns(note=pl.lit(7)).to_dicts()]
    del rows[0]["note"]
    (raw / name).write_text(json.dumps(rows) if name.endswith(".json") else "\n\n".join(map(json.dumps, rows)))
    prepare.run(entry(raw, options={"index": name}), "toy")
    assert [path.read_bytes() for path in files] == from_csv
    nameless = {**rows[0], "label": None}
    (raw / name).write_text(json.dumps([nameless]) if name.endswith(".json") else json.dumps(nameless))
    assert f"{name} row 1: label '' is not among the classes" in refused(entry(raw, options={"index": name}))


@pytest.mark.parametrize("missing", ["image", "label", "group"])
def test_table_without_a_column(raw: Path, missing: str) -> None:
    labelled(raw)
    pl.read_csv(raw / "labels.csv").rename({missing: "other"}).write_csv(raw / "labels.csv")
    found = ", ".join("other" if column == missing else column for column in LABELS)
    expected = f"labels.csv: column '{missing}' is missing (found {found}); "
    expected += f"a diagnosis table has image, label, group, split, id; of another name: options: {{columns: {{{missing}: <its name>}}}}"
    assert refused(entry(raw)) == expected


def test_table_of_the_wrong_task(raw: Path) -> None:
    assert "columns 'question', 'answer' are missing" in refused(entry(labelled(raw), task="vqa"))


def test_table_that_is_empty_or_absent(raw: Path) -> None:
    assert refused(entry(raw)) == f"labels.csv: does not exist in {raw}; put the table there or set options.index"
    (raw / "labels.csv").write_text("")
    assert "columns 'image', 'label', 'group' are missing (found none)" in refused(entry(raw))


def test_table_with_a_column_twice(raw: Path) -> None:
    write_csv(raw / "labels.csv", (*LABELS, "label"), [])
    assert refused(entry(raw)) == "labels.csv: column 'label' stands twice; keep one of them"


def test_table_with_a_short_row(raw: Path) -> None:
    with (labelled(raw) / "labels.csv").open("a") as stream:
        stream.write("images/1.png,benign\n")
    assert refused(entry(raw)) == "labels.csv row 14: has 2 values for 4 columns; quote values that hold the delimiter"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_the_encoding_of_a_table_is_found(raw: Path, encoding: str) -> None:
    text = (labelled(raw) / "labels.csv").read_text().replace("benign", "gutartig").replace("malign", "b\u00f6sartig")
    (raw / "labels.csv").write_bytes(text.encode(encoding))
    prepare.run(entry(raw, classes=("gutartig", "b\u00f6sartig")), "toy")
    assert samples("test")["label"].to_list() == [0, 1, 0, 1]
    said = [] if encoding.startswith("utf-8") else [f"labels.csv: its encoding is {encoding}"]
    assert card()["notes"] == said


@pytest.mark.parametrize(
    ("encoding", "word"), [("cp1251", "\u0437\u043b\u043e"), ("gb18030", "\u6076\u6027"), ("shift-jis", "\u60aa\u6027")]
)
def test_an_encoding_that_cannot_be_told_is_named(raw: Path, encoding: str, word: str) -> None:
    text = (labelled(raw) / "labels.csv").read_text().replace("malign", word)
    (raw / "labels.csv").write_bytes(text.encode(encoding))
    assert "labels.csv: is neither UTF-8 (byte 0x" in refused(entry(raw)) and "set options.encoding" in refused(entry(raw))
    prepare.run(entry(raw, options={"encoding": encoding}, classes=("benign", word)), "toy")
    assert samples("test")["label"].to_list() == [0, 1, 0, 1]


CODE_PAGES = [
    ("cp1250", "z\u0142o\u015bliwy", "z\u00b3o\u0153liwy"), ("iso8859-2", "z\u0142o\u015bliwy", "z\u00b3o\u00b6liwy"),
    ("cp1250", "\u0161patn\u00fd", "\u0161patn\u00fd"), ("cp1254", "k\u00f6t\u00fc huylu k\u0131r\u0131k", "k\u00fdr\u00fdk"),
    ("cp850", "L\u00e4hmung", "L\u201ehmung"), ("cp850", "b\u00e9nigne", "b\u201anigne"), ("mac-roman", "b\u00f6se", "b\u0161se"),
]  # fmt: skip


@pytest.mark.parametrize(("encoding", "word", "shown"), CODE_PAGES)
def test_another_code_page_than_the_western_one_is_asked_for(raw: Path, encoding: str, word: str, shown: str) -> None:
    text = (labelled(raw) / "labels.csv").read_text().replace("malign", word)
    (raw / "labels.csv").write_bytes(text.encode(encoding))
    said = refused(entry(raw, classes=("benign", word)))
    assert f"labels.csv: is not UTF-8, and read as Western (cp1252) it holds {shown!r}: it seems to have" in said
    assert "set options.encoding to its own (cp1250, " in said
    prepare.run(entry(raw, options={"encoding": encoding}, classes=("benign", word)), "toy")
    assert samples("test")["label"].to_list() == [0, 1, 0, 1]


WESTERN = (
    "Gr\u00f6sse \u2013 5 \u00b5m, 3 cm\u00b3 & 37\u00b0C; n\u00b0 5, 1\u00aa vez", "\u00bfHay fractura? \u00a1S\u00ed!",
    "le c\u0153ur d\u2019un enfant et l\u00b4os \u00ab na\u00eff \u00bb", "patient\u2019s \u201cleft\u201d lung\u2026and right\u2014both",
    "S\u00e3o M\u00f8ller \u00c5ngstr\u00f6m x\u00b2",
)  # fmt: skip


@pytest.mark.parametrize("text", WESTERN)
def test_western_texts_are_read_as_such(raw: Path, text: str) -> None:
    edit(asked(raw), 2, "question", text)
    (raw / "labels.csv").write_bytes((raw / "labels.csv").read_text(encoding="utf-8").encode("cp1252"))
    prepare.run(entry(raw, task="vqa"), "toy")
    assert text in [*samples("train")["question"], *samples("val")["question"]]


def test_table_with_an_open_quote(raw: Path) -> None:
    with (labelled(raw) / "labels.csv").open("a") as stream:
        stream.write('"images/1.png,benign,train,p\n')
    assert refused(entry(raw)) == "labels.csv after row 13: is no CSV (unexpected end of data); fix the quotes there"


def test_table_with_a_byte_order_mark(raw: Path) -> None:
    text = (labelled(raw) / "labels.csv").read_bytes()
    (raw / "labels.csv").write_bytes(b"\xef\xbb\xbf" + text)
    prepare.run(entry(raw), "toy")
    assert card()["rows_read"] == 12


def test_parquet_table_with_numbers(raw: Path) -> None:
    frame = pl.read_csv(asked(raw) / "labels.csv")
    frame.with_columns(answer=pl.lit([3])).write_parquet(raw / "t.parquet")
    settings = entry(raw, task="vqa", options={"index": "t.parquet"})
    said = refused(settings)
    assert re.match("t.parquet: column 'answer' holds (large_)?list<", said) and said.endswith("not text or numbers; write it as text")
    frame.with_columns(answer=pl.lit(3.0), answer_type=pl.lit("open")).write_parquet(raw / "t.parquet")
    prepare.run(settings, "toy")
    assert set(samples("test")["answer"]) == {"3"}


def test_parquet_table_with_a_null(raw: Path) -> None:
    frame = pl.read_csv(asked(raw) / "labels.csv").with_columns(answer=pl.when(pl.int_range(pl.len()) == 2).then(None).otherwise("answer"))
    frame.write_parquet(raw / "t.parquet")
    assert refused(entry(raw, task="vqa", options={"index": "t.parquet"})).startswith("t.parquet row 3: the answer is empty")


def test_parquet_table_that_is_none(raw: Path) -> None:
    (raw / "t.parquet").write_text("image,label")
    assert refused(entry(raw, options={"index": "t.parquet"})).startswith("t.parquet: is no readable Parquet file (")


def test_index_outside_the_folder(raw: Path) -> None:
    assert refused(entry(raw, options={"index": "../labels.csv"})).startswith("option index: image path '../labels.csv' leaves the folder")


def test_raw_dir_is_needed() -> None:
    assert refused(entry(None)) == "raw_dir: is not given, and this layout reads files; set raw_dir in the registry entry"


def test_unknown_option() -> None:
    with pytest.raises(MedbenchError, match=r"^data set toy: options of layout table: unknown key 'file' \(value 'x'\); see"):
        entry(None, options={"file": "x"})


def written(raw: Path, text: str, name: str = "labels.csv") -> Path:
    """A table of one's own beside twelve images."""
    labelled(raw)
    (raw / "labels.csv").unlink()
    (raw / name).write_text(text, encoding="utf-8")
    return raw


def lines(delimiter: str, *rows: str) -> str:
    """Rows written with commas, with another delimiter."""
    return "\n".join(row.replace(",", delimiter) for row in rows) + "\n"


HEADER = "image,label,split,group"
PLAIN = [f"images/{i}.png,{CLASSES[i % 2]},{'train' if i < 8 else 'test'},p{i}" for i in range(12)]


@pytest.mark.parametrize(("delimiter", "word"), [(",", ""), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv", "labels.txt"])
def test_the_delimiter_of_a_table_is_found(raw: Path, delimiter: str, word: str, name: str) -> None:
    prepare.run(entry(written(raw, lines(delimiter, HEADER, *PLAIN), name), options={"index": name}), "toy")
    assert card()["rows_read"] == 12
    assert card()["notes"] == ([f"{name}: its columns are parted by {word}"] if word else [])


def test_delimiters_inside_of_other_columns_do_no_harm(raw: Path) -> None:
    rows = [f'{row};"a, b | c; d"' for row in lines(";", *PLAIN).splitlines()]
    text = "sep=;\r\n" + "\r\n".join(["image;label;split;group;note, if any | other", *rows]) + "\r\n"
    prepare.run(entry(written(raw, text)), "toy")
    assert card()["rows_read"] == 12


@pytest.mark.parametrize(("header", "row"), [(",", ","), (",,", ""), ("", ",,"), (", ", ",")])
def test_delimiters_behind_the_last_column_do_no_harm(raw: Path, header: str, row: str) -> None:
    prepare.run(entry(written(raw, "\n".join([HEADER + header, *(one + row for one in PLAIN)]))), "toy")
    assert card()["rows_read"] == 12


@pytest.mark.parametrize("blank", ["\n", "  \n", ",,,\n", " , ,\t, \n", '"","","",""\n', "\r\n\r\n"])
def test_blank_lines_are_skipped_wherever_they_stand(raw: Path, blank: str) -> None:
    text = HEADER + "\n" + blank + "\n".join(PLAIN[:5]) + "\n" + blank + "\n".join(PLAIN[5:]) + "\n" + blank + blank
    prepare.run(entry(written(raw, text)), "toy")
    assert card()["rows_read"] == 12


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("Image,Label,Split,Group", {}),
        (" IMAGE , label,Split ,group", {}),
        ("filename,class,split,Patient ID", {}),
        ("Image_Path,label,subset,patient-id", {}),
        ("a,b,c,d", {"columns": {"image": "a", "label": "b", "split": "c", "group": "d"}}),
        ("image,Dx,split,group", {"columns": {"label": "dx"}}),
    ],
)
def test_columns_by_other_names(raw: Path, header: str, options: dict[str, object]) -> None:
    prepare.run(entry(written(raw, lines(",", header, *PLAIN)), options=options), "toy")
    assert samples("test")["label"].to_list() == [0, 1, 0, 1] and samples("test")["group_id"].to_list() == ["p8", "p9", "p10", "p11"]


def test_one_column_may_serve_twice_and_a_doubtful_one_is_named(raw: Path) -> None:
    written(raw, lines(",", "image,label,split,patient,subject", *(f"{row},s" for row in PLAIN)))
    assert refused(entry(raw)) == ("labels.csv: column 'group' may be 'patient' or 'subject'; set options.columns: {group: <one of them>}")
    prepare.run(entry(raw, options={"columns": {"group": "image"}}), "toy")
    assert samples("test")["group_id"].to_list() == samples("test")["sample_id"].to_list()
    assert "column 'case' is missing (found image, label, split, patient, subject)" in refused(
        entry(raw, options={"columns": {"group": "case"}})
    )
    with pytest.raises(MedbenchError, match=r"options of layout table: columns\.patient"):
        entry(raw, options={"columns": {"patient": "group"}})


def test_all_missing_columns_are_named_at_once(raw: Path) -> None:
    written(raw, lines(",", "image,Dx,split,who", *PLAIN))
    assert refused(entry(raw)).startswith("labels.csv: columns 'label', 'group' are missing (found image, Dx, split, who); a ")
    wrong = entry(raw, options={"columns": {"question": "Dx"}})
    assert refused(wrong) == "options.columns: 'question' is no column of a diagnosis table; it has image, label, group, split, id"


def test_values_as_people_write_them(raw: Path) -> None:
    splits = ["Train", " train ", "training", "TRAIN", "train", "train", "valid", "Validation", "dev", "val", "test", "Testing", "TEST "]
    rows = [
        f" images/{i}.png , {CLASSES[i % 2].upper() if i % 3 else CLASSES[i % 2]} ,{split}, p{i} " for i, split in enumerate(splits[:12])
    ]
    prepare.run(entry(written(raw, lines(",", HEADER, *rows))), "toy")
    assert [samples(split).height for split in paths.SPLITS] == [6, 4, 2]
    assert samples("test")["group_id"].to_list() == ["p10", "p11"] and samples("test")["label"].to_list() == [0, 1]


def test_classes_that_differ_in_case_alone_stay_apart(raw: Path) -> None:
    written(raw, lines(",", HEADER, *(row.replace("malign", "Benign") for row in PLAIN)))
    prepare.run(entry(raw, classes=("benign", "Benign")), "toy")
    assert samples("test")["label"].to_list() == [0, 1, 0, 1]
    edit(raw, 3, "label", "BENIGN")
    assert "label 'BENIGN' is not among the classes benign, Benign" in refused(entry(raw, classes=("benign", "Benign")))


def test_answers_and_their_type(raw: Path) -> None:
    frame = pl.read_csv(asked(raw) / "labels.csv").with_columns(
        answer=pl.when(pl.col("answer") == "no").then(pl.lit(" no ")).otherwise("answer")
    )
    frame.drop("answer_type").write_csv(raw / "labels.csv")
    prepare.run(entry(raw, task="vqa"), "toy")
    assert samples("test")["answer_type"].to_list() == ["closed", "open"] * 3
    assert (
        samples("test")["answer"].to_list()[:3] == ["no", "a cell", "Yes"] and samples("test")["is_yes_no"].to_list() == [True, False] * 3
    )
    frame.with_columns(answer_type=pl.col("answer_type").str.to_uppercase() + " ").write_csv(raw / "labels.csv")
    prepare.run(entry(raw, task="vqa"), "toy")
    assert samples("test")["answer_type"].to_list() == ["closed", "open"] * 3


@pytest.mark.parametrize("path", ["images\\{}.png", "./images/{}.png", "{raw}/images/{}.png", ".\\images\\{}.png"])
def test_image_paths_as_people_write_them(raw: Path, path: str) -> None:
    written(raw, lines(",", HEADER, *(row.replace(f"images/{i}.png", path.format(i, raw=raw)) for i, row in enumerate(PLAIN))))
    prepare.run(entry(raw), "toy")
    assert samples("test")["sample_id"].to_list() == [f"images/{i}.png" for i in range(8, 12)]


@pytest.mark.parametrize("root", ["images", "{raw}/images", "${{IMAGES}}", "~/raw/images"])
def test_an_image_root(raw: Path, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES", str(raw / "images"))
    monkeypatch.setenv("HOME", str(raw.parent))
    written(raw, lines(",", HEADER, *PLAIN).replace("images/", ""))
    assert "12 mistakes: labels.csv row 2: the image file does not exist" in refused(entry(raw))
    prepare.run(entry(raw, options={"image_root": root.format(raw=raw)}), "toy")
    assert samples("test")["sample_id"].to_list() == [f"{i}.png" for i in range(8, 12)]
    assert "does not exist" in refused(entry(raw, options={"image_root": "photos"}))
    assert "image path '../images/0.png' leaves" in refused(entry(written(raw, lines(",", HEADER, "../images/0.png,benign,test,p"))))


@pytest.mark.parametrize("task", ["diagnosis", "vqa"])
def test_a_table_without_splits_is_split_by_groups(raw: Path, task: str) -> None:
    rows = [(f"{i}.png", CLASSES[i // 3 % 2], "x", f"p{i // 3}") for i in range(60)]
    labelled(raw, rows)
    if task == "vqa":
        write_csv(
            raw / "labels.csv",
            ("image", "question", "answer", "patient"),
            [(image, "Is it?", ("yes", "a cell")[i % 2], group) for i, (image, *_, group) in enumerate(rows)],
        )
    else:
        write_csv(raw / "labels.csv", ("image", "label", "patient"), [(image, label, group) for image, label, _, group in rows])
    prepare.run(entry(raw, task=task), "toy")
    groups = [set(samples(split)["group_id"]) for split in paths.SPLITS]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 20 and len(groups[2]) == 6
    if task == "diagnosis":
        assert sorted(samples("test")["label"]) == [0] * 9 + [1] * 9
    assert card()["notes"][-1] == "no file names splits: 0.3 of the groups were drawn for test by the seed 0"
    first = [samples(split)["sample_id"].to_list() for split in paths.SPLITS]
    prepare.run(entry(raw, task=task), "toy")
    assert [samples(split)["sample_id"].to_list() for split in paths.SPLITS] == first
    prepare.run(entry(raw, task=task, seed=1), "toy")
    assert [samples(split)["sample_id"].to_list() for split in paths.SPLITS] != first
    prepare.run(entry(raw, task=task, options={"test": 0.5}), "toy")
    assert len(set(samples("test")["group_id"])) == 10


def test_a_spreadsheet(raw: Path) -> None:
    import openpyxl

    prepare.run(entry(labelled(raw)), "toy")
    tables = {path: path.read_bytes() for path in paths.data("toy") if path.suffix == ".parquet"}
    book = openpyxl.Workbook()
    book.active.append(HEADER.split(","))
    book.active.append([None] * 4)
    for row in PLAIN:
        book.active.append(row.split(","))
    book.create_sheet("remarks").append(["nothing"])
    book.save(raw / "labels.xlsx")
    prepare.run(entry(raw, options={"index": "labels.xlsx"}), "toy")
    assert {path: path.read_bytes() for path in tables} == tables
    assert card()["notes"] == ["labels.xlsx: sheet 'Sheet' is read, others are not: remarks"]
    assert "columns 'image', 'label', 'group' are missing (found nothing)" in refused(
        entry(raw, options={"index": "labels.xlsx", "sheet": "remarks"})
    )
    assert "has no sheet 'x'; choose from Sheet, remarks" in refused(entry(raw, options={"index": "labels.xlsx", "sheet": "x"}))
    (raw / "labels.xls").write_bytes(b"x")
    assert (
        refused(entry(raw, options={"index": "labels.xls"}))
        == "labels.xls: is xls, which is not read; save it as CSV or xlsx, and set options.index"
    )
    (raw / "labels.csv").unlink()
    assert "(tables there: labels.xlsx); put the table there or set options.index" in refused(entry(raw))


def sheet(raw: Path, rows: Sequence[Sequence[object]], formats: Mapping[str, str] | None = None, hidden: bool = False) -> dict[str, str]:
    """Write a spreadsheet, with a hidden sheet before it if asked for; the options of layout `table` that read it."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for cell, form in (formats or {}).items():
        book.active[cell].number_format = form
    if hidden:
        book.create_sheet("old", 0).append(["nothing"])
        book["old"].sheet_state = "hidden"
    book.save(raw / "labels.xlsx")
    return {"index": "labels.xlsx"}


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        ("answer", datetime(2024, 3, 5), "column 'answer' holds a date (2024-03-05 00:00:00)"),
        ("group", date(2024, 3, 5), "column 'group' holds a date (2024-03-05"),
        ("answer", time(1, 30), "column 'answer' holds a date (01:30:00)"),
        ("answer", "#REF!", "column 'answer' holds #REF!, an error of a spreadsheet"),
        ("group", "#DIV/0!", "column 'group' holds #DIV/0!, an error"),
        ("answer", "#N/A", "column 'answer' holds #N/A, an error"),
        ("remark", datetime(2024, 3, 5), None),
        ("remark", "#REF!", None),
    ],
)
def test_cells_that_are_dates_or_errors_are_refused_where_they_are_read(raw: Path, column: str, value: object, found: str | None) -> None:
    asked(raw)
    with (raw / "labels.csv").open() as stream:
        header, *rows = csv.reader(stream)
    lines: list[list[object]] = [[*header, "remark"], *([*row, "x"] for row in rows)]
    lines[4][lines[0].index(column)] = value
    params = entry(raw, task="vqa", options=sheet(raw, lines))
    if found is None:
        prepare.run(params, "toy")
    else:
        assert f"labels.xlsx row 5: {found}" in refused(params)


def test_errors_of_a_spreadsheet_are_refused_in_what_it_exports_too(raw: Path) -> None:
    edit(asked(raw), 5, "answer", "#REF!")
    assert refused(entry(raw, task="vqa")).startswith("labels.csv row 5: column 'answer' holds #REF!, an error of a spreads")


def test_numbers_of_a_spreadsheet_are_read_as_it_shows_them(raw: Path) -> None:
    """7 shown as 007 is the patient 007, and 0.45 is 45%."""
    with (asked(raw) / "labels.csv").open() as stream:
        lines: list[list[object]] = [*csv.reader(stream)]
    for row, value in ((3, 0.45), (5, 0.455), (7, 1.0)):
        lines[row - 1][2] = value
    lines[1][5], lines[2][5] = 7, "007"
    params = entry(raw, task="vqa", options=sheet(raw, lines, {"C3": "0%", "C5": "0.0%", "C7": "0.00", "F2": "000"}))
    prepare.run(params, "toy")
    read = pl.concat([samples(split) for split in ("train", "val")])
    assert {"45%", "45.5%", "1"} <= set(read["answer"]) and read["group_id"].to_list().count("007") == 2 and "7" not in read["group_id"]


def test_a_hidden_sheet_is_read_by_its_name_alone(raw: Path) -> None:
    lines = [HEADER.split(","), *(row.split(",") for row in PLAIN)]
    labelled(raw)
    options = sheet(raw, lines, hidden=True)
    prepare.run(entry(raw, options=options), "toy")
    assert card()["notes"] == ["labels.xlsx: sheet 'Sheet' is read, others are not: old"]
    assert "columns 'image', 'label', 'group' are missing (found nothing)" in refused(entry(raw, options={**options, "sheet": "old"}))


def test_all_mistakes_of_a_table_at_once(raw: Path) -> None:
    """Four rows, four kinds: one round. Seven: the first five, and how many more."""
    labelled(raw)
    edit(raw, 3, "split", "later")
    edit(raw, 5, "label", "weird")
    edit(raw, 7, "image", "/etc/hostname")
    edit(raw, 9, "group", " ")
    message = refused(entry(raw))
    assert message.startswith("4 mistakes: labels.csv row 3: split 'later' is unknown (write one of train, val, test); labels.csv row 5: ")
    for said in ("row 3: split 'later'", "row 5: label 'weird'", "row 7: image path '/etc/hostname'", "row 9: the group is empty"):
        assert said in message
    for row in (10, 11, 12):
        edit(raw, row, "split", "later")
    message = refused(entry(raw))
    assert "7 mistakes: " in message and "row 10: split" in message and "row 11" not in message and "; and 2 more; mend them all" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["images/3", "images/3.jpg", "images/3.PNG"])
def test_an_image_of_another_ending_is_named(raw: Path, name: str) -> None:
    edit(labelled(raw), 5, "image", name)
    assert f"row 5: the image file does not exist: {raw}/{name} (there is 3.png); fix the row" in refused(entry(raw))


def test_blank_rows_of_parquet_are_skipped(raw: Path) -> None:
    frame = pl.read_csv(labelled(raw) / "labels.csv")
    blank = pl.DataFrame({name: [None, " "] for name in frame.columns}, schema=frame.schema)
    pl.concat([frame.head(5), blank, frame.tail(7), blank]).write_parquet(raw / "t.parquet")
    prepare.run(entry(raw, options={"index": "t.parquet"}), "toy")
    assert card()["rows_read"] == 12


def test_mistakes_of_rows_and_missing_images_are_one_round(raw: Path) -> None:
    edit(labelled(raw), 3, "split", "later")
    edit(raw, 5, "label", "weird")
    (raw / "images/6.png").unlink()
    message = refused(entry(raw))
    assert (
        message.startswith("3 mistakes: labels.csv row 3: split 'later' is unknown (write") and "row 8: the image file does not" in message
    )


def test_all_missing_and_broken_images_at_once(raw: Path) -> None:
    for name in (3, 5):
        (labelled(raw) if name == 3 else raw).joinpath(f"images/{name}.png").unlink()
    message = refused(entry(raw))
    assert message.startswith(f"2 mistakes: labels.csv row 5: the image file does not exist: {raw}/images/3.png; labels.csv row 7: ")
    labelled(raw)
    for name in (2, 4, 6):
        (raw / f"images/{name}.png").write_bytes(b"no image")
    assert refused(entry(raw)).startswith("3 mistakes: labels.csv row 4: the file is no image (8 bytes); labels.csv row 6: ")


# --- imagefolder ---------------------------------------------------------------------------------------------------


def tree(folder: Path, *names: str) -> Path:
    """Files below `folder`, each of its own pixels."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(seed))
    return folder


def test_imagefolder_with_splits(raw: Path) -> None:
    tree(raw, *(f"{split}/{name}/{i}.png" for split in paths.SPLITS for name in CLASSES for i in range(2)), "train/benign/deep/x.png")
    (raw / "train/benign/.DS_Store").write_text("")
    prepare.run(entry(raw, "imagefolder"), "toy")
    assert samples("train")["sample_id"].to_list() == [
        f"train/{name}.png" for name in ("benign/0", "benign/1", "benign/deep/x", "malign/0", "malign/1")
    ]
    assert samples("test")["label"].to_list() == [0, 0, 1, 1]
    assert card()["validation"]["origin"] == "official"


def test_imagefolder_without_splits(raw: Path) -> None:
    tree(raw, *(f"{name}/{name}{patient}_{view}.png" for name in CLASSES for patient in range(10) for view in range(2)))
    prepare.run(entry(raw, "imagefolder", options={"group": r"^(\w+)_", "test": 0.3}), "toy")
    groups = [set(samples(split)["group_id"]) for split in paths.SPLITS]
    assert list(map(len, groups)) == [10, 4, 6] and len(set.union(*groups)) == 20
    assert sorted(samples("test")["label"]) == [0] * 6 + [1] * 6
    first = samples("test")["sample_id"].to_list()
    prepare.run(entry(raw, "imagefolder", options={"group": r"^(\w+)_", "test": 0.3}, seed=1), "toy")
    assert samples("test")["sample_id"].to_list() != first


@pytest.mark.parametrize("names", [("train", "valid", "test"), ("Training", "VAL", "Testing"), ("train", "dev", "test")])
def test_imagefolder_with_splits_by_other_names(raw: Path, names: tuple[str, ...]) -> None:
    """Case of classes too; what desktops leave is no image and no split."""
    tree(raw, *(f"{split}/{name}/{i}.png" for split in names for name in (CLASSES[0], CLASSES[1].upper()) for i in range(2)))
    for litter in ("Thumbs.db", "desktop.ini", ".DS_Store", f"{names[0]}/Thumbs.db", f"{names[0]}/benign/Thumbs.db", "__MACOSX/x/._0.png"):
        (raw / litter).parent.mkdir(parents=True, exist_ok=True)
        (raw / litter).write_bytes(b"litter")
    prepare.run(entry(raw, "imagefolder"), "toy")
    assert [samples(split).height for split in paths.SPLITS] == [4, 4, 4] and sorted(samples("test")["label"]) == [0, 0, 1, 1]


def test_imagefolder_names_all_strangers_at_once(raw: Path) -> None:
    tree(
        raw, *(f"{split}/{name}/{i}.png" for split in ("train", "test") for name in CLASSES for i in range(2)), "readme.txt", "train/a.txt"
    )
    assert refused(entry(raw, "imagefolder")) == (
        "2 mistakes: readme.txt: is a file where folders of splits are expected; "
        "train/a.txt: is a file where folders of classes are expected; move it away"
    )


def test_imagefolder_says_that_images_are_patients(raw: Path) -> None:
    tree(raw, *(f"{name}/p{i}.png" for name in CLASSES for i in range(6)))
    said = "every image counts as a patient of its own: where patients have several, set options.group"
    prepare.run(entry(raw, "imagefolder"), "toy")
    assert said in card()["notes"]
    prepare.run(entry(raw, "imagefolder", options={"group": "(p[0-9])"}), "toy")
    assert said not in card()["notes"]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("train/benign/0.png", "late/benign/0.png"), {}, "late/benign/0.png: split 'late' is unknown"),
        (("benign/0.png", "other/1.png"), {}, "other/1.png: label 'other' is not among the classes benign, malign"),
        (("benign/0.png", "1.png"), {}, "1.png: is a file where folders of classes are expected; move it away"),
        (("benign/0.png",), {"group": "^p([0-9])"}, "benign/0.png: the pattern ^p([0-9]) finds no group in it; fix options.group"),
    ],
)
def test_imagefolder_with_strangers(raw: Path, names: tuple[str, ...], options: dict[str, str], message: str) -> None:
    assert refused(entry(tree(raw, *names), "imagefolder", options=options)).startswith(message)


def test_imagefolder_needs_one_pair_of_parentheses() -> None:
    with pytest.raises(MedbenchError, match=r"options of layout imagefolder: group: needs exactly one pair of .*; see docs/own-data\.md"):
        entry(None, "imagefolder", options={"group": "x"})


def test_imagefolder_index_is_its_folders(raw: Path) -> None:
    tree(raw, "train/benign/0.png", ".git/x/1.png")
    layout = layouts.load_layout("imagefolder")
    source = layouts.Source("toy", "diagnosis", raw, CLASSES, 0)
    assert layout.index_files(layout.Options(), source) == [raw, raw / "train", raw / "train/benign"]


def test_imagefolder_reads_what_lies_behind_links(raw: Path, tmp_path: Path) -> None:
    """A link to a folder, in a class folder or in its place; not one that leads back up, which would have no end."""
    tree(raw, "benign/0.png", "benign/b/1.png")
    tree(tmp_path / "disk", "batch/p/2.png", "batch/3.png", "malign/p/4.png", "malign/5.png")
    (raw / "benign/a").symlink_to(tmp_path / "disk/batch")
    (raw / "malign").symlink_to(tmp_path / "disk/malign")
    (tmp_path / "disk/batch/up").symlink_to(raw / "benign")
    (raw / "benign/all").symlink_to("/")
    layout = layouts.load_layout("imagefolder")
    source = layouts.Source("toy", "diagnosis", raw, CLASSES, 0)
    found = [one.sample_id for one in layout.items(layout.Options(), source) if isinstance(one, layouts.DiagnosisItem)]
    assert sorted(found) == [
        "benign/0.png", "benign/a/3.png", "benign/a/p/2.png", "benign/b/1.png", "malign/5.png", "malign/p/4.png"
    ]  # fmt: skip
    assert {raw / "benign/a/p", raw / "malign/p"} <= {*layout.index_files(layout.Options(), source)}


def test_a_file_added_to_an_image_folder_is_seen(raw: Path, tmp_path: Path) -> None:
    """By the time of its folder, as Snakemake sees it, whether or not the folder is a link."""
    tree(raw, *(f"{split}/{name}/{i}.png" for split in ("train", "test") for name in CLASSES for i in range(3)))
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/5.png").write_bytes(picture(50))
    (raw / "test/benign/more").symlink_to(tmp_path / "disk")
    params = entry(raw, "imagefolder")
    prepare.run(params, "toy")
    assert prepare.replaced(params, "toy") == []
    later = paths.samples("toy", "train").stat().st_mtime_ns + 10**9
    os.utime(tmp_path / "disk", ns=(later, later))
    assert prepare.replaced(params, "toy") == [f"was made before files were added to or removed from {raw}/test/benign/more"]


# --- hub-vqa -------------------------------------------------------------------------------------------------------


def test_hub_shards(raw: Path) -> None:
    prepare.run(entry(hub(raw), "hub-vqa", "vqa", allow_group_overlap=True), "toy")
    test = samples("test")
    assert test["sample_id"].to_list() == ["test-00000", "test-00001"]
    assert test["answer"].to_list() == ["No.", "yes, a cell"]  # original text
    assert test["answer_type"].to_list() == ["closed", "open"]
    assert test["group_id"].to_list() == test["image_id"].to_list() == [layouts.embed(picture(seed)).digest for seed in (0, 9)]
    assert card()["rows_read"] == 12
    assert sorted([*samples("train")["sample_id"], *samples("val")["sample_id"]]) == [f"train-{i:05d}" for i in range(10)]


@pytest.mark.parametrize("name", ["valid", "validation", "dev", "val"])
def test_hub_shards_of_validation_by_any_name(raw: Path, name: str) -> None:
    shard(raw / f"data/{name}-00000-of-00001.parquet", [(i, f"{i}.png", "is it?", "yes") for i in range(2)])
    shard(raw / "data/train-00000-of-00001.parquet", [(i, f"{i}.png", "is it?", "yes") for i in range(3, 6)])
    shard(raw / "data/test-00000-of-00001.parquet", [(9, "9.png", "is it?", "no")])
    prepare.run(entry(raw, "hub-vqa", "vqa"), "toy")
    assert [samples(split).height for split in paths.SPLITS] == [3, 2, 1] and card()["validation"]["origin"] == "official"


def test_hub_images_shared_by_splits_must_be_allowed(raw: Path) -> None:
    message = refused(entry(hub(raw), "hub-vqa", "vqa"))
    assert message.startswith("2 mistakes: data/train-00000-of-00002.parquet row 1: group ") and "allow_group_overlap" in message


def test_hub_image_with_two_contents(raw: Path) -> None:
    shard(hub(raw) / "data/train-00001-of-00002.parquet", [(7, "0.png", "is it red?", "yes")])
    expected = (
        "data/train-00001-of-00002.parquet row 1: image '0.png' stands already with other bytes; give different images different paths"
    )
    assert refused(entry(raw, "hub-vqa", "vqa", allow_group_overlap=True)) == expected


def test_hub_shard_that_is_no_parquet(raw: Path) -> None:
    whole = (hub(raw) / "data/train-00001-of-00002.parquet").read_bytes()
    for damaged in (b"PK no parquet", whole[: len(whole) // 2]):
        (raw / "data/train-00001-of-00002.parquet").write_bytes(damaged)
        message = refused(entry(raw, "hub-vqa", "vqa", allow_group_overlap=True))
        assert message.startswith("data/train-00001-of-00002.parquet: is no readable Parquet file (") and message.endswith(
            "; download it again"
        )


def test_hub_shard_without_a_column(raw: Path) -> None:
    path = hub(raw) / "data/test-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["answer"]), path)
    expected = "data/test-00000-of-00001.parquet: column 'answer' is missing (found image, question); a shard has image, question, answer"
    assert refused(entry(raw, "hub-vqa", "vqa")) == expected


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        ("answer", pa.int64(), "column 'answer' holds int64, not text; write it as text"),
        ("image", pa.binary(), "column 'image' holds binary, not a struct of bytes and path; write it as the hub does"),
    ],
)
def test_hub_shard_with_a_wrong_column(raw: Path, column: str, kind: pa.DataType, message: str) -> None:
    schema = HUB.set(HUB.get_field_index(column), pa.field(column, kind))
    pq.write_table(schema.empty_table(), hub(raw) / "data/test-00000-of-00001.parquet")
    assert refused(entry(raw, "hub-vqa", "vqa")) == f"data/test-00000-of-00001.parquet: {message}"


@pytest.mark.parametrize(
    ("question", "answer", "found"),
    [("", "yes", "the question is empty"), ("why?", None, "the answer is empty"), (None, "yes", "the question is empty")],
)
def test_hub_row_without_text(raw: Path, question: str | None, answer: str | None, found: str) -> None:
    shard(hub(raw) / "data/train-00001-of-00002.parquet", [(4, "4.png", "is it red?", "yes"), (4, "4.png", question, answer)])
    params = entry(raw, "hub-vqa", "vqa", allow_group_overlap=True)
    assert refused(params).startswith(f"data/train-00001-of-00002.parquet row 2: {found}; fix the row or raise max_drops, the share")


def test_hub_row_without_image(raw: Path) -> None:
    rows = [{"image": None, "question": "why?", "answer": "yes"}]
    pq.write_table(pa.Table.from_pylist(rows, HUB), hub(raw) / "data/test-00000-of-00001.parquet")
    params = entry(raw, "hub-vqa", "vqa")
    assert refused(params).startswith("data/test-00000-of-00001.parquet row 1: the file is no image (0 bytes); fix the row or raise")


def test_hub_image_beside_the_shard(raw: Path) -> None:
    rows = [{"image": {"bytes": None, "path": "imgs/a.png"}, "question": "why?", "answer": "yes"}]
    pq.write_table(pa.Table.from_pylist(rows, HUB), hub(raw) / "data/test-00000-of-00001.parquet")
    tree(raw, "imgs/a.png")
    prepare.run(entry(raw, "hub-vqa", "vqa", allow_group_overlap=True), "toy")
    assert samples("test")["group_id"].to_list() == ["imgs/a.png"]


def test_hub_folder_without_shards(raw: Path) -> None:
    params = entry(raw, "hub-vqa", "vqa")
    assert refused(params).startswith("data: holds no shard {split}-*.parquet in ")
    shard(raw / "data/dev.parquet", [])
    assert refused(params).startswith(
        "dev.parquet: does not say its split; name shards {split}-00000-of-00001.parquet with one of train, val, test, training"
    )


# --- attacks: tables -----------------------------------------------------------------------------------------------


def test_a_long_cell_in_a_column_that_nobody_reads_does_no_harm(raw: Path) -> None:
    frame = pl.read_csv(labelled(raw) / "labels.csv").with_columns(report=pl.lit("x" * 200_000))
    frame.write_csv(raw / "labels.csv")
    prepare.run(entry(raw), "toy")
    assert card()["rows_read"] == 12


def test_a_cell_without_end_is_named_with_what_to_do(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CELL_CHARACTERS", 1000)
    with (labelled(raw) / "labels.csv").open("a") as stream:
        stream.write('"images/1.png,benign,train,p\n' + "x" * 2000)
    found = "labels.csv after row 13: has a cell of more than 1000 characters; close the quote that is open there, or remove the column"
    assert refused(entry(raw)) == found


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda text: text.replace("benign", "ben\0ign").encode(), r"6 mistakes: labels.csv row 2: label 'ben\x00ign' is not among the"),
        (lambda text: text.replace("benign", '"ben"ign').encode(), "labels.csv after row 1: is no CSV (',' expected after '\"'); fix"),
    ],
)
def test_table_of_another_encoding_or_with_nuls(raw: Path, change: Callable[[str], bytes], found: str) -> None:
    text = (labelled(raw) / "labels.csv").read_text()
    (raw / "labels.csv").write_bytes(change(text))
    assert refused(entry(raw)).startswith(found)


def test_line_ends_and_blank_lines_of_any_kind(raw: Path) -> None:
    prepare.run(entry(labelled(raw)), "toy")
    written = [path.read_bytes() for path in paths.data("toy")]
    lines = (raw / "labels.csv").read_text().splitlines()
    ends = ["\n", "\r\n", "\r", "\r\n\r\n", "\n\n\n"]
    (raw / "labels.csv").write_bytes("".join(line + ends[number % 5] for number, line in enumerate(lines)).encode())
    prepare.run(entry(raw), "toy")
    assert [path.read_bytes() for path in paths.data("toy")] == written


def _packed(path: Path, image: bytes, question: str, rows: int) -> None:
    """A shard that stores equal cells once."""
    images = pa.array([{"bytes": image, "path": None}], HUB_IMAGE)
    row = pa.table({"image": images, "question": [question], "answer": ["yes"]}, schema=HUB)
    path.parent.mkdir(exist_ok=True)
    with pq.ParquetWriter(path, HUB, compression="zstd", dictionary_pagesize_limit=2**28) as writer:
        writer.write_table(pa.concat_tables([row] * rows))


@pytest.mark.parametrize(("image", "question", "column"), [(3 * 2**20, 1, "image.bytes"), (1, 3 * 2**20, "question")])
def test_a_huge_cell_of_a_small_shard_is_not_read(
    raw: Path, monkeypatch: pytest.MonkeyPatch, image: int, question: int, column: str
) -> None:
    monkeypatch.setattr(limits, "MAX_COLUMN_BYTES", 2**20)
    _packed(raw / "data/test-00000.parquet", bytes(image), "x" * question, 1)
    message = refused(entry(raw, "hub-vqa", "vqa"))
    assert message.startswith(f"data/test-00000.parquet: column {column} unpacks from ")
    assert message.endswith(" bytes; remove its huge cells, or write it in smaller row groups")


def test_cells_that_a_shard_stores_once_are_not_all_in_memory(raw: Path) -> None:
    _packed(raw / "data/test-00000.parquet", bytes(8 * 2**20), "Is it?", 64)  # 512 MiB, read at a time
    tracemalloc.start()
    try:
        refused(entry(raw, "hub-vqa", "vqa", max_drops=0.9))
        assert tracemalloc.get_traced_memory()[1] < 150 * 2**20
    finally:
        tracemalloc.stop()


def test_more_in_the_struct_of_an_image_is_not_read(raw: Path) -> None:
    kind = pa.struct([*HUB_IMAGE, ("more", pa.list_(pa.list_(pa.int64())))])
    schema = pa.schema([("image", kind), *(HUB.field(name) for name in ("question", "answer"))])
    for split in ("train", "test"):
        rows = [
            {
                "image": {"bytes": picture(i + 3 * (split == "test")), "path": None, "more": [[0] * 500_000]},
                "question": "Is it?",
                "answer": "no",
            }
            for i in range(3)
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema), hub(raw) / f"data/{split}-00000.parquet")
    for file in (raw / "data").glob("*-of-*"):
        file.unlink()
    tracemalloc.start()
    try:
        prepare.run(entry(raw, "hub-vqa", "vqa"), "toy")
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [pa.list_(pa.int8()), pa.string(), pa.struct([("x", pa.binary())])])
def test_hub_image_of_another_type(raw: Path, kind: pa.DataType) -> None:
    schema = pa.schema([("image", pa.struct([("bytes", kind), ("path", pa.string())])), ("question", pa.string()), ("answer", pa.string())])
    hub(raw)
    pq.write_table(schema.empty_table(), raw / "data/test-00000-of-00001.parquet")
    assert "column 'image' holds struct<bytes: " in refused(entry(raw, "hub-vqa", "vqa", allow_group_overlap=True))


def test_parquet_text_that_is_not_utf8(raw: Path) -> None:
    frame = pl.read_csv(asked(raw) / "labels.csv").to_arrow()
    column = frame.column_names.index("question")
    broken = pa.array([b"\xff"] * frame.num_rows).cast(pa.binary()).view(pa.string())
    pq.write_table(frame.set_column(column, "question", broken), raw / "t.parquet")
    message = refused(entry(raw, task="vqa", options={"index": "t.parquet"}))
    assert message.startswith("t.parquet: is no readable Parquet file ('utf-8' codec can't decode byte 0xff")


@pytest.mark.timeout(60)
def test_what_is_no_file_in_a_class_folder_is_named(raw: Path) -> None:
    tree(raw, *(f"{split}/{name}/{i}.png" for split in ("train", "test") for name in CLASSES for i in range(3)))
    (raw / "train/benign/9.png").symlink_to(raw / "gone.png")
    assert refused(entry(raw, "imagefolder")).startswith("train/benign/9.png: the image file does not exist: ")
    (raw / "train/benign/9.png").unlink()
    os.mkfifo(raw / "train/benign/9.png")
    assert refused(entry(raw, "imagefolder")).startswith("train/benign/9.png: the image is a pipe, not a file: ")
    (raw / "train/benign/9.png").unlink()
    os.mkfifo(raw / "train/odd")
    assert refused(entry(raw, "imagefolder")) == "train/odd: is a file where folders of classes are expected; move it away"


# --- phantoms ------------------------------------------------------------------------------------------------------

FEW = {"train": 4, "val": 2, "test": 2}


@pytest.mark.parametrize("kind", phantoms.KINDS)
def test_phantom_patients_form_the_splits(raw: Path, kind: str) -> None:
    prepare.run(entry(None, "phantom", options={"kind": kind, "n_patients": FEW}), "toy")
    assert {split: samples(split)["group_id"].n_unique() for split in paths.SPLITS} == FEW
    drawn = list(phantoms.cohort(kind, 8, 0))
    assert sum(samples(split).height for split in paths.SPLITS) == len(drawn)
    assert [CLASSES[label] for label in samples("train")["label"]] == [CLASSES[image.label] for image in drawn[: samples("train").height]]
    assert card()["shared"] == []
    from medbench.datasets.images import decode, read_images

    stored = [decode(row.image) for batch in read_images(paths.images("toy")) for row in batch]
    assert all(np.array_equal(np.asarray(image), original.image) for image, original in zip(stored, drawn, strict=True))


@pytest.mark.parametrize("kind", questions.KINDS)
def test_phantom_questions(raw: Path, kind: str) -> None:
    prepare.run(entry(None, "phantom-vqa", "vqa", {"kind": kind, "n_patients": FEW}), "toy")
    assert {split: samples(split)["group_id"].n_unique() for split in paths.SPLITS} == FEW
    drawn = list(questions.cohort(kind, 8, 0))
    assert [*samples("train")["answer"], *samples("val")["answer"], *samples("test")["answer"]] == [sample.answer for sample in drawn]
    assert card()["images"]["distinct"] == len({(sample.patient, sample.index) for sample in drawn})


def test_phantom_seed_is_the_runs() -> None:
    layout = layouts.load_layout("phantom")
    options = layout.Options.model_validate({"kind": "radiology", "n_patients": FEW})
    first, second = (next(iter(layout.items(options, layouts.Source("toy", "diagnosis", None, CLASSES, seed)))) for seed in (0, 1))
    assert first.image != second.image


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        ("phantom", {"kind": "x", "n_patients": FEW}, "kind: must be one of radiology, pathology, dermatology, ophthalmology (found 'x')"),
        (
            "phantom",
            {"kind": "radiology", "n_patients": {**FEW, "val": 0}},
            "n_patients.val: Input should be greater than or equal to 2 (found 0)",
        ),
        ("phantom-vqa", {"kind": "radiology"}, "key 'n_patients' is missing"),
    ],
)
def test_phantom_options(layout: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(MedbenchError) as caught:
        layouts.read_options(layout, options, "toy")
    assert str(caught.value) == f"data set toy: options of layout {layout}: {message}; see docs/own-data.md"


def test_phantom_of_the_wrong_task() -> None:
    assert refused(entry(None, "phantom", options={"kind": "radiology", "n_patients": FEW}, classes=("a", "b", "c"))).startswith(
        "layout phantom: draws two"
    )
    assert refused(entry(None, "phantom-vqa", options={"kind": "radiology", "n_patients": FEW})).startswith(
        "layout phantom-vqa: asks questions"
    )


# --- what every layout is ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(Path(layouts.__file__).parent.glob("[a-z]*.py")), ids=lambda file: file.stem)
def test_every_layout_offers_what_prepare_calls(file: Path) -> None:
    layout = layouts.load_layout(file.stem.replace("_", "-"))
    assert all(hasattr(layout, name) for name in ("Options", "items", "index_files"))


# --- real data -----------------------------------------------------------------------------------------------------

REAL_SETS = [
    ("mednist", ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT"), 600, 300),
    ("radiology-organ", ("head", "chest", "abd"), 219, 95),
    ("bccd", ("no platelets", "platelets"), 292, 72),
]


@real
@pytest.mark.parametrize(("name", "classes", "n_train", "n_test"), REAL_SETS)
def test_real_diagnosis(raw: Path, name: str, classes: tuple[str, ...], n_train: int, n_test: int) -> None:
    prepare.run(entry(Path(str(REAL)) / name, classes=classes, allow_group_overlap=name == "mednist"), "toy")
    found = card()
    assert found["splits"]["train"]["samples"] + found["splits"]["val"]["samples"] == n_train
    assert found["splits"]["test"]["samples"] == n_test
    assert (found["drops"], found["images"]["converted"]) == ({}, {})


@real
def test_real_questions_of_bccd(raw: Path) -> None:
    prepare.run(entry(Path(str(REAL)) / "bccd", task="vqa", options={"index": "questions.csv"}), "toy")
    assert [card()["splits"][split]["answer_types"] for split in paths.SPLITS] == [{"closed": n, "open": n} for n in (410, 174, 144)]


@real
def test_real_vqa_rad(raw: Path) -> None:
    prepare.run(entry(Path(str(REAL)) / "vqa-rad", "hub-vqa", "vqa", allow_group_overlap=True), "toy")
    found = card()
    assert found["splits"]["train"]["samples"] + found["splits"]["val"]["samples"] == 1793
    assert found["splits"]["test"] == {
        "samples": 451,
        "groups": 203,
        "images": 203,
        "answer_types": {"closed": 251, "open": 200},
        "yes_no": 251,
    }
    for kind in ("exact-image", "exact-pixels", "group"):
        (row,) = (row for row in found["shared_as_published"] if (row["kind"], row["split"]) == (kind, "test"))
        assert (row["other_split"], row["shared"], row["total"]) == ("train", 202, 203)
    assert not set(samples("train")["image_id"]) & set(samples("val")["image_id"])
