"""The comparison that every test uses: it rejects NaN, wrong shape and wrong dtype."""

import numpy as np


def assert_close(got, want, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Assert that every element of `got` is within `atol + rtol * |want|` of `want`.

    `got` may be a Tensor or an array. Shape and dtype must be equal, and NaN never passes,
    not even against NaN.
    """
    got, want = (
        np.asarray(getattr(a, "data", a) if hasattr(a, "backward") else a) for a in (got, want)
    )
    assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
    assert got.dtype == want.dtype, f"dtype {got.dtype}, expected {want.dtype}"
    if got.dtype.kind not in "fc":
        assert np.array_equal(got, want), f"{np.count_nonzero(got != want)} elements differ"
        return
    with np.errstate(invalid="ignore"):
        error = np.abs(got - want)
        within = (error <= atol + rtol * np.abs(want)) | (
            got == want
        )  # False for NaN; infinities may agree
    if not within.all():
        at = tuple(int(i) for i in np.argwhere(~within)[0])
        raise AssertionError(
            f"{np.count_nonzero(~within)} of {got.size} elements differ, first at {at}: "
            f"{got[at]!r}, expected {want[at]!r}; largest error {np.nanmax(error):.3g}"
        )
