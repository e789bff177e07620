"""Video files -> clips -> batches.

    videos = open_data("my_videos")                      # a VideoSet
    training, validation = split_by_group(videos, 0.2)   # no group on both sides
    spec = ClipSpec(frames=16, stride=2, size=(64, 64))
    loader = ClipLoader(training, spec, batch_size=8, train=True, augment=Augment())
    for batch in loader.epoch(0):
        x = normalise(batch.clips, mean, std)            # float32 N C T H W

A video is decoded by exact frame index (`video`), a clip is a list of such indices (`clips`),
pictures are changed a whole clip at a time (`transforms`), sets of videos come from folders,
lists or a generator (`sets`, `official`, `verbs`), are split by group (`splits`), and are read in
parallel (`loader`), optionally through a cache on disk (`cache`).
"""

from tinyvid.data.clips import PAD_POLICIES, Clip, ClipSpec, is_short, random_clip, uniform_clips
from tinyvid.data.loader import Batch, ClipLoader
from tinyvid.data.sets import Video, VideoSet, check_clip_length, open_data
from tinyvid.data.splits import (
    assert_no_leak,
    group_folds,
    leave_group_out,
    official_fold,
    split_by_group,
)
from tinyvid.data.transforms import Augment, normalise
from tinyvid.data.verbs import VERBS, verb_video, write_verbs
from tinyvid.data.video import VideoError, VideoInfo, probe, read_frames

__all__ = [
    "PAD_POLICIES",
    "VERBS",
    "Augment",
    "Batch",
    "Clip",
    "ClipLoader",
    "ClipSpec",
    "Video",
    "VideoError",
    "VideoInfo",
    "VideoSet",
    "assert_no_leak",
    "check_clip_length",
    "group_folds",
    "is_short",
    "leave_group_out",
    "normalise",
    "official_fold",
    "open_data",
    "probe",
    "random_clip",
    "read_frames",
    "split_by_group",
    "uniform_clips",
    "verb_video",
    "write_verbs",
]
