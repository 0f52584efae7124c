"""prepare: tables and cards from raw files, every kind of bad input, all or nothing."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from medbench import paths, tables
from medbench.datasets import ingest, layouts
from medbench.datasets.images import decode, read_images
from medbench.errors import MedbenchError
from medbench.jobs import digests
from medbench.stages import prepare
from medbench.tasks.diagnosis import SamplesDiagnosis
from medbench.tasks.vqa import SamplesVqa
from tests.unit.test_data_helpers import CLASSES, LABELS, asked, card, edit, entry, hub, labelled, picture, samples, write_csv


def refused(params: prepare.Params) -> str:
    """The message of a run that must fail and leave nothing."""
    with pytest.raises(MedbenchError) as caught:
        prepare.run(params, "toy")
    assert [path for path in Path("results").rglob("*") if path.is_file()] == []
    assert not paths.card("toy").parent.exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- what comes out ------------------------------------------------------------------------------------------------


def test_diagnosis_tables_and_card(raw: Path) -> None:
    prepare.run(entry(labelled(raw)), "toy")
    for split in paths.SPLITS:
        tables.read(SamplesDiagnosis, paths.samples("toy", split))
    images = tables.read(tables.Images, paths.images("toy"))
    assert images.height == 12 and images["image"].to_list()[0] == (raw / "images/0.png").read_bytes()
    evaluated = {*samples("val")["image_id"], *samples("test")["image_id"]}
    assert set(images.filter("evaluated")["image_id"]) == evaluated
    found = card()
    assert found["splits"]["train"] == {"samples": 6, "groups": 6, "images": 6, "classes": {"benign": 3, "malign": 3}}
    assert found["splits"]["val"]["classes"] == {"benign": 1, "malign": 1}
    assert found["validation"] == {"origin": "cut from train", "share": 0.25, "stratified_by": "label"}
    assert (found["rows_read"], found["drops"], found["shared"]) == (12, {}, [])
    assert found["files"] == {name: digests.file_digest(paths.card("toy").with_name(name)) for name in found["files"]}
    assert sorted(found["files"]) == ["images.parquet", "test.parquet", "train.parquet", "val.parquet"]
    assert list(Path("results/.partial").iterdir()) == []


def test_vqa_tables_and_card(raw: Path) -> None:
    prepare.run(entry(asked(raw), task="vqa"), "toy")
    test = tables.read(SamplesVqa, paths.samples("toy", "test"))
    assert test["sample_id"].to_list()[:2] == ["6.png#0", "6.png#1"]
    assert test["is_yes_no"].to_list() == [True, False] * 3
    assert card()["splits"]["test"] == {"samples": 6, "groups": 3, "images": 3, "answer_types": {"closed": 3, "open": 3}, "yes_no": 3}
    assert not set(samples("train")["group_id"]) & set(samples("val")["group_id"])


def test_official_validation_is_kept(raw: Path) -> None:
    rows = [(f"{i}.png", CLASSES[i % 2], ("train", "train", "val", "val", "test", "test")[i % 6], f"p{i}") for i in range(12)]
    prepare.run(entry(labelled(raw, rows)), "toy")
    assert card()["validation"]["origin"] == "official"
    assert samples("val")["sample_id"].to_list() == ["2.png", "3.png", "8.png", "9.png"]


@pytest.mark.parametrize("threads", ["1", "3"])
def test_two_prepares_are_byte_equal(raw: Path, monkeypatch: pytest.MonkeyPatch, threads: str) -> None:
    params = entry(labelled(raw))
    prepare.run(params, "toy")
    first = {path: path.read_bytes() for path in paths.data("toy")}
    shutil.rmtree("results")
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    prepare.run(params, "toy")
    assert {path: path.read_bytes() for path in paths.data("toy")} == first


def test_seed_chooses_the_validation_split(raw: Path) -> None:
    chosen = set()
    for seed in range(5):
        prepare.run(entry(labelled(raw), seed=seed), "toy")
        chosen.add(tuple(samples("val")["group_id"]))
    assert len(chosen) > 1


def test_class_absent_from_test_is_recorded(raw: Path) -> None:
    rows = [(f"{i}.png", CLASSES[i % 2] if i < 8 else "benign", "train" if i < 8 else "test", f"p{i}") for i in range(12)]
    prepare.run(entry(labelled(raw, rows)), "toy")
    assert card()["classes_absent"] == {"train": [], "val": [], "test": ["malign"]}


def test_repeats_and_shared_images(raw: Path) -> None:
    labelled(raw)
    shutil.copy(raw / "images/0.png", raw / "images/1.png")  # within train, another label
    shutil.copy(raw / "images/9.png", raw / "images/8.png")  # within test
    Image.open(raw / "images/0.png").save(raw / "images/10.png", compress_level=1)  # other bytes, same pixels, in test
    assert (raw / "images/0.png").read_bytes() != (raw / "images/10.png").read_bytes()
    prepare.run(entry(raw), "toy")
    found = card()
    assert found["repeats"]["test"] == {"exact-image": {"samples": 1, "examples": ["images/9.png"]}}
    published = {(row["kind"], row["split"], row["other_split"]): row for row in found["shared_as_published"]}
    assert set(published) == {("exact-pixels", "train", "test"), ("exact-pixels", "test", "train")}
    row = published["exact-pixels", "test", "train"]
    assert (row["shared"], row["total"], row["examples"]) == (1, 3, ["images/10.png"])
    assert found["images"]["distinct"] == 10


def test_group_overlap_that_is_allowed_is_reported(raw: Path) -> None:
    prepare.run(entry(hub(raw), "hub-vqa", "vqa", allow_group_overlap=True), "toy")
    rows = [row for row in card()["shared_as_published"] if row["kind"] == "group"]
    assert [(row["split"], row["other_split"], row["shared"], row["total"]) for row in rows] == [
        ("train", "test", 1, 5),
        ("test", "train", 1, 2),
    ]
    assert not set(samples("train")["group_id"]) & set(samples("val")["group_id"])


# --- images --------------------------------------------------------------------------------------------------------


def _pixels(mode: str, dtype: Any, values: list[int]) -> bytes:
    stream = io.BytesIO()
    Image.frombytes(mode, (len(values), 1), np.array(values, dtype).tobytes()).save(stream, format="TIFF" if mode == "F" else "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "change"),
    [
        (picture(0), None),
        (picture(0, "L"), None),
        (picture(0, "RGBA"), None),
        (picture(0, "L", "JPEG"), None),
        (picture(0, "RGB", "JPEG"), None),
        (picture(0, "P"), None),
        (picture(0, "CMYK", "JPEG"), "mode CMYK"),
        (picture(0, "RGB", "BMP"), "format BMP"),
        (_pixels("I;16", "<u2", [0, 4095]), "mode I;16"),
    ],
)
def test_bytes_are_kept_unless_a_decoder_would_go_wrong(data: bytes, change: str | None) -> None:
    found = ingest.check(layouts.embed(data))
    assert isinstance(found, ingest.Checked)
    assert (found.change, found.image == data) == (change, change is None)
    assert found.image_id == layouts.embed(data).digest
    shown = decode(found.image)
    assert shown.mode == "RGB"


def test_one_picture_has_one_pixel_digest() -> None:
    colour = {_digest(picture(0)), _digest(picture(0, "RGB", "BMP")), _digest(picture(0, "RGBA")), _digest(picture(0, compress_level=1))}
    grey = Image.open(io.BytesIO(picture(0, "L")))
    as_rgb, wide = io.BytesIO(), io.BytesIO()
    grey.convert("RGB").save(as_rgb, format="PNG")
    Image.frombytes("L", (6, 8), grey.tobytes()).save(wide, format="PNG")
    greys = {_digest(picture(0, "L")), _digest(as_rgb.getvalue())}
    assert (len(colour), len(greys), len(colour | greys | {_digest(wide.getvalue()), _digest(picture(1))})) == (1, 1, 4)


def _digest(data: bytes) -> str:
    found = ingest.check(layouts.embed(data))
    assert isinstance(found, ingest.Checked)
    return found.pixel_digest


def test_twelve_bits_fill_eight() -> None:
    found = ingest.check(layouts.embed(_pixels("I;16", "<u2", [0, 16, 2048, 4095])))
    assert isinstance(found, ingest.Checked)
    assert np.asarray(Image.open(io.BytesIO(found.image)))[0].tolist() == [0, 1, 128, 255]


def test_floats_are_stretched() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.array([[-2.0, 0.0, 2.0]], np.float32)).save(stream, format="TIFF")
    found = ingest.check(layouts.embed(stream.getvalue()))
    assert isinstance(found, ingest.Checked)
    assert np.asarray(Image.open(io.BytesIO(found.image)))[0].tolist() == [0, 128, 255]


def test_exif_rotation_is_applied_and_recorded(raw: Path) -> None:
    labelled(raw)
    upright = Image.open(io.BytesIO(picture(0)))
    exif = Image.Exif()
    exif[ingest.ORIENTATION] = 6  # to be turned by 90 degrees clockwise
    upright.save(raw / "images/0.png", exif=exif)
    prepare.run(entry(raw), "toy")
    assert card()["images"]["converted"] == {"EXIF rotation": {"images": 1, "examples": ["labels.csv row 2"]}}
    stored = decode(next(read_images(paths.images("toy")))[0].image)
    assert np.array_equal(np.asarray(stored), np.rot90(np.asarray(upright), -1))


def test_images_are_read_in_order_and_in_batches(raw: Path) -> None:
    prepare.run(entry(labelled(raw)), "toy")
    ids = pl.read_parquet(paths.images("toy"))["image_id"].to_list()
    batches = list(read_images(paths.images("toy"), batch_size=5))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert [row.image_id for batch in batches for row in batch] == ids
    some = list(read_images(paths.images("toy"), {ids[7], ids[2]}, batch_size=5))
    assert [row.image_id for row in some[0]] == [ids[2], ids[7]]
    with pytest.raises(MedbenchError, match="the table does not exist"):
        next(read_images(Path("absent.parquet")))


def test_row_groups_bound_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "GROUP_IMAGES", 4)
    good = [ingest.Checked(str(i), "", i, b"x", None) for i in range(10)]
    ingest.write_table(tmp_path / "table", [(image, image.image_id == "3") for image in good])
    assert pl.read_parquet(tmp_path / "table")["evaluated"].arg_true().to_list() == [3]
    assert [len(group) for group in _groups(tmp_path / "table")] == [4, 4, 2]


def test_a_table_marked_anew_equals_one_written_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "GROUP_IMAGES", 300)
    good = [ingest.Checked(str(i), "", i, bytes(i % 7) * 2000, None) for i in range(1000)]
    written = ingest.write_table(tmp_path / "table", [(image, image.perceptual_hash % 3 == 0) for image in good])
    first = ingest.write_table(tmp_path / "other", [(image, False) for image in good])
    assert first.sha256 != written.sha256
    assert ingest.mark_evaluated(tmp_path / "other", written.columns["evaluated"].to_list()).sha256 == written.sha256
    assert (tmp_path / "other").read_bytes() == (tmp_path / "table").read_bytes()
    assert digests.file_digest(tmp_path / "table") == written.sha256
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other", "table"]


def test_images_that_turn_out_to_be_evaluated_are_marked(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled(raw)
    marked = []
    mark = ingest.mark_evaluated
    monkeypatch.setattr(ingest, "mark_evaluated", lambda *args: marked.append(args) or mark(*args))
    prepare.run(entry(raw), "toy")
    assert not marked  # known beforehand, as long as all files are good and different
    shutil.copy(raw / "images/9.png", raw / "images/0.png")  # of test; the image stands in train first
    prepare.run(entry(raw), "toy")
    assert len(marked) == 1
    table = pl.read_parquet(paths.images("toy"))
    used = {image for split in ("val", "test") for image in samples(split)["image_id"]}
    assert dict(zip(table["image_id"], table["evaluated"], strict=True)) == {image: image in used for image in table["image_id"]}


def _groups(path: Path) -> list[Any]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    return [file.read_row_group(i) for i in range(file.num_row_groups)]


# --- bad input -----------------------------------------------------------------------------------------------------

LEAVES = "leaves the folder or is empty; give a path inside raw_dir"
BAD_ROWS = [
    ("split", "dev", "split 'dev' is unknown; write one of train, val, test"),
    ("label", "weird", "label 'weird' is not among the classes benign, malign; fix the row or declare the class"),
    ("image", "images/none.png", "the image file does not exist; fix the row or raise max_drops"),
    ("image", "../raw/images/0.png", f"image path '../raw/images/0.png' {LEAVES}"),
    ("image", "/etc/hostname", f"image path '/etc/hostname' {LEAVES}"),
    ("image", "C:\\x.png", f"image path 'C:\\\\x.png' {LEAVES}"),
    ("image", "", f"image path '' {LEAVES}"),
    ("image", "images/0.png", "sample id 'images/0.png' stands already in labels.csv row 2; remove one of them, or give every row an id"),
    ("group", "", "the group is empty; name the patient, or repeat the image where samples are independent"),
]


@pytest.mark.parametrize(("column", "value", "message"), BAD_ROWS)
def test_bad_row(raw: Path, column: str, value: str, message: str) -> None:
    edit(labelled(raw), 5, column, value)
    assert refused(entry(raw)) == f"data set toy: labels.csv row 5: {message}"


def test_group_in_two_splits(raw: Path) -> None:
    edit(labelled(raw), 12, "group", "p3")
    assert refused(entry(raw)).startswith(
        "data set toy: labels.csv row 12: group 'p3' is in test here and in train in labels.csv row 5; fix the splits, or set"
    )


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda data: data[:-10], "the image does not decode (OSError: image file is truncated"),
        (lambda data: b"", "the file is no image (0 bytes)"),
        (lambda data: b"no image", "the file is no image (8 bytes)"),
    ],
)
def test_broken_image(raw: Path, damage: Callable[[bytes], bytes], found: str) -> None:
    file = labelled(raw) / "images/3.png"
    file.write_bytes(damage(picture(3, "RGB", "JPEG")))
    assert refused(entry(raw)).startswith(f"data set toy: labels.csv row 5: {found}")


def test_image_bomb_is_a_fault_of_its_own(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # a picture has 48, more than twice as many
    assert "labels.csv row 2: the image is too large to be decoded safely (Image size (48 pixels)" in refused(entry(labelled(raw)))


def test_drops_within_the_budget_are_counted(raw: Path) -> None:
    labelled(raw)
    (raw / "images/3.png").unlink()
    (raw / "images/9.png").write_bytes(b"broken")
    prepare.run(entry(raw, max_drops=0.17), "toy")
    found = card()
    assert found["rows_read"] == 12
    assert found["drops"]["missing-image"] == {
        "rows": 1,
        "splits": {"train": 1},
        "examples": ["labels.csv row 5: the image file does not exist"],
    }
    assert found["drops"]["broken-image"]["splits"] == {"test": 1}
    assert sum(found["splits"][split]["samples"] for split in paths.SPLITS) == 10
    assert samples("test").height == 3 and "images/9.png" not in samples("test")["sample_id"]


def test_drops_over_the_budget(raw: Path) -> None:
    labelled(raw)
    for name in ("3", "5", "7"):
        (raw / f"images/{name}.png").unlink()
    message = refused(entry(raw, max_drops=0.2))
    assert message.startswith(
        "data set toy: labels.csv row 9: the image file does not exist (drop 3; max_drops 0.2 admits 2 of 12 rows); fix"
    )


def test_a_missing_image_costs_every_row_that_uses_it(raw: Path) -> None:
    (asked(raw) / "4.png").unlink()
    assert "drop 2; max_drops 0.1 admits 1 of 18 rows" in refused(entry(raw, task="vqa", max_drops=0.1))
    prepare.run(entry(raw, task="vqa", max_drops=0.12), "toy")
    assert card()["drops"]["missing-image"]["rows"] == 2


@pytest.mark.parametrize("split", ["train", "test"])
def test_empty_split(raw: Path, split: str) -> None:
    kept = "train" if split == "test" else "test"
    labelled(raw, [(f"{i}.png", CLASSES[i % 2], kept, f"p{i}") for i in range(4)])
    assert (
        refused(entry(raw))
        == f"data set toy: split {split}: is empty; give it rows: train and test need some, val is cut from train where it has none"
    )


def test_split_emptied_by_drops(raw: Path) -> None:
    rows = [(f"{i}.png", CLASSES[i % 2], "test" if i == 11 else "train", f"p{i}") for i in range(12)]
    (labelled(raw, rows) / "11.png").unlink()
    assert "split test: is empty" in refused(entry(raw, max_drops=0.5))


def test_one_train_group_leaves_nothing_for_validation(raw: Path) -> None:
    labelled(raw, [(f"{i}.png", CLASSES[i % 2], "train" if i < 4 else "test", "p" if i < 4 else f"p{i}") for i in range(8)])
    assert "split val: is empty" in refused(entry(raw))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("question", " ", "labels.csv row 4: the question is empty; fix the row or raise max_drops"),
        ("answer", "", "labels.csv row 4: the answer is empty; fix the row or raise max_drops"),
        ("answer_type", "CLOSED", "labels.csv row 4: answer type 'CLOSED' is unknown; write one of open, closed"),
    ],
)
def test_bad_question(raw: Path, column: str, value: str, message: str) -> None:
    edit(asked(raw), 4, column, value)
    assert refused(entry(raw, task="vqa")) == f"data set toy: {message}"


def test_empty_answer_within_the_budget(raw: Path) -> None:
    edit(asked(raw), 4, "answer", "")
    prepare.run(entry(raw, task="vqa", max_drops=0.1), "toy")
    assert card()["drops"]["empty-answer"]["examples"] == ["labels.csv row 4: the answer is empty"]


def test_a_failure_leaves_earlier_outputs_alone(raw: Path) -> None:
    params = entry(labelled(raw))
    prepare.run(params, "toy")
    before = paths.card("toy").read_bytes()
    edit(raw, 5, "split", "dev")
    with pytest.raises(MedbenchError):
        prepare.run(params, "toy")
    assert paths.card("toy").read_bytes() == before


def test_the_last_row_is_checked_before_the_first_image_is_opened(raw: Path) -> None:
    labelled(raw)
    (raw / "images/0.png").unlink()
    edit(raw, 13, "split", "dev")
    assert "row 13: split 'dev'" in refused(entry(raw))


# --- properties ----------------------------------------------------------------------------------------------------

rows = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(CLASSES)), min_size=4, max_size=40)


@given(rows, st.floats(0.05, 0.9), st.integers(0, 3))
def test_held_out_groups_leave_some_in_every_stratum(rows: list[tuple[int, str]], share: float, seed: int) -> None:
    of_group = layouts.strata([(f"g{group}", label) for group, label in rows])
    chosen = layouts.held_out(of_group, share, str(seed))
    assert chosen <= set(of_group)
    assert chosen == layouts.held_out(dict(reversed(of_group.items())), share, str(seed))
    for label in CLASSES:
        members = {group for group, of in of_group.items() if of == label}
        if len(members) > 1:
            assert 0 < len(members & chosen) < len(members)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows, st.sets(st.integers(0, 9), max_size=4), st.sets(st.integers(0, 9), max_size=3), st.integers(0, 3))
def test_groups_never_cross_splits(raw: Path, rows: list[tuple[int, str]], test: set[int], val: set[int], seed: int) -> None:
    shutil.rmtree("results", ignore_errors=True)
    split = {group: "test" if group in test else "val" if group in val else "train" for group in range(10)}
    labelled(raw, [(f"{i}.png", label, split[group], f"g{group}") for i, (group, label) in enumerate(rows)])
    try:
        prepare.run(entry(raw, seed=seed), "toy")
    except MedbenchError as error:
        assert "is empty" in error.found
        assert not paths.card("toy").exists()
        return
    groups = {name: set(samples(name)["group_id"]) for name in paths.SPLITS}
    assert all(groups.values())
    assert sum(map(len, groups.values())) == len(set.union(*groups.values())) == len({group for group, _ in rows})
    assert sum(samples(name).height for name in paths.SPLITS) == len(rows)


def test_params_hold_what_decides_and_are_json(raw: Path) -> None:
    params = entry(labelled(raw))
    text = prepare.STAGE.fingerprint(params)
    assert json.loads(text)["params"]["options"] == {"index": "labels.csv"}


def test_unused_columns_and_ids(raw: Path) -> None:
    labelled(raw)
    rows = [("images/0.png", CLASSES[i % 2], "train" if i < 8 else "test", f"p{i}", f"s{i}", "x") for i in range(12)]
    write_csv(raw / "labels.csv", (*LABELS, "id", "age"), rows)
    prepare.run(entry(raw), "toy")
    assert samples("test")["sample_id"].to_list() == ["s8", "s9", "s10", "s11"]


def test_no_job_on_data_imports_torch() -> None:
    names = ", ".join(layouts.module_name(file.stem) for file in Path(layouts.__file__).parent.glob("[a-z]*.py"))
    code = f"import sys, {names}, medbench.stages.prepare, medbench.stages.overlap; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
