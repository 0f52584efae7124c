"""DICOM images, through pydicom (`pip install -e '.[dicom]'`): one frame, as its own tags say that it is shown (PS3.3, C.11)."""

import io
import logging
import warnings
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medbench.datasets import display
from medbench.errors import Extra
from medbench.jobs import imagefile, limits

Values: TypeAlias = NDArray[Any]

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # a traceback for each broken frame: it becomes an error of ours
warnings.filterwarnings("ignore", module=r"pydicom\.")  # a line for each odd tag of each file

GREYS, COLOURS = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
FRAME_TAGS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")  # where enhanced images have rescaling and window
PLUGINS = {  # begin of a transfer syntax's name -> what reads it
    "JPEG-LS": "pyjpegls",
    "JPEG 2000": "pylibjpeg pylibjpeg-openjpeg",
    "High-Throughput": "pylibjpeg pylibjpeg-openjpeg",
    "JPEG": "pylibjpeg pylibjpeg-libjpeg",
}
NO_WINDOW = "no window: stretched from its own minimum to its maximum"


def opened(data: bytes) -> Any:
    """A file of one frame, pixels not decoded yet (`Columns`, `Rows`: its size).

    Raises Extra where pydicom or a decoder of its is missing, ValueError for what is no single image, DecompressionBombError for too many
    pixels.
    """
    try:
        from pydicom import FileDataset, dcmread
        from pydicom.dataset import FileMetaDataset
        from pydicom.filereader import read_dataset
        from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
    except ImportError:
        raise Extra("DICOM images need pydicom", "run `pip install -e '.[dicom]'` in the clone") from None
    stream = io.BytesIO(data)
    stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, representation, length: tag.group != 2)
    found: Any
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        plain = _inflated(data[144 + int(meta.FileMetaInformationGroupLength) :])
        found = FileDataset("", read_dataset(io.BytesIO(plain), False, True), file_meta=FileMetaDataset(meta))
    else:
        found = dcmread(io.BytesIO(data))
    if not any(name in found for name in PIXELS) or not found.get("Rows") or not found.get("Columns"):
        name = UID(uid).name if (uid := meta.get("MediaStorageSOPClassUID")) else "of no class"
        raise ValueError(f"a DICOM file without an image ({name})")
    if (frames := int(found.get("NumberOfFrames") or 1)) != 1:
        raise ValueError(f"{frames} frames: export the one that is meant")
    if found.PhotometricInterpretation not in (*GREYS, *COLOURS, "PALETTE COLOR"):
        raise ValueError(f"colours as {found.PhotometricInterpretation}: export it as RGB")
    if found.Columns * found.Rows > limits.MAX_PIXELS:
        raise imagefile.too_large(found.Columns, found.Rows)
    if found.file_meta.TransferSyntaxUID.is_encapsulated:
        _check_frame(found)
    return found


def _inflated(data: bytes) -> bytes:
    """What follows the header of a deflated file; pydicom would unpack it whatever its size."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(data, limits.MAX_IMAGE_BYTES + 1)
    except zlib.error as error:
        raise ValueError(f"is not deflated as its header says ({error}): export it again") from None
    if len(plain) > limits.MAX_IMAGE_BYTES:
        raise ValueError(f"unpacks to more than {limits.MAX_IMAGE_BYTES} bytes: export it without deflating")
    return plain


def _check_frame(found: Any) -> None:
    """That a compressed frame can be decoded, and is no larger than the file says."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import _get_jpg_parameters
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGExtended12Bit, RLELossless

    syntax = found.file_meta.TransferSyntaxUID
    decoder = get_decoder(syntax)
    beyond_pillow = found.BitsStored > 8 and (
        syntax == JPEGExtended12Bit or (syntax in JPEG2000TransferSyntaxes and found.SamplesPerPixel > 1)
    )
    if "pillow" in decoder.available_plugins and not beyond_pillow:  # whatever else is installed: decoders round colours differently
        found.pixel_array_options(decoding_plugin="pillow")
    if not decoder.is_available or (beyond_pillow and decoder.available_plugins == ("pillow",)):
        plugins = next((names for begin, names in PLUGINS.items() if syntax.name.startswith(begin)), "pylibjpeg")
        raise Extra(f"DICOM images in {syntax.name}, {found.BitsStored} bits, need a decoder of pydicom's", f"pip install {plugins}")
    frame = next(generate_frames(found.PixelData, number_of_frames=1))
    if syntax == RLELossless:
        _check_runs(frame, found)
    elif (size := _get_jpg_parameters(frame)) and size["width"] * size["height"] > limits.MAX_PIXELS:
        raise imagefile.too_large(size["width"], size["height"])
    elif not size:
        try:
            imagefile.opened(frame)
        except UnidentifiedImageError:  # a decoder might make it as large as it likes
            raise ValueError(f"its frame is no {syntax.name}: export it again") from None


def _check_runs(frame: bytes, found: Any) -> None:
    """That no segment of an RLE frame unpacks to much more than a plane of bytes; 64 times a small one is little."""
    if 64 * len(frame) <= 4 * limits.MAX_PIXELS:
        return
    offsets = [*np.frombuffer(frame[4:64], "<u4")[: int.from_bytes(frame[:4], "little")].tolist(), len(frame)]
    for begin, end in pairwise(offsets):
        unpacked, place = 0, begin
        while place < end:
            header = frame[place]
            unpacked += header + 1 if header < 128 else 257 - header if header > 128 else 0
            place += header + 2 if header < 128 else 2 if header > 128 else 1
            if unpacked > 2 * found.Rows * found.Columns:
                raise ValueError(f"run lengths of more than its {found.Columns} x {found.Rows} pixels")


def decoded(found: Any) -> tuple[Image.Image, list[str]]:
    """The frame in 8 bits, as its tags say that it is shown, and what the card should know of that.

    Raises ValueError for pixels that are not finite, and whatever pydicom's decoders raise.
    """
    for place in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for name in FRAME_TAGS:
            if found.get(place) and found[place][0].get(name):
                found.update(found[place][0][name][0])
    pixels = _pixels(found)
    if found.PhotometricInterpretation == "PALETTE COLOR":
        shown, notes = _palette(pixels, found), ["palette"]
    elif pixels.ndim == 3:
        shown, notes = _colours(pixels, int(found.BitsStored))
    else:
        shown, notes = _grey(pixels, found)
    image = Image.fromarray(shown)
    image.format = "DICOM"
    return image, notes


def _pixels(found: Any) -> Values:
    """[rows, columns] or [rows, columns, 3] as stored, colours as RGB."""
    from pydicom.uid import RLELossless

    low_bits, syntax = 0, found.file_meta.TransferSyntaxUID
    if "PixelData" in found and (syntax == RLELossless or not syntax.is_encapsulated):
        low_bits = max(int(found.get("HighBit", found.BitsStored - 1)) + 1 - int(found.BitsStored), 0)
        found.BitsStored += low_bits  # pydicom takes the lowest bits for the stored ones
    pixels: Values = found.pixel_array
    if low_bits:
        found.BitsStored -= low_bits
        pixels = pixels >> low_bits
    if pixels.shape[:2] != (found.Rows, found.Columns) or pixels.ndim > 3:
        raise ValueError(f"its pixels make an array of {pixels.shape}, its header says {found.Rows} x {found.Columns}: export it again")
    return pixels


def _colours(pixels: Values, bits: int) -> tuple[NDArray[np.uint8], list[str]]:
    """The high byte of each, or less than a byte stretched to one."""
    if bits < 8:
        return display.in_strips(pixels, lambda values: display.stretched(values.astype(np.float64), 0, 2**bits - 1)), []
    return display.in_strips(pixels, lambda values: values >> (bits - 8)), ["more than 8 bits a channel"] if bits > 8 else []


def _grey(pixels: Values, found: Any) -> tuple[NDArray[np.uint8], list[str]]:
    """Modality, then values of interest (VOI), in black to white over 0..255. Padding that is no number is black."""
    if pixels.dtype.kind == "f" and not np.isfinite(pixels[~_padding(pixels, found)]).all():
        raise ValueError("pixels are not finite")
    modality = _modality(found)
    to_bytes, notes = _voi(found), list[str]()
    if to_bytes is None:
        low, high = _extremes(pixels, modality, found)
        notes = [NO_WINDOW] if high > low else []

        def to_bytes(values: Values) -> Values:
            return display.stretched(values, low, high)

    is_inverse = found.PhotometricInterpretation == "MONOCHROME1" or found.get("PresentationLUTShape") == "INVERSE"
    shown = display.in_strips(pixels, lambda values: np.nan_to_num(np.clip(np.rint(to_bytes(modality(values))), 0, 255)))
    return 255 - shown if is_inverse else shown, notes


def _modality(found: Any) -> Callable[[Values], Values]:
    """Stored values -> those of the modality (Hounsfield units, say)."""
    if found.get("ModalityLUTSequence"):
        table = _Table(found.ModalityLUTSequence[0], found, found.PixelRepresentation)
        return lambda values: table(values).astype(np.float64)
    slope, intercept = float(found.get("RescaleSlope") or 1), float(found.get("RescaleIntercept") or 0)
    return lambda values: values.astype(np.float64) * slope + intercept


def _voi(found: Any) -> Callable[[Values], Values] | None:
    """Values of the modality -> 0..255 by the first look-up table or window of a file; None where it has none that can be used."""
    from pydicom.dataset import Dataset
    from pydicom.pixels.processing import apply_windowing

    if found.get("VOILUTSequence") and "LUTData" in found.VOILUTSequence[0]:
        is_signed = not found.get("ModalityLUTSequence") and (found.PixelRepresentation or (found.get("RescaleIntercept") or 0) < 0)
        table = _Table(found.VOILUTSequence[0], found, is_signed)
        return lambda values: table(np.rint(values)) * (255 / (2**table.bits - 1))
    center, width = _first(found, "WindowCenter"), _first(found, "WindowWidth")
    function = str(found.get("VOILUTFunction") or "LINEAR").strip().upper()
    if center is None or width is None or width < (1 if function == "LINEAR" else 1e-30):
        return None
    window = Dataset()  # of an image of 8 bits, so that what comes out are bytes
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 8, 0
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = center, width, function
    return lambda values: apply_windowing(values, window)


def _first(found: Any, name: str) -> float | None:
    """The first of the numbers of a tag, that of the first view."""
    values = np.atleast_1d(found.get(name) if found.get(name) is not None else []).ravel()
    return float(values[0]) if len(values) and values[0] != "" else None


def _extremes(pixels: Values, modality: Callable[[Values], Values], found: Any) -> tuple[float, float]:
    """Smallest and largest value of the modality without padding; with it, where there is nothing else."""
    for is_kept in (lambda values: ~_padding(values, found), lambda values: np.ones(values.shape, bool)):
        kept = (pixels[rows][is_kept(pixels[rows])] for rows in display.strips(*pixels.shape))
        ranges = [(float(values.min()), float(values.max())) for strip in kept if strip.size for values in [modality(strip)]]
        if ranges:
            break
    low, high = zip(*ranges, strict=True)
    return min(low), max(high)


def _padding(pixels: Values, found: Any) -> NDArray[np.bool_]:
    """Which stored values fill the space around what was imaged."""
    kind = next(name for name in PIXELS if name in found).removesuffix("PixelData")
    first = found.get(f"{kind}PixelPaddingValue")
    if first is None:
        return np.zeros(pixels.shape, bool)
    last = found.get(f"{kind}PixelPaddingRangeLimit{'Value' if kind else ''}")
    low, high = sorted(np.array([first, first if last is None else last]).astype(pixels.dtype))  # wraps what was written unsigned
    is_padding: NDArray[np.bool_] = (pixels >= low) & (pixels <= high) | (pixels != pixels)
    return is_padding


class _Table:
    """A look-up table of DICOM: entries for consecutive values from `first` on; beyond them, the first or last one."""

    def __init__(self, item: Any, found: Any, is_signed: bool, name: str = "LUT", data: str = "LUTData") -> None:
        """`item` holds `{name}Descriptor` and, under `data`, the entries; `is_signed`: its first value may be negative."""
        entries, first, self.bits = (int(value) for value in item[f"{name}Descriptor"].value)
        entries = entries % 2**16 or 2**16
        self.first = first - 2**16 if first >= 2**15 and is_signed else first
        order = "<" if found.file_meta.TransferSyntaxUID.is_little_endian else ">"
        stored = item[data].value
        if not isinstance(stored, bytes):
            stored = np.atleast_1d(stored).astype(f"{order}u2").tobytes()
        is_segmented = data.startswith("Segmented")
        is_bytes = self.bits <= 8 if is_segmented else len(stored) < 2 * entries
        self.entries = np.frombuffer(stored, "u1" if is_bytes else f"{order}u2")
        self.entries = _expanded(self.entries, entries) if is_segmented else self.entries[:entries]
        self.bits = 8 if is_bytes else self.bits

    def __call__(self, values: Values) -> Values:
        """The entries of values, whatever type they have."""
        places = np.clip(values, self.first, self.first + len(self.entries) - 1)
        found: Values = self.entries[places.astype(np.int64) - self.first]
        return found


def _expanded(segments: Values, entries: int) -> Values:
    """The entries that the segments of a table stand for (C.7.9.2)."""
    found, place, words = list[int](), 0, segments.tolist()
    while place + 2 < len(words) and len(found) < entries:
        kind, length = words[place : place + 2]
        if kind == 0:
            found += words[place + 2 : place + 2 + length]
        elif kind == 1 and found:
            found += np.rint(np.linspace(found[-1], words[place + 2], length + 1)[1:]).astype(int).tolist()
        else:
            raise ValueError(f"a palette in segments of kind {kind}: export it as RGB")
        place += 2 + (length if kind == 0 else 1)
    if len(found) < entries:
        raise ValueError(f"a palette of {entries} entries with {len(found)} in its segments: export it as RGB")
    return np.array(found[:entries])


def _palette(pixels: Values, found: Any) -> NDArray[np.uint8]:
    """The colours of indices, RGB."""
    kind = "Segmented" if "SegmentedRedPaletteColorLookupTableData" in found else ""
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    tables = [_Table(found, found, found.PixelRepresentation, name, f"{kind}{name}Data") for name in names]
    shift = 8 if max(int(table.entries.max()) for table in tables) > 255 else 0  # some have bytes in words

    def plane(table: _Table) -> NDArray[np.uint8]:
        return display.in_strips(pixels, lambda values: table(values) >> shift)

    return np.stack([plane(table) for table in tables], axis=2)
