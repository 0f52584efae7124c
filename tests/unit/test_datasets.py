"""Layouts: what each yields from its files, and what each says of files that are wrong."""

import os
import tracemalloc
from collections.abc import Callable
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


@pytest.mark.parametrize("missing", LABELS)
def test_table_without_a_column(raw: Path, missing: str) -> None:
    labelled(raw)
    pl.read_csv(raw / "labels.csv").rename({missing: "other"}).write_csv(raw / "labels.csv")
    found = ", ".join("other" if column == missing else column for column in LABELS)
    expected = f"labels.csv: column '{missing}' is missing (found {found}); a diagnosis table has image, label, split, group"
    assert refused(entry(raw)) == expected


def test_table_of_the_wrong_task(raw: Path) -> None:
    assert "column 'question' is missing" in refused(entry(labelled(raw), task="vqa"))


def test_table_that_is_empty_or_absent(raw: Path) -> None:
    assert refused(entry(raw)) == f"labels.csv: does not exist in {raw}; put the table there or set options.index"
    (raw / "labels.csv").write_text("")
    assert "column 'image' is missing (found none)" in refused(entry(raw))


def test_table_with_a_column_twice(raw: Path) -> None:
    write_csv(raw / "labels.csv", (*LABELS, "label"), [])
    assert refused(entry(raw)) == "labels.csv: column 'label' stands twice; keep one of them"


def test_table_with_a_short_row(raw: Path) -> None:
    with (labelled(raw) / "labels.csv").open("a") as stream:
        stream.write("images/1.png,benign\n")
    assert refused(entry(raw)) == "labels.csv row 14: has 2 values for 4 columns; quote values that hold commas"


def test_table_that_is_not_utf8(raw: Path) -> None:
    with (labelled(raw) / "labels.csv").open("ab") as stream:
        stream.write("images/1.png,b\xf6sartig,train,p\n".encode("latin-1"))
    message = refused(entry(raw))
    assert message.startswith("labels.csv after row ") and message.endswith("is not UTF-8 (byte 0xf6); save it as UTF-8")


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
    frame = pl.read_csv(asked(raw) / "labels.csv").with_columns(answer=pl.lit(3, pl.Int64))
    frame.write_parquet(raw / "t.parquet")
    assert (
        refused(entry(raw, task="vqa", options={"index": "t.parquet"}))
        == "t.parquet: column 'answer' holds int64, not text; write it as text"
    )


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


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("train/benign/0.png", "dev/benign/0.png"), {}, "dev/benign/0.png: split 'dev' is unknown"),
        (("benign/0.png", "other/1.png"), {}, "other/1.png: label 'other' is not among the classes benign, malign"),
        (("benign/0.png", "1.png"), {}, "1.png: is a file where folders of classes are expected; move it away"),
        (("benign/0.png",), {"group": "^p([0-9])"}, "benign/0.png: the pattern ^p([0-9]) finds no group in it; fix options.group"),
    ],
)
def test_imagefolder_with_strangers(raw: Path, names: tuple[str, ...], options: dict[str, str], message: str) -> None:
    assert refused(entry(tree(raw, *names), "imagefolder", options=options)).startswith(message)


def test_imagefolder_needs_one_pair_of_parentheses() -> None:
    with pytest.raises(MedbenchError, match=r"options of layout imagefolder: group: needs exactly one pair of parentheses"):
        entry(None, "imagefolder", options={"group": "x"})


def test_imagefolder_index_is_its_folders(raw: Path) -> None:
    tree(raw, "train/benign/0.png", ".git/x/1.png")
    layout = layouts.load_layout("imagefolder")
    source = layouts.Source("toy", "diagnosis", raw, CLASSES, 0)
    assert layout.index_files(layout.Options(), source) == [raw, raw / "train", raw / "train/benign"]


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


def test_hub_images_shared_by_splits_must_be_allowed(raw: Path) -> None:
    message = refused(entry(hub(raw), "hub-vqa", "vqa"))
    assert message.startswith("data/train-00000-of-00002.parquet row 1: group ") and "allow_group_overlap" in message


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
    assert refused(params) == f"data/train-00001-of-00002.parquet row 2: {found}; fix the row or raise max_drops"


def test_hub_row_without_image(raw: Path) -> None:
    rows = [{"image": None, "question": "why?", "answer": "yes"}]
    pq.write_table(pa.Table.from_pylist(rows, HUB), hub(raw) / "data/test-00000-of-00001.parquet")
    params = entry(raw, "hub-vqa", "vqa")
    assert refused(params) == "data/test-00000-of-00001.parquet row 1: the file is no image (0 bytes); fix the row or raise max_drops"


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
        "dev.parquet: does not say its split; name shards {split}-00000-of-00001.parquet with one of train, validation"
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
        (lambda text: text.encode("utf-16"), "labels.csv after row 1: is not UTF-8 (byte 0xff); save it as UTF-8"),
        (lambda text: text.encode("utf-16-le"), "labels.csv: is not UTF-8 (its header holds NULs, as UTF-16 does); save it as UTF-8"),
        (lambda text: text.encode("utf-16-be"), "labels.csv: is not UTF-8 (its header holds NULs, as UTF-16 does); save it as UTF-8"),
        (lambda text: text.replace("benign", "ben\0ign").encode(), r"labels.csv row 2: label 'ben\x00ign' is not among the classes benign"),
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
    assert refused(entry(raw, "imagefolder")) == "train/benign/9.png: the image file does not exist; fix the row or raise max_drops"
    (raw / "train/benign/9.png").unlink()
    os.mkfifo(raw / "train/benign/9.png")
    assert refused(entry(raw, "imagefolder")) == "train/benign/9.png: the image is a pipe, not a file; fix the row or raise max_drops"
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
    assert str(caught.value) == f"data set toy: options of layout {layout}: {message}; see config/schema.json"


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
    prepare.run(entry(Path(str(REAL)) / name, classes=classes), "toy")
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
