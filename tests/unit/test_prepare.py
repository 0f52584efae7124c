"""prepare: tables and cards from raw files, every kind of bad input, all or nothing."""

import ast
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xxhash
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from medbench import cli, config, paths, tables
from medbench.datasets import ingest, layouts
from medbench.datasets.images import decode, read_images
from medbench.errors import MedbenchError
from medbench.jobs import digests, limits
from medbench.stages import prepare
from medbench.tasks.diagnosis import SamplesDiagnosis
from medbench.tasks.vqa import SamplesVqa
from tests.conftest import ROOT
from tests.unit.test_data_helpers import CLASSES, LABELS, asked, card, edit, entry, hub, labelled, picture, samples, shard, write_csv


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


@pytest.mark.parametrize(
    ("answers", "kind", "said"),
    [
        (
            ("positiv", "negativ"),
            "closed",
            "3 of 3 closed answers are not yes/no in a known language, nor an option that the question names",
        ),
        (("ja", "nein"), "closed", None),
        (("\u662f", "\u5426"), "closed", None),
        (("red", "blue"), "closed", None),  # the question names them
        (("ja", "nein"), "open", "3 of 6 open answers are yes or no"),
    ],
)
def test_closed_answers_that_are_no_option_are_said(raw: Path, answers: tuple[str, str], kind: str, said: str | None) -> None:
    """When they are prepared, and at every start."""
    asked(raw)
    for row in range(0, 18, 2):
        edit(raw, row + 2, "answer", answers[row // 2 % 2])
        edit(raw, row + 2, "question", "Is it red or blue?" if "red" in answers else "Is it red?")
        edit(raw, row + 2, "answer_type", kind)
    params = entry(raw, task="vqa")
    prepare.run(params, "toy")
    lines = prepare.STAGE.notes(params, "toy")
    assert [line.split(" (first: ")[0] for line in lines] == ([said] if said else [])
    assert all(repr(answers[0]) in line for line in lines)
    chosen = config.from_files([ROOT / "config" / "config.yaml"], ROOT)
    shutil.move(paths.samples("toy", "test").parent, paths.samples("phantom-vqa-radiology", "test").parent)
    warned = [line for line in cli.warnings(chosen, [], False, lambda *job: None) if line.startswith("HARD TO READ")]
    assert warned == [f"HARD TO READ: phantom-vqa-radiology: {line}" for line in lines]


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
    """A set that is published with equal images in two splits."""
    labelled(raw)
    shutil.copy(raw / "images/0.png", raw / "images/2.png")  # within train
    shutil.copy(raw / "images/9.png", raw / "images/11.png")  # within test
    Image.open(raw / "images/0.png").save(raw / "images/10.png", compress_level=1)  # other bytes, same pixels, in test
    assert (raw / "images/0.png").read_bytes() != (raw / "images/10.png").read_bytes()
    prepare.run(entry(raw, allow_group_overlap=True), "toy")
    found = card()
    assert found["repeats"]["test"] == {"exact-image": {"samples": 1, "examples": ["images/11.png"]}}
    published = {(row["kind"], row["split"], row["other_split"]): row for row in found["shared_as_published"]}
    assert set(published) == {(kind, *way) for kind in ("exact-pixels", "group") for way in (("train", "test"), ("test", "train"))}
    row = published["exact-pixels", "test", "train"]
    assert (row["shared"], row["total"], row["examples"]) == (1, 3, ["images/10.png"])
    assert found["images"]["distinct"] == 10


# --- equal images --------------------------------------------------------------------------------------------------


def again(raw: Path, name: str, other: str, how: str) -> None:
    """The picture of `other` in the file `name` too: byte for byte, or encoded otherwise."""
    if how == "bytes":
        shutil.copy(raw / other, raw / name)
    else:
        Image.open(raw / other).save(raw / name, compress_level=1)


EQUALLY = pytest.mark.parametrize("how", ["bytes", "pixels"])


@EQUALLY
def test_one_image_with_two_labels_is_named(raw: Path, how: str) -> None:
    again(labelled(raw), "images/3.png", "images/0.png", how)
    first = "labels.csv row 2: its image has the label 'benign' here and 'malign' in labels.csv row 5"
    second = "labels.csv row 5: its image has the label 'malign' here and 'benign' in labels.csv row 2"
    assert refused(entry(raw)).startswith(f"data set toy: 2 mistakes: {first}; {second}; fix the row or raise max_drops")
    prepare.run(entry(raw, max_drops=0.2), "toy")  # nobody knows which is right: both are left out
    assert card()["drops"]["contradictory-label"] == {"rows": 2, "splits": {"train": 2}, "examples": [first, second]}
    assert not {"images/0.png", "images/3.png"} & {one for split in paths.SPLITS for one in samples(split)["sample_id"]}


def test_one_row_repeated_with_another_label_is_named(raw: Path) -> None:
    rows = [(f"images/{i}.png", CLASSES[i % 2], "train" if i < 8 else "test", f"p{i}", f"s{i}") for i in range(12)]
    write_csv(labelled(raw) / "labels.csv", (*LABELS, "id"), [*rows, ("images/1.png", "benign", "train", "p1", "s12")])
    assert "2 mistakes: labels.csv row 3: its image has the label 'malign' here and 'benign' in labels.csv row 14" in refused(entry(raw))


@EQUALLY
@pytest.mark.parametrize("folders", [("{name}",), ("train/{name}", "test/{name}")])
def test_one_image_in_two_class_folders_is_named(raw: Path, how: str, folders: tuple[str, ...]) -> None:
    for seed, name in enumerate(f"{folder}/{i}.png".format(name=name) for folder in folders for name in CLASSES for i in range(6)):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(picture(seed))
    one, other = (f"{folders[0]}/2.png".format(name=name) for name in CLASSES)
    again(raw, other, one, how)
    assert f"2 mistakes: {one}: its image has the label 'benign' here and 'malign' in {other}" in refused(entry(raw, "imagefolder"))


def test_one_closed_question_with_two_answers_is_named(raw: Path) -> None:
    """Whatever the case; an open question has several right answers."""
    rows = [(f"{i}.png", "Is it red?", "yes", "closed", "train" if i < 6 else "test", f"p{i}") for i in range(9)]
    asked(raw)
    write_csv(
        raw / "labels.csv",
        ("image", "question", "answer", "answer_type", "split", "group"),
        [*rows, ("2.png", "is it  RED", "No.", "closed", "train", "p2")],
    )
    assert "labels.csv row 4: its image has the answer 'yes' here and 'No.' in labels.csv row 11" in refused(entry(raw, task="vqa"))
    for answer, kind in (("Yes.", "closed"), ("rather not", "open")):
        write_csv(
            raw / "labels.csv",
            ("image", "question", "answer", "answer_type", "split", "group"),
            [*rows, ("2.png", "is it red?", answer, kind, "train", "p2")],
        )
        prepare.run(entry(raw, task="vqa"), "toy")
        assert card()["rows_read"] == 10


def test_hub_rows_that_contradict_each_other_are_named(raw: Path) -> None:
    shard(raw / "data/train-00000-of-00001.parquet", [(i // 2, f"{i}.png", "is it red?", "yes" if i in (2, 5) else "no") for i in range(8)])
    shard(raw / "data/test-00000-of-00001.parquet", [(9, "9.png", "is it red?", "yes")])
    assert "4 mistakes: data/train-00000-of-00001.parquet row 3: its image has the answer 'yes' here and 'no' in" in refused(
        entry(raw, "hub-vqa", "vqa")
    )


@EQUALLY
def test_equal_images_are_one_group(raw: Path, how: str) -> None:
    """Two patients, one image: no bootstrap draws them apart, and no split parts them."""
    again(labelled(raw), "images/10.png", "images/8.png", how)
    for seed in range(4):
        again(raw, "images/2.png", "images/0.png", how)
        prepare.run(entry(raw, seed=seed), "toy")
        group_of = {name: group for split in paths.SPLITS for name, group in samples(split).select("sample_id", "group_id").iter_rows()}
        assert (
            group_of["images/8.png"] == group_of["images/10.png"] == "p8" and group_of["images/0.png"] == group_of["images/2.png"] == "p0"
        )
        in_val = set(samples("val")["sample_id"])
        assert ("images/0.png" in in_val) == ("images/2.png" in in_val)
        assert card()["equal_images"] == {"put into one group": {"rows": 2, "examples": ["labels.csv row 4", "labels.csv row 12"]}}


@EQUALLY
def test_equal_images_in_two_splits_that_a_table_names_are_refused(raw: Path, how: str) -> None:
    again(labelled(raw), "images/10.png", "images/0.png", how)
    assert refused(entry(raw)) == (
        "data set toy: labels.csv row 12: its image is in test here, and the equal one of labels.csv row 2 in train; "
        "keep one of them, or give both one split, or set allow_group_overlap where the set is published so"
    )


def test_equal_images_in_two_splits_of_a_published_set_are_reported(raw: Path) -> None:
    """A set whose counts are published is taken as it is: a reader of the report sees what its splits share."""
    again(labelled(raw), "images/10.png", "images/0.png", "bytes")
    prepare.run(entry(raw, expected={"train": 8, "val": 0, "test": 4}), "toy")
    kinds = {(row["kind"], row["split"], row["other_split"]) for row in card()["shared_as_published"]}
    assert ("exact-image", "test", "train") in kinds


@EQUALLY
def test_splits_that_are_drawn_never_part_equal_images(raw: Path, how: str) -> None:
    """Of an imagefolder and of a table, for any seed, chains of patients included."""
    rows = [(f"{CLASSES[i % 2]}/{i}.png", CLASSES[i % 2], "x", f"p{i // 2 * 2 + i % 2}") for i in range(40)]
    labelled(raw, rows)
    for i in range(2, 16, 2):
        again(raw, f"benign/{i}.png", "benign/0.png", how)
    write_csv(raw.parent / "labels.csv", ("image", "label", "group"), [(image, label, group) for image, label, _, group in rows])
    (raw / "labels.csv").unlink()
    for seed in range(5):
        for layout in ("imagefolder", "table"):
            if layout == "table":
                shutil.copy(raw.parent / "labels.csv", raw / "labels.csv")
            prepare.run(entry(raw, layout, seed=seed), "toy")
            (raw / "labels.csv").unlink(missing_ok=True)
            (holder,) = [split for split in paths.SPLITS if "benign/0.png" in samples(split)["sample_id"]]
            assert {f"benign/{i}.png" for i in range(0, 16, 2)} <= set(samples(holder)["sample_id"])
            assert (
                not [row for row in card()["shared"] if row["kind"] != "group"]
                and sum(samples(split).height for split in paths.SPLITS) == 40
            )


# --- tokens of models ----------------------------------------------------------------------------------------------

IMAGE_TOKENS = [
    "<image>\n{}", "{} <image>", "<IMAGE> {}", "<image 1>{}", "<image1>\n<image2>\n{}", "<img>{}", "<Image></Image>{}", "[IMG]{}",
    "<|vision_start|><|image_pad|><|vision_end|>{}", "<start_of_image>{}", "<image_soft_token> {}", "<IMG_CONTEXT>{}", "<|image_1|>\n{}",
    "<im_start><im_patch><im_end>{}", "<|image|>{}", "<image_placeholder>\n{}", "<video>\n{}", "<ImageHere>{}", "<|video_pad|>{}",
]  # fmt: skip


@pytest.mark.parametrize("token", IMAGE_TOKENS)
def test_tokens_for_an_image_leave_a_question(raw: Path, token: str) -> None:
    edit(asked(raw), 14, "question", token.format("Is it red?"))
    prepare.run(entry(raw, task="vqa"), "toy")
    assert samples("test")["question"].to_list()[0] == "Is it red?"
    assert card()["texts"] == {"a token for an image was removed": {"rows": 1, "examples": ["labels.csv row 14"]}}


@pytest.mark.parametrize(
    "text", ["Is <5 cm or >3 cm?", "a < b > c", "Which image [left] is it?", "<imaging> of the head?", "Image: what?", "2|3|4?"]
)
def test_questions_that_look_like_tokens_stay(raw: Path, text: str) -> None:
    edit(asked(raw), 14, "question", text)
    prepare.run(entry(raw, task="vqa"), "toy")
    assert samples("test")["question"].to_list()[0] == text and card()["texts"] == {}


@pytest.mark.parametrize("column", ["question", "answer"])
@pytest.mark.parametrize(
    "token",
    ["<|im_start|>user", "<|im_end|>", "</s>", "<s>", "[INST]", "<start_of_turn>", "<|eot_id|>", "<eos>", "<|endoftext|>", "<<SYS>>"],
)
def test_tokens_of_a_chat_are_refused(raw: Path, column: str, token: str) -> None:
    edit(asked(raw), 14, column, f"yes{token}")
    said = token.removesuffix("user")
    message = f"labels.csv row 14: the {column} holds {said!r}, which some models take for the end or begin of a turn; fix the row or raise"
    assert refused(entry(raw, task="vqa")).startswith(f"data set toy: {message}")
    prepare.run(entry(raw, task="vqa", max_drops=0.1), "toy")
    assert card()["drops"]["model-token"]["rows"] == 1


def test_tokens_in_hub_shards_leave_too(raw: Path) -> None:
    shard(raw / "data/train-00000-of-00001.parquet", [(i, f"{i}.png", "<image>\nis it red?", "yes") for i in range(4)])
    shard(raw / "data/test-00000-of-00001.parquet", [(9, "9.png", "<image>", "yes"), (8, "8.png", "is it?", "no")])
    assert "row 1: the question is empty" in refused(entry(raw, "hub-vqa", "vqa"))
    prepare.run(entry(raw, "hub-vqa", "vqa", max_drops=0.2), "toy")
    assert set(samples("train")["question"]) == {"is it red?"}
    assert card()["texts"]["a token for an image was removed"]["rows"] == 5


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


@pytest.mark.parametrize("place", [(0, 0), (0, 29), (1, 0), (3, 7), (39, 29)])
@pytest.mark.parametrize("channel", range(3))
def test_one_coloured_pixel_anywhere_keeps_a_picture_from_being_grey(
    channel: int, place: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "STRIP", 100)  # three of forty rows
    grey = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=2)
    assert ingest._digests(Image.fromarray(pixels)) == ingest._digests(Image.fromarray(grey))
    pixels[(*place, channel)] ^= 1
    found = ingest._digests(Image.fromarray(pixels))
    assert found[0] == xxhash.xxh3_128(b"30x40x3\n" + pixels.tobytes()).hexdigest()


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
    own = next(name for name in ("images/1.png", "images/3.png") if name in set(samples("train")["sample_id"]))
    shutil.copy(raw / "images/9.png", raw / own)  # of test; the image stands in train first
    prepare.run(entry(raw, allow_group_overlap=True), "toy")
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
LEFT_OUT = "fix the row or raise max_drops, the share of rows that may be left out (now 0: 0 of 18)"
BAD_ROWS = [
    ("split", "late", "split 'late' is unknown; write one of train, val, test"),
    ("label", "weird", "label 'weird' is not among the classes benign, malign; fix the row or declare the class"),
    ("image", "../raw/images/0.png", f"image path '../raw/images/0.png' {LEAVES}"),
    ("image", "", f"image path '' {LEAVES}"),
    ("image", "images/0.png", "sample id 'images/0.png' stands already in labels.csv row 2; remove one of them, or give every row an id"),
    ("group", "", "the group is empty; name the patient, or repeat the image where samples are independent"),
]


@pytest.mark.parametrize(("column", "value", "message"), BAD_ROWS)
def test_bad_row(raw: Path, column: str, value: str, message: str) -> None:
    edit(labelled(raw), 5, column, value)
    assert refused(entry(raw)) == f"data set toy: labels.csv row 5: {message}"


@pytest.mark.parametrize("path", ["/etc/hostname", "C:\\x.png", "C:/x.png", "//server/share/x.png"])
def test_an_absolute_path_elsewhere(raw: Path, path: str) -> None:
    edit(labelled(raw), 5, "image", path)
    name = path.replace("\\", "/")
    assert refused(entry(raw)).startswith(
        f"data set toy: labels.csv row 5: image path {name!r} is absolute, and not in {raw}; set options.image_root"
    )


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


def _noise(kind: str, **save: Any) -> bytes:
    stream = io.BytesIO()
    thumbnail = Image.new("RGB", (8, 8))
    thumbnail.save(stream, "JPEG")
    exif = b"Exif\0\0" + stream.getvalue()  # an end of its own before the pixels
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind, **({"exif": exif} if kind == "JPEG" else {}), **save)
    return stream.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 1])
def test_a_jpeg_that_is_filled_up_with_zeros_is_cut_off(kept: float, progressive: bool) -> None:
    """As an interrupted download leaves it; libjpeg decodes the zeros."""
    data = _noise("JPEG", progressive=progressive)
    n = int(kept * (len(data) - 2))
    found = ingest.check(layouts.embed(data[:n] + bytes(len(data) - n + 1000)))
    assert isinstance(found, ingest.Fault) and found.detail.endswith("image file is truncated: no end (FF D9) follows its pixels)")


@pytest.mark.parametrize("behind", [b"", b"\0" * 1000, b"\xff" * 9, b"text", _noise("JPEG")])
@pytest.mark.parametrize("fill", [b"", b"\xff" * 5])
def test_what_follows_the_end_of_a_jpeg_does_no_harm(behind: bytes, fill: bytes) -> None:
    data = _noise("JPEG")
    found = ingest.check(layouts.embed(data[:2] + fill + data[2:] + behind))
    assert isinstance(found, ingest.Checked) and found.change is None


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[: len(data) // 2] + bytes(len(data) // 2 + 1)])
@pytest.mark.parametrize("options", [{}, {"big_tiff": True}])
def test_a_tiff_without_its_directory_is_cut_off(damage: Callable[[bytes], bytes], options: dict[str, Any]) -> None:
    data = _noise("TIFF", compression="tiff_lzw", **options)
    assert isinstance(ingest.check(layouts.embed(data)), ingest.Checked)
    found = ingest.check(layouts.embed(damage(data)))
    assert found == ingest.Fault("broken-image", "the file is a TIFF that is cut off: it has no directory")


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
    assert message == (
        f"data set toy: 3 mistakes: labels.csv row 5: the image file does not exist: {raw}/images/3.png; "
        f"labels.csv row 7: the image file does not exist: {raw}/images/5.png; "
        f"labels.csv row 9: the image file does not exist: {raw}/images/7.png; "
        "fix the row or raise max_drops, the share of rows that may be left out (now 0.2: 2 of 12)"
    )


def test_a_missing_image_costs_every_row_that_uses_it(raw: Path) -> None:
    (asked(raw) / "4.png").unlink()
    assert "(now 0.1: 1 of 18)" in refused(entry(raw, task="vqa", max_drops=0.1))
    prepare.run(entry(raw, task="vqa", max_drops=0.12), "toy")
    assert card()["drops"]["missing-image"]["rows"] == 2


NEEDED = "is empty; give it rows: test needs some, train too unless test is all, and val is cut from train where it has none"


@pytest.mark.parametrize(("kept", "empty"), [(("train",), "test"), (("val", "test"), "train"), (("train", "val"), "test")])
def test_empty_split(raw: Path, kept: tuple[str, ...], empty: str) -> None:
    labelled(raw, [(f"{i}.png", CLASSES[i // 4 % 2], kept[i % len(kept)], f"p{i}") for i in range(8)])
    assert refused(entry(raw)) == f"data set toy: split {empty}: {NEEDED}"


@pytest.mark.parametrize("task", ["diagnosis", "vqa"])
def test_a_set_may_be_for_testing_alone(raw: Path, task: str) -> None:
    if task == "vqa":
        frame = pl.read_csv(asked(raw) / "labels.csv").with_columns(split=pl.lit("test"))
        frame.write_csv(raw / "labels.csv")
    else:
        labelled(raw, [(f"{i}.png", CLASSES[i % 2], "test", f"p{i}") for i in range(8)])
    prepare.run(entry(raw, task=task), "toy")
    n = {"diagnosis": 8, "vqa": 18}[task]
    assert [samples(split).height for split in paths.SPLITS] == [0, 0, n]
    assert pl.read_parquet(paths.images("toy"))["evaluated"].all()
    pl.read_csv(raw / "labels.csv").drop("split").write_csv(raw / "labels.csv")
    prepare.run(entry(raw, task=task, options={"test": 1}), "toy")
    assert [samples(split).height for split in paths.SPLITS] == [0, 0, n]


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
        (
            "question",
            " ",
            f"labels.csv row 4: the question is empty; {LEFT_OUT}",
        ),
        (
            "answer",
            "",
            f"labels.csv row 4: the answer is empty; {LEFT_OUT}",
        ),
        ("answer_type", "shut", "labels.csv row 4: answer type 'shut' is unknown; write one of open, closed"),
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
    edit(raw, 5, "split", "late")
    with pytest.raises(MedbenchError):
        prepare.run(params, "toy")
    assert paths.card("toy").read_bytes() == before


def test_the_last_row_is_checked_before_the_first_image_is_opened(raw: Path) -> None:
    labelled(raw)
    (raw / "images/0.png").unlink()
    edit(raw, 13, "split", "late")
    assert "row 13: split 'late'" in refused(entry(raw))


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
@example([(0, CLASSES[0])] * 4, {0}, set(), 0)  # for testing alone
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
    is_test_only = all(split[group] == "test" for group, _ in rows)
    assert [name for name, found in groups.items() if not found] == (["train", "val"] if is_test_only else [])
    assert sum(map(len, groups.values())) == len(set.union(*groups.values())) == len({group for group, _ in rows})
    assert sum(samples(name).height for name in paths.SPLITS) == len(rows)


def test_params_hold_what_decides_and_are_json(raw: Path) -> None:
    params = entry(labelled(raw))
    text = prepare.STAGE.fingerprint(params)
    assert json.loads(text)["params"]["options"]["index"] == "labels.csv"


def test_unused_columns_and_ids(raw: Path) -> None:
    labelled(raw)
    rows = [(f"images/{i}.png", CLASSES[i % 2], "train" if i < 8 else "test", f"p{i}", f"s{i}", "x") for i in range(12)]
    write_csv(raw / "labels.csv", (*LABELS, "id", "age"), rows)
    prepare.run(entry(raw), "toy")
    assert samples("test")["sample_id"].to_list() == ["s8", "s9", "s10", "s11"]


def test_no_job_on_data_imports_torch() -> None:
    names = ", ".join(layouts.module_name(file.stem) for file in Path(layouts.__file__).parent.glob("[a-z]*.py"))
    code = f"import sys, {names}, medbench.stages.prepare, medbench.stages.overlap; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


# --- attacks: images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM"])
def test_formats_in_use_are_read(kind: str) -> None:
    assert isinstance(ingest.check(layouts.embed(picture(1, kind=kind))), ingest.Checked)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (picture(1, kind="EPS"), "EPS"), (picture(1, kind="ICO"), "ICO"), (picture(1, kind="PCX"), "PCX"), (picture(1, kind="PDF"), "PDF"),
        (picture(1, kind="DDS"), "DDS"), (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"), (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_another_format_is_named_and_no_program_is_started(raw: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, name: str) -> None:
    (raw / "bin").mkdir()
    (raw / "bin/gs").write_text(f"#!/bin/sh\ntouch {raw}/started\n")
    (raw / "bin/gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(raw / "bin"), prepend=os.pathsep)
    (labelled(raw) / "images/3.png").write_bytes(data)
    found = "data set toy: labels.csv row 5: the file is {}, not PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, PPM or DICOM; fix the row"
    assert refused(entry(raw)).startswith(found.format(name))
    assert not (raw / "started").exists()
    with pytest.raises(UnidentifiedImageError, match=f"is {name}, not"):  # also of a stored image
        decode(data)


def test_one_module_opens_images() -> None:
    root = Path(ingest.__file__).parents[1]
    calls = [
        (file.relative_to(root).as_posix(), node.func.attr)
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "Image" and node.func.attr == "open"
    ]  # fmt: skip
    assert calls == [("jobs/imagefile.py", "open")]


def _png_of(side: int, *chunks: bytes) -> bytes:
    """A PNG whose header claims `side` x `side` grey pixels; `chunks` follow the header."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IDAT", zlib.compress(bytes(72))) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _claiming(kind: str, side: int) -> bytes:
    """An image of a few bytes whose header claims `side` x `side` pixels."""
    if kind == "PNG":
        return _png_of(side)
    data = picture(1, kind=kind, **({"lossless": True} if kind == "WEBP" else {}))
    if kind == "WEBP":
        begin = data.index(b"\x2f", 20) + 1
        return data[:begin] + (side - 1 | (side - 1) << 14).to_bytes(4, "little") + data[begin + 4 :]
    if kind == "PPM":
        return data.replace(b"8 6", f"{side} {side}".encode())
    if kind == "TIFF":
        for tag, value in ((256, 8), (257, 6)):
            data = data.replace(struct.pack("<HHII", tag, 4, 1, value), struct.pack("<HHII", tag, 4, 1, side))
            data = data.replace(struct.pack("<HHII", tag, 3, 1, value), struct.pack("<HHII", tag, 3, 1, side))
        return data
    form = {"JPEG": ">HH", "BMP": "<ii", "GIF": "<HH", "JPEG2000": ">II"}[kind]
    for size in ((8, 6), (6, 8)):  # some write the width first, some the height
        data = data.replace(struct.pack(form, *size), struct.pack(form, side, side))
    return data


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM"])
def test_more_pixels_than_fit_are_refused_by_the_header(kind: str) -> None:
    fault = ingest.check(layouts.embed(_claiming(kind, 13_000)))
    assert isinstance(fault, ingest.Fault) and fault.reason == "huge-image"
    assert "13000 x 13000 = 169000000 pixels, at most 67108864 are read" in fault.detail
    with pytest.raises(Image.DecompressionBombError):  # also of a stored image
        decode(_claiming(kind, 13_000))


def test_a_small_tiff_in_a_huge_tile_is_refused() -> None:
    tags = [(256, 64), (257, 64), (258, 8), (259, 8), (262, 1), (277, 1), (322, 20_000), (323, 20_000), (324, 130), (325, 1)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    fault = ingest.check(layouts.embed(data + zlib.compress(b"")))
    assert isinstance(fault, ingest.Fault) and "20000 x 20000 = 400000000 pixels" in fault.detail


@pytest.mark.parametrize(
    ("mode", "size", "kind"), [("L", (4000, 5000), "JPEG"), ("I;16", (3500, 4800), "PNG"), ("RGB", (6000, 4000), "JPEG")]
)
def test_radiographs_mammograms_and_photographs_are_read(mode: str, size: tuple[int, int], kind: str) -> None:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind, **({"compress_level": 1} if kind == "PNG" else {}))
    found = ingest.check(layouts.embed(stream.getvalue()))
    assert isinstance(found, ingest.Checked) and decode(found.image).size == size


def test_a_large_image_has_the_digest_of_its_pixels_as_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [picture(1), picture(2, "L"), picture(2, "RGBA"), _pixels("L", np.uint8, [5] * 144)]
    whole = [ingest.check(layouts.embed(data)) for data in pictures]
    monkeypatch.setattr(ingest, "STRIP", 20)  # two of six rows
    assert [ingest.check(layouts.embed(data)) for data in pictures] == whole


def test_threads_share_one_room_for_pixels() -> None:
    room, order, began = ingest._Room(10), list[str](), threading.Event()

    def second() -> None:
        began.set()
        with room.taken(6):
            order.append("second")

    with room.taken(6):
        thread = threading.Thread(target=second)
        thread.start()
        began.wait()
        time.sleep(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_an_encoded_image_of_too_many_bytes_is_not_read(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (labelled(raw) / "images/3.png").open("r+b") as stream:
        stream.truncate(2**40)  # takes no room on the disk
    assert f"labels.csv row 5: the image has {2**40} bytes, at most 268435456 are read" in refused(entry(raw))
    monkeypatch.setattr(limits, "MAX_IMAGE_BYTES", 100)
    fault = ingest.check(layouts.embed(bytes(101)))
    assert fault == ingest.Fault("huge-image", "the image has 101 bytes, at most 100 are read")


@pytest.mark.parametrize(
    ("bomb", "most"),
    [
        (_png_of(60_000), 8),
        (_png_of(8, _chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(10**8)))), 8),
        (_png_of(8, _chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(10**8)))), 8),
        (_png_of(8, *[_chunk(b"zTXt", b"c%d\0\0" % number + zlib.compress(bytes(10**6))) for number in range(100)]), 80),
    ],
    ids=["60,000 x 60,000", "zTXt", "iCCP", "many zTXt"],
)
def test_bombs_inside_png_take_no_memory(bomb: bytes, most: int) -> None:
    """`most`: MiB."""
    tracemalloc.start()
    try:
        ingest.check(layouts.embed(bomb))  # a profile is skipped, a comment refused
        assert tracemalloc.get_traced_memory()[1] < most * 2**20
    finally:
        tracemalloc.stop()


def test_memory_holds_a_few_images_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "GROUP_BYTES", 2**20)
    noise = np.random.default_rng(0)

    def images() -> Iterator[tuple[str, layouts.Embedded]]:
        for number in range(200):
            stream = io.BytesIO()
            Image.fromarray(noise.integers(0, 256, (150, 200, 3), np.uint8)).save(stream, "PNG", compress_level=0)
            yield str(number), layouts.embed(stream.getvalue())

    tracemalloc.start()
    try:
        checked = (image for _, image in ingest.check_all(images(), 2) if isinstance(image, ingest.Checked))
        written = ingest.write_table(tmp_path / "table", ((image, False) for image in checked))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written.columns.height == 200 and (tmp_path / "table").stat().st_size > 16 * 2**20
    assert peak < 12 * 2**20


# --- attacks: what is no file, names, texts ------------------------------------------------------------------------


def _irregular(path: Path, kind: str) -> None:
    """Put something at a path that is no file."""
    path.unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))


KINDS = ["a pipe", "a device", "a folder", "a socket"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_is_no_file_is_not_waited_for(raw: Path, kind: str) -> None:
    _irregular(labelled(raw) / "images/3.png", kind)
    assert refused(entry(raw)).startswith(f"data set toy: labels.csv row 5: the image is {kind}, not a file: {raw}/images/3.png; fix the")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("index", ["labels.csv", "t.parquet"])
def test_an_index_that_is_no_file_is_not_waited_for(raw: Path, index: str, kind: str) -> None:
    _irregular(labelled(raw) / index, kind)
    message = refused(entry(raw, options={"index": index}))
    assert message.startswith(f"data set toy: {index}: ") and "\n" not in message
    assert "is a directory" in message.lower() if kind == "a folder" else f"is {kind}, not a file; put a file at" in message


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("images/\0.png", r"image path 'images/\x00.png' can name no file"),
        (f"images/{'x' * 300}.png", f"image path 'images/{'x' * 300}.png' can name no file"),
        (f"images/{'é' * 150}.png", "can name no file"),
        ("x/" * 3000 + "1.png", "can name no file"),
        ("images/none\x1b[31m.png", "the image file does not exist"),
    ],
    ids=["NUL", "long", "long in bytes", "deep", "escape"],
)
def test_a_name_that_no_file_can_have(raw: Path, name: str, found: str) -> None:
    edit(labelled(raw), 5, "image", name)
    assert refused(entry(raw)).startswith("data set toy: labels.csv row 5: ") and found in refused(entry(raw))


def test_texts_of_any_length_do_not_fill_the_memory(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(asked(raw), 5, "question", "x" * 131_073)
    found = "data set toy: labels.csv row 5: question has 131073 characters, at most 131072 are read; shorten it"
    assert refused(entry(raw, task="vqa")) == found
    edit(raw, 5, "question", "x" * 131_072)
    prepare.run(entry(raw, task="vqa"), "toy")
    shutil.rmtree("results")
    monkeypatch.setattr(limits, "MAX_VALUES_CHARACTERS", 131_500)
    assert "all texts up to here have more than 131500 characters; shorten them" in refused(entry(raw, task="vqa"))


def test_an_error_is_one_short_line_that_acts_on_no_terminal(raw: Path) -> None:
    edit(labelled(raw), 5, "label", "\x1b[2J" + "y" * 5000)
    message = refused(entry(raw))
    assert len(message) < 3000 and message.isprintable()
    error = MedbenchError("a\x1b]0;x\x07", "b\r\nc\x9b\u202etxt.exe", "d\0")
    assert str(error) == r"a\x1b]0;x\x07: b\x0d c\x9b\u202etxt.exe; d\x00"


# --- what a start asks of a prepared set ---------------------------------------------------------------------------


def names(found: list[Path]) -> set[str]:
    return {path.stem if path.parent.name == "toy" else "duplicates" for path in found}


ALL = {"train", "val", "test", "images", "duplicates"}


@pytest.mark.parametrize(
    ("row", "column", "value", "kept"),
    [
        (12, "label", "malign", ALL - {"test"}),  # of test: nothing that is trained follows from it
        (12, "group", "p99", ALL - {"test"}),
        (10, "id", "other", ALL - {"test", "duplicates"}),
        (2, "label", "malign", ALL - {"train"}),  # of train: an official val, and no image, follow from it
        (9, "label", "benign", ALL - {"val"}),
        (12, "split", "train", {"val"}),
        (12, "image", "images/new.png", None),  # its pixels are not known before it is read
    ],
)
def test_tables_that_a_change_leaves_as_they_are_are_known_before(
    raw: Path, row: int, column: str, value: str, kept: set[str] | None
) -> None:
    """And they are: byte for byte, once the set is prepared again."""
    split = {**dict.fromkeys(range(6), "train"), 6: "val", 7: "val"}
    rows = [(f"images/{i}.png", CLASSES[i % 2], split.get(i, "test"), f"p{i}", f"s{i}") for i in range(12)]
    write_csv(labelled(raw) / "labels.csv", (*LABELS, "id"), rows)
    (raw / "images/new.png").write_bytes(picture(77))
    prepare.run(entry(raw), "toy")
    assert names(prepare.unchanged(entry(raw), "toy")) == ALL
    before = {path.stem: path.read_bytes() for path in paths.data("toy")}
    edit(raw, row, column, value)
    known = names(prepare.unchanged(entry(raw), "toy"))
    assert known == (kept if kept is not None else set())
    prepare.run(entry(raw), "toy")
    same = {path.stem for path in paths.data("toy") if path.read_bytes() == before[path.stem]}
    assert known - {"duplicates"} <= same


def test_a_cut_validation_split_follows_from_labels_of_train(raw: Path) -> None:
    prepare.run(entry(labelled(raw)), "toy")
    edit(raw, 12, "label", "malign")
    assert names(prepare.unchanged(entry(raw), "toy")) == ALL - {"test"}
    edit(raw, 2, "label", "malign")
    assert "test" not in names(prepare.unchanged(entry(raw), "toy")) and "train" not in names(prepare.unchanged(entry(raw), "toy"))


def test_a_contradiction_in_test_is_known_before(raw: Path) -> None:
    """A corrected label may end or make a contradiction: rows come and go."""
    again(labelled(raw), "images/10.png", "images/8.png", "bytes")
    prepare.run(entry(raw, max_drops=0.5), "toy")
    edit(raw, 12, "label", "malign")
    assert names(prepare.unchanged(entry(raw, max_drops=0.5), "toy")) == {"train", "val"}
    with pytest.raises(MedbenchError, match="its image has the label"):
        prepare.unchanged(entry(raw), "toy")


def test_of_shards_the_changed_rows_are_known_before(raw: Path) -> None:
    prepare.run(entry(hub(raw), "hub-vqa", "vqa", allow_group_overlap=True), "toy")
    shard(raw / "data/test-00000-of-00001.parquet", [(0, "0.png", "is it blue?", "Yes."), (9, "9.png", "what is it?", "yes, a cell")])
    assert names(prepare.unchanged(entry(raw, "hub-vqa", "vqa", allow_group_overlap=True), "toy")) == ALL - {"test"}


def test_replaced_images_are_known_by_their_bytes(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a table and of folders; not those that were touched, copied or moved with the folder."""
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAW", str(raw))
    params = entry(labelled(raw))._replace(raw_dir="${RAW}")
    (raw / "images/3.png").write_bytes(b"broken")
    prepare.run(params._replace(max_drops=0.1), "toy")
    assert prepare.replaced(params, "toy") == []
    for file in (raw / "images").iterdir():
        os.utime(file)
    shutil.copytree(raw, tmp_path / "moved")
    monkeypatch.setenv("RAW", str(tmp_path / "moved"))
    assert prepare.replaced(params, "toy") == ["1 of its images is replaced or gone (images/3.png)"], (
        "of what could not be read no digest is kept"
    )
    monkeypatch.setenv("RAW", str(raw))
    (raw / "images/3.png").write_bytes(picture(3))
    (raw / "images/0.png").write_bytes(picture(50))
    (raw / "images/1.png").unlink()
    times = (raw / "images/2.png").stat()
    data = bytearray((raw / "images/2.png").read_bytes())
    data[-1] ^= 1
    (raw / "images/2.png").write_bytes(data)
    os.utime(raw / "images/2.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert prepare.replaced(params, "toy") == ["4 of its images are replaced or gone (images/0.png, images/1.png, images/2.png, ...)"]


@pytest.mark.parametrize("name", ["nan", "NA", "#N/A", "NaT", "Anonymous", "unknown", "-"])
def test_a_group_that_looks_like_none_is_said(raw: Path, name: str) -> None:
    """Patients whom nobody named would count as one in silence."""
    rows = [(f"{i}.png", CLASSES[i % 2], "train" if i < 8 else "test", name if i in (8, 9) else f"p{i}") for i in range(12)]
    prepare.run(entry(labelled(raw, rows)), "toy")
    assert card()["notes"] == [f"2 rows have the group {name!r}: they count as one patient"]


SPELLINGS = [
    ("P0", "p0"), ("P0", "P0\u200b"), ("M\u00fcller", "Mu\u0308ller"), ("\uff301", "P1"), ("P 0", "P  0"), ("P 0", "P\u00a00"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "other"), SPELLINGS)
@pytest.mark.parametrize("drawn", [False, True])
def test_a_patient_under_two_spellings_is_one(raw: Path, name: str, other: str, drawn: bool) -> None:
    """Splits that are drawn never part them."""
    rows = [(f"{i}.png", CLASSES[i % 2], "train" if i < 8 else "test", f"q{i}") for i in range(12)]
    labelled(raw, [(*row[:3], {2: name, 5: other}.get(i, row[3])) for i, row in enumerate(rows)])
    if drawn:
        table = pl.read_csv(raw / "labels.csv", infer_schema=False).drop("split")
        table.write_csv(raw / "labels.csv")
    for seed in range(6 if drawn else 1):
        prepare.run(entry(raw, seed=seed), "toy")
        groups = [samples(split)["group_id"].to_list() for split in paths.SPLITS]
        assert sorted(found.count(name) for found in groups) == [0, 0, 2] and not any(other in found for found in groups)
        assert f"groups that are written in several ways count as one: {name!r} and {other!r}" in card()["notes"]


@pytest.mark.parametrize(("name", "other"), SPELLINGS)
def test_a_patient_under_two_spellings_in_two_splits_is_refused(raw: Path, name: str, other: str) -> None:
    rows = [(f"{i}.png", CLASSES[i % 2], "train" if i < 8 else "test", {2: name, 10: other}.get(i, f"q{i}")) for i in range(12)]
    assert refused(entry(labelled(raw, rows))) == (
        f"data set toy: labels.csv row 12: group {other!r} is in test here and in train in labels.csv row 4, written {name!r}: "
        "case, spaces and unseen characters do not count; fix the splits, or set allow_group_overlap where the set is published so"
    )
    prepare.run(entry(raw, allow_group_overlap=True), "toy")
    assert name in samples("test")["group_id"].to_list()


def test_a_draw_takes_a_patient_under_two_spellings_whole(raw: Path) -> None:
    rows = [
        (f"{i}.png", CLASSES[i % 2], "train" if i < 4 else "test", f"q{i}" if i < 4 else ("P", "p")[i % 2] + str(i // 2)) for i in range(12)
    ]
    labelled(raw, rows)
    for seed in range(4):
        prepare.run(entry(raw, seed=seed, sample={"train": None, "val": None, "test": 2}, max_drops=1.0), "toy")
        groups = samples("test")["group_id"].to_list()
        assert len(groups) == 2 and len({*groups}) == 1


@pytest.mark.parametrize(("name", "other"), [("007", "7"), ("000", "0"), ("3", "3.0"), ("'P3", "P3"), ("P03", "P3"), ("a-01", "a-1")])
def test_patients_of_two_splits_that_differ_in_zeros_alone_are_said(raw: Path, name: str, other: str) -> None:
    rows = [(f"{i}.png", CLASSES[i % 2], "train" if i < 8 else "test", f"q{i}") for i in range(12)]
    labelled(raw, [(*row[:3], {2: name, 9: other}.get(i, row[3])) for i, row in enumerate(rows)])
    prepare.run(entry(raw), "toy")
    assert card()["notes"] == [
        f"groups of two splits differ in leading zeros or an apostrophe alone: {name!r} in train and {other!r} in test; "
        "where they are one patient, write it in one way"
    ]
    edit(raw, 9 + 2, "split", "train")
    prepare.run(entry(raw), "toy")
    assert card()["notes"] == []


@pytest.mark.parametrize("name", ["10", "P10", "1.05", "P0.0.1", "30"])
def test_patients_of_other_numbers_are_not_taken_for_one(raw: Path, name: str) -> None:
    rows = [
        (f"{i}.png", CLASSES[i % 2], "train" if i < 8 else "test", ["1", "P1", "1.5", "P0.1", "3"][i] if i < 5 else f"q{i}")
        for i in range(12)
    ]
    edit(labelled(raw, rows), 11, "group", name)
    prepare.run(entry(raw), "toy")
    assert card()["notes"] == []


def test_what_a_person_should_know_is_said(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"{i}.png", CLASSES[i % 2] if i < 8 else "benign", "train" if i < 8 else "test", f"p{i}") for i in range(12)]
    labelled(raw, rows)
    again(raw, "10.png", "8.png", "bytes")
    (raw / "labels.csv").write_text((raw / "labels.csv").read_text().replace(",", ";"))
    (raw / "3.png").unlink()
    prepare.run(entry(raw, max_drops=0.1), "toy")
    assert capsys.readouterr().err.splitlines() == [
        "data set toy: labels.csv: its columns are parted by semicolons",
        "data set toy: equal images of different groups were put into one group: 1 row (first: labels.csv row 12)",
        "data set toy: test has no sample of malign",
        "data set toy: left out, missing image: 1 row (first: labels.csv row 5: the image file does not exist)",
    ]
