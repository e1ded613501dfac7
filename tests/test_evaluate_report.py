from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from sdcodec_cli.audio import Wav
from sdcodec_cli.engine.evaluate.distributions import Scale, number, scale_of
from sdcodec_cli.engine.evaluate.measure import Measurement
from sdcodec_cli.engine.evaluate.report import HEIGHT, WIDTH, Example, matching_gains, write_report
from sdcodec_cli.engine.evaluate.tables import Table
from sdcodec_cli.engine.page import picture
from sdcodec_cli.engine.pictures import spectrogram
from sdcodec_cli.errors import OutputError

from browser import ESCAPE, RIGHT, SPACE, Browser, needs_chromium

RATE = 16000
EVIL = """<script>alert("1")</script>&'"""


def sine(frequency: float, level: float = 0.4, seconds: float = 3.0) -> Wav:
    return (level * np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def example(estimates: dict[str, Wav], reference: Wav | None = None, mixture: Wav | None = None) -> Example:
    reference = sine(440) if reference is None else reference
    return Example(
        "0042-10.0", "separation", "speech", RATE, reference, reference if mixture is None else mixture, estimates
    )


def measured(
    system: str, value: float | None, *, clip: str = "0042-10.0", task: str = "separation", reason: str | None = None
) -> Measurement:
    return Measurement(clip, task, system, "speech", None, "si_sdr", value, reason)


def report(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {"tables": [], "measurements": [], "examples": [], "notes": []}
    return write_report(folder, title="Title", **{**content, **changes})


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: dict[str, str] = {}
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.scripts[self.elements[-1][1].get("id") or self._inside] = data
        else:
            self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def all(self, tag: str, name: str = "") -> list[dict[str, str | None]]:
        return [found for kind, found in self.elements if kind == tag and name in (found.get("class") or "").split(" ")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    path = report(tmp_path / "new" / "report", examples=[example({"ours": sine(440, 0.3)})])
    page = Page(path)
    assert path == tmp_path / "new" / "report" / "index.html"
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert "url(" not in page.scripts["style"]
    assert "@import" not in page.scripts["style"]


def test_only_our_script_may_run_and_nothing_may_be_loaded(tmp_path: Path) -> None:
    page = Page(report(tmp_path))
    policy = next(
        found["content"] for found in page.all("meta") if found.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256(page.scripts["script"].encode()).digest()).decode()
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy


def test_text_is_shown_as_it_is_written(tmp_path: Path) -> None:
    table = Table(EVIL, (EVIL,), ((EVIL,),), note=EVIL)
    clip = Example(EVIL, "separation", EVIL, RATE, sine(440), sine(300), {EVIL: sine(440)})
    found = Measurement(EVIL, "separation", EVIL, EVIL, None, "si_sdr", 1.0, EVIL)
    path = write_report(tmp_path, title=EVIL, tables=[table], measurements=[found], examples=[clip], notes=[EVIL])
    assert "<script>alert" not in path.read_text(encoding="utf-8")
    page = Page(path)
    # Title twice; table: title, column, cell, note; note; distribution: stem, system; example: system.
    assert page.texts.count(EVIL) == 10
    assert len([1 for found in page.all("script") if "type" not in found]) == 1


def test_an_existing_report_is_left_untouched(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(OutputError, match=r"index\.html exists"):
        report(tmp_path)
    assert (tmp_path / "index.html").read_text() == "mine"
    report(tmp_path, overwrite=True)
    assert (tmp_path / "index.html").read_text().startswith("<!doctype html>")


def test_a_report_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match="No space left"):
        report(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def sound(page: Page, name: str | None) -> np.ndarray:
    assert name is not None
    wav, rate = soundfile.read(io.BytesIO(base64.b64decode(page.scripts[name])), dtype="float32")
    assert rate == RATE
    return np.asarray(wav)


def test_names_that_are_no_text_do_not_stop_the_report(tmp_path: Path) -> None:
    path = report(tmp_path, measurements=[measured("ours\udcff", 1.0)])
    assert "ours?" in path.read_text(encoding="utf-8")


def test_sounds_are_kept_to_16_bits_and_equal_ones_once(tmp_path: Path) -> None:
    clip = example({"ours": sine(500), "copy": sine(500)}, mixture=sine(300))
    page = Page(report(tmp_path, examples=[clip, clip]))
    tiles = [tile["data-sound"] for tile in page.all("div", "tile")]
    assert len(tiles) == 8
    assert len([1 for name in page.scripts if name.startswith("sound-")]) == 3
    for tile, wav in zip(tiles, (sine(440), sine(300), sine(500), sine(500)), strict=False):
        np.testing.assert_allclose(sound(page, tile), wav, atol=0.5 / 32768 + 1e-6)


def test_sounds_are_as_long_as_the_reference_and_turned_down_together(tmp_path: Path) -> None:
    clip = example({"loud": sine(440, 1.6)[:20000], "long": sine(440, 0.8, seconds=4)})
    page = Page(report(tmp_path, examples=[clip]))
    reference, loud, long = (sound(page, tile["data-sound"]) for tile in page.all("div", "tile"))
    assert len(reference) == len(loud) == len(long) == 3 * RATE
    assert not loud[20000:].any()
    np.testing.assert_allclose([abs(reference).max(), abs(loud).max(), abs(long).max()], [0.25, 1.0, 0.5], atol=1e-3)


def test_the_mixture_is_not_shown_twice(tmp_path: Path) -> None:
    page = Page(report(tmp_path, examples=[example({"ours": sine(440, 0.3)})]))
    assert [text for text in page.texts if text in ("reference", "mixture", "ours")] == ["reference", "ours"]


def test_levels_are_matched_to_the_reference_without_clipping() -> None:
    reference, quiet, silent = sine(1000, 0.4), sine(1000, 0.1), np.zeros(3 * RATE, np.float32)
    np.testing.assert_allclose(matching_gains([reference, quiet, silent], RATE), [1, 4, 1], rtol=1e-3)
    peaky = sine(1000, 0.01)
    peaky[::1600] = 0.5
    gains = matching_gains([reference, peaky], RATE)
    assert gains[1] * 0.5 <= 1 + 1e-6
    # Never by more than 20 dB.
    np.testing.assert_allclose(matching_gains([reference, sine(1000, 0.001)], RATE)[1], 10, rtol=1e-6)


def test_a_spectrogram_shows_a_tone_at_its_time_and_frequency() -> None:
    wav = np.concatenate([np.zeros(2 * RATE, np.float32), sine(2000, 1.0, seconds=2)])
    level = spectrogram(wav, RATE, HEIGHT, WIDTH)
    assert level.shape == (HEIGHT, WIDTH)
    assert level[:, : WIDTH // 2 - 8].max() < -100
    # A full-scale sine is at 0 dB; a row averages two bins, of which the other one is 6 dB below.
    row = HEIGHT - 1 - int(2000 / (RATE / 2) * HEIGHT)
    assert level[:, 3 * WIDTH // 4].argmax() in (row, row + 1)
    assert -3 < level[:, 3 * WIDTH // 4].max() <= 0


@pytest.mark.parametrize("seconds", [0.01, 0.5, 60])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_a_spectrogram_can_be_of_any_length_and_rate(seconds: float, rate: int) -> None:
    wav = np.ones(int(seconds * rate), np.float32) * np.float32("nan")
    assert spectrogram(wav, rate, HEIGHT, WIDTH).shape == (HEIGHT, WIDTH)


def test_a_short_click_is_seen_in_a_long_sound() -> None:
    wav = np.zeros(120 * RATE, np.float32)
    wav[60 * RATE + 7] = 1
    assert spectrogram(wav, RATE, HEIGHT, WIDTH).max() > -80


def test_colours_go_from_dark_to_bright() -> None:
    level = np.array([[-200.0, -80.0, -40.0, 0.0]], np.float32)
    image = Image.open(io.BytesIO(base64.b64decode(picture(level, 0.0).split(",")[1]))).convert("L")
    first, *rest = image.getdata() if not hasattr(image, "get_flattened_data") else image.get_flattened_data()
    assert first == rest[0] < rest[1] < rest[2]


def test_a_scale_ends_at_round_numbers_and_ignores_what_is_far_off() -> None:
    assert scale_of(np.array([1.2, 2.0, 3.0, 4.4])) == Scale(1.0, 5.0, (1.0, 2.0, 3.0, 4.0, 5.0))
    assert scale_of(np.array([2.5])) == scale_of(np.array([2.5, 2.5]))
    outlier = scale_of(np.array([-80.0, *np.linspace(0, 10, 99)]))
    assert outlier.low >= -20
    assert outlier.place(np.array([-80.0]))[0] == outlier.place(np.array([outlier.low]))[0]


def test_numbers_have_a_real_minus_and_no_negative_zero() -> None:
    assert [number(-1.234), number(-0.001), number(12.0)] == ["−1.23", "0.00", "12.00"]


def test_distributions_show_every_clip_and_say_what_is_missing(tmp_path: Path) -> None:
    found = [measured("ours", float(clip), clip=str(clip)) for clip in range(10)]
    found += [measured("mixture", -float(clip), clip=str(clip)) for clip in range(9)]
    found.append(measured("mixture", float("nan"), clip="9"))
    found += [measured("ours", None, clip="10", reason="silent_reference")] * 2
    page = Page(report(tmp_path, measurements=found))
    dots = [path["d"] or "" for path in page.all("path", "dots")]
    assert [dot.count("M") for dot in dots] == [10, 9]
    label = page.all("svg", "spread")[0]["aria-label"]
    assert label == "SI-SDR of speech, separation. ours: mean 4.50 of 10; mixture: mean −4.00 of 9"
    assert "2 without a value: silent reference." in page.texts


def test_the_paper_and_the_best_are_marked(tmp_path: Path) -> None:
    table = Table(
        "Table II",
        ("stem", "system", "SI-SDR", "mel"),
        (("speech", "ours", "1.25 ± 0.5", "2.00"), ("speech", "SD-Codec", "–", "3.00")),
        names=2,
        best=frozenset({(0, 2)}),
        paper=frozenset({1}),
    )
    text = report(tmp_path, tables=[table]).read_text(encoding="utf-8")
    assert '<strong>1.25 <span class="deviation">± 0.5</span></strong>' in text
    assert 'SD-Codec <span class="tag">paper</span></td>' in text
    assert text.count('class="tag">') == text.count("<strong>") == text.count("<tr class=paper>") == 1
    assert '<td class="number">2.00</td>' in text


def test_scores_stand_beside_what_they_are_of(tmp_path: Path) -> None:
    found = [
        measured("ours", 9.5),
        measured("ours", 1.0, clip="another"),
        measured("mixture", -2.0),
        measured("ours", 2.0, task="masked separation"),
    ]
    clip = example({"ours": sine(440), "ours, masked": sine(450)}, mixture=sine(300))
    page = Page(report(tmp_path, measurements=found, examples=[clip]))
    shown = [text for text in page.texts if text.startswith("SI-SDR ") and "dB" in text]
    assert shown == ["SI-SDR −2.00 dB", "SI-SDR 9.50 dB", "SI-SDR 2.00 dB"]


# Renders what is heard as fast as it can be computed, with keys pressed at exact times.
OFFLINE = """
const [seconds, keys] = arguments;
const Offline = OfflineAudioContext;
const context = new Offline(1, seconds * 48000, 48000);
context.resume = () => Promise.resolve();
window.AudioContext = function () { return context; };
document.querySelector(".play").click();
const decoding = () => document.querySelector(".playing .status").textContent;
return (async () => {
  while (decoding()) await new Promise((done) => setTimeout(done, 10));
  for (const [at, key] of keys) {
    context.suspend(at).then(() => {
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
      Offline.prototype.resume.call(context);
    });
  }
  return Array.from((await context.startRendering()).getChannelData(0));
})();
"""
BEGIN = 0.02
"""When the player starts, in seconds."""


def amplitude(wav: np.ndarray, frequency: float, start: float, end: float) -> float:
    part = wav[int(start * 48000) : int(end * 48000)]
    return 2 * abs(np.mean(part * np.exp(-2j * np.pi * frequency * np.arange(len(part)) / 48000)))


@needs_chromium
def test_switching_leaves_no_gap_and_no_jump(tmp_path: Path, browser: Browser) -> None:
    browser.open(report(tmp_path, examples=[example({"same": sine(440), "quiet": sine(440, 0.1)})]))
    heard = np.array(browser.run(OFFLINE, 2.5, [(0.5, "2"), (1.0, "3"), (1.5, "m"), (2.0, "1")]))
    expected = 0.4 * np.sin(2 * np.pi * 440 * (np.arange(len(heard)) / 48000 - BEGIN))
    until = int(1.0 * 48000)
    begun = int((BEGIN + 0.01) * 48000)
    # From one sound to an equal one: nothing is to be heard of it.
    assert abs(heard - expected)[begun:until].max() < 2e-3
    assert abs(heard - expected / 4)[int(1.02 * 48000) : int(1.5 * 48000)].max() < 2e-3
    # On the way it is between the two.
    assert (abs(heard) <= abs(expected) + 2e-3).all()
    # Matched in level, and back.
    np.testing.assert_allclose(amplitude(heard, 440, 1.6, 2.0), 0.4, rtol=0.01)
    assert abs(heard - expected)[int(2.02 * 48000) :].max() < 4e-3


@needs_chromium
def test_a_marked_part_is_looped_without_clicks(tmp_path: Path, browser: Browser) -> None:
    reference = np.concatenate([sine(500, 0.4, seconds=1), sine(3000, 0.4, seconds=1)])
    browser.open(report(tmp_path, examples=[example({"ours": reference / 2}, reference)]))
    browser.drag(".tile:nth-child(2) .picture", 0.1, 0.3)
    assert "looped" in browser.run("return document.querySelector('.example').className")
    heard = np.array(browser.run(OFFLINE, 2.0, []))
    # In short windows, because the phase jumps where the loop joins.
    windows = np.arange(0.05, 1.95, 0.02)
    assert np.median([amplitude(heard, 500, start, start + 0.02) for start in windows]) > 0.39
    assert max(amplitude(heard, 3000, start, start + 0.02) for start in windows) < 0.01
    # A sine of 500 Hz moves by at most 0.4 · 2π · 500/48000 from sample to sample.
    assert abs(np.diff(heard)).max() < 0.4 * 2 * np.pi * 500 / 48000 * 1.2
    # Faded where it joins, every 0.4 s: half a millisecond of the sine itself is never that quiet throughout.
    quiet = [abs(heard[at : at + 24]).max() < 0.1 for at in range(4800, len(heard) - 4800, 24)]
    assert 3 <= sum(quiet) <= 5 * 7


@needs_chromium
def test_keys_play_switch_seek_and_loop(tmp_path: Path, browser: Browser) -> None:
    clips = [example({"ours": sine(500, 0.3)}, mixture=sine(300)), example({"ours": sine(600, 0.3)})]
    browser.open(report(tmp_path, examples=clips))
    browser.run("document.querySelector('#example-1').scrollIntoView()")
    position = "Number(document.querySelector('.seek').value)"
    browser.press(SPACE)
    browser.wait_for(f"{position} > 0.2")
    browser.press("3")
    tiles = "return [...document.querySelectorAll('#example-1 .tile')].map((e) => e.className.includes('heard'))"
    assert browser.run(tiles) == [False, False, True]
    assert browser.run("return document.querySelector('#example-1 [aria-pressed=true] .name').textContent") == "ours"
    browser.press("9")
    assert browser.run(tiles) == [False, False, True]
    browser.press(SPACE)
    before = browser.run(f"return {position}")
    browser.press(RIGHT)
    after = browser.run(f"return {position}")
    assert after == pytest.approx(min(before + 1, 3), abs=0.01) or before > 2
    browser.press("[")
    assert "looped" in browser.run("return document.querySelector('#example-1').className")
    browser.press(ESCAPE, "l", "m")
    assert "looped" not in browser.run("return document.querySelector('#example-1').className")
    pressed = "return document.querySelector('#example-1 [data-do={}]').getAttribute('aria-pressed')"
    assert browser.run(pressed.format("loop")) == "false"
    assert browser.run(pressed.format("match")) == "true"
    # Another example takes over.
    browser.press(SPACE)
    browser.click("#example-2 .play")
    browser.wait_for("document.querySelector('#example-2').classList.contains('playing')")
    assert "playing" not in browser.run("return document.querySelector('#example-1').className")
    assert browser.complaints() == []


@needs_chromium
def test_sounds_are_not_decoded_before_they_are_played(tmp_path: Path, browser: Browser) -> None:
    browser.open(report(tmp_path, examples=[example({"ours": sine(500, 0.3)})] * 3))
    counting = "class extends AudioContext { constructor() { super(); made++; } }"
    browser.run(f"window.made = 0; window.AudioContext = {counting};")
    browser.run("document.querySelector('#example-3').scrollIntoView()")
    browser.press("2")
    assert browser.run("return made") == 0
    browser.click("#example-3 .play")
    browser.wait_for("made === 1")


@needs_chromium
@pytest.mark.parametrize("width", [360, 390, 800, 1400])
def test_nothing_sticks_out_at_any_width(tmp_path: Path, browser: Browser, width: int) -> None:
    table = Table("T", tuple(f"column {n}" for n in range(12)), (("sdcodec-16k-mini",) * 12,))
    found = [measured("a-system-with-a-name-that-is-rather-long", clip, clip=str(clip)) for clip in range(9)]
    clip = example({"a-system-with-a-name-that-is-rather-long": sine(440)}, mixture=sine(300))
    browser.open(report(tmp_path, tables=[table], measurements=found, examples=[clip], notes=["x" * 300]))
    browser.picture(tmp_path / "page.png", width=width, height=800)
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.complaints() == []
