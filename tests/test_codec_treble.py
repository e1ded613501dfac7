"""Treble through the codec, files and pipes: there where the source has any, the same codes, nothing changed below."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdcodec_cli import load_codec
from sdcodec_cli.audio import resampled
from sdcodec_cli.bitstream import Reader, Segment, Writer
from sdcodec_cli.bitstream.segment import TREBLE
from sdcodec_cli.engine import codec as codecs
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.engine.inspect import inspect
from sdcodec_cli.engine.stream import SEGMENT_FRAMES
from sdcodec_cli.errors import InputError

from cli_examples import errors, sdc
from tiny_models import tiny_recipe, write_tiny

HOP, WIDE = 320, 32_000
NOTHING = -12


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model") / "tiny", tiny_recipe(activity=False))


@pytest.fixture(scope="module")
def tiny(folder) -> Codec:
    return load_codec(folder, device="cpu")


def noise(length: int, *, seed: int = 0) -> np.ndarray:
    """Pink enough that there is less above; at the level that models expect."""
    wav = np.random.default_rng(seed).standard_normal(length + 1)
    return (0.03 * (wav[1:] + 0.8 * wav[:-1])).astype(np.float32)


def between(wav: np.ndarray, rate: int, low: float, high: float) -> np.ndarray:
    hertz = np.fft.rfftfreq(len(wav), 1 / rate)
    return np.fft.irfft(np.fft.rfft(wav) * ((hertz >= low) & (hertz < high)), n=len(wav))


def level(wav: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wav, dtype=np.float64).mean() + 1e-30))


def stored(path: Path, wav: np.ndarray, rate: int) -> Path:
    soundfile.write(path, wav, rate, subtype="FLOAT")
    return path


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def segments_of(path: Path) -> list[Segment]:
    with path.open("rb") as file:
        reader = Reader(file)
        segments = list(reader.segments())
        assert reader.problems == []
    return segments


# The codec.


def test_treble_changes_no_codes_no_envelope_and_nothing_at_the_rate_of_the_model(tiny):
    wav = noise(200_000)
    one = tiny.encode(wav, sample_rate=WIDE, normalize=False)
    other = tiny.encode(resampled(wav, WIDE, 16_000), normalize=False)
    assert one.treble is not None
    assert other.treble is None
    assert (one.treble.gains > NOTHING).mean() > 0.9
    assert np.array_equal(one.envelope.gains, other.envelope.gains)
    for domain in tiny.domains:
        assert np.array_equal(one.codes[domain], other.codes[domain])
    for stem in ("mix", "music"):
        assert np.array_equal(tiny.decode(one, stem=stem), tiny.decode(other, stem=stem))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_is_below_is_what_decodes_without_treble(tiny, share):
    codes = tiny.encode(noise(150_000), sample_rate=WIDE)
    plain, wide = (tiny.decode(codes, share=share, sample_rate=rate) for rate in (None, WIDE))
    assert wide.shape == (150_000,)
    below = 2 * np.fft.irfft(np.fft.rfft(plain), n=150_000)
    inner = slice(2000, -2000)
    error, reference = (between(each, WIDE, 0, 7300)[inner] for each in (wide - below, below))
    assert level(error) < level(reference) - 60
    # Codes without treble come with nothing above.
    bare = tiny.decode(dataclasses.replace(codes, treble=None), share=share, sample_rate=WIDE)
    assert (
        level(between(bare, WIDE, 8200, 16_001)[inner]) < level(plain) - 60 < level(between(wide, WIDE, 8200, 16_001))
    )


@pytest.mark.parametrize("length", [1, 2, 639, 5001, 2 * SEGMENT_FRAMES * HOP, 2 * SEGMENT_FRAMES * HOP + 1, 260_000])
def test_audio_of_any_length_has_treble_for_all_its_frames(tiny, length):
    codes = tiny.encode(noise(length), sample_rate=WIDE)
    full, rest = divmod(codes.codes["speech"].shape[-1], SEGMENT_FRAMES)
    assert codes.treble.gains.shape == (1, 8, 50 * full + -(-rest // 2))
    decoded = tiny.decode(codes, sample_rate=WIDE)
    assert decoded.shape == (-(-length // 2) * 2,)
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize("size", [999, 40_000])
@pytest.mark.parametrize("ahead", [-7000, 0, 9000])
def test_treble_does_not_depend_on_how_the_audio_arrives(tiny, size, ahead):
    """At twice the rate it may come before the same at the model's rate, or behind."""
    wide = noise(300_001)
    wav = resampled(wide, WIDE, 16_000)
    whole = tiny.stream_encoder(envelope=True, treble=True)
    expected = [*whole.push(wav, wide), *whole.finish()]
    encoder, segments, given = tiny.stream_encoder(envelope=True, treble=True), [], 0
    for start in range(0, len(wav), size):
        until = max(given, len(wide) if start + size >= len(wav) else 2 * (start + size) + ahead)
        segments += encoder.push(wav[start : start + size], wide[given:until])
        given = until
    segments += encoder.finish()
    assert any(segment.treble is not None for segment in expected)
    for one, other in zip(expected, segments, strict=True):
        assert all(np.array_equal(one.codes[name], other.codes[name]) for name in tiny.domains)
        assert np.array_equal(one.gains, other.gains)
        assert np.array_equal(one.treble, other.treble)


def test_each_row_of_a_batch_has_its_own_treble(tiny):
    wav = np.stack([noise(128_000), between(noise(128_000, seed=1), WIDE, 0, 7000).astype(np.float32)])
    both = tiny.encode(wav, sample_rate=WIDE)
    assert (both.treble.gains[1, 2:] == NOTHING).all()
    for row in range(2):
        alone = tiny.encode(wav[row], sample_rate=WIDE)
        assert np.array_equal(both.treble.gains[row], alone.treble.gains[0])
        assert np.array_equal(tiny.decode(both, sample_rate=WIDE)[row], tiny.decode(alone, sample_rate=WIDE))


def test_silence_has_no_treble(tiny):
    codes = tiny.encode(np.zeros(150_000), sample_rate=WIDE)
    assert (codes.treble.gains == NOTHING).all()
    assert not tiny.decode(codes, sample_rate=WIDE).any()


def test_audio_that_came_from_a_lower_rate_costs_nothing_above(tiny):
    """Filters of resamplers leave a rest of it just below half of that rate, which is no treble."""
    codes = tiny.encode(resampled(noise(2 * 16_000), 16_000, WIDE), sample_rate=WIDE)
    assert (codes.treble.gains == NOTHING).all()


def test_another_rate_is_a_wrong_call(tiny, monkeypatch):
    message = "sample_rate must be 16000 or 32000, got 44100; resample it first"
    with pytest.raises(ValueError, match=message):
        tiny.encode(noise(1000), sample_rate=44_100)
    with pytest.raises(ValueError, match=message):
        tiny.decode(tiny.encode(noise(1000)), sample_rate=44_100)
    # Of a model that has none, such as one that reaches up to 22 kHz itself.
    monkeypatch.setattr(codecs, "treble_layout_for", lambda *_: None)
    assert tiny.wide_rate is None
    with pytest.raises(ValueError, match="sample_rate must be 16000, got 32000; resample it first"):
        tiny.encode(noise(1000), sample_rate=WIDE)
    with pytest.raises(ValueError, match="tiny-spectral codes up to 8000 Hz and adds no treble above that"):
        tiny.stream_encoder(treble=True)


# Files.


@pytest.mark.parametrize("rate", [16_001, 22_050, 44_100, 96_000])
def test_a_source_of_a_higher_rate_has_treble_that_can_be_left_out(tiny, tmp_path, rate):
    source = stored(tmp_path / "a.wav", noise(rate * 2 - 77), rate)
    result = compress(source, tmp_path / "a.sdc", codec=tiny)
    bare = compress(source, tmp_path / "bare.sdc", codec=tiny, treble=False)
    # Half a hertz above 8 kHz there is room for nothing.
    assert (0 < result.treble_bitrate < 0.5) if rate > 16_001 else result.treble_bitrate == 0
    assert bare.treble_bitrate == 0
    assert result.payload_bitrate == pytest.approx(bare.payload_bitrate + result.treble_bitrate)
    report, other = inspect(tmp_path / "a.sdc"), inspect(tmp_path / "bare.sdc")
    assert (report.format_version, other.format_version) == ("1.2", "1.1")
    assert (report.treble.num_bands, report.treble.seconds, report.treble.present) == (8, 0.04, float(rate > 16_001))
    assert other.treble is None
    found = decode(tmp_path / "a.sdc", {"mix": tmp_path / "wide.wav"}, codec=tiny)
    assert (found.band, found.problems) == (min(16_000, rate / 2), ())
    cut = decode(tmp_path / "a.sdc", {"mix": tmp_path / "cut.wav"}, codec=tiny, below=8000)
    decode(tmp_path / "bare.sdc", {"mix": tmp_path / "bare.wav"}, codec=tiny)
    assert cut.band == min(8000, rate / 2)
    assert (tmp_path / "cut.wav").read_bytes() == (tmp_path / "bare.wav").read_bytes()
    wide, plain = read(tmp_path / "wide.wav"), read(tmp_path / "cut.wav")
    assert wide.shape == plain.shape == (rate * 2 - 77,)
    if rate > 20_000:
        inner = slice(rate // 10, -rate // 10)
        above = [level(between(each, rate, 8500, 16_000)[inner]) for each in (wide, plain)]
        assert above[0] > above[1] + 30
        assert level(between(wide - plain, rate, 0, 7000)[inner]) < level(plain) - 60


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000])
def test_a_source_of_no_higher_rate_has_none(tiny, tmp_path, rate):
    source = stored(tmp_path / "a.wav", noise(rate), rate)
    for treble in (False, True):
        assert compress(source, tmp_path / f"{treble}.sdc", codec=tiny, treble=treble).treble_bitrate == 0
    assert (tmp_path / "True.sdc").read_bytes() == (tmp_path / "False.sdc").read_bytes()
    assert inspect(tmp_path / "True.sdc").treble is None


def test_without_treble_a_file_is_byte_for_byte_what_it_was_before_there_was_any(tiny, tmp_path):
    """Written anew from what is read of it, without a trace of treble."""
    source = stored(tmp_path / "a.wav", noise(200_000), 44_100)
    for treble in (False, True):
        compress(source, tmp_path / f"{treble}.sdc", codec=tiny, treble=treble)
    fo = io.BytesIO()
    with (tmp_path / "True.sdc").open("rb") as file:
        reader = Reader(file)
        assert reader.header.treble is not None
        writer = Writer(fo, dataclasses.replace(reader.header, treble=None))
        for segment in reader.segments():
            codes = {key: segment.codes.get(key) for key in reader.header.streams}
            writer.write(codes, segment.num_frames, gains=segment.gains)
        writer.close(reader.end.original_samples)
    assert fo.getvalue() == (tmp_path / "False.sdc").read_bytes()


def test_treble_may_come_without_an_envelope(tiny, tmp_path):
    source = stored(tmp_path / "a.wav", noise(100_000), WIDE)
    compress(source, tmp_path / "a.sdc", codec=tiny, envelope=False)
    report = inspect(tmp_path / "a.sdc")
    assert (report.envelope, report.format_version) == (None, "1.2")
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "b.wav"}, codec=tiny)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "cut.wav"}, codec=tiny, below=8000)
    above = [level(between(read(tmp_path / name), WIDE, 8500, 16_001)) for name in ("b.wav", "cut.wav")]
    assert above[0] > above[1] + 30


def test_a_file_of_some_domains_has_no_treble(tiny, tmp_path):
    source = stored(tmp_path / "a.wav", noise(100_000), WIDE)
    compress(source, tmp_path / "a.sdc", codec=tiny, domains=["speech"])
    assert (inspect(tmp_path / "a.sdc").treble, inspect(tmp_path / "a.sdc").format_version) == (None, "1.0")


@pytest.mark.parametrize(("start", "duration"), [(0.0, 1.5), (1.99, 0.05), (3.3, 2.0), (5.9, None)])
@pytest.mark.parametrize("rate", [22_050, 44_100])
def test_an_excerpt_is_that_part_of_the_whole(tiny, tmp_path, rate, start, duration):
    compress(stored(tmp_path / "a.wav", noise(6 * rate + 11), rate), tmp_path / "a.sdc", codec=tiny)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "whole.wav"}, codec=tiny)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "part.wav"}, codec=tiny, start=start, duration=duration)
    first, found = round(start * rate), read(tmp_path / "part.wav")
    expected = read(tmp_path / "whole.wav")[first : first + len(found)]
    assert len(found) == (6 * rate + 11 - first if duration is None else round(duration * rate))
    assert np.abs(found - expected).max() < 1e-4 * max(1.0, float(np.abs(expected).max()))


def test_every_channel_has_its_own_treble(tiny, tmp_path):
    left, right = noise(140_000), between(noise(140_000, seed=1), 44_100, 0, 5000)
    compress(
        stored(tmp_path / "a.wav", np.stack([left, right], axis=1), 44_100),
        *(tmp_path / "a.sdc",),
        codec=tiny,
        channels="keep",
    )
    assert all(segment.treble.keys() == {0} for segment in segments_of(tmp_path / "a.sdc"))
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "b.wav"}, codec=tiny)
    above = [level(between(channel, 44_100, 8500, 16_000)[5000:-5000]) for channel in read(tmp_path / "b.wav").T]
    assert above[0] > above[1] + 40


def test_segments_with_nothing_above_have_no_unit_between_others_that_have(tiny, tmp_path):
    wav = noise(6 * WIDE)
    quiet = slice(round(1.9 * WIDE), round(4.1 * WIDE))
    wav[quiet] = between(wav, WIDE, 0, 5000)[quiet]
    compress(stored(tmp_path / "a.wav", wav, WIDE), tmp_path / "a.sdc", codec=tiny)
    assert [bool(segment.treble) for segment in segments_of(tmp_path / "a.sdc")] == [True, False, True]
    assert inspect(tmp_path / "a.sdc").treble.present == pytest.approx(2 / 3)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "b.wav"}, codec=tiny)
    above = between(read(tmp_path / "b.wav"), WIDE, 8500, 16_001)
    seconds = [level(above[round(start * WIDE) :][: WIDE // 2]) for start in (1, 2.1, 3, 3.4, 4.6)]
    assert max(seconds[1:4]) < min(seconds[0], seconds[4]) - 30


def test_damaged_treble_is_told_and_all_else_is_decoded(tiny, tmp_path):
    compress(stored(tmp_path / "a.wav", noise(6 * WIDE), WIDE), tmp_path / "a.sdc", codec=tiny)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "good.wav"}, codec=tiny)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "cut.wav"}, codec=tiny, below=8000)
    data = bytearray((tmp_path / "a.sdc").read_bytes())
    data[data.index(TREBLE, data.index(TREBLE) + 1) + 15] ^= 1  # in the gains of the second segment
    (tmp_path / "bad.sdc").write_bytes(data)
    result = decode(tmp_path / "bad.sdc", {"mix": tmp_path / "bad.wav"}, codec=tiny)
    assert result.problems == ("the treble is damaged in segment 1 (frames 100-199, 2.00-4.00 s): it is lost there",)
    good, bad, cut = (read(tmp_path / name) for name in ("good.wav", "bad.wav", "cut.wav"))
    lost = slice(2 * WIDE - 1000, 4 * WIDE + 1000)
    assert np.array_equal(bad[: lost.start], good[: lost.start])
    assert np.array_equal(bad[lost.stop :], good[lost.stop :])
    inner = slice(2 * WIDE + 1000, 4 * WIDE - 1000)
    above = [level(between(wav, WIDE, 8500, 16_001)[inner]) for wav in (good, bad)]
    assert above[0] > above[1] + 30
    assert level(between(bad - cut, WIDE, 0, 7000)[inner]) < level(cut[inner]) - 60


@pytest.mark.parametrize("below", [4000, 16_000, 7999.5])
def test_sound_can_be_cut_off_at_the_split_only(tiny, tmp_path, below):
    compress(stored(tmp_path / "a.wav", noise(40_000), WIDE), tmp_path / "a.sdc", codec=tiny)
    with pytest.raises(InputError) as raised:
        decode(tmp_path / "a.sdc", {"mix": tmp_path / "b.wav"}, codec=tiny, below=below)
    where, what = str(raised.value).split(": its sound can be cut off ")
    assert where == str(tmp_path / "a.sdc")
    assert what == f"at 8000 Hz only, not at {below:g}; give --below 8000, or leave it out"
    assert not (tmp_path / "b.wav").exists()


# The command line.


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDC_DEVICE", "cpu")
    monkeypatch.setenv("SDC_RUNTIME", "torch")  # the model has no graphs
    return stored(Path("talk.wav"), noise(60_000), 44_100)


def test_treble_is_stored_told_and_left_out(talk, folder):
    told = json.loads(sdc("compress", talk, "--model", folder, "--json", "-q").stdout)
    report = json.loads(sdc("info", "talk.sdc", "--json").stdout)
    assert report["treble"]["bitrate"] == pytest.approx(told["treble_bitrate"])
    parts = [*report["streams"], report["envelope"], report["treble"]]
    assert told["payload_bitrate"] == pytest.approx(sum(part["bitrate"] for part in parts))
    (line,) = [line for line in sdc("info", "talk.sdc").stdout.splitlines() if line.lstrip().startswith("treble")]
    assert line.endswith(" kbit/s; 8 bands every 40 ms, in 100 % of the segments")
    waves = []
    for name, options in (("talk.sdc", []), ("talk.sdc", ["--below", "8000"]), ("bare.sdc", [])):
        if name == "bare.sdc":
            assert sdc("compress", talk, "--model", folder, "--no-treble", "-o", name, "-q").exit_code == 0
            assert "treble" not in sdc("info", name).stdout
        result = sdc("decode", name, "-o", "out.wav", "--model", folder, "--json", "-qf", *options)
        assert json.loads(result.stdout)["band"] == (16_000 if not options and name == "talk.sdc" else 8000)
        waves.append(Path("out.wav").read_bytes())
    assert waves[0] != waves[1] == waves[2]
    (line,) = errors(sdc("decode", "talk.sdc", "-o", "out.wav", "--model", folder, "-qf", "--below", "4000"))
    assert line.startswith("talk.sdc: its sound can be cut off at 8000 Hz only, not at 4000; give --below 8000")


def test_treble_goes_through_pipes(talk, folder):
    packed = sdc("compress", "-", "-o", "-", "--model", folder, "-q", stdin=talk.read_bytes())
    assert packed.exit_code == 0, packed.stderr
    assert sdc("compress", talk, "--model", folder, "-q").exit_code == 0
    assert packed.stdout_bytes == Path("talk.sdc").read_bytes()
    assert inspect(io.BytesIO(packed.stdout_bytes)).treble is not None
    for options in ([], ["--below", "8000"], ["--start", "0.7"]):
        decoded = sdc("decode", "-", "-o", "-", "--model", folder, *options, "-q", stdin=packed.stdout_bytes)
        assert decoded.exit_code == 0, decoded.stderr
        sdc("decode", "talk.sdc", "--model", folder, *options, "-qf")
        assert decoded.stdout_bytes == Path("talk.decoded.wav").read_bytes()
