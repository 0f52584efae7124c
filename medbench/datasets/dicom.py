"""DICOM images, through pydicom (`pip install medbench[dicom]`): one frame, as its own window shows it."""

import io
from typing import Any

import numpy as np
from PIL import Image

from medbench.errors import Extra


def read(data: bytes) -> Image.Image:
    """One frame as an 8-bit image: rescaled, windowed (from minimum to maximum where the file names no window), MONOCHROME1 inverted.

    Raises Extra where pydicom is missing, ValueError for what is no single image.
    """
    try:
        import pydicom
        from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
    except ImportError:
        raise Extra("DICOM images need pydicom", "pip install 'medbench[dicom]'") from None
    found: Any = pydicom.dcmread(io.BytesIO(data))
    if int(found.get("NumberOfFrames", 1)) != 1:
        raise ValueError(f"{found.NumberOfFrames} frames: export the one that is meant")
    pixels = found.pixel_array
    if found.get("SamplesPerPixel", 1) == 3:
        image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
    else:
        shown = apply_voi_lut(apply_modality_lut(pixels, found), found).astype(np.float64)
        low, high = float(shown.min()), float(shown.max())
        grey = np.rint((shown - low) * (255 / max(high - low, 1e-30)))
        image = Image.fromarray((255 - grey if found.PhotometricInterpretation == "MONOCHROME1" else grey).astype(np.uint8))
    image.format = "DICOM"
    return image
