"""What the README promises: its Python runs, and its commands and files exist."""

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_the_python_runs_as_written(tmp_path):
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    losses = [float(line.split()[1]) for line in done.stdout.splitlines()[:5]]
    assert losses[-1] < losses[0]


def commands():
    for block in blocks("sh"):
        for line in block.splitlines():
            for part in line.split("#")[0].split("&&"):
                words = shlex.split(part)
                if words[:1] == ["tinyvid"]:
                    yield words


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_and_option_exists(words):
    from typer.main import get_command

    from tinyvid.cli import app

    command = get_command(app)
    for before, word in pairwise(words):
        # What follows an option is its value.
        if hasattr(command, "commands") and "-" not in (word[0], before[0]):
            assert word in command.commands
            command = command.commands[word]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words[2:] if word.startswith("-")} <= options


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_every_linked_file_exists(target):
    assert (ROOT / target).exists()


def test_both_commands_are_marked_for_whoever_runs_them():
    assert re.findall(r"<!-- command: (\w+) -->\n```sh\n", README) == ["train", "tests"]
