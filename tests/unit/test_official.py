"""Layouts of the study's data sets on small folders with exactly the official layout: what they yield, what they say of wrong files."""

import shutil
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import polars as pl
import pytest
from sklearn.model_selection import train_test_split

from medbench import paths
from medbench.datasets import layouts
from medbench.datasets.images import decode
from medbench.datasets.layouts import DiagnosisItem, Excluded, Item, VqaItem
from medbench.datasets.reading import min_k_per_sex, npz_images
from medbench.errors import MedbenchError
from medbench.jobs import limits
from medbench.stages import overlap, prepare
from tests.unit import official
from tests.unit.test_data_helpers import card, entry, samples

BINARY = ("negative", "positive")
DIAGNOSIS = {
    "chexpert": official.chexpert,
    "camelyon17": official.camelyon17,
    "ham10000": official.ham10000,
    "papila": official.papila,
    "gf3300": official.gf3300,
    "fairvlmed": official.fairvlmed,
    "medmnist": official.medmnist,
}
VQA = {"slake": official.slake, "fairvlmed-vqa": official.fairvlmed_vqa, "hub-vqa": official.pathvqa}
OPTIONS: dict[str, dict[str, Any]] = {"camelyon17": {"train": 8, "test": 4}, "medmnist": {"flag": "pneumoniamnist", "size": "28"}}
# Samples of train (with the validation split, where that is cut from it), val where official, test; rows dropped; rows excluded.
COUNTS = {
    "chexpert": (5, 0, 2, 1, 0),
    "camelyon17": (None, 0, None, None, 28),
    "ham10000": (None, 0, None, 1, 2),
    "papila": (18, 0, 4, 1, 1),
    "gf3300": (10, 0, 1, 1, 0),
    "fairvlmed": (10, 0, 2, 0, 0),
    "medmnist": (12, 4, 6, 0, 0),
    "slake": (3, 1, 2, 2, 2),
    "fairvlmed-vqa": (6, 4, 5, 0, 1),
    "hub-vqa": (8, 4, 12, 0, 0),
}


def params(layout: str, folder: Path, **changes: Any) -> prepare.Params:
    """Of a toy entry that admits missing images."""
    task = "diagnosis" if layout in DIAGNOSIS else "vqa"
    chosen = entry(folder, layout, task, OPTIONS.get(layout), max_drops=0.4, allow_group_overlap=layout == "hub-vqa")
    return chosen._replace(classes=BINARY if task == "diagnosis" else (), **changes)


def read(layout: str, folder: Path, **options: Any) -> list[Item | Excluded]:
    """What a layout yields."""
    task = "diagnosis" if layout in DIAGNOSIS else "vqa"
    source = layouts.Source("toy", task, folder, BINARY if task == "diagnosis" else (), 0)
    chosen = layouts.read_options(layout, {**OPTIONS.get(layout, {}), **options}, "toy")
    return list(layouts.load_layout(layout).items(chosen, source))


def of(items: Iterable[Item | Excluded]) -> dict[str, Any]:
    """Sample id -> item."""
    return {item.sample_id: item for item in items if not isinstance(item, Excluded)}


def refused(layout: str, folder: Path) -> str:
    """The message of a run that must fail, without the data set's name; nothing is left."""
    with pytest.raises(MedbenchError) as caught:
        prepare.run(params(layout, folder), "toy")
    assert not paths.card("toy").exists() and not list(Path("results/.partial").iterdir())
    return str(caught.value).removeprefix("data set toy: ")


@pytest.mark.parametrize("layout", [*DIAGNOSIS, *VQA])
def test_the_official_layout_is_prepared_with_all_its_edge_cases(layout: str, raw: Path) -> None:
    build: Callable[[Path], Path] = {**DIAGNOSIS, **VQA}[layout]
    prepare.run(params(layout, build(raw)), "toy")
    found, counts = card(), {split: samples(split).height for split in paths.SPLITS}
    train, val, test, drops, excluded = COUNTS[layout]
    assert train is None or counts["train"] + (0 if val else counts["val"]) == train
    assert not val or counts["val"] == val
    assert test is None or counts["test"] == test
    assert drops is None or sum(drop["rows"] for drop in found["drops"].values()) == drops
    assert sum(of_reason["rows"] for of_reason in found["excluded"].values()) == excluded
    groups = [set(samples(split)["group_id"]) for split in paths.SPLITS]
    assert layout == "hub-vqa" or not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


def test_chexpert_counts_only_no_finding_as_normal(raw: Path) -> None:
    items = of(read("chexpert", official.chexpert(raw)))
    labels = [item.label for item in items.values()]
    assert labels == ["positive", "negative", "negative", "negative", "positive", "negative", "positive", "negative"]
    one = items["train/patient00001/study2/view1_frontal.jpg"]
    assert (one.group_id, one.split, one.demographics.sex, one.demographics.age_band) == ("patient00001", "train", "female", "60-79")
    assert items["train/patient00003/study1/view1_frontal.jpg"].demographics.sex is None
    assert items["train/patient00002/study1/view2_lateral.jpg"].demographics.age_band == "0-17"
    inside = of(read("chexpert", raw / "CheXpert-v1.0-small"))  # the official folder itself is a root too
    assert [item.image for item in inside.values()] == [item.image for item in items.values()]


def test_camelyon17_draws_train_from_the_benchmarks_train_centers_and_test_from_center_2(raw: Path) -> None:
    official.camelyon17(raw, per_center=32)
    items = [item for item in read("camelyon17", raw, train=24, test=12) if isinstance(item, DiagnosisItem)]
    assert Counter(item.split for item in items) == {"train": 24, "test": 12}
    centers = {split: {item.sample_id.split("_")[1] for item in items if item.split == split} for split in ("train", "test")}
    assert centers["test"] == {"002"} and centers["train"] == {"000", "003", "004"}
    assert Counter((item.split, item.label) for item in items) == {
        ("train", "negative"): 12 + 2, ("train", "positive"): 12 - 2, ("test", "negative"): 6, ("test", "positive"): 6,
    }  # fmt: skip
    assert items == [item for item in read("camelyon17", raw, train=24, test=12) if isinstance(item, DiagnosisItem)]
    with pytest.raises(MedbenchError, match="has 32 patches for test, 33 are wanted"):
        read("camelyon17", raw, train=24, test=33)


@pytest.mark.parametrize("ending", [".csv", ".tab", ""])
def test_ham10000_reads_all_three_forms_of_its_metadata(raw: Path, ending: str) -> None:
    items = of(read("ham10000", official.ham10000(raw, ending)))
    assert len(items) == 14
    assert {item.label for name, item in items.items() if item.group_id in ("HAM_0000001", "HAM_0000004", "HAM_0000008")} == {"positive"}
    assert items["ISIC_0000003"].label == "negative", "bcc counts as negative, as published"
    assert items["ISIC_0000001"].image.parent.name == "HAM10000_images_part_1", "missing: looked for in the first folder"
    assert len({item.split for item in items.values() if item.group_id == "HAM_0000004"}) == 1


def test_papila_reads_the_header_of_three_rows_and_keeps_eyes_apart(raw: Path) -> None:
    items = of(read("papila", official.papila(raw)))
    assert "RET011OD" not in items and "RET011OS" in items, "the suspect eye is left out, the other one stays"
    assert (items["RET014OD"].label, items["RET014OS"].label) == ("positive", "negative")
    assert items["RET014OD"].group_id == items["RET014OS"].group_id == "014" and items["RET014OD"].split == items["RET014OS"].split
    assert items["RET002OD"].demographics == layouts.Demographics("male", "40-59")


def test_gf3300_clips_thickness_and_does_not_wrap(raw: Path) -> None:
    prepare.run(params("gf3300", official.gf3300(raw)), "toy")
    rows = samples("train")
    table = pl.read_parquet(paths.images("toy"))
    images = dict(zip(table["image_id"], table["image"], strict=True))
    first = np.asarray(official.decoded(images[rows["image_id"][0]]))
    assert first.shape == (200, 200) and first[0, :3].tolist() == [0, 255, 255]
    assert set(rows["race"]) == {"white"} and rows["language"].null_count() <= 1


def test_fairvlmed_has_one_picture_for_diagnosis_and_questions(raw: Path) -> None:
    diagnosis = of(read("fairvlmed", official.fairvlmed_vqa(raw)))
    assert diagnosis["data_00003"].demographics.age_band is None and diagnosis["data_00002"].demographics.language is None
    assert diagnosis["data_00012"].image.name == "slo_fundus_00012.jpg"
    asked = [item for item in read("fairvlmed-vqa", raw) if isinstance(item, VqaItem)]
    assert {item.image for item in asked} <= {item.image for item in diagnosis.values()}
    assert [(item.split, item.answer_type, item.group_id) for item in asked[:2]] == [
        ("train", "open", "data_00003"),
        ("train", "closed", "data_00003"),
    ]


def test_fairvlmed_finds_its_summary_in_both_places(raw: Path) -> None:
    in_folder = read("fairvlmed", official.fairvlmed(raw / "a"))
    at_root = read("fairvlmed", official.fairvlmed(raw / "b", "data_summary.csv"))
    assert [item._replace(image=Path(), place="") for item in in_folder if isinstance(item, DiagnosisItem)] == [
        item._replace(image=Path(), place="") for item in at_root if isinstance(item, DiagnosisItem)
    ]


def test_slake_keeps_the_official_answer_type_and_the_english_alone(raw: Path) -> None:
    prepare.run(params("slake", official.slake(raw)), "toy")
    train = samples("train")
    left = train.filter(train["answer"] == "Left")
    assert (left["answer_type"][0], left["is_yes_no"][0]) == ("closed", False)
    found = card()
    assert found["excluded"]["another language"]["rows"] == 2
    assert {reason: drop["rows"] for reason, drop in found["drops"].items()} == {"empty-answer": 1, "missing-image": 1}


def test_pathvqa_keeps_answers_as_written_and_counts_them_as_closed(raw: Path) -> None:
    prepare.run(params("hub-vqa", official.pathvqa(raw)), "toy")
    train = samples("train")
    assert train["answer"].to_list()[:4] == ["Yes", "yes ", "No", "a tumour"]
    assert train["answer_type"].to_list()[:4] == ["closed", "closed", "closed", "open"]
    assert any("CMYK" in why for why in card()["images"]["converted"])


@pytest.mark.parametrize(("flag", "size", "channels"), [("pneumoniamnist", 28, 1), ("dermamnist", 64, 3)])
def test_medmnist_gives_the_very_pixels(raw: Path, flag: str, size: int, channels: int) -> None:
    official.medmnist(raw, flag, size, channels)
    items = [item for item in read("medmnist", raw, flag=flag, size=str(size)) if isinstance(item, DiagnosisItem)]
    name = f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz"
    with np.load(raw / name) as file:
        for split, n in (("train", 12), ("val", 4), ("test", 6)):
            mine = [item for item in items if item.split == split]
            pixels = [np.asarray(official.decoded(item.image.data)) for item in mine if isinstance(item.image, layouts.Embedded)]
            assert len(mine) == n and np.array_equal(np.stack(pixels), file[f"{split}_images"])
            assert [BINARY.index(item.label) for item in mine] == file[f"{split}_labels"][:, 0].tolist()


# --- splits of the study


def ham_rows(rng: np.random.Generator) -> list[list[str]]:
    """Metadata with the published marginals: 3,998 lesions of men, 3,416 of women, 9,948 images, 1,438 of them positive.

    How many images a lesion has is not published; here it is such that the lesions which the study's algorithm draws have 1,811.
    """
    lesions = {sex: [f"HAM_{sex[0]}{number:05d}" for number in rng.permutation(n)] for sex, n in (("male", 3998), ("female", 3416))}
    test = {lesion for members in lesions.values() for lesion in train_test_split(sorted(members), test_size=683, random_state=0)[1]}
    sizes = {lesion: 1 for members in lesions.values() for lesion in members}
    for inside, images in ((True, 1811), (False, 8137)):
        mine = [lesion for lesion in sizes if (lesion in test) is inside]
        for _ in range(images - len(mine)):
            sizes[mine[int(rng.integers(len(mine)))]] += 1
    rows, positives = [], {True: 263, False: 1175}
    for sex, members in lesions.items():
        for lesion in members:
            for _ in range(sizes[lesion]):
                positives[lesion in test] -= 1
                kind = ("mel" if len(rows) % 2 else "akiec") if positives[lesion in test] >= 0 else "nv"
                rows.append([lesion, f"ISIC_{len(rows):07d}", kind, "histo", "50.0", sex, "back", "vidir"])
    rows += [[f"HAM_x{number}", f"ISIC_x{number}", "nv", "histo", "", "male", "back", "vidir"] for number in range(57)]
    rows += [[f"HAM_y{number}", f"ISIC_y{number}", "nv", "histo", "50.0", "unknown", "back", "vidir"] for number in range(10)]
    return rows


def test_ham10000_is_split_by_lesion_into_the_published_counts(raw: Path) -> None:
    rows = ham_rows(np.random.default_rng(0))
    official.write(raw / "HAM10000_metadata.csv", official.HAM, rows)
    found = read("ham10000", raw)
    items = [item for item in found if isinstance(item, DiagnosisItem)]
    assert Counter(item.split for item in items) == {"train": 8137, "test": 1811}
    assert Counter(item.split for item in items if item.label == "positive") == {"train": 1175, "test": 263}
    assert Counter(item.reason for item in found if isinstance(item, Excluded)) == {"blank age or sex": 57, "sex unknown": 10}
    lesions = {split: {item.group_id for item in items if item.split == split} for split in ("train", "test")}
    assert len(lesions["test"]) == 2 * 683 and not lesions["train"] & lesions["test"]
    by_image = min_k_per_sex({item.sample_id: str(item.demographics.sex) for item in items})
    assert len(by_image) != 1811, "splitting by image gives other counts"


@pytest.mark.parametrize(("n_female", "n_male", "train", "test"), [(1812, 1488, 2706, 594), (5631, 4369, 8254, 1746)])
def test_the_split_by_sex_gives_the_published_counts(n_female: int, n_male: int, train: int, test: int) -> None:
    sexes = {f"data_{number:05d}.npz": "female" if number < n_female else "male" for number in range(n_female + n_male)}
    chosen = min_k_per_sex(sexes)
    assert (len(sexes) - len(chosen), len(chosen)) == (train, test)
    assert Counter(sexes[name] for name in chosen) == {"female": test // 2, "male": test // 2}
    assert chosen == min_k_per_sex(dict(reversed(sexes.items()))), "whatever the order of the rows"


def test_counts_that_differ_from_the_expected_ones_are_an_error(raw: Path) -> None:
    official.medmnist(raw)
    right = {"train": 12, "val": 4, "test": 6}
    prepare.run(params("medmnist", raw, expected=right), "toy")
    shutil.rmtree("results")
    with pytest.raises(MedbenchError, match=r"split test: has 6 rows, 7 are expected; check that .* or set allow_counts: true"):
        prepare.run(params("medmnist", raw, expected={**right, "test": 7}), "toy")


# --- wrong files

MARKERS = {
    "chexpert": "CheXpert-v1.0-small", "camelyon17": "camelyon17_v1.0", "papila": official.OFFICIAL_PAPILA, "fairvlmed": "ReadMe",
    "ham10000": "HAM10000_metadata.csv", "gf3300": "data_summary.csv", "slake": "train.json", "fairvlmed-vqa": "vqa_train.csv",
    "medmnist": "pneumoniamnist.npz",
}  # fmt: skip


@pytest.mark.parametrize("layout", MARKERS)
def test_a_root_one_level_too_high_is_named(layout: str, raw: Path) -> None:
    {**DIAGNOSIS, **VQA}[layout](raw / "inner")
    message = refused(layout, raw)
    assert "is not in raw_dir" in message and f"set raw_dir to {raw / 'inner'}" in message


@pytest.mark.parametrize("layout", [layout for layout in MARKERS if layout not in ("papila", "fairvlmed")])
def test_a_root_one_level_too_deep_is_named(layout: str, raw: Path) -> None:
    {**DIAGNOSIS, **VQA}[layout](raw)
    deeper = next(path for path in sorted(raw.rglob("*")) if path.is_dir()) if layout != "medmnist" else raw / "empty"
    deeper.mkdir(exist_ok=True)
    if layout in ("chexpert", "camelyon17"):
        deeper = next(path for path in sorted(deeper.iterdir()) if path.is_dir())
    assert "is not in raw_dir" in (message := refused(layout, deeper)) and "set raw_dir to" in message


def test_absent_files_are_named(raw: Path) -> None:
    for layout, marker in MARKERS.items():
        assert f"does not exist in {raw}" in refused(layout, raw), marker


@pytest.mark.parametrize(
    ("layout", "file", "column"),
    [
        ("chexpert", "CheXpert-v1.0-small/train.csv", "No Finding"),
        ("camelyon17", "camelyon17_v1.0/metadata.csv", "center"),
        ("ham10000", "HAM10000_metadata.csv", "lesion_id"),
        ("gf3300", "data_summary.csv", "glaucoma"),
        ("fairvlmed", "ReadMe/data_summary.csv", "use"),
        ("fairvlmed-vqa", "vqa_test.csv", "question type"),
    ],
)
def test_another_version_of_a_table_and_another_encoding_are_named(layout: str, file: str, column: str, raw: Path) -> None:
    path = {**DIAGNOSIS, **VQA}[layout](raw) / file
    text = path.read_text()
    path.write_text(text.replace(column, "other", 1))
    assert f"{file}: column '{column}' is missing (found " in (message := refused(layout, raw)) and "take the official file" in message
    path.write_bytes(text.encode() + b"\xff\xfe" + text.encode())
    assert "is not UTF-8 (byte 0xff); save it as UTF-8" in refused(layout, raw)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    prepare.run(params(layout, raw), "toy")


def test_a_spreadsheet_of_another_form_is_named(raw: Path) -> None:
    path = official.papila(raw) / official.OFFICIAL_PAPILA / "ClinicalData/patient_data_os.xlsx"
    book = openpyxl.load_workbook(path)
    sheet = book.worksheets[0]
    sheet["A3"] = "Nr"
    book.save(path)
    assert "ClinicalData/patient_data_os.xlsx: has not the official header of three rows" in refused("papila", raw)
    sheet["A3"], sheet["D2"] = "ID", "Result"
    book.save(path)
    assert "column 'Diagnosis' is missing" in refused("papila", raw)
    path.write_bytes(path.read_bytes()[:-200])
    assert "is no readable spreadsheet" in refused("papila", raw)


def test_arrays_that_are_cut_off_pickled_or_absent_are_named(raw: Path) -> None:
    official.gf3300(raw)
    file = raw / "dataset-001/Validation/data_0001.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "data_0001.npz is no readable npz file" in refused("gf3300", raw)
    np.savez(file, rnflt=np.array([{"a": 1}], dtype=object))
    assert "data_0001.npz is no readable npz file (Object arrays cannot be loaded" in refused("gf3300", raw)
    np.savez(file, md=np.zeros(2))
    assert "data_0001.npz holds no array 'rnflt'" in refused("gf3300", raw)


def test_a_medmnist_file_that_is_cut_off_is_named(raw: Path) -> None:
    path = official.medmnist(raw) / "pneumoniamnist.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "pneumoniamnist.npz is no readable npz file" in refused("medmnist", raw)
    np.savez_compressed(path, train_images=np.zeros((2, 8, 8), np.float32), train_labels=np.zeros((2, 1), np.uint8))
    assert "array train_images is float32" in refused("medmnist", raw)


def test_medmnist_is_streamed(raw: Path) -> None:
    """The images come one by one: reading one does not decode those that follow."""
    np.savez_compressed(raw / "big.npz", images=np.zeros((3000, 64, 64, 3), np.uint8))
    source = layouts.Source("toy", "diagnosis", raw, BINARY, 0)
    tracemalloc.start()
    assert sum(1 for _ in npz_images(raw / "big.npz", "images", source)) == 3000
    assert tracemalloc.get_traced_memory()[1] < 3e6 < 3000 * 64 * 64 * 3
    tracemalloc.stop()


def test_slake_that_is_no_json_is_named(raw: Path) -> None:
    (official.slake(raw) / "test.json").write_text("[{")
    assert "test.json: is no JSON" in refused("slake", raw)
    (raw / "test.json").write_text('[{"img_name": "x"}]')
    assert "test.json entry 1: has no field 'question'" in refused("slake", raw)


# --- attacks


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda text: "[" * 100_000, "test.json: is no JSON (maximum recursion depth exceeded"),
        (lambda text: "[" + "1" * 5000 + "]", "test.json: is no JSON (Exceeds the limit (4300 digits)"),
        (lambda text: text.replace('"question": "', '"question": "\\ud800'), "question '\\ud800"),
        (lambda text: text.replace('"img_name": "', '"img_name": "\\ud800'), "can name no file"),
        (lambda text: text.replace('"img_name": "', '"img_name": "\\u0000'), "can name no file"),
        (lambda text: text + " " * 10_000, "test.json: has 1"),
    ],
    ids=["deep", "digits", "half a character", "half a name", "NUL", "large"],
)
def test_json_that_attacks_is_one_line(raw: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[str], str], found: str) -> None:
    monkeypatch.setattr(limits, "MAX_TEXT_BYTES", 10_000 if change("").startswith(" ") else 2**20)
    path = official.slake(raw) / "test.json"
    path.write_text(change(path.read_text()))
    message = refused("slake", raw)
    assert found in message and "\n" not in message


def _npz(path: Path, shape: str) -> None:
    """An npz file whose arrays claim a shape."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("rnflt", "train_labels", "train_images"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header)


def test_arrays_that_claim_any_size_are_not_read(raw: Path) -> None:
    official.gf3300(raw)
    file = raw / "dataset-001/Validation/data_0001.npz"
    for shape in ("(1000000, 1000000)", "(20000, 20000)", "(3, 10000000000)"):
        _npz(file, shape)
        assert f"data_0001.npz: array rnflt of shape {shape} has" in refused("gf3300", raw)
    path = official.medmnist(raw) / "pneumoniamnist.npz"
    _npz(path, "(10000000000, 1)")
    assert "array train_labels of shape (10000000000, 1) has 10000000000 bytes" in refused("medmnist", raw)
    with np.load(official.medmnist(raw) / "pneumoniamnist.npz") as whole:
        arrays = dict(whole)
    np.savez_compressed(path, **{**arrays, "train_images": np.zeros((1, 20_000, 20_000), np.uint8)})
    assert "array train_images has images of 400000000 bytes" in refused("medmnist", raw)
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").rename(path)
    assert "is no readable npz file" in refused("medmnist", raw)


def test_a_spreadsheet_that_unpacks_to_much_more_is_not_read(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = official.papila(raw) / official.OFFICIAL_PAPILA / "ClinicalData/patient_data_od.xlsx"
    book = openpyxl.load_workbook(path)
    assert book.active is not None
    book.active["XFD1048576"] = 1
    book.save(path)
    assert "patient_data_od.xlsx: has more than 10000 rows; take the official file" in refused("papila", raw)
    monkeypatch.setattr(limits, "MAX_TEXT_BYTES", 1000)
    assert "bytes, at most 1000 are read; take the official file" in refused("papila", raw)


def test_a_spreadsheet_damaged_anywhere_is_one_line(raw: Path) -> None:
    path = official.papila(raw) / official.OFFICIAL_PAPILA / "ClinicalData/patient_data_od.xlsx"
    whole = path.read_bytes()
    for place in range(50, len(whole), 211):  # names, sizes, compressed bytes
        path.write_bytes(whole[:place] + b"\xff" * 9 + whole[place + 9 :])
        with suppress(MedbenchError):  # some damage does not matter
            list(read("papila", raw))


def test_a_summary_without_a_name_is_named(raw: Path) -> None:
    index = next(official.gf3300(raw).rglob("data_summary.csv"))
    index.write_text(index.read_text().replace("data_0001.npz", "", 1))
    assert "filename is ''; take the official file" in refused("gf3300", raw)


def test_a_missing_image_beyond_what_is_allowed_is_named(raw: Path) -> None:
    with pytest.raises(MedbenchError, match=r"train\.csv row 7: the image file does not exist"):
        prepare.run(params("chexpert", official.chexpert(raw))._replace(max_drops=0.0), "toy")


def test_thickness_maps_are_grey_images_for_models(raw: Path) -> None:
    """One band; decoding for a model repeats it."""
    item = next(item for item in read("gf3300", official.gf3300(raw)) if isinstance(item, DiagnosisItem))
    assert isinstance(item.image, layouts.Embedded) and decode(item.image.data).mode == "RGB"
    assert official.decoded(item.image.data).mode == "L"


def test_the_overlap_says_which_subjects_diagnosis_and_questions_share(raw: Path) -> None:
    """FairVLMed is split anew for diagnosis: what is tested there may have been trained on as questions, and the other way round."""
    official.fairvlmed_vqa(raw)
    for layout in ("fairvlmed", "fairvlmed-vqa"):
        prepare.run(params(layout, raw), layout)
    overlap.run(overlap.Params(("fairvlmed", "fairvlmed-vqa"), 4), "run")
    found = pl.read_parquet(paths.overlap("run")).filter(kind="exact-pixels", dataset="fairvlmed", other_dataset="fairvlmed-vqa")
    subjects = {split: set(samples(split, "fairvlmed")["sample_id"]) for split in paths.SPLITS}
    asked = {split: set(samples(split, "fairvlmed-vqa")["group_id"]) for split in paths.SPLITS}
    shared = {(one, other): len(subjects[one] & asked[other]) for one in paths.SPLITS for other in paths.SPLITS}
    expected = {pair: n for pair, n in shared.items() if n}
    assert len(expected) > 2 and {(row["split"], row["other_split"]): row["shared"] for row in found.to_dicts()} == expected
