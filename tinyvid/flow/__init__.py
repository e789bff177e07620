"""Optical flow of videos: found, kept in files, and shown in colours.

    info, flows = flows_of("video.mp4")          # an iterator of float32 (2, H, W)
    for flow in flows: ...
    write_flo("flow.flo", flow)                  # Middlebury's format
    picture = colours(flow)                      # uint8 (H, W, 3)

The methods themselves are in `tinyvid.kernels.flow`.
"""

from tinyvid.flow.colour import colours
from tinyvid.flow.files import FloWriter, NpzWriter, read_flo, read_npz, write_flo
from tinyvid.flow.video import flows_of, grey

__all__ = [
    "FloWriter",
    "NpzWriter",
    "colours",
    "flows_of",
    "grey",
    "read_flo",
    "read_npz",
    "write_flo",
]
