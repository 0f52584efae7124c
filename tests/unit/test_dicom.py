"""DICOM images as their tags say that they are shown; DCMTK, where it is installed, must agree within one grey level."""

import io
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from medbench.datasets import ingest
from medbench.datasets.dicom import NO_WINDOW
from tests.unit.test_near import check, shown
from tests.unit.test_near import dicom as written

FILES = Path(pydicom.__file__).parent / "data/test_files"
NAMES = ("Red", "Green", "Blue")


def dicom(pixels: Any, **tags: Any) -> bytes:
    """A DICOM file of one frame; signed where the pixels are; `syntax`: another than explicit, little-endian."""
    syntax = tags.pop("syntax", None)
    file = pydicom.dcmread(io.BytesIO(written(np.asarray(pixels))))
    if syntax == RLELossless:
        file.compress(RLELossless)
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in tags.items():
        if dictionary_VR(name) == "US or SS":
            file.add_new(name, "SS" if min(np.atleast_1d(value)) < 0 else "US", value)
        else:
            setattr(file, name, value)
    if pixels.dtype.kind == "f":
        del file.PixelData, file.BitsStored, file.HighBit, file.PixelRepresentation
        setattr(file, "FloatPixelData" if pixels.dtype.itemsize == 4 else "DoubleFloatPixelData", pixels.tobytes())
    stream = io.BytesIO()
    if syntax not in (None, RLELossless):
        file.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian and pixels.dtype.itemsize > 1:
            file.PixelData = pixels.byteswap().tobytes()
    order = {"little_endian": False, "implicit_vr": False} if syntax == ExplicitVRBigEndian else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(stream, file, enforce_file_format=True, **order)
    return stream.getvalue()


def lut(first: int, entries: list[int], bits: int, words: bool = True) -> Dataset:
    """One item of a sequence of look-up tables."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", np.array(entries, "<u2" if words else "u1").tobytes())
    return item


def palette(*channels: list[int], bits: int = 16, first: int = 0, words: bool = True) -> dict[str, Any]:
    """Tags of an image of indices."""
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, entries in zip(NAMES, channels, strict=True):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [len(entries), first, bits]
        tags[f"{name}PaletteColorLookupTableData"] = np.array(entries, "<u2" if words else "u1").tobytes()
    return tags


def row(data: bytes) -> list[Any]:
    """The first row as it is shown."""
    found: list[Any] = shown(data)[0].tolist()
    return found


HU = np.array([[-1000, 0, 30, 50, 400, 1000]], np.int16)

# --- windows and tables ---------------------------------------------------------------------------------------------


def test_a_window_is_absolute() -> None:
    window = {"WindowCenter": 40, "WindowWidth": 400}
    assert row(dicom(HU[:, 2:4], **window)) == [121, 134]  # two slices under one window are comparable
    assert row(dicom(HU, **window)) == [0, 102, 121, 134, 255, 255]
    assert check(dicom(HU, **window)).change == "format DICOM"
    shifted = dicom((HU + 1024).astype(np.uint16), RescaleSlope=1, RescaleIntercept=-1024, **window)
    assert row(shifted) == row(dicom(HU, **window))
    assert row(dicom(HU, **{**window, "WindowCenter": [40, -600], "WindowWidth": [400, 1500]})) == row(dicom(HU, **window))  # the first
    assert row(dicom(HU, **window, PhotometricInterpretation="MONOCHROME1")) == [255, 153, 134, 121, 0, 0]
    assert row(dicom(HU, WindowCenter=0, WindowWidth=1)) == [0, 255, 255, 255, 255, 255]
    assert row(dicom(HU[:, 2:4], RescaleSlope=0.5, RescaleIntercept=0.25, WindowCenter=20.25, WindowWidth=200)) == [122, 135]


def test_functions_of_windows() -> None:
    values = np.array([[0, 50, 100, 150, 200]], np.int16)
    window = {"WindowCenter": 100, "WindowWidth": 100}
    assert row(dicom(values, **window, VOILUTFunction="LINEAR_EXACT")) == [0, 0, 128, 255, 255]
    assert row(dicom(values, **window, VOILUTFunction="LINEAR")) == [0, 0, 129, 255, 255]
    sigmoid = [round(255 / (1 + np.exp(-4 * (value - 100) / 100))) for value in (0, 50, 100, 150, 200)]
    assert np.abs(np.subtract(row(dicom(values, **window, VOILUTFunction="SIGMOID")), sigmoid)).max() <= 1


@pytest.mark.parametrize("window", [{"WindowCenter": 40, "WindowWidth": 0}, {"WindowCenter": "", "WindowWidth": ""}, {"WindowCenter": 40}])
def test_a_window_that_is_none_is_counted_as_such(window: dict[str, Any]) -> None:
    found = check(dicom(HU, **window))
    assert found.change == f"format DICOM, {NO_WINDOW}"
    assert row(dicom(HU, **window)) == [0, 128, 131, 134, 178, 255]


def test_an_enhanced_image_has_its_window_elsewhere() -> None:
    window, rescaling, frame = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 40, 400
    rescaling.RescaleSlope, rescaling.RescaleIntercept = 1, -1024
    frame.FrameVOILUTSequence, frame.PixelValueTransformationSequence = [window], [rescaling]
    pixels = (HU + 1024).astype(np.uint16)
    assert row(dicom(pixels, SharedFunctionalGroupsSequence=[frame])) == [0, 102, 121, 134, 255, 255]
    assert row(dicom(pixels, PerFrameFunctionalGroupsSequence=[frame], NumberOfFrames=1)) == [0, 102, 121, 134, 255, 255]


def test_tables_of_modality_and_of_interest() -> None:
    values = np.array([[0, 1, 2, 3, 9]], np.uint16)
    assert row(dicom(values, VOILUTSequence=[lut(1, [0, 2048, 4095], 12)])) == [0, 0, 128, 255, 255]
    assert row(dicom(values, VOILUTSequence=[lut(1, [0, 128, 255], 8, words=False)], WindowCenter=1, WindowWidth=2)) == [
        0,
        0,
        128,
        255,
        255,
    ]
    assert row(dicom(HU, VOILUTSequence=[lut(-1000, [255] * 1000 + [7] * 31 + [9] * 9, 8)])) == [255, 7, 7, 9, 9, 9]
    wide = dicom(np.array([[0, 255, 256, 300, 999]], np.uint16), VOILUTSequence=[lut(0, [*range(256), *[7] * 50, 9], 8, words=False)])
    assert row(wide) == [0, 255, 7, 7, 9]  # more entries than a byte counts
    modality = {"ModalityLUTSequence": [lut(0, [0, 10, 20, 1000], 16)], "WindowCenter": 11, "WindowWidth": 21}
    assert row(dicom(values, **modality)) == [0, 121, 249, 255, 255]
    assert row(dicom(values, ModalityLUTSequence=[lut(0, [0, 10, 20, 40], 16)])) == [0, 64, 128, 255, 255]


def test_no_window_spans_the_tissue_without_padding() -> None:
    tissue = np.arange(200, dtype=np.int16).reshape(10, 20)
    padded = np.vstack([tissue, np.full((1, 20), -2000, np.int16)])
    expected = np.rint(tissue * (255 / 199))
    assert (shown(dicom(padded, PixelPaddingValue=-2000))[:10] == expected).all()
    assert (shown(dicom(padded, PixelPaddingValue=63536))[:10] == expected).all()  # written unsigned
    ranged = np.vstack([padded, np.full((1, 20), -1500, np.int16)])
    assert (shown(dicom(ranged, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1400))[:10] == expected).all()
    assert (shown(dicom(padded, PixelPaddingValue=-2000, RescaleSlope=2, RescaleIntercept=-7))[:10] == expected).all()
    assert len(np.unique(shown(dicom(padded)))) < 30  # as it was for all
    assert shown(dicom(np.full((2, 2), 7, np.uint16), PixelPaddingValue=7)).tolist() == [[0, 0], [0, 0]]


def test_white_is_inverted_once() -> None:
    plain = row(dicom(HU, WindowCenter=40, WindowWidth=400))
    for tags in ({"PhotometricInterpretation": "MONOCHROME1"}, {"PresentationLUTShape": "INVERSE"}):
        assert row(dicom(HU, WindowCenter=40, WindowWidth=400, **tags)) == [255 - value for value in plain]
    both = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}  # as digital X-ray wants it
    assert row(dicom(HU, WindowCenter=40, WindowWidth=400, **both)) == [255 - value for value in plain]
    assert row(dicom(HU, WindowCenter=40, WindowWidth=400, PresentationLUTShape="IDENTITY")) == plain


# --- stored values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stored", "high"), [(12, 11), (12, 15), (10, 12), (16, 15), (9, 15)])
@pytest.mark.parametrize("signed", [False, True])
def test_stored_bits_lie_where_the_high_bit_says(stored: int, high: int, signed: bool) -> None:
    low = -(2 ** (stored - 1)) if signed else 0
    values = low + np.array([[0, 1, 100, 2**stored - 1]])
    raw = ((values % 2**stored) << (high + 1 - stored)) | (1 << (high + 1) if high < 15 else 0) | (high + 1 - stored > 0)
    pixels = raw.astype(np.uint16).view(np.int16) if signed else raw.astype(np.uint16)
    window = {"WindowCenter": low + 50.5, "WindowWidth": 101}
    assert row(dicom(pixels, BitsStored=stored, HighBit=high, **window)) == [0, 3, 255, 255]


def test_bits_words_and_floats() -> None:
    bits = dicom(np.array([[0b00011001]], np.uint8), Columns=8, Rows=1, BitsAllocated=1, BitsStored=1, HighBit=0)
    assert row(bits) == [255, 0, 0, 255, 255, 0, 0, 0]
    for kind in (np.uint32, np.int32):
        assert row(dicom(np.array([[0, 2**20, 2**21]], kind))) == [0, 128, 255]
    for kind in (np.float32, np.float64):
        assert row(dicom(np.array([[-1.0, 0.0, 1.0]], kind), BitsAllocated=8 * np.dtype(kind).itemsize)) == [0, 128, 255]
        assert row(
            dicom(np.array([[-1.0, 0.0, 1.0]], kind), BitsAllocated=8 * np.dtype(kind).itemsize, WindowCenter=0.5, WindowWidth=2)
        ) == [0, 128, 255]
    padded = np.array([[-1e30, -1.0, 0.0, 1.0]], np.float32)
    assert row(dicom(padded, BitsAllocated=32, FloatPixelPaddingValue=-1e30)) == [0, 0, 128, 255]
    missing = np.array([[np.nan, -1.0, 0.0, 1.0]], np.float32)
    assert row(dicom(missing, BitsAllocated=32, FloatPixelPaddingValue=-1e30)) == [0, 0, 128, 255]
    for window in ({}, {"WindowCenter": 0.5, "WindowWidth": 2}):
        assert "not finite" in check(dicom(np.array([[np.inf, 0.0]], np.float32), BitsAllocated=32, **window)).detail
        assert "not finite" in check(dicom(missing, BitsAllocated=32, **window)).detail


# --- colours ---------------------------------------------------------------------------------------------------------


def test_a_palette_gives_colours() -> None:
    indices = np.array([[0, 1, 2, 3]], np.uint8)
    red, green, blue = [0xFFFF, 0, 0, 0xFFFF], [0, 0xFFFF, 0, 0xFFFF], [0, 0, 0xFFFF, 0xFFFF]
    colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]
    assert row(dicom(indices, **palette(red, green, blue))) == colours
    assert check(dicom(indices, **palette(red, green, blue))).change == "format DICOM, palette"
    high = [[value >> 8 for value in channel] for channel in (red, green, blue)]
    assert row(dicom(indices, **palette(*high, bits=8, words=False))) == colours
    assert row(dicom(indices, **palette(*high, bits=8))) == colours  # bytes in words
    assert row(dicom(indices, **palette(*high))) == colours  # and called 16 bits
    assert row(dicom(np.array([[0, 5, 6, 99]], np.uint16), **palette(red, green, blue, first=4))) == [colours[i] for i in (0, 1, 2, 3)]
    signed = dicom(np.array([[-9, -1, 0, 1]], np.int16), **palette(red, green, blue, first=65534))
    assert row(signed) == [colours[i] for i in (0, 1, 2, 3)]
    wide = palette(*[[*range(256), 7, 8]] * 3, bits=8, words=False)
    assert row(dicom(np.array([[3, 256, 257, 999]], np.uint16), **wide)) == [[value] * 3 for value in (3, 7, 8, 8)]


def test_a_palette_in_segments() -> None:
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in NAMES:
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [6, 0, 16]
        tags[f"Segmented{name}PaletteColorLookupTableData"] = np.array([0, 2, 0, 0x1000, 1, 4, 0x9000], "<u2").tobytes()
    assert [colour[0] for colour in row(dicom(np.arange(6, dtype=np.uint8)[None], **tags))] == [0, 0x10, 0x30, 0x50, 0x70, 0x90]
    tags["SegmentedRedPaletteColorLookupTableData"] = np.array([2, 60000, 0, 0] * 1000, "<u2").tobytes()
    assert "segments of kind 2: export it as RGB" in check(dicom(np.arange(6, dtype=np.uint8)[None], **tags)).detail


def test_colours_of_16_bits_keep_their_high_byte() -> None:
    pixels = np.array([[[0x7F80, 0x1000, 0xFF00], [0, 255, 256]]], np.uint16)
    assert row(dicom(pixels)) == [[127, 16, 255], [0, 0, 1]]
    assert row(dicom(pixels >> 4, BitsStored=12, HighBit=11)) == [[127, 16, 255], [0, 0, 1]]
    assert row(dicom(pixels & 0xFFF0, BitsStored=12, HighBit=15)) == [[127, 16, 255], [0, 0, 1]]
    planes = np.ascontiguousarray(np.moveaxis(pixels, 2, 0)).reshape(1, 2, 3)
    assert row(dicom(planes, PlanarConfiguration=1)) == [[127, 16, 255], [0, 0, 1]]
    assert check(dicom(pixels)).change == "format DICOM, more than 8 bits a channel"
    assert row(dicom(np.array([[[0, 7, 15]]], np.uint8), BitsStored=4, HighBit=3)) == [[0, 119, 255]]


def test_luminance_and_chrominance_become_colours() -> None:
    """By the formula of the standard (C.7.6.3.1.2); DCMTK cuts off two products of green and is up to 2 below."""
    coded = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    y, cb, cr = np.moveaxis(coded.astype(float) - [0, 128, 128], 2, 0)
    colours = np.clip(np.floor(np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 2) + 0.5), 0, 255)
    for planar in (0, 1):
        stored = np.ascontiguousarray(np.moveaxis(coded, 2, 0)).reshape(coded.shape) if planar else coded
        assert (shown(dicom(stored, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=planar)) == colours).all()


def test_other_colours_are_refused_by_name() -> None:
    for name in ("HSV", "CMYK", "YBR_PARTIAL_420"):
        assert f"colours as {name}: export it as RGB" in check(dicom(np.zeros((2, 2, 3), np.uint8), PhotometricInterpretation=name)).detail


# --- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("syntax", "packages"), [(JPEGLosslessSV1, "pylibjpeg pylibjpeg-libjpeg"), (JPEGLSLossless, "pyjpegls")])
def test_a_decoder_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, syntax: UID, packages: str) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    monkeypatch.setattr(get_decoder(syntax), "_available", {})
    file = pydicom.dcmread(FILES / "SC_rgb_jpeg_gdcm.dcm")
    file.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    file.save_as(stream)
    found = check(stream.getvalue())
    assert found.reason == "dicom-image" and found.detail.endswith(f"need a decoder of pydicom's; pip install {packages}")


def test_files_without_one_image_are_named() -> None:
    assert "a DICOM file without an image (Basic Text SR Storage)" in check((FILES / "reportsi.dcm").read_bytes()).detail
    two = dicom(np.zeros((8, 4), np.uint16), Rows=4)  # and no word of two frames
    assert "header says 4 x 4: export it again" in check(two).detail


def test_run_lengths_that_explode_are_refused() -> None:
    file = pydicom.dcmread(io.BytesIO(dicom(np.zeros((64, 64), np.uint8), syntax=RLELossless)))
    bomb = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + b"\x81\0" * (3 * 2**20)
    file.PixelData = pydicom.encaps.encapsulate([bomb])
    stream = io.BytesIO()
    file.save_as(stream)
    assert "run lengths of more than its 64 x 64 pixels" in check(stream.getvalue()).detail


# --- DCMTK -----------------------------------------------------------------------------------------------------------

needs_dcmtk = pytest.mark.skipif(
    shutil.which("dcmj2pnm") is None, reason="DCMTK (Debian's dcmtk) is not installed: nothing to compare with"
)
UNREADABLE = (  # by DCMTK, or by pydicom with the decoders installed; several frames; no image
    "693_J2KI", "GDCMJ2K", "J2K_", "JPEG-lossy", "JPEG2000", "JPGExt", "MR_small_jp2k", "MR_trunc", "SC_rgb_gdcm_KY", "SC_rgb_jpeg.dcm",
    "UN_", "bad", "charset", "empty_", "examples_jpeg2k", "examples_ybr", "image_dfl", "meta_", "nested", "no_meta",
    "priv_", "report", "rtplan", "rtstruct", "test-SR", "waveform", "NoMeta", "2frame", "rtdose.", "rtdose_rle.", "rtdose_expb", "liver.",
)  # fmt: skip


def dcmtk(path: Path, is_windowed: bool) -> Any:
    """Pixels as DCMTK shows them: by the first window, else from minimum to maximum."""
    file = pydicom.dcmread(path)
    options = [] if not file.PhotometricInterpretation.startswith("MONO") else ["+Wi", "1"] if is_windowed else ["+Wm"]
    options = ["+Wl", "1"] if "VOILUTSequence" in file else options
    out = path.parent / "dcmtk.png"
    out.unlink(missing_ok=True)
    if file.file_meta.TransferSyntaxUID.name.startswith("JPEG-LS"):  # which has a decoder of its own there
        plain = path.with_name("plain.dcm")
        subprocess.run(["dcmdjpls", path, plain], check=True, capture_output=True)
        path = plain
    subprocess.run(["dcmj2pnm", "-O", *options, "+on", path, out], check=True, capture_output=True)
    return np.asarray(Image.open(out).convert("RGB")).astype(int)


def difference(path: Path) -> int:
    """The largest, in grey levels."""
    found = check(path.read_bytes())
    assert isinstance(found, ingest.Checked), (path, found)
    ours = np.asarray(Image.open(io.BytesIO(found.image)).convert("RGB")).astype(int)
    theirs = dcmtk(path, NO_WINDOW not in (found.change or ""))
    assert ours.shape == theirs.shape
    return int(np.abs(ours - theirs).max())


@needs_dcmtk
def test_published_files_agree_with_dcmtk(tmp_path: Path) -> None:
    names = sorted(path for path in FILES.glob("*.dcm") if not any(part in path.name for part in UNREADABLE))
    assert len(names) >= 25
    apart = {}
    for path in names:
        shutil.copy(path, tmp_path / path.name)
        if (levels := difference(tmp_path / path.name)) > 1:
            apart[path.name] = levels
    assert apart == {}


@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm"])
def test_what_is_compressed_without_loss_is_the_image_that_it_was(name: str) -> None:
    images = [check((FILES / one).read_bytes()) for one in (name, "MR_small.dcm")]
    one, other = (image.pixel_digest if isinstance(image, ingest.Checked) else image for image in images)
    assert one == other


def drawn(seed: int) -> bytes:
    """A small file of random tags."""
    rng = np.random.default_rng(seed)
    size, kind = tuple(rng.integers(4, 30, 2).tolist()), ("grey", "grey", "grey", "colour", "palette", "table")[seed % 6]
    syntax = [None, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless][rng.integers(4)]
    if kind == "colour":
        pixels = rng.integers(0, 256, (*size, 3)).astype(np.uint8) if seed % 4 else rng.integers(0, 65536, (*size, 3)).astype(np.uint16)
        return dicom(pixels, PlanarConfiguration=0, syntax=syntax)
    if kind == "palette":
        channels = [rng.integers(0, 65536, 64).tolist() for _ in NAMES]
        tags = palette(*channels, first=int(rng.integers(0, 9)))
        return dicom(rng.integers(0, 80, size).astype(rng.choice(["u1", "u2"])), **tags, syntax=[None, ImplicitVRLittleEndian][seed % 2])
    stored, signed = int(rng.integers(9, 17)), bool(rng.integers(2))  # with fractions or 8 bits DCMTK rounds before the window
    low = -(2 ** (stored - 1)) if signed else 0
    values = rng.integers(low, low + 2**stored, size)
    high = int(rng.integers(stored - 1, 16))
    pixels = ((values % 2**stored) << (high + 1 - stored)).astype(np.uint16)
    tags = {"BitsStored": stored, "HighBit": high, "PhotometricInterpretation": f"MONOCHROME{rng.integers(1, 3)}"}
    slope, intercept = (float(rng.integers(1, 4)), int(rng.integers(-1024, 100))) if rng.integers(2) else (1, 0)
    if (slope, intercept) != (1, 0):
        tags |= {"RescaleSlope": slope, "RescaleIntercept": intercept}
    if kind == "table":
        entries = np.sort(rng.integers(0, 4096, 100)).tolist()
        tags = {name: value for name, value in tags.items() if not name.startswith("Rescale")}
        if seed % 4 == 1:
            tags |= {"ModalityLUTSequence": [lut(low, entries, 16)], "WindowCenter": 2000, "WindowWidth": 1500}
        else:
            tags |= {"VOILUTSequence": [lut(max(low, 0), entries, 12)]}
        syntax = None
    elif rng.integers(3):
        center = low * slope + intercept + float(rng.integers(0, 2**stored)) * slope
        tags |= {"WindowCenter": center, "WindowWidth": float(rng.integers(2, 2**stored))}
        tags |= {"VOILUTFunction": "SIGMOID"} if not rng.integers(4) else {}
    return dicom(pixels.view(np.int16) if signed else pixels, **tags, syntax=syntax)


@needs_dcmtk
def test_drawn_files_agree_with_dcmtk(tmp_path: Path) -> None:
    apart = {}
    for seed in range(60):
        (tmp_path / "drawn.dcm").write_bytes(drawn(seed))
        if (levels := difference(tmp_path / "drawn.dcm")) > 1:
            apart[seed] = levels
    assert apart == {}
