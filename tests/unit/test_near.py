"""Near duplicates: the pairs that a plain comparison of all finds, and what overlap, duplicates and the leak-free modes make of them."""

import io
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import polars as pl
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from medbench import config, paths, tables
from medbench.datasets import ingest, sharing, stored
from medbench.datasets.ingest import perceptual_hash
from medbench.datasets.layouts import embed
from medbench.datasets.near import close_pairs
from medbench.errors import MedbenchError
from medbench.jobs import limits
from medbench.stages import adapt, duplicates, overlap, prepare
from medbench.tasks import diagnosis
from tests.unit.test_data_helpers import card, entry, labelled, samples

ROOT = Path(__file__).parents[2]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.lists(st.sets(st.integers(0, 63), max_size=9), max_size=40), st.integers(0, 8))
def test_close_pairs_are_those_of_a_plain_comparison(bases: list[int], flips: Sequence[set[int]], threshold: int) -> None:
    near = [base ^ sum(1 << bit for bit in bits) for base, bits in zip(bases, flips, strict=False)]
    hashes = np.array(sorted({*bases, *near}), dtype=np.uint64)
    found = close_pairs(hashes, threshold)
    expected = [
        (first, second)
        for first in range(len(hashes))
        for second in range(first + 1, len(hashes))
        if (int(hashes[first]) ^ int(hashes[second])).bit_count() <= threshold
    ]
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == expected


def encoded(image: Image.Image, kind: str = "PNG", **save: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **save)
    return stream.getvalue()


def scene(seed: int) -> Image.Image:
    """A smooth picture with some structure."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return small.resize((180, 140), Image.Resampling.BICUBIC)


def test_the_perceptual_hash_is_that_of_imagehash_but_for_the_first_reduction() -> None:
    for seed in range(20):
        small = scene(seed).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
        assert perceptual_hash(small) == int(str(imagehash.phash(small)), 16)
        assert (perceptual_hash(scene(seed)) ^ int(str(imagehash.phash(scene(seed))), 16)).bit_count() <= 4


def test_a_picture_encoded_or_sized_anew_is_near_and_another_is_not() -> None:
    one, other = scene(1), scene(2)
    again = Image.open(io.BytesIO(encoded(one, "JPEG", quality=60)))
    assert (perceptual_hash(one) ^ perceptual_hash(again)).bit_count() <= 4
    assert (perceptual_hash(one) ^ perceptual_hash(one.resize((90, 70)))).bit_count() <= 4
    assert (perceptual_hash(one) ^ perceptual_hash(other)).bit_count() > 16


@pytest.mark.parametrize("size", [(224, 224), (287, 255), (575, 447), (1023, 797)])
def test_a_picture_of_a_size_that_whole_factors_do_not_divide_is_near(size: tuple[int, int]) -> None:
    """The last pixel of a reduced row or column stands for less than the others there. Without a row or a column it is near too."""
    for seed in range(20):
        again = scene(seed).resize(size, Image.Resampling.BICUBIC)
        for cut in ((0, 0), (1, 0), (0, 1)):
            assert (perceptual_hash(scene(seed)) ^ perceptual_hash(again.crop((*cut, *size)))).bit_count() <= 4


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a raw folder: 8 train and 4 test images; one of test is a train image encoded anew, one a copy."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    raw = labelled(tmp_path / "raw")
    for number in range(12):
        (raw / f"images/{number}.png").write_bytes(encoded(scene(number)))
    (raw / "images/8.png").write_bytes(encoded(scene(0), "JPEG", quality=60))
    (raw / "images/9.png").write_bytes((raw / "images/1.png").read_bytes())
    prepare.run(entry(raw, allow_group_overlap=True), "toy")
    return raw


def test_the_overlap_lists_near_duplicates_apart_from_equal_ones(work: Path) -> None:
    overlap.run(overlap.Params(("toy",), 4), "run")
    found = tables.read(tables.Overlap, paths.overlap("run")).filter(split="test")
    assert {(row["kind"], row["shared"], row["total"]) for row in found.to_dicts()} == {
        ("exact-image", 1, 4), ("exact-pixels", 1, 4), ("near-duplicate", 1, 4), ("group", 1, 4),  # equal images are one group
    }  # fmt: skip
    [near] = found.filter(kind="near-duplicate").to_dicts()
    assert near["examples"] == ["images/8.png"]


@pytest.mark.parametrize("in_leak_free", [False, True])
def test_the_leak_free_subset_leaves_near_duplicates_out_where_asked(work: Path, in_leak_free: bool) -> None:
    expected = {"images/9.png": "exact-image", **({"images/8.png": "near-duplicate"} if in_leak_free else {})}
    plain = config.from_files([ROOT / "config/nano.yaml"], ROOT)
    run = plain.run.model_copy(update={"near_duplicates": config.NearDuplicates(in_leak_free=in_leak_free)})
    duplicates.run(duplicates.params(plain._replace(run=run), "toy"), "toy")
    found = tables.read(tables.Duplicates, paths.duplicates("toy")).filter(split="test")
    assert dict(zip(found["sample_id"], found["kind"], strict=True)) == expected


def test_blank_images_by_the_thousand_are_no_trouble() -> None:
    n = 20_000
    digests = pl.DataFrame({"image_id": [f"i{k}" for k in range(n)], "pixel_digest": [f"p{k}" for k in range(n)]}).with_columns(
        perceptual_hash=pl.lit(0, pl.UInt64)
    )
    used = []
    for split, part in (("train", digests[: n // 2]), ("test", digests[n // 2 :])):
        frame = part.select(sample_id="image_id", group_id="image_id", image_id="image_id")
        used.append(sharing.uses("toy", split, frame, digests))
    found = sharing.shared(used, 4).filter(split="test", kind="near-duplicate")
    assert found["shared"].to_list() == [n // 2]


# --- modes that leave duplicates of test out


def test_leak_free_modes_train_without_the_duplicates_of_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from tests.unit import tiny  # imports torch, and tests.unit.bombs imports this file

    tiny.dataset()
    ids = diagnosis.samples("tiny", "train", 2).sample_ids
    rows = [("train", ids[0], "test", "exact-image", "test-0"), ("train", ids[3], "val", "exact-image", "val-0")]
    tables.write(tables.Duplicates, pl.DataFrame(rows, schema=tables.columns(tables.Duplicates), orient="row"), paths.duplicates("tiny"))
    assert stored.duplicates_of_test("tiny") == {ids[0]}
    assert diagnosis.samples("tiny", "train", 2, stored.duplicates_of_test("tiny")).sample_ids == ids[1:]
    with pytest.raises(MedbenchError, match="the images of all 40 samples stand in test too"):
        diagnosis.samples("tiny", "train", 2, frozenset(ids))


def test_a_leak_free_mode_reads_duplicates_and_others_do_not() -> None:
    loaded = config.from_files([ROOT / "config/nano.yaml"], ROOT)
    for mode in ("lp", "lora"):
        plain = adapt.params(loaded, "nano-radiology", "nano-clip", mode)
        leak_free = adapt.params(loaded, "nano-radiology", "nano-clip", f"{mode}-leak-free")
        assert leak_free.leak_free and not plain.leak_free
        reads, others = (adapt.inputs(one, "d", "m", mode) for one in (leak_free, plain))
        assert paths.duplicates("d") in reads and paths.duplicates("d") not in others


# --- images as they come


def check(data: bytes, max_side: int | None = None) -> Any:
    return ingest.check(embed(data), max_side)


def test_an_image_larger_than_asked_for_is_shrunk_once(work: Path) -> None:
    big = encoded(scene(3).resize((900, 700)), "JPEG")
    shrunk = check(big, 256)
    assert Image.open(io.BytesIO(shrunk.image)).size == (256, 199) and shrunk.change == "larger than 256 pixels"
    assert check(big, 900).image == big and check(big).image == big
    prepare.run(entry(work, max_side=64, allow_group_overlap=True), "small")
    assert card("small")["images"]["converted"]["larger than 64 pixels"]["images"] == 11
    assert samples("test", "small").height == 4


def test_an_image_that_would_explode_is_a_fault_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    fault = check(encoded(scene(1)))
    assert fault.reason == "huge-image" and "25200 pixels" in fault.detail


def dicom(pixels: Any, **tags: Any) -> bytes:
    """A DICOM file of one frame."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = pydicom.Dataset()
    file.file_meta = meta
    file.Rows, file.Columns = pixels.shape[:2]
    file.SamplesPerPixel, file.PhotometricInterpretation = (3, "RGB") if pixels.ndim == 3 else (1, "MONOCHROME2")
    if pixels.ndim == 3:
        file.PlanarConfiguration = 0
    bits = pixels.dtype.itemsize * 8
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = bits, bits, bits - 1, 0
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = pixels.tobytes()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, file, enforce_file_format=True)
    return stream.getvalue()


def shown(data: bytes) -> Any:
    """Pixels of the stored image."""
    return np.asarray(Image.open(io.BytesIO(check(data).image)))


def test_dicom_is_windowed_rescaled_and_inverted_as_its_tags_say() -> None:
    ramp = np.arange(0, 4096, 64, dtype=np.uint16).reshape(8, 8)
    assert shown(dicom(ramp))[[0, -1], [0, -1]].tolist() == [0, 255]
    assert np.array_equal(shown(dicom(ramp, PhotometricInterpretation="MONOCHROME1")), 255 - shown(dicom(ramp)))
    windowed = shown(dicom(ramp, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=0, WindowWidth=400))
    assert (windowed[ramp < 800] == 0).all() and (windowed[ramp > 1300] == 255).all() and 0 < windowed[2, 0] < 255
    colour = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    assert np.array_equal(shown(dicom(colour)), colour)
    assert check(dicom(ramp)).change.startswith("format DICOM")
    fault = check(dicom(np.zeros((2, 4, 4), np.uint16).reshape(8, 4), NumberOfFrames=2, Rows=4))
    assert fault.reason == "broken-image" and "2 frames" in fault.detail


def test_dicom_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom(np.zeros((4, 4), np.uint8))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    fault = check(data)
    assert fault.reason == "dicom-image" and "pip install -e '.[dicom]'" in fault.detail


# --- attacks


def test_dicom_of_more_pixels_than_fit_is_refused_by_its_header() -> None:
    fault = check(dicom(np.zeros((4, 4), np.uint8), Rows=13_000, Columns=13_000))
    assert fault.reason == "huge-image" and "13000 x 13000 = 169000000 pixels" in fault.detail


def test_a_deflated_dicom_is_read_unless_it_hides_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, stream = dicom(np.arange(4096, dtype=np.uint16).reshape(64, 64)), io.BytesIO()
    deflated = pydicom.dcmread(io.BytesIO(plain))
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(stream, deflated)
    data = stream.getvalue()
    assert np.array_equal(shown(data), shown(plain)) and len(data) < len(plain)
    start = 144 + int(pydicom.dcmread(io.BytesIO(data)).file_meta.FileMetaInformationGroupLength)
    fault = check(data[:start] + b"\xff" + data[start + 1 :])
    assert fault.reason == "broken-image" and "is not deflated as its header says" in fault.detail
    monkeypatch.setattr(limits, "MAX_IMAGE_BYTES", len(data))
    fault = check(data)
    assert fault.reason == "broken-image" and f"unpacks to more than {len(data)} bytes" in fault.detail


def test_dicom_whose_jpeg_is_larger_than_it_says_is_refused() -> None:
    stream, jpeg = io.BytesIO(), io.BytesIO()
    Image.new("L", (8, 4)).save(jpeg, "JPEG")
    file = pydicom.dcmread(io.BytesIO(dicom(np.zeros((4, 8), np.uint8))))
    file.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    for claimed, found in (((4, 8), None), ((13_000, 13_000), "13000 x 13000 = 169000000 pixels")):
        frame = jpeg.getvalue().replace(struct.pack(">HH", 4, 8), struct.pack(">HH", *claimed))
        file.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
        file["PixelData"].VR = "OB"
        stream.seek(0)
        pydicom.dcmwrite(stream, file)
        checked = check(stream.getvalue())
        assert checked.change == "format DICOM" if found is None else found in checked.detail
