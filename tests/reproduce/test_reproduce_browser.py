"""The report in a real browser: nothing asked of anybody, no sideways scrolling, and not blank."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from small_results import made_up_results

from tinyvid.reproduce.page import page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser to open the report in: none of {', '.join(NAMES)}"
)

PHONE = 390  # pixels wide
# Tells the page around it how wide it is, how many pictures are broken, and what was loaded.
PROBE = """<script>addEventListener("load", () => {
  const loaded = performance.getEntriesByType("resource").map(entry => entry.name);
  const broken = [...document.images].filter(picture => !picture.naturalWidth).length;
  const width = document.documentElement.scrollWidth;
  parent.postMessage(`PROBE ${innerWidth} ${width} ${broken} ${loaded.join(" ")} END`, "*");
});</script>"""
# A window cannot be as narrow as a phone, a frame can.
AROUND = f"""<!doctype html><body><pre></pre><script>
addEventListener("message", event => document.querySelector("pre").textContent = event.data);
</script><iframe src="probed.html" style="width: {PHONE}px; height: 900px; border: 0"></iframe>"""


def browse(file, folder, *options, width=1280, height=1000):
    """Run the browser over a file; return what it prints."""
    command = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",  # of no use in a container, and not allowed to root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},{height}",
        *options,
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def probe(text, folder):
    """Return (window's width, document's width, broken pictures, what was loaded) of a page."""
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    assert policy.search(text)  # it forbids the probe, too
    probed = policy.sub("", text).replace("</body>", PROBE + "</body>")
    (folder / "probed.html").write_text(probed, encoding="utf-8")
    (folder / "around.html").write_text(AROUND, encoding="utf-8")
    said = browse(folder / "around.html", folder, "--dump-dom", "--virtual-time-budget=5000")
    numbers = re.search(r"PROBE (\d+) (\d+) (\d+) (.*?) ?END</pre>", said, re.DOTALL)
    window, document, broken, loaded = numbers.groups()
    return int(window), int(document), int(broken), loaded.split()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return page(made_up_results(folder), folder)


def test_on_a_phone_it_fits_and_nothing_is_asked_of_anybody(report, tmp_path):
    window, document, broken, loaded = probe(report, tmp_path)
    assert window == PHONE
    assert document <= window
    assert broken == 0
    assert not [name for name in loaded if not name.startswith("data:")]


def test_the_probe_finds_what_is_too_wide_and_what_is_from_outside(report, tmp_path):
    planted = (
        '<p style="width: 700px">wide</p><img src="http://127.0.0.1:9/a.png" alt="">'
        '<link rel="stylesheet" href="http://127.0.0.1:9/b.css"></body>'
    )
    window, document, broken, loaded = probe(report.replace("</body>", planted), tmp_path)
    assert document >= 700 > window
    assert broken == 1
    assert {"http://127.0.0.1:9/a.png", "http://127.0.0.1:9/b.css"} <= set(loaded)


@pytest.mark.parametrize("width", [PHONE, 1280])
def test_it_is_drawn(report, tmp_path, width):
    file, shot = tmp_path / "report.html", tmp_path / "shot.png"
    file.write_text(report, encoding="utf-8")
    browse(file, tmp_path, f"--screenshot={shot}", width=width, height=2400)
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int) @ (1 << 16, 1 << 8, 1)
    assert pixels.shape == (2400, width)
    for part in np.split(pixels, 4):  # text and pictures all the way down
        colours, count = np.unique(part, return_counts=True)
        assert len(colours) > 30
        assert count.max() < 0.97 * count.sum()
