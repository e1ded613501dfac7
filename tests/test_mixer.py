"""`sdc mixer`: which pages it makes of what, what is in them, and how it fails; test_mixer_page.py opens them."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from sdcodec_cli import load_codec
from sdcodec_cli.audio import Wav, atomic_output
from sdcodec_cli.audio.mp3 import MP3_FRAME, MP3_RATES, encode_mp3, mp3_rate
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.mixer import mixer as module
from sdcodec_cli.engine.mixer import pieces
from sdcodec_cli.engine.mixer.mixer import mixer
from sdcodec_cli.engine.mixer.pieces import HEIGHT, Pieces
from sdcodec_cli.engine.mixer.stems import Stem, gathered
from sdcodec_cli.engine.mixer.strips import active_text, ribbon, waveform
from sdcodec_cli.engine.pictures import spectrogram
from sdcodec_cli.errors import InputError, OutputError

from cli_examples import errors, sdc
from tiny_models import tiny_recipe, write_tiny

RATE = 16_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noise(seconds: float, channels: int = 1, seed: int = 0) -> Wav:
    wav = np.random.default_rng(seed).normal(0, 0.05, (round(seconds * RATE), channels))
    return np.asarray(wav, dtype=np.float32)


def stems(name: str = "song", **wavs: Wav) -> Path:
    """A folder of stems, of a second by default."""
    Path(name).mkdir()
    for stem, wav in (wavs or {"music": noise(1), "voice": noise(1, seed=1)}).items():
        soundfile.write(f"{name}/film.{stem}.wav", wav, RATE)
    return Path(name)


def data_of(page: Path) -> Any:
    found = re.search(r'<script type="application/json" id="mixer">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found is not None
    return json.loads(found[1])


def made(source: Path, target: Path, codec: Codec | None = None, **options: Any) -> module.MixerResult:
    return mixer(source, target, codec=codec, separator=lambda: codec, **options)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("rate", MP3_RATES)
def test_all_mp3_is_late_by_as_much(rate: int) -> None:
    clicks = np.zeros((2, 8 * MP3_FRAME), np.float32)
    clicks[:, 4 * MP3_FRAME] = 0.9
    for wav in (clicks, clicks[:1]):
        with av.open(io.BytesIO(encode_mp3(wav, rate))) as container:
            decoded = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
        assert len(decoded) == len(wav)
        # 528 + 1 of the decoder and 576 of the encoder, as LAME states them.
        assert int(np.abs(decoded[0]).argmax()) == 4 * MP3_FRAME + 1105


def test_rates_that_mp3_lacks_become_higher_ones() -> None:
    assert [mp3_rate(rate) for rate in (8000, 9000, 44_100, 96_000)] == [8000, 11_025, 44_100, 48_000]


def test_a_folder_becomes_a_page_with_its_stems_beside_it() -> None:
    stems()
    result = sdc("mixer", "song", "--json")
    assert result.exit_code == 0
    assert re.fullmatch(r"song\.mixer\.html: 1\.0 s, music, voice, \d+ kB; open it in a browser\n", result.stderr), (
        result.stderr
    )
    found = json.loads(result.stdout)
    assert (found["output"], found["folder"], found["model"]) == ("song.mixer.html", None, None)
    assert found["stems"] == {"music": 1.0, "voice": 1.0}
    assert found["num_bytes"] == Path("song.mixer.html").stat().st_size
    data = data_of(Path("song.mixer.html"))
    assert (data["rate"], data["samples"], data["channels"], data["command"]) == (RATE, RATE, 1, None)
    assert sorted(path.name for path in Path().iterdir()) == ["song", "song.mixer.html"]
    (line,) = errors(sdc("mixer", "song"))
    assert line == "song.mixer.html exists; pass --force to overwrite it"
    assert sdc("mixer", "song", "-f", "-q").stderr == ""
    stems("other", voice=noise(0.1))
    assert sdc("mixer", "song", "other/", "-o", "pages/", "-q").exit_code == 0
    assert sorted(map(str, Path("pages").iterdir())) == ["pages/other.mixer.html", "pages/song.mixer.html"]


def test_names_of_stems_lose_what_they_share_and_their_mix_is_left_out() -> None:
    folder = stems(music=noise(0.1), voice=noise(0.1))
    soundfile.write("song/film.wav", noise(0.1), RATE)
    Path("song/cover.jpg").touch()
    found = gathered(folder)
    assert list(found.paths) == ["music", "voice"]
    assert found.notes == ("film.wav is left out: the others have its name and more, so they are its stems",)
    soundfile.write("song/other.wav", noise(0.1), RATE)
    assert list(gathered(folder).paths) == ["film.music", "film.voice", "other"]


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["none"], 1, "none: no such file; check the name"),
        (["empty"], 1, "empty: no audio files in this folder; name a folder with the stems of a mix, or a file"),
        (["many"], 1, "many: has 17 audio files, and a mixer takes 16 stems; name a folder with fewer"),
        (["text.wav"], 1, "text.wav: not audio that sdc reads"),
        (["song", "-o", "page.wav"], 1, "page.wav: would hold a page; name it page.html"),
        (["song", "-o", "-"], 2, "-o -: a page may need a folder beside it; name a file, such as -o song.html"),
        (["-"], 1, "stdin: a page is made of a file or a folder; name one"),
        (["song", "empty", "-o", "page.html"], 2, "-o page.html: one file cannot hold several outputs"),
        (["song", "-o", "song/film.music.wav"], 1, "song/film.music.wav: would hold a page"),
        (["song", "-o", "taken.html"], 1, "taken.sound: is where long sound of the page would go, and holds something"),
        (["song", "-o", "used.html"], 1, "used.sound exists; pass --force to overwrite it"),
    ],
)
def test_what_cannot_become_a_page_is_one_line(arguments: list[str], code: int, expected: str) -> None:
    stems(music=noise(0.1))
    for name in ("empty", "many", "taken.sound", "used.sound"):
        Path(name).mkdir()
    for number in range(17):
        soundfile.write(f"many/{number}.wav", noise(0.01), RATE)
    Path("text.wav").write_text("no audio")
    Path("taken.sound/mine.txt").touch()
    Path("used.sound/0001.js").touch()
    (line,) = errors(sdc("mixer", *arguments, "--device", "cpu"), exit_code=code)
    assert line.startswith(expected)
    assert not [*Path().glob("*.html"), *Path().glob(".*")]


def test_long_sound_goes_into_a_folder_that_is_there_with_its_page_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 0.4)
    monkeypatch.setattr(module, "MAX_SECONDS", 0.9)
    source, page, sound = stems(), Path("page.html"), Path("page.sound")
    result = made(source, page)
    assert result.folder == "page.sound"
    assert result.num_bytes == pytest.approx(page.stat().st_size + sum(p.stat().st_size for p in sound.iterdir()), 0.01)
    assert sorted(path.name for path in sound.iterdir()) == ["0001.js", "0002.js", "0003.js"]
    text = page.read_text(encoding="utf-8")
    assert 'id="piece-' not in text
    assert "'self' file:" in text
    assert data_of(page)["folder"] == "page.sound"
    first = (sound / "0001.js").read_text()
    assert re.fullmatch(r'arrive\(0, \["[^"]+", "[^"]+"\]\);\n', first)
    with pytest.raises(OutputError, match=r"page\.sound exists"):
        made(source, page)

    def broken(*_: Any, **__: Any) -> None:
        raise OutputError("page.html: no room")

    with monkeypatch.context() as patch:  # the sound of a page that became short goes with it
        patch.setattr(module, "MAX_SECONDS", 2)
        Path("short.sound").mkdir()
        Path("short.sound/0001.js").touch()
        made(stems("short"), Path("short.html"), overwrite=True)
        assert not Path("short.sound").exists()
    monkeypatch.setattr(module, "write_page", broken)
    for target, before in ((page, first), (Path("new.html"), None)):
        with pytest.raises(OutputError, match="no room"):
            made(source, target, overwrite=True)
        beside = module.sound_folder(target)
        assert (beside / "0001.js").read_text() == before if before else not beside.exists()
    assert not list(Path().glob(".*"))


def test_what_is_silent_takes_no_room_and_more_channels_than_two_are_mixed_down() -> None:
    source = stems(a=noise(0.5, channels=6), b=noise(1) * 0)
    result = made(source, Path("page.html"))
    assert result.notes == (
        "more than two channels are mixed down to one in the page: a",
        "stems differ in length; the shorter ones end in silence",
    )
    assert result.stems["b"] == 0
    (piece,) = re.findall(r'id="piece-\d">(.*?)</script>', Path("page.html").read_text(encoding="utf-8"))
    a, b = json.loads(piece)
    assert base64.b64decode(a)[0] == 0xFF
    assert b == ""


def test_pieces_look_and_count_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    wav = noise(3)[:, 0]
    wav[RATE : 2 * RATE] = 0
    soundfile.write("a.wav", wav / 16, RATE, subtype="FLOAT")  # a Stem's files are softer
    whole = None
    for seconds in (30, 0.7):
        monkeypatch.setattr(pieces, "PIECE_SECONDS", seconds)
        cut = Pieces([Stem(Path("a.wav"), RATE)])
        assert len(list(cut.texts())) == (1 if seconds == 30 else 5)
        (shown,) = cut.pictures()
        assert shown.active == [(0.0, 1.0), (2.0, 3.0)]
        whole = whole or shown
        np.testing.assert_allclose(shown.peaks, whole.peaks)
        assert shown.levels.shape == (HEIGHT, len(shown.peaks))
        # Windows of a column may lie a sample elsewhere.
        assert np.abs(shown.levels - whole.levels).mean() < 0.5
    assert whole is not None
    assert np.abs(whole.levels - spectrogram(wav, RATE, HEIGHT, len(whole.peaks))).mean() < 0.5


def test_a_waveform_a_ribbon_and_words_say_when_a_stem_is_active() -> None:
    assert waveform(np.array([0.0, 1.0], np.float32)) == "M0 50 1 2 1 98 0 50z"
    assert ribbon([(0, 1), (3, 4)], 4) == "M0.0 0H250.0V1H0.0zM750.0 0H1000.0V1H750.0z"
    assert active_text([], 4) == "never active"
    assert active_text([(0.0, 4.0)], 4) == "active all the time"
    assert active_text([(0.0, 1.0), (60.0, 61.5)], 100) == "active 2 % of the time: 0:00.0 to 0:01.0, 1:00.0 to 1:01.5"
    assert active_text([(float(n), n + 0.5) for n in range(50)], 50) == "active 50 % of the time"


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return load_codec(write_tiny(tmp_path_factory.mktemp("model") / "tiny", tiny_recipe(activity=False)), device="cpu")


def test_a_stream_is_decoded_and_other_audio_separated(codec: Codec) -> None:
    soundfile.write("it's.wav", noise(0.5, channels=2), RATE)
    with soundfile.SoundFile("it's.wav", "r+") as file:
        file.title = "<b>One & two</b>"
    compress("it's.wav", "it's.sdc", codec=codec)
    result = made(Path("it's.sdc"), Path("page.html"), codec)
    assert (result.model, result.seconds, list(result.stems)) == (codec.name, 0.5, list(codec.domains))
    data = data_of(Path("page.html"))
    assert (data["name"], data["command"]) == ("it's", "sdc decode 'it'\"'\"'s.sdc'")
    assert "&lt;b&gt;One &amp; two&lt;/b&gt;" in Path("page.html").read_text(encoding="utf-8")
    made(Path("it's.wav"), Path("page.html"), codec, views=1, overwrite=True)
    data = data_of(Path("page.html"))
    assert ([stem["name"] for stem in data["stems"]], data["command"]) == (list(codec.domains), None)
    assert data["channels"] == 2


def test_a_damaged_stream_is_mixed_as_far_as_it_goes(codec: Codec) -> None:
    soundfile.write("a.wav", noise(5), RATE)
    compress("a.wav", "a.sdc", codec=codec)
    data = bytearray(Path("a.sdc").read_bytes())
    data[len(data) // 2] ^= 1
    with atomic_output("a.sdc", overwrite=True) as file:
        file.write(data)
    result = made(Path("a.sdc"), Path("a.html"), codec)
    assert result.problems
    assert result.seconds == 5


def test_a_place_for_temporary_files_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "gone")
    with pytest.raises(OutputError, match="^gone: cannot be written: No such file or directory; set TMPDIR"):
        made(stems(), Path("page.html"))


def test_a_folder_that_cannot_be_read_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sdcodec_cli.engine.mixer.stems.os.scandir", refused)
    with pytest.raises(InputError, match="song: cannot be read: Permission denied"):
        gathered(Path("song"))
