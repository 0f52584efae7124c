"""DICOM images, through pydicom (`pip install medbench[dicom]`): one frame, as its own window shows it."""

import io
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from medbench.errors import Extra
from medbench.jobs import imagefile, limits


def opened(data: bytes) -> Any:
    """A file of one frame, pixels not decoded yet (`Columns`, `Rows`: its size).

    Raises Extra where pydicom is missing, ValueError for what is no single image, DecompressionBombError for too many pixels.
    """
    try:
        from pydicom import dcmread
        from pydicom.encaps import generate_frames
        from pydicom.filereader import read_dataset
        from pydicom.uid import DeflatedExplicitVRLittleEndian
    except ImportError:
        raise Extra("DICOM images need pydicom", "pip install 'medbench[dicom]'") from None
    stream = io.BytesIO(data)
    stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, representation, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:  # pydicom inflates it at once, whatever its size
        raise ValueError("the whole file is deflated: save it in another transfer syntax")
    found: Any = dcmread(io.BytesIO(data))
    if int(found.get("NumberOfFrames", 1)) != 1:
        raise ValueError(f"{found.NumberOfFrames} frames: export the one that is meant")
    if found.Columns * found.Rows > limits.MAX_PIXELS:
        raise imagefile.too_large(found.Columns, found.Rows)
    if found.file_meta.TransferSyntaxUID.is_encapsulated:
        with suppress(UnidentifiedImageError):  # neither JPEG nor JPEG 2000: it is decoded by the size above
            imagefile.opened(next(generate_frames(found.PixelData, number_of_frames=1)))  # may be larger than the file says
    return found


def decoded(found: Any) -> Image.Image:
    """The frame as an 8-bit image: rescaled, windowed (from minimum to maximum where the file names no window), MONOCHROME1 inverted."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    pixels = found.pixel_array
    if found.get("SamplesPerPixel", 1) == 3:
        image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
    else:
        shown = apply_voi_lut(apply_modality_lut(pixels, found), found).astype(np.float64)
        low, high = float(shown.min()), float(shown.max())
        shown -= low
        shown *= 255 / max(high - low, 1e-30)
        np.rint(shown, out=shown)
        image = Image.fromarray((255 - shown if found.PhotometricInterpretation == "MONOCHROME1" else shown).astype(np.uint8))
    image.format = "DICOM"
    return image
