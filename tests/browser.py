"""Chromium without a window, driven through chromedriver (W3C WebDriver), for tests of the pages that we write."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)"
)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--force-prefers-reduced-motion",  # scrolls at once: a click that comes while it scrolls misses
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
SPACE, ESCAPE, LEFT, RIGHT = "\ue00d", "\ue00c", "\ue012", "\ue014"


class Browser:
    """One window; everything it stores is in `folder`, downloads in `folder / "downloads"`."""

    def __init__(self, folder: Path) -> None:
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        port = folder / "port"
        with port.open("wb") as said:
            self._driver = subprocess.Popen([str(CHROMEDRIVER), "--port=0"], stdout=said, stderr=subprocess.STDOUT)
        self._session = ""
        try:
            self._connect(port, folder / "profile")
        except BaseException:
            self.close()
            raise

    def _connect(self, port: Path, profile: Path) -> None:
        started = "was started successfully on port "
        self.wait_for(lambda: started in port.read_text())
        number = port.read_text().split(started)[1].split(".")[0]
        self._address = f"http://127.0.0.1:{number}/session"
        options = {
            "binary": CHROMIUM,
            "args": [*FLAGS, f"--user-data-dir={profile}"],
            "prefs": {"download.default_directory": str(self.downloads), "download.prompt_for_download": False},
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = self._post("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def close(self) -> None:
        if self._session:
            self._request("DELETE", "", None)
        self._driver.terminate()
        self._driver.wait(10)

    def open(self, page: Path) -> None:
        self._post("/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of a function returns, or the promise that it returns comes to."""
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector: str) -> None:
        found = self._post("/element", {"using": "css selector", "value": selector})[ELEMENT]
        self._post(f"/element/{found}/click", {})

    def press(self, *keys: str) -> None:
        """Press and let go of each key, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def drag(self, selector: str, start: float, end: float) -> None:
        """With the mouse over an element, from one share of its width to another."""
        box = self.run(
            "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height];",
            selector,
        )
        moves = [
            {
                "type": "pointerMove",
                "duration": 20,
                "x": round(box[0] + share * box[2]),
                "y": round(box[1] + box[3] / 2),
            }
            for share in (start, (start + end) / 2, end)
        ]
        actions = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        self._post("/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]})

    def complaints(self) -> list[str]:
        """Errors and warnings of the console since this was last asked."""
        entries = self._post("/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def picture(self, path: Path, *, width: int, height: int, dark: bool = False, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page, as on a screen of this width."""
        phone = width < 700
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._devtools("Emulation.setEmulatedMedia", {"features": scheme})
        time.sleep(0.3)
        shot = self._devtools("Page.captureScreenshot", {"captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(shot["data"]))

    def wait_for(self, condition: Any, seconds: float = 10) -> None:
        """Until a function, or the script of one, gives true."""
        end = time.monotonic() + seconds
        while not (self.run(f"return {condition}") if isinstance(condition, str) else condition()):
            assert time.monotonic() < end, f"waited {seconds} s in vain for {condition}"
            time.sleep(0.02)

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _post(self, path: str, data: dict[str, Any]) -> Any:
        return self._request("POST", path, json.dumps(data).encode())

    def _request(self, method: str, path: str, data: bytes | None) -> Any:
        address = f"{self._address}/{self._session}{path}".rstrip("/")
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from error
