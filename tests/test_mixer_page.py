"""The page of `sdc mixer` in Chromium: what it plays and saves, in step and as it is set."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from sdcodec_cli.audio import Wav
from sdcodec_cli.audio.decibels import db_to_amplitude
from sdcodec_cli.engine.mixer import mixer as module
from sdcodec_cli.engine.mixer import pieces
from sdcodec_cli.engine.mixer.mixer import mixer

from browser import ESCAPE, SPACE, Browser, needs_chromium
from cli_examples import sdc

pytestmark = needs_chromium

RATE = 32_000
LOSS = 15.0
"""SNR of noise after MP3 at least, in dB; that of these sounds a sample late is 7."""
UP, DOWN = "\ue013", "\ue015"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def sound(seed: int, seconds: float = 1.5, rate: int = RATE, channels: int = 1) -> Wav:
    """Noise below a quarter of the rate, which MP3 keeps, in pulses that differ from one another."""
    random = np.random.default_rng(seed)
    count = round(seconds * rate)
    noise = soxr.resample(random.normal(0, 0.1, (count // 4 + 1, channels)), 1, 4)[:count]
    return (noise * (0.3 + 0.7 * (np.sin(np.arange(count) / rate * (3 + seed)) > 0))[:, None]).T.astype(np.float32)


def page_of(folder: Path, stems: dict[str, Wav], rate: int = RATE, **options: Any) -> Path:
    """A page of stems in files of their own."""
    (folder / "song").mkdir()
    for name, wav in stems.items():
        soundfile.write(folder / "song" / f"song.{name}.wav", wav.T, rate)
    target = folder / "song.mixer.html"
    mixer(folder / "song", target, codec=no_model, separator=lambda: no_model(None), **options)
    return target


def no_model(header: Any) -> Any:
    raise AssertionError("a folder of stems needs no model")


def saved(browser: Browser, name: str) -> Wav:
    """What the page saves when its button is pressed: `[C, T]`."""
    path = browser.downloads / name
    path.unlink(missing_ok=True)
    browser.click("[data-do=download]")
    browser.wait_for(path.exists)
    browser.wait_for("!document.querySelector('[data-do=download]').disabled")
    wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == browser.run("return data.rate")
    return np.asarray(wav.T)


def snr(reference: Wav, estimate: Wav) -> float:
    """In dB; a shift by a sample shows."""
    assert reference.shape == estimate.shape
    return float(10 * np.log10((reference**2).sum() / ((reference - estimate) ** 2).sum()))


def lag(reference: Wav, estimate: Wav) -> int:
    """By how many samples one is late, by cross-correlation."""
    size = 2 * reference.shape[-1]
    found = np.fft.irfft(np.fft.rfft(estimate[0], size) * np.fft.rfft(reference[0], size).conj(), size)
    place = int(found.argmax())
    return place - size if place > size // 2 else place


def value(browser: Browser, script: str) -> Any:
    return browser.run(f"return {script}")


def test_a_page_mixes_as_it_is_set_to_the_sample_and_keys_set_it(tmp_path: Path, browser: Browser) -> None:
    stems = {name: sound(seed) for seed, name in enumerate(("music", "sfx", "speech"))}
    browser.open(page_of(tmp_path, stems))
    assert value(browser, "data.stems.map((stem) => stem.name)") == list(stems)
    everything = saved(browser, "song.mix.wav")
    assert lag(sum(stems.values()), everything) == 0
    assert snr(sum(stems.values()), everything) > LOSS
    # Keys: the fader of the first stem 3 dB down, the second one muted, then the mix 1 dB up.
    browser.press("1", *[DOWN] * 6, "2", "m", "0", UP, UP)
    assert value(browser, "[desk.faders, desk.muted, desk.mix]") == [[-3, 0, 0], [False, True, False], 1]
    assert value(browser, "document.querySelector('#said').textContent") == "sfx: muted"
    wanted = (stems["music"] * db_to_amplitude(-3) + stems["speech"]) * db_to_amplitude(1)
    assert snr(wanted, saved(browser, "song.mix.wav")) > LOSS
    # Solo of the muted one: mute wins, so nothing is heard.
    browser.press("2", "s")
    assert not saved(browser, "song.mix.wav").any()
    browser.press("m")
    assert snr(stems["sfx"] * db_to_amplitude(1), saved(browser, "song.mix.wav")) > LOSS
    browser.press("r", "[", SPACE)
    browser.wait_for("desk.sounding && desk.position > 0.1")
    browser.press(SPACE)
    assert value(browser, "[desk.playing, desk.levels]") == [False, [1, 1, 1]]
    browser.press(ESCAPE)
    assert browser.complaints() == []


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a fifth of a second, in a folder beside the page."""
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 0.2)
    monkeypatch.setattr(module, "MAX_BYTES", 0)


def played(browser: Browser, seconds: float) -> Wav:
    """What is heard from the moment of pressing the space bar on: `[1, T]`.

    The page plays into a context that stands still until all of it is scheduled, so that the speed of the machine does
    not matter.
    """
    browser.run(
        """
        globalThis.stage = new OfflineAudioContext(1, Math.round(arguments[0] * data.rate), data.rate);
        stage.resume = async () => {};
        AudioContext = function () { return stage; };
        globalThis.scheduled = 0;
        const give = emit;
        emit = (context, gains, buffers, when, from, to) => {
          scheduled = when + (to - from) / data.rate;
          return give(context, gains, buffers, when, from, to);
        };
        document.activeElement.blur();
        """,
        seconds,
    )
    browser.press(SPACE)
    browser.wait_for(f"scheduled >= {seconds}", seconds=60)
    samples = browser.run("return stage.startRendering().then((heard) => Array.from(heard.getChannelData(0)))")
    start = round(0.02 * RATE)  # after which the page begins
    return np.asarray(samples, np.float32)[None, start:]


@pytest.mark.slow
@pytest.mark.usefixtures("small_pieces")
def test_pieces_beside_the_page_join_without_a_seam_played_and_saved(tmp_path: Path, browser: Browser) -> None:
    stems = {"a": sound(1, 2.0), "b": sound(2, 2.0)}
    browser.open(page_of(tmp_path, stems))
    assert len(list((tmp_path / "song.mixer.sound").iterdir())) == 10
    wanted = stems["a"] + stems["b"] * db_to_amplitude(-6)
    browser.press("2", *[DOWN] * 12)
    everything = saved(browser, "song.mix.wav")
    assert snr(wanted, everything) > LOSS
    # At every join as good as anywhere.
    for join in range(6400, 64_000, 6400):
        assert snr(wanted[:, join - 200 : join + 200], everything[:, join - 200 : join + 200]) > LOSS - 3
    browser.run("desk.setLoop(false)")
    heard = played(browser, 2.0)
    assert snr(wanted[:, 200 : heard.shape[1]], heard[:, 200:]) > LOSS  # without the fade at its start
    np.testing.assert_allclose(heard[:, 200:], everything[:, 200 : heard.shape[1]], atol=1e-4)
    assert browser.complaints() == []


@pytest.mark.slow
@pytest.mark.usefixtures("small_pieces")
def test_a_loop_goes_round_and_is_saved_alone(tmp_path: Path, browser: Browser) -> None:
    stems = {"a": sound(1, 2.0), "b": sound(2, 2.0)}
    browser.open(page_of(tmp_path, stems))
    browser.drag(".strip .picture", 0.25, 0.45)
    start, end = value(browser, "part(desk)")
    assert abs(start - 0.5) < 0.02
    assert abs(end - 0.9) < 0.02
    first, last = round(start * RATE), round(end * RATE)
    loop = saved(browser, "song.loop.wav")
    assert snr((stems["a"] + stems["b"])[:, first:last], loop) > LOSS
    browser.run("desk.setRegion(part(desk)); desk.seek(desk.span[0])")  # what is saved is whole milliseconds
    heard = played(browser, 2.5)
    length = last - first
    for turn in range(heard.shape[1] // length):
        begin = turn * length
        # But for the fades where it joins.
        np.testing.assert_allclose(heard[:, begin + 200 : begin + length - 200], loop[:, 200:-200], atol=1e-4)
    assert turn >= 4
    assert browser.complaints() == []


@pytest.mark.slow
@pytest.mark.usefixtures("small_pieces")
def test_a_folder_that_was_left_behind_is_named(tmp_path: Path, browser: Browser) -> None:
    page = page_of(tmp_path, {"a": sound(1)})
    browser.open(page.rename(tmp_path / "moved.html"))
    (tmp_path / "song.mixer.sound" / "0001.js").unlink()
    browser.press(SPACE)
    browser.wait_for("!desk.playing && desk.error")
    shown = value(browser, "document.querySelector('[data-show=status]').textContent")
    assert shown == "song.mixer.sound/0001.js is missing: the folder song.mixer.sound belongs beside this page."
    (complaint,) = browser.complaints()
    assert "0001.js" in complaint


@pytest.mark.slow
def test_stems_of_other_rates_lengths_and_channels_stay_in_step(tmp_path: Path, browser: Browser) -> None:
    (tmp_path / "song").mkdir()
    stereo = sound(1, 1.0, 44_100, channels=2)
    low = sound(2, 0.7, 11_025)
    soundfile.write(tmp_path / "song" / "left and right.wav", stereo.T, 44_100)
    soundfile.write(tmp_path / "song" / "low.wav", low.T, 11_025)
    page = tmp_path / "song.html"
    result = mixer(tmp_path / "song", page, codec=no_model, separator=lambda: no_model(None))
    assert (result.sample_rate, result.seconds) == (44_100, 1.0)
    browser.open(page)
    mix = saved(browser, "song.mix.wav")
    wanted = stereo.copy()
    up = soxr.resample(low[0], 11_025, 44_100)
    wanted[:, : len(up)] += up
    assert snr(wanted, mix) > LOSS
    assert lag(wanted, mix) == 0


@pytest.mark.slow
def test_names_are_text_in_the_page(tmp_path: Path, browser: Browser) -> None:
    evil = ["<img src=x onerror=alert(1)>", '";alert(2)//'.replace("/", "∕"), "<!--<script>"]
    browser.open(page_of(tmp_path, {name: sound(seed) for seed, name in enumerate(evil)}))
    assert sorted(value(browser, "[...document.querySelectorAll('.name')].map((e) => e.textContent)")) == sorted(
        [*evil, "Mix"]
    )
    assert value(browser, "document.querySelector('#line').hidden")
    assert browser.complaints() == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 400, 1300])
def test_nothing_sticks_out_at_any_width(tmp_path: Path, browser: Browser, width: int) -> None:
    browser.open(page_of(tmp_path, {"a" * 60: sound(1), "b": sound(2)}))
    browser.picture(tmp_path / "page.png", width=width, height=800)
    browser.press("1", "m")
    assert value(browser, "document.documentElement.scrollWidth <= innerWidth")
    # A screen reader has a name for everything that can be used.
    unnamed = "[...document.querySelectorAll('button, input')].filter((e) => !(e.ariaLabel || e.textContent.trim()))"
    assert value(browser, f"{unnamed}.length") == 0
    assert browser.complaints() == []


@pytest.fixture(scope="module")
def scene_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mixer of the sample that ships, in a folder with a space, beside its `.sdc`."""
    folder = tmp_path_factory.mktemp("scene") / "a folder"
    folder.mkdir()
    scene = Path(__file__).resolve().parents[1] / "docs" / "scene.flac"
    stream = folder / "it's a scene.sdc"
    assert sdc("compress", scene, "-o", stream, "--effort", "0", "--device", "cpu").exit_code == 0
    assert sdc("mixer", stream, "--device", "cpu").exit_code == 0
    return folder / "it's a scene.mixer.html"


SETTINGS: dict[str, Callable[[Browser], None]] = {
    "nothing": lambda browser: None,
    "two faders": lambda browser: browser.press("2", *[DOWN] * 12, "3", UP, UP),
    "a loop and the mix": lambda browser: browser.run("desk.setRegion([4, 6.5]); desk.mix = -5.5; desk.moved()"),
    "one muted": lambda browser: browser.press("2", "m"),
    "one alone": lambda browser: browser.press("1", "s", DOWN, "0", DOWN),
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_command_line_decodes_what_the_page_saves(scene_page: Path, browser: Browser, setting: str) -> None:
    browser.open(scene_page)
    SETTINGS[setting](browser)
    line = value(browser, "document.querySelector('#line code').textContent")
    program, *arguments = shlex.split(line)
    assert program == "sdc"
    target = scene_page.with_name("decoded.wav")
    assert sdc(*arguments, "-o", target, "--force", "--device", "cpu").exit_code == 0
    decoded, _ = soundfile.read(target, dtype="float32", always_2d=True)
    (name,) = {"a loop and the mix": ["it's a scene.loop.wav"]}.get(setting, ["it's a scene.mix.wav"])
    found = saved(browser, name)
    assert lag(decoded.T, found) == 0
    assert snr(decoded.T, found) > 24
    assert browser.complaints() == []
