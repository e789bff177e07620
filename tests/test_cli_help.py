"""The help of the command line, and the ways to start it."""

import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import run
from typer.testing import CliRunner

from tinyvid.cli import app, baseline, evaluate, flow, fuse, gradcheck, train

ROOT = Path(__file__).resolve().parents[1]

COMMANDS = {
    "train": train.train,
    "test": evaluate.evaluate,
    "predict": evaluate.predict,
    "crossval": train.crossval,
    "gradcheck": gradcheck.gradcheck,
    "flow": flow.flow,
    "fuse": fuse.fuse,
    "baseline": baseline.baseline,
}


@pytest.mark.parametrize("command", ["", "train", "test", "predict", "crossval"])
def test_every_command_explains_itself(command):
    result = run(*([command] if command else []), "--help")
    assert result.exit_code == 0
    assert "tinyvid train slow_fusion" in result.stdout or command in (
        "test",
        "predict",
        "crossval",
    )
    assert "Usage: " in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns(command):
    """Each line of the description is printed as it is written, examples indented."""
    written = inspect.cleandoc(COMMANDS[command].__doc__).splitlines()[1:]
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80"}).stdout
    lines = [line.removeprefix(" ").rstrip() for line in shown.splitlines()]
    first = lines.index(written[1])
    assert lines[first : first + len(written) - 1] == written[1:]


@pytest.mark.parametrize("command", [*COMMANDS, "models", "summary", "budget"])
def test_help_of_options_is_of_one_style(command):
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80"}).stdout
    values = {"int", "float", "str", "path", "key=value", "path|verbs", "k/K"}
    assert set(re.findall(r"<(.*?)>", shown)) <= values  # no <bool>, no <list[str]>
    assert "(" not in "".join(re.findall(r"\[default:[^\]]*", shown))
    assert max(map(len, shown.splitlines())) <= 80
    words = " ".join(shown.replace("│", " ").split())
    if command in ("train", "crossval"):
        assert "May be repeated." in words
    if command == "train":
        for text in ("[default: runs/MODEL-DATA]", "small_sets", "--show-config > my.toml"):
            assert text in words


def test_python_m_tinyvid():
    def call(*args: str):
        return subprocess.run(
            [sys.executable, "-m", "tinyvid", *args], cwd=ROOT, capture_output=True, text=True
        )

    version = call("--version")
    assert (version.returncode, version.stdout[:8]) == (0, "tinyvid ")
    wrong = call("test", "none")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: none is no run: it has no config.toml.\n"
    typo = call("trian")
    assert typo.returncode == 2
    assert "Did you mean 'train'?" in typo.stderr


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from tinyvid.cli import app; "
        "print([m for m in ('numba', 'av', 'matplotlib', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_python_m_is_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tinyvid", "--version"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("tinyvid", run_name="__main__")
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("tinyvid ")
