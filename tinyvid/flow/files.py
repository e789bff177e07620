"""Files of flow: Middlebury's `.flo`, one flow each, and `.npz`, that of a whole video."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from tinyvid.errors import UserError

TAG = b"PIEH"  # the bytes of 202021.25, by which the format tells the order of bytes
ZERO, STEPS = 128, 127  # of one byte a number: that of no displacement, and steps to the bound
UNKNOWN = 1e9  # Middlebury: beyond it nothing is known


def write_flo(path: str | Path, flow: np.ndarray) -> None:
    """Write a flow (2, H, W) as Middlebury's `.flo`, float32; NaN is unknown there.

    Raises:
        UserError: the shape is another, or the file cannot be written.
    """
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise UserError(f"{path}: a flow is 2 H W, not {flow.shape}")
    _, height, width = flow.shape
    numbers = np.where(np.isnan(flow), 10 * UNKNOWN, flow).transpose(1, 2, 0).astype("<f4")
    try:
        with open(path, "wb") as file:
            file.write(TAG + np.array([width, height], "<i4").tobytes() + numbers.tobytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def read_flo(path: str | Path) -> np.ndarray:
    """Return the flow of a `.flo` file, float32 (2, H, W); NaN where it is unknown.

    Raises:
        UserError: the file cannot be read, or is no `.flo` file, or is cut short.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if data[:4] != TAG:
        raise UserError(f"{path}: no .flo file: it begins with {data[:4]!r}, not {TAG!r}")
    sizes = np.frombuffer(data[4:12], "<i4") if len(data) >= 12 else np.zeros(2, np.int32)
    width, height = map(int, sizes)
    if min(width, height) < 1 or len(data) != 12 + 8 * width * height:
        raise UserError(
            f"{path}: damaged: {len(data)} bytes, where a flow of {width} by {height} pixels has "
            f"{12 + 8 * width * height}"
        )
    flow = np.frombuffer(data[12:], "<f4").reshape(height, width, 2).transpose(2, 0, 1)
    known = (np.abs(flow) <= UNKNOWN).all(axis=0)
    return np.where(known, flow, np.nan).astype(np.float32)


def to_bytes(flow: np.ndarray, bound: float) -> np.ndarray:
    """Return displacements in pixels as uint8: -bound to bound in 254 equal steps, 1 to 255.

    128 is none. Longer ones are cut; what is within the bound is wrong by at most bound / 254.
    """
    return np.clip(np.rint(flow * (STEPS / bound)) + ZERO, 1, 255).astype(np.uint8)


def from_bytes(numbers: np.ndarray, bound: float) -> np.ndarray:
    """Return the displacements in pixels, float32, of which `to_bytes` made these."""
    return (numbers.astype(np.float32) - ZERO) * np.float32(bound / STEPS)


class FloWriter:
    """A new folder of `.flo` files, 000000.flo from frame 0 to frame 1, and so on."""

    def __init__(self, folder: str | Path):
        self.folder, self._count = Path(folder), 0
        self.folder.mkdir(parents=True)

    def add(self, flow: np.ndarray) -> None:
        """Write the next flow."""
        write_flo(self.folder / f"{self._count:06d}.flo", flow)
        self._count += 1

    def close(self) -> None:
        """Do nothing: each file is complete."""


class NpzWriter:
    """A `.npz` file of all flows of a video, written one by one.

    `flow` is float32 (T, 2, H, W), and nothing is lost. Or, with a `bound` in pixels, it is one
    byte a number: -bound to bound in 254 equal steps, 1 to 255, longer displacements cut; what is
    within the bound is wrong by at most bound / 254. `bound` is 0 in the file without one.

    Raises:
        UserError: the bound is not above 0.
    """

    def __init__(self, path: str | Path, shape: tuple[int, ...], bound: float | None = None):
        if bound is not None and not 0 < bound < np.inf:
            raise UserError(f"bound={bound}: pixels, more than 0")
        self._bound = bound
        self._archive = zipfile.ZipFile(path, "w")
        with self._archive.open("bound.npy", "w") as file:
            np.lib.format.write_array(file, np.array(bound or 0.0))
        dtype = np.dtype("<f4") if bound is None else np.dtype(np.uint8)
        self._file = self._archive.open("flow.npy", "w", force_zip64=True)
        np.lib.format.write_array_header_1_0(
            self._file,
            {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape},
        )

    def add(self, flow: np.ndarray) -> None:
        """Write the next flow, (2, H, W)."""
        numbers = flow.astype("<f4") if self._bound is None else to_bytes(flow, self._bound)
        self._file.write(numbers.tobytes())

    def close(self) -> None:
        """Write the end of the file."""
        self._file.close()
        self._archive.close()


def read_npz(path: str | Path) -> np.ndarray:
    """Return the flows of a file of `NpzWriter`, float32 (T, 2, H, W).

    Raises:
        UserError: the file cannot be read, is damaged, or holds no flow.
    """
    try:
        with open(path, "rb") as file, np.load(file) as archive:
            flow, bound = archive["flow"], float(archive["bound"])
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise UserError(f"{path}: holds no flow, or is damaged: {error}") from error
    if bound:
        flow = from_bytes(flow, bound)
    return flow
