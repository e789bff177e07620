"""Folders and lists of videos: what is found, what is skipped, what is refused."""

import shutil

import numpy as np
import pytest
from compare import assert_close
from video_files import number_of, numbered, write_sound, write_video

from tinyvid.data import ClipSpec, VideoError, check_clip_length, open_data, read_frames
from tinyvid.data import sets as module
from tinyvid.data.sets import describe, listed
from tinyvid.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two classes, three videos; one of them deeper, one with a capital suffix."""
    root = tmp_path_factory.mktemp("made")
    for name, frames in (("run/a_g01.mp4", 8), ("run/deep/b_g02.MP4", 10), ("sit/c_g01.avi", 12)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(
            root / name, numbered(frames), codec="mpeg4" if name.endswith("avi") else "libx264"
        )
    (root / "run" / "notes.txt").write_text("not a video")
    (root / ".hidden").mkdir()
    return root


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "videos")


def test_a_folder_of_class_folders(folder):
    videos = open_data(folder)
    assert videos.classes == ["run", "sit"]
    found = [(v.name, v.label, v.group) for v in videos.videos]
    assert found == [
        ("run/a_g01.mp4", 0, "run/a_g01.mp4"),
        ("run/deep/b_g02.MP4", 0, "deep"),
        ("sit/c_g01.avi", 1, "sit/c_g01.avi"),
    ]
    assert videos.skipped == []
    assert videos.counts() == {"run": 2, "sit": 1}
    assert repr(videos) == "FileSet(3 videos, 2 classes)"
    assert [videos.probe(v).frames for v in videos.videos] == [8, 10, 12]
    frames = videos.read(videos.videos[1], np.array([9, 2]))
    assert [number_of(f) for f in frames] == [9, 2]
    whole = videos.read(videos.videos[0], short_side=24)
    assert_close(whole, read_frames(folder / "run/a_g01.mp4", short_side=24))
    assert whole.shape == (8, 24, 32, 3)


def test_a_folder_inside_a_class_is_a_group(folder):
    """Of one person in all classes; equal names of files mean nothing."""
    one = folder / "run" / "a_g01.mp4"
    for name in ("run/anna/0.mp4", "run/ben/0.mp4", "sit/anna/day/0.mp4", "run/1.mp4", "sit/1.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(one, folder / name)
    group = {v.name: v.group for v in open_data(folder).videos}
    assert group["run/anna/0.mp4"] == group["sit/anna/day/0.mp4"] == "anna"
    assert group["run/ben/0.mp4"] == "ben"
    assert group["run/1.mp4"] != group["sit/1.mp4"]
    alone = {name for name in group if name.count("/") == 1}
    assert {group[name] for name in alone} == alone


def test_what_is_in_a_set_is_told(folder):
    videos = open_data(folder)
    assert describe(videos) == "3 videos, 2 classes, each video a group of its own"
    (folder / "clips.csv").write_text(
        "path,label,group\nsit/c_g01.avi,sit,b\nrun/a_g01.mp4,run,a\nrun/deep/b_g02.MP4,run,a\n"
    )
    videos = open_data(folder)
    assert describe(videos) == "3 videos, 2 classes, 2 groups: a, b"
    assert videos.source == str(folder / "clips.csv")
    assert listed(map(str, range(9)), most=3) == "0, 1, 2 and 6 more"


def test_a_video_beside_the_class_folders_is_skipped(folder):
    shutil.copy(folder / "run" / "a_g01.mp4", folder / "lost.mp4")
    videos = open_data(folder)
    assert len(videos) == 3
    stray = (str(folder / "lost.mp4"), "lies beside the class folders, so its class is unknown")
    assert videos.skipped == [stray]
    with pytest.raises(VideoError, match=r"lost\.mp4: lies beside the class folders"):
        open_data(folder, strict=True)


def test_groups_from_the_path(folder):
    videos = open_data(folder, group_pattern=r"_(g\d+)\.")
    assert [v.group for v in videos.videos] == ["g01", "g02", "g01"]
    assert open_data(folder, group_pattern=r"g\d+").videos[1].group == "g02"
    with pytest.raises(UserError, match=r"finds no group in 'run/a_g01\.mp4'"):
        open_data(folder, group_pattern=r"person(\d)")
    with pytest.raises(UserError, match="no regular expression"):
        open_data(folder, group_pattern="(")


def test_a_subset_keeps_the_classes(folder):
    part = open_data(folder).subset([2])
    assert (part.classes, len(part), part.videos[0].label) == (["run", "sit"], 1, 1)
    assert part.probe(part.videos[0]).frames == 12


def test_a_csv(folder):
    (folder / "list.csv").write_text(
        "label,seconds,path,group\nsit,1,sit/c_g01.avi,p1\nrun,2, run/a_g01.mp4 ,p2\n"
    )
    videos = open_data(folder / "list.csv")
    assert videos.classes == ["run", "sit"]
    assert [(v.name, v.label, v.group) for v in videos.videos] == [
        ("sit/c_g01.avi", 1, "p1"),
        ("run/a_g01.mp4", 0, "p2"),
    ]
    # a folder that holds clips.csv is what that says; a byte order mark is no part of it
    text = (folder / "list.csv").read_text()
    (folder / "clips.csv").write_text(text, encoding="utf-8-sig")
    assert open_data(folder).videos == videos.videos


def test_bad_files_are_skipped_and_listed(folder):
    (folder / "run" / "empty.mp4").write_bytes(b"")
    write_sound(folder / "sit" / "song.mp4")
    videos = open_data(str(folder))
    assert len(videos) == 3
    assert [(path.rsplit("/", 1)[-1], reason.split(":")[0]) for path, reason in videos.skipped] == [
        ("empty.mp4", "unreadable"),
        ("song.mp4", "has sound only, no picture"),
    ]
    assert repr(videos) == "FileSet(3 videos, 2 classes, 2 skipped)"
    with pytest.raises(VideoError, match=r"run/empty\.mp4: unreadable"):
        open_data(folder, strict=True)


def test_a_class_without_a_usable_video_is_refused(folder):
    (folder / "sit" / "c_g01.avi").write_bytes(b"")
    (folder / "jump").mkdir()
    with pytest.raises(UserError, match=r"no usable video of 2 of 3 classes") as caught:
        open_data(folder)
    lines = str(caught.value).splitlines()
    assert lines[1:4] == ["  jump", "  sit", "1 files cannot be used:"]
    assert lines[4].startswith(f"  {folder}/sit/c_g01.avi: unreadable")


def test_each_file_is_decoded_once_to_open_it(folder, monkeypatch):
    probed = []
    real = module.probe
    monkeypatch.setattr(module, "probe", lambda path: probed.append(path) or real(path))
    videos = open_data(folder)
    for video in videos.videos:
        videos.probe(video)
    assert sorted(probed) == sorted(v.path for v in videos.videos)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,lable,group\n", r"column 'label' is missing.*Did you mean 'lable'"),
        ("", "column 'path' is missing.*names none"),
        ("path,label,group\n", "lists no video"),
        ("path;label;gruop\n", r"column 'group' is missing.*Did you mean 'gruop'"),
        ("path,label,group\nrun/a_g01.mp4,run\n", "line 2: no group: fill it in"),
        ("path,label,group\nrun/x.mp4,run,g\n", r"line 2: no file 'run/x\.mp4'"),
        ("path,label,group\n" + "run/a_g01.mp4,run,g\n" * 2, "line 3: .* stands in line 2 too"),
        (b"path,label,group\n\xff\xfe,a,b\n", "not a CSV file in UTF-8"),
    ],
)
def test_csv_errors_name_the_line(folder, text, message):
    file = folder / "list.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"list\.csv.*" + message):
        open_data(file)


def test_a_csv_without_groups(folder):
    (folder / "list.csv").write_text("path,label\nsit/c_g01.avi,sit\nrun/a_g01.mp4,run\n")
    groups = [v.group for v in open_data(folder / "list.csv").videos]
    assert groups == ["sit/c_g01.avi", "run/a_g01.mp4"]


def test_a_csv_with_semicolons(folder):
    (folder / "list.csv").write_text(
        "path;label;group\nsit/c_g01.avi;sit, down;p1\nrun/a_g01.mp4;run;p2\n"
    )
    videos = open_data(folder / "list.csv")
    assert videos.classes == ["run", "sit, down"]
    assert [v.group for v in videos.videos] == ["p1", "p2"]


def test_a_csv_that_cannot_be_read(folder, monkeypatch):
    file = folder / "list.csv"
    file.write_bytes("path,label,group\nrun/a_g01.mp4,Läufer,g\n".encode("cp1252"))
    with pytest.raises(UserError, match=r"list\.csv: not a CSV file in UTF-8: .* byte 0xe4"):
        open_data(file)

    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(module, "open", forbidden, raising=False)
    with pytest.raises(UserError, match=r"list\.csv: cannot be read: Permission denied$"):
        open_data(file)


def test_what_is_no_data_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such file or folder: give a folder"):
        open_data(tmp_path / "nowhere")
    with pytest.raises(UserError, match="Did you mean 'verbs'"):
        open_data("verb")
    with pytest.raises(UserError, match="no class folders in it"):
        open_data(tmp_path)
    (tmp_path / "new.MP4").write_bytes(b"")
    with pytest.raises(UserError, match=r"new\.MP4 is a video: .*tinyvid predict RUN FILE"):
        open_data(tmp_path / "new.MP4")
    with pytest.raises(UserError, match=r"has no option 'worker'.*Did you mean 'workers'"):
        open_data(tmp_path, worker=3)


def test_clips_longer_than_videos(folder):
    videos = open_data(folder)
    assert check_clip_length(videos, ClipSpec(frames=8, size=(8, 8))) == 0
    assert check_clip_length(videos, ClipSpec(frames=11, size=(8, 8))) == 2
    with pytest.raises(
        UserError, match=r"stride 1 is longer than every video .*c_g01\.avi.* 12 fr"
    ):
        check_clip_length(videos, ClipSpec(frames=13, size=(8, 8)))
    with pytest.raises(UserError, match=r"at 2 frames a second is longer than every video"):
        check_clip_length(videos, ClipSpec(frames=3, fps=2, size=(8, 8)))
    with pytest.raises(UserError, match=r"longer than run/deep/b_g02\.MP4, which has 10 frames"):
        check_clip_length(videos, ClipSpec(frames=11, size=(8, 8), pad_policy="error"))


def test_gestures(shared_data):
    videos = open_data(shared_data / "gestures")
    assert len(videos) == 27
    assert videos.skipped == []
    assert videos.counts() == dict.fromkeys(videos.classes, 9)
    assert {v.group for v in videos.videos} == {"P1", "P2", "P3"}
    info = videos.probe(videos.videos[0])
    assert (info.codec, info.height, info.width) == ("mpeg4", 480, 640)
    assert all(60 < videos.probe(v).frames < 125 for v in videos.videos)
