"""Optical flow of one pair of frames: TV-L1 beside OpenCV's, in time and in accuracy.

    pip install opencv-contrib-python-headless
    python benchmarks/bench_flow.py frame10.png frame11.png flow10.flo

The frames of Middlebury's "RubberWhale" and their ground truth are at
vision.middlebury.edu/flow/data. Both run in turn on as many threads, OpenCV's TV-L1 with its own
defaults. The ground truth may be left out; then accuracy is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tinyvid.bench.statistics import median_interval
from tinyvid.bench.timing import interleave
from tinyvid.flow import grey, read_flo
from tinyvid.kernels.flow import tvl1_flow
from tinyvid.kernels.threads import get_num_threads

SECONDS = 30.0


def picture(path: Path) -> np.ndarray:
    """Return the luma of a picture, float32 (H, W) from 0 to 255."""
    from PIL import Image

    with Image.open(path) as image:
        return grey(np.asarray(image.convert("RGB")))


def endpoint_error(flow: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean length of the difference, in pixels, where the truth is known."""
    return float(np.nanmean(np.hypot(*(flow - truth))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("truth", type=Path, nargs="?")
    args = parser.parse_args()
    import cv2

    cv2.setNumThreads(get_num_threads())
    first, second = picture(args.first), picture(args.second)
    theirs = cv2.optflow.DualTVL1OpticalFlow_create()
    bytes_ = [np.rint(p).astype(np.uint8) for p in (first, second)]
    contestants = {
        "tinyvid": lambda: tvl1_flow(first[None], second[None])[0],
        f"OpenCV {cv2.__version__}": lambda: theirs.calc(*bytes_, None).transpose(2, 0, 1),
    }
    taken = interleave(contestants, SECONDS)
    truth = None if args.truth is None else read_flo(args.truth)
    height, width = first.shape
    print(f"TV-L1 of a pair of {width}x{height}, {get_num_threads()} threads, in turn")
    for name, run in contestants.items():
        error = "" if truth is None else f"   {endpoint_error(run(), truth):.3f} pixels off"
        print(f"{name:18} {1000 * np.median(taken[name]):7.0f} ms{error}")
    ours, peer = taken.values()
    if len(peer):
        ratio = median_interval(peer / ours)
        print(f"{ratio.middle:.1f} times as fast ({ratio.low:.1f} to {ratio.high:.1f})")


if __name__ == "__main__":
    main()
