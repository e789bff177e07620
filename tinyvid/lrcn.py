"""An LSTM on the frozen features of frames: whole videos, each as long as it is.

The second half of the long-term recurrent convolutional network (LRCN) of Donahue et al.,
"Long-term recurrent convolutional networks for visual recognition and description", CVPR 2015,
section 4: every time step predicts, and the predictions are averaged over the video. Trained end
to end, on clips of one length, it is the network `cnn_lstm`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import tinyvid
from tinyvid import nn, optim
from tinyvid.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tinyvid.data import VideoSet
from tinyvid.errors import UserError
from tinyvid.evaluate import (
    FRESH,
    Scores,
    name_tested,
    open_videos,
    save_results,
    videos_to_test,
)
from tinyvid.folds import CrossValidation, finished_folds, save_crossval
from tinyvid.frame_features import FrameFeatures
from tinyvid.metrics import Metrics, softmax
from tinyvid.runs import Run, claim, load_weights, make_folder
from tinyvid.tensor import Tensor

ABOUT = "lstm.json"  # what the results in a folder are of
WEIGHTS = "lstm.safetensors"


@dataclass(frozen=True)
class LstmSettings:
    """How the LSTM is trained: units, passes over the videos, and Adam's learning rate."""

    hidden: int = 64
    epochs: int = 60
    lr: float = 3e-3
    batch_size: int = 16
    dropout: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.hidden, self.epochs, self.batch_size) < 1 or not self.lr > 0:
            raise UserError(
                f"hidden={self.hidden}, epochs={self.epochs}, batch_size={self.batch_size}, "
                f"lr={self.lr:g}: the first three must be at least 1, and lr more than 0"
            )


class FeatureLstm(nn.Module):
    """Features of frames `N L F`, standardised - LSTM - dropout - fc at each step: `N L classes`.

    Args:
        mean, std: of each feature over the training videos, `(F,)`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, mean: np.ndarray, std: np.ndarray, classes: int, hidden: int, dropout: float
    ):
        self.register_buffer("mean", tinyvid.tensor(mean))
        self.register_buffer("scale", tinyvid.tensor(1 / np.maximum(std, 1e-6)))
        self.lstm = nn.LSTM(len(mean), hidden, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        """Return the scores at each step; `lengths` says how many steps of each count."""
        outputs, _ = self.lstm((x - self.mean) * self.scale, lengths=lengths)
        return self.fc(self.drop(outputs))


def fit_lstm(
    sequences: Sequence[np.ndarray], labels: np.ndarray, classes: int, settings: LstmSettings
) -> FeatureLstm:
    """Train on sequences of features, each `(T, F)` with a T of its own; labels are `(n,)`.

    The loss is the cross-entropy of each step with the video's class, averaged over the steps of
    a video and then over videos.
    """
    every = np.concatenate(sequences)
    tinyvid.manual_seed(settings.seed)
    model = FeatureLstm(
        every.mean(0), every.std(0), classes, settings.hidden, settings.dropout
    ).train()
    steps = -(-len(sequences) // settings.batch_size) * settings.epochs
    optimiser = optim.AdamW(list(model.parameters()), settings.lr, weight_decay=0.01)
    schedule = optim.CosineAnnealingLR(optimiser, steps)
    rng = np.random.default_rng(settings.seed)
    for _ in range(settings.epochs):
        order = rng.permutation(len(sequences))
        for start in range(0, len(order), settings.batch_size):
            chosen = order[start : start + settings.batch_size]
            x, lengths = padded([sequences[i] for i in chosen])
            optimiser.zero_grad()
            # Steps behind a sequence's end have no weight in the loss.
            owner, step = np.nonzero(np.arange(x.shape[1]) < lengths[:, None])
            logits = model(tinyvid.tensor(x), lengths)[owner, step]
            each = tinyvid.cross_entropy(
                logits, tinyvid.tensor(labels[chosen][owner]), reduction="none"
            )
            weights = (1 / (lengths * len(chosen)))[owner].astype(np.float32)
            (each * tinyvid.tensor(weights)).sum().backward()
            optim.clip_grad_norm_(list(model.parameters()), 5.0)
            optimiser.step()
            schedule.step()
    return model.eval()


def padded(sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return sequences `(T, F)` as one array `N L F`, filled up with zeros, and their lengths."""
    lengths = np.array([len(s) for s in sequences], np.int64)
    x = np.zeros((len(sequences), lengths.max(), sequences[0].shape[1]), np.float32)
    for row, sequence in zip(x, sequences, strict=True):
        row[: len(sequence)] = sequence
    return x, lengths


def step_probabilities(model: FeatureLstm, sequence: np.ndarray) -> np.ndarray:
    """Return the probabilities after each frame of a sequence `(T, F)`: `(T, classes)`."""
    x, lengths = padded([sequence])
    with tinyvid.no_grad():
        return softmax(model(tinyvid.tensor(x), lengths).numpy()[0])


def load_lstm(folder: str | Path) -> tuple[FeatureLstm, Run]:
    """Return a trained LSTM and the run whose features it reads.

    Args:
        folder: as `lstm_on_features` leaves it: `out`, or that of a fold in it.

    Raises:
        UserError: it holds no LSTM, or the run is gone.
    """
    path = Path(folder) / WEIGHTS
    checkpoint = load_checkpoint(path)
    try:
        run = Run.open(checkpoint.state["features_of"])
        features, hidden = len(checkpoint.weights["mean"]), checkpoint.state["hidden"]
    except KeyError as error:
        raise UserError(f"{path} holds no LSTM on features: it lacks {error}") from error
    blank = np.zeros(features, np.float32)
    model = FeatureLstm(blank, blank, len(run.classes), hidden, 0.0)
    load_weights(model, checkpoint.weights, path)
    return model.eval(), run


def lstm_on_features(
    source: str | Path,
    out: str | Path,
    settings: LstmSettings | None = None,
    *,
    cache: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CrossValidation | Metrics:
    """Train an LSTM on the frozen features of a run, or of each fold of a cross-validation.

    Every LSTM is trained on the training videos of the run that the features are of, and tested
    on its test videos, so that no video is tested that either half has seen.

    Args:
        source: a run's folder, or a cross-validation's.
        out: gets test/ (and test-val/) as a run's folder, or seed0-fold1-…/test/ and what
            `tinyvid.folds` writes; and lstm.safetensors beside each test.
        cache: a folder that keeps the features.
        progress: called with (videos done, videos in all) while features are found.

    Raises:
        UserError: there is no such run, it is not finished, its network has no features of
            frames, it has no videos to test on, or `out` holds other results.
    """
    settings, source, out = settings or LstmSettings(), Path(source), Path(out)
    single = not any(source.glob("seed*-fold*"))
    files = {} if single else finished_folds(source)
    runs = [file.parent.parent for folds in files.values() for file in folds.values()]
    run = Run.open(source if single else runs[0])
    # Before a folder is made: they tell what does not fit, or is not there to test.
    FrameFeatures(run)
    name_tested(run, None, None)
    claim(out, ABOUT, {"features_of": str(source.resolve()), **asdict(settings)})
    videos = open_videos(run.config)
    if single:
        _one(run, videos, out, settings, cache, progress)
        title = f"LSTM on {run.config.model.name}, {source.name}"
        scores = Scores.load(out / "test" / "scores.npz")
        return save_results(scores, "mean_prob", title, out / "test")
    found: dict[tuple[int, str], Scores] = {}
    for seed, folds in files.items():
        for fold, file in folds.items():
            folder = file.parent.parent
            place = out / folder.name
            _one(Run.open(folder), videos, place, settings, cache, progress)
            found[seed, fold] = Scores.load(place / "test" / "scores.npz")
    return save_crossval(found, out, "mean_prob", f"LSTM on {run.config.model.name}")


def _one(
    run: Run,
    videos: VideoSet,
    out: Path,
    settings: LstmSettings,
    cache: str | Path | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Train and test on the parts of a run; what is finished stays."""
    if (out / "test" / "scores.npz").exists():
        return
    features = FrameFeatures(run, cache)
    sets = {"train": run.part(videos, "train"), "test-val": run.part(videos, "val")}
    what, _ = name_tested(run, None, None)
    sets["test"] = videos_to_test(run)[0] if what == FRESH else run.part(videos, what)
    if what == "val":
        del sets["test-val"]
    total, done = sum(map(len, sets.values())), 0
    found: dict[str, list[np.ndarray]] = {}
    for name, part in sets.items():
        found[name] = []
        for video in part.videos:
            found[name].append(features.of(part, video)[1])
            done += 1
            if progress is not None:
                progress(done, total)
    labels = np.array([v.label for v in sets["train"].videos], np.int64)
    model = fit_lstm(found["train"], labels, len(run.classes), settings)
    weights = {name: t.numpy() for name, t in model.state_dict().items()}
    make_folder(out)
    about = {"features_of": str(run.path.resolve()), **asdict(settings)}
    save_checkpoint(out / WEIGHTS, Checkpoint(weights, about))
    for name in ("test-val", "test"):  # the last one says: finished
        if len(sets.get(name, ())):
            scores = _scores(model, sets[name], found[name])
            scores.save(make_folder(out / name) / "scores.npz")


def _scores(model: FeatureLstm, videos: VideoSet, sequences: Sequence[np.ndarray]) -> Scores:
    """One row a video: the logarithm of the mean probability over its steps."""
    means = [step_probabilities(model, sequence).mean(0) for sequence in sequences]
    count = len(videos)
    return Scores(
        np.log(np.maximum(means, 1e-30)).astype(np.float32),
        np.array([v.label for v in videos.videos], np.int64),
        np.arange(count, dtype=np.int64),
        np.zeros(count),
        [v.name for v in videos.videos],
        list(videos.classes),
        1,
        1,
    )
