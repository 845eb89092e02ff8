"""For the report's tests: made-up results, and a headless Chromium to look at the page with.

The browser is spoken to over its debugging pipe, so no driver and no package is needed.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval.metrics import bits_per_pixel
from eval.results import (
    Conditions,
    Failure,
    PerFrame,
    RdPoint,
    RdResults,
    SequenceInfo,
)

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
# The pipe is file descriptors 3 and 4; this moves ours there and becomes the browser.
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execvp(sys.argv[3], sys.argv[3:])"
)
_KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowUp": 38, "Home": 36, "End": 35, "Enter": 13}


def find_chromium() -> str | None:
    """$LGMC_CHROMIUM, else a Chromium on PATH, else None."""
    named = os.environ.get("LGMC_CHROMIUM")
    if named:
        return named
    return next((found for found in map(shutil.which, PROGRAMS) if found), None)


class Browser:
    """One tab. What its console or network complains about is in ``complaints``."""

    def __init__(self, program: str, profile: Path) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._buffer = b""
        ours_read, theirs_write = _pipe()
        theirs_read, ours_write = _pipe()
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
        options += ("--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={profile}")
        words = [sys.executable, "-c", _START, str(theirs_read), str(theirs_write), program]
        self._process = subprocess.Popen(
            [*words, *options],
            pass_fds=(theirs_read, theirs_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_read)
        os.close(theirs_write)
        self._read, self._write = ours_read, ours_write
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End the browser and wait for it."""
        with contextlib.suppress(OSError, AssertionError):
            self._session = None
            self.call("Browser.close")
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, **parameters) -> dict:
        """A command of the DevTools protocol and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._listen(answer)

    def open(self, path: Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a page at a width in CSS pixels and wait until it stands."""
        self.complaints.clear()
        self.requests.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.until("document.readyState === 'complete' && location.protocol === 'file:'")

    def js(self, expression: str):
        """The value of an expression; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = 60.0) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not self.js(condition):
            assert time.monotonic() < end, f"in {seconds} seconds never: {condition}"
            time.sleep(0.02)

    def choose(self, element: str, value: str) -> None:
        """Choose an option of a select by its value."""
        self.js(
            f"(() => {{ const e = document.getElementById('{element}'); e.value = '{value}'; "
            "e.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def mouse(self, kind: str, x: float, y: float, pressed: bool = False) -> None:
        """mouseMoved, mousePressed or mouseReleased at a place in the window."""
        button = {"button": "left", "buttons": 1, "clickCount": 1} if pressed else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def key(self, name: str) -> None:
        """Press and release a key on what has the focus."""
        key = {"key": name, "code": name, "windowsVirtualKeyCode": _KEYS[name]}
        written = {"text": "\r"} if name == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **key, **written)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def area(self, selector: str) -> dict[str, float]:
        """x, y, width and height of an element in the window, scrolled to."""
        return self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center'}); return e.getBoundingClientRect().toJSON(); })()"
        )

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _next(self, seconds: float = 60.0) -> dict:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], seconds)
            assert ready, f"the browser said nothing for {seconds} seconds"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _listen(self, event: dict) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(parameters["args"]))
        elif method == "Log.entryAdded":
            self.complaints.append(json.dumps(parameters["entry"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are no descriptors that the browser's will be moved to."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return moved


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium, or a skip where there is none."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium found: install one or set $LGMC_CHROMIUM")
    one = Browser(program, tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


CLIPS = {"first_clip": (96, 64, 12), "second_clip": (64, 48, 9)}


def made_up(codec: str, levels: dict[int, tuple[int, float]], period: int = 32) -> RdResults:
    """Results of ``levels``: by level the bytes of first_clip and its PSNR in dB.

    The frames' PSNR lie evenly around the mean. second_clip has half the bytes and 300 more.
    """
    points = []
    for name, (width, height, frames) in CLIPS.items():
        for level, (size, quality) in levels.items():
            size = size if name == "first_clip" else size // 2 + 300
            rows = [quality + 0.1 * (i - (frames - 1) / 2) for i in range(frames)]
            points.append(
                RdPoint(
                    sequence=name,
                    level=level,
                    frames=frames,
                    bytes=size,
                    bpp=bits_per_pixel(size, width, height, frames),
                    kbps=8 * size * 24 / frames / 1000,
                    metrics={"psnr_rgb": quality, "psnr_y": quality + 2, "ms_ssim": None},
                    encode_seconds=1.0,
                    decode_seconds=0.5,
                    measured="2026-01-01T00:00:00+00:00",
                    arguments=["code", name],
                    per_frame=PerFrame(
                        metrics={
                            "psnr_rgb": rows,
                            "psnr_y": [row + 2 for row in rows],
                            "ms_ssim": [None] * frames,
                        },
                        bytes=[size // frames] * frames,
                        types=["I", *["P"] * (frames - 1)],
                        bits={
                            "intra": [1000.0] + [0.0] * (frames - 1),
                            "motion_hyper": [0.0] + [40.0] * (frames - 1),
                        }
                        if codec.startswith("model")
                        else None,
                    ),
                )
            )
    model = codec.startswith("model")
    return RdResults(
        codec=codec,
        parameter="quality" if model else "qp",
        conditions=Conditions(
            date="2026-01-01T00:00:00+00:00",
            command=["lgmc", "eval", "<b>&"],
            machine={"cpu": "a cpu", "cores": 2, "gpu": None},
            versions={"python": "3.11"},
            frames=None,
            intra_period=period,
            device="cpu",
            codec={"model": codec, "weights": "00"} if model else {"anchor": codec},
        ),
        sequences=[
            SequenceInfo(
                name=name,
                digest=f"{name}-frames",
                width=width,
                height=height,
                fps="24",
                frames=frames,
                chroma="420",
                bit_depth=8,
                matrix="bt709",
                range="limited",
            )
            for name, (width, height, frames) in CLIPS.items()
        ],
        points=points,
        failures=[Failure(sequence="first_clip", level=50, error="as a test wants")]
        if model
        else [],
    )


@pytest.fixture
def results() -> list[RdResults]:
    """A model, an anchor it can be compared with, and one with too few points."""
    ours = {0: (2000, 30.0), 21: (4000, 33.0), 42: (8000, 36.0), 63: (16000, 39.0)}
    theirs = {37: (1500, 30.5), 32: (3000, 33.5), 27: (6000, 36.5), 22: (12000, 39.5)}
    few = {32: (3300, 33.0), 27: (6600, 36.0)}
    return [
        made_up("model-a", ours),
        made_up("x264-medium", theirs),
        made_up("x265-medium", few, period=16),
    ]


@pytest.fixture
def folder(results, tmp_path) -> Path:
    """What lgmc eval would have written of ``results``."""
    from eval.results import save_results

    place = tmp_path / "measured"
    place.mkdir()
    for one in results:
        save_results(one, place / f"{one.codec}.json")
    (place / "bdrate.json").write_text("{}")
    return place
