"""Which folder a training writes to, or goes on in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tinyvid.errors import UserError

if TYPE_CHECKING:
    from tinyvid.config import Config

ROOT = Path("runs")


def fresh_folder(out: Path | None, settings: Config, note: Callable[[str], None]) -> Path:
    """Return the folder for a new run: --out, which must not hold one, or the next free name.

    A folder whose run has finished no epoch is free; `note` is told what the user may not expect.
    """
    if out is not None:
        if (out / "last.safetensors").exists():  # without it there is nothing to lose
            raise UserError(
                f"{out} holds a run already: go on with --resume, or choose another --out"
            )
        return out
    name = _name(settings)
    number = 1
    while not _free(folder := ROOT / (f"{name}-{number}" if number > 1 else name)):
        number += 1
    if folder.exists():
        note(f"the run in {folder} was stopped in its first epoch: it starts anew")
    if number > 1:
        note(f"there is a run in {ROOT / name} already: this one goes to {folder}")
    return folder


def folder_to_resume(out: Path | None, model: str | None, data: str | None) -> Path:
    """Return the folder of the run to go on with: --out, or of the default names that of the
    latest run that is not finished."""
    from tinyvid.config import load_config

    if out is not None:
        if not (out / "config.toml").is_file():
            raise UserError(f"--resume: {out} holds no run, it has no config.toml")
        return out
    if model is None:
        raise UserError("--resume: name the run with --out runs/NAME")
    named = {"model.name": model} | ({} if data is None else {"data.path": data})
    name = _name(load_config(named=named))
    found = [path.parent for path in ROOT.glob("*/config.toml") if _is_called(path.parent, name)]
    if not found:
        raise UserError(f"--resume: there is no run in {ROOT / name}; name it with --out")
    unfinished = [folder for folder in found if _unfinished(folder)]
    return max(unfinished or found, key=lambda folder: (folder / "config.toml").stat().st_mtime_ns)


def _name(settings: Config) -> str:
    from tinyvid.runs import data_name

    return f"{settings.model.name}-{data_name(settings.data.path)}"


def _is_called(folder: Path, name: str) -> bool:
    """Whether a folder is called NAME, NAME-2, NAME-3 …"""
    number = folder.name.removeprefix(f"{name}-")
    return folder.name == name or number.isdecimal()


def _free(folder: Path) -> bool:
    from tinyvid.runs import is_locked

    if not folder.exists():
        return True
    started = (folder / "config.toml").exists() and not (folder / "last.safetensors").exists()
    return started and not is_locked(folder)


def _unfinished(folder: Path) -> bool:
    from tinyvid.runs import Run, is_locked

    run = Run.open(folder)
    return run.epochs() < run.config.run.epochs and not is_locked(folder)
