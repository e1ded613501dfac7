"""The envelope through the codec, files and pipes: closer levels, the same codes, nothing where it is not wanted."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_examples import si_sdr

from sdcodec_cli import load_codec
from sdcodec_cli.audio.bands import STEP_DB
from sdcodec_cli.bitstream import Reader
from sdcodec_cli.bitstream.segment import ENVELOPE
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.engine.envelope import Bands, layout_for
from sdcodec_cli.engine.inspect import inspect
from sdcodec_cli.engine.stream import SEGMENT_FRAMES, CodedSegment

from cli_examples import errors, sdc
from tiny_models import tiny_recipe, write_tiny

HOP = 320
SCENE = Path(__file__).resolve().parents[1] / "docs" / "scene.flac"
GOLDEN = Path(__file__).parent / "data" / "weights" / "sdcodec-16k-mini_af32eb51.sdc"


@pytest.fixture(scope="module", params=["spectral", "conv"])
def tiny(request, tmp_path_factory) -> Codec:
    recipe = tiny_recipe(request.param, activity=False)
    return load_codec(write_tiny(tmp_path_factory.mktemp("model") / request.param, recipe), device="cpu")


@pytest.fixture(scope="module")
def plain(embedded) -> Codec:
    """The embedded model without refinement."""
    return embedded.at_effort(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model for the command line."""
    return write_tiny(tmp_path_factory.mktemp("model") / "tiny", tiny_recipe(activity=False))


def noise(length: int, *, seed: int = 0) -> np.ndarray:
    """At the level that models expect; its level wanders."""
    wav = np.random.default_rng(seed).standard_normal(length) * 0.04
    return (wav * (1.2 + np.sin(2 * np.pi * 0.3 * np.arange(length) / 16_000))).astype(np.float32)


def missing(codec: Codec, wav: np.ndarray, decoded: np.ndarray, *, fine: bool = False) -> float:
    """How far levels of bands are off, in dB: the mean over bands and times."""
    bands = Bands(codec.envelope_layout(fine=fine), codec.sample_rate, codec.hop_length)
    inner = slice(0, len(wav) // HOP * HOP)
    return float(np.abs(bands.wanted(*(np.pad(each[inner], HOP // 2) for each in (wav, decoded)))).mean() * STEP_DB)


def level(error: np.ndarray, reference: np.ndarray) -> float:
    """Of a signal above its error, in dB."""
    return float(10 * np.log10(np.square(reference).sum() / max(np.square(error).sum(), 1e-20)))


def gains_of(path: Path, codec: Codec | None = None) -> list[dict[int, np.ndarray]]:
    """Of each segment of a file, whose codes may need the tables of a model."""
    with path.open("rb") as file:
        reader = Reader(file)
        reader.tables = codec.tables() if codec else None
        gains = [segment.gains for segment in reader.segments()]
        assert reader.problems == []
    return gains


# The codec.


def test_levels_of_a_scene_come_closer_the_more_of_the_envelope_is_applied(plain, scene):
    codes = plain.encode(scene)
    decoded = [plain.decode(codes, share=share) for share in (0.0, 0.3, 0.6, 1.0)]
    off = [missing(plain, scene, wav) for wav in decoded]
    assert off == sorted(off, reverse=True)
    assert off[-1] < 0.45 * off[0]
    # It costs distance to the waveform.
    ratios = [si_sdr(wav, scene) for wav in decoded]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[2] > ratios[0] - 1.5


@pytest.mark.parametrize("kind", ["noise", "hiss", "sweep"])
def test_levels_of_known_signals_come_closer(plain, kind):
    time = np.arange(64_000) / 16_000
    wav = {
        "noise": noise(64_000),
        "hiss": np.diff(noise(64_001)),
        "sweep": 0.1 * np.sin(2 * np.pi * (200 * time + 800 * time**2)),
    }[kind].astype(np.float32)
    codes = plain.encode(wav)
    before, after = (missing(plain, wav, plain.decode(codes, share=share)) for share in (0.0, 1.0))
    assert after < 0.7 * before


def test_a_fine_envelope_comes_closer_still(plain, scene, tmp_path):
    wav = scene[60_000:160_000]
    soundfile.write(tmp_path / "a.wav", wav, 16_000, subtype="FLOAT")
    results = [compress(tmp_path / "a.wav", tmp_path / f"{fine}.sdc", codec=plain, fine=fine) for fine in (False, True)]
    assert 0.2 < results[0].envelope_bitrate < 0.6 < 1 < results[1].envelope_bitrate < 2.2
    report = inspect(tmp_path / "True.sdc").envelope
    assert (report.num_bands, report.seconds) == (25, 0.02)
    rough, fine = plain.encode(wav, fine=False), plain.encode(wav, fine=True)
    layout = plain.envelope_layout(fine=True)
    assert fine.envelope.layout == layout == layout_for(16_000, HOP, fine=True)
    off = [missing(plain, wav, plain.decode(codes, share=1.0), fine=True) for codes in (rough, fine)]
    assert off[1] < 0.75 * off[0]
    decode(tmp_path / "True.sdc", {"mix": tmp_path / "b.wav"}, codec=plain)
    assert np.abs(soundfile.read(tmp_path / "b.wav")[0] - plain.decode(fine)).max() < 2e-5 + 2**-15


def test_codes_are_the_same_with_an_envelope_and_without(tiny):
    wav = noise(150_000)
    one, fine, other = tiny.encode(wav), tiny.encode(wav, fine=True), tiny.encode(wav, envelope=False)
    assert one.envelope is not None
    assert one.envelope.gains.any()
    assert other.envelope is None
    for domain in tiny.domains:
        for found in (one, fine):
            assert np.array_equal(found.codes[domain], other.codes[domain])
            assert np.array_equal(found.active[domain], other.active[domain])


def test_no_share_of_an_envelope_is_no_envelope(tiny):
    wav = noise(150_000)
    codes = tiny.encode(wav)
    bare = dataclasses.replace(codes, envelope=None)
    for stem in ("mix", "music"):
        expected = tiny.decode(bare, stem=stem)
        assert np.array_equal(tiny.decode(codes, stem=stem, share=0.0), expected)
        assert not np.array_equal(tiny.decode(codes, stem=stem), expected)


@pytest.mark.parametrize("size", [1000, 16_001, 99_999])
def test_gains_do_not_depend_on_how_the_audio_arrives(tiny, size):
    wav = noise(200_077)
    whole = tiny.stream_encoder(envelope=True)
    expected = [*whole.push(wav), *whole.finish()]
    encoder, segments = tiny.stream_encoder(envelope=True), []
    for start in range(0, len(wav), size):
        segments += encoder.push(wav[start : start + size])
    segments += encoder.finish()
    assert [segment.num_frames for segment in segments] == [*[SEGMENT_FRAMES] * 6, 26]
    assert any(segment.gains is not None for segment in expected)
    for one, other in zip(expected, segments, strict=True):
        assert all(np.array_equal(one.codes[name], other.codes[name]) for name in tiny.domains)
        assert (one.gains is None) == (other.gains is None)
        assert one.gains is None or np.array_equal(one.gains, other.gains)


@pytest.mark.parametrize("size", [1, 33, 400])
def test_shaped_audio_does_not_depend_on_how_the_codes_arrive(tiny, size):
    wav = noise(160_000)
    codes = tiny.encode(wav, normalize=False)
    envelope = codes.envelope
    assert envelope is not None
    gains = np.concatenate(
        [envelope.layout.per_frame(envelope.of_segment(0, start), 100) for start in range(0, 500, SEGMENT_FRAMES)], -1
    )
    decoder, pieces = tiny.stream_decoder(["mix"], envelope=envelope.layout), []
    for start in range(0, 500, size):
        span = slice(start, min(start + size, 500))
        streams = {domain: found[0, :, span] for domain, found in codes.codes.items()}
        pieces += decoder.push(streams, span.stop - start, gains[:, span])
    pieces += decoder.finish()
    assert np.array_equal(np.concatenate(pieces, axis=-1)[0], tiny.decode(codes))


@pytest.mark.parametrize("length", [1, HOP + 1, 5000, SEGMENT_FRAMES * HOP, SEGMENT_FRAMES * HOP + 1, 130_000])
def test_audio_of_any_length_has_gains_for_all_its_frames(tiny, length):
    codes = tiny.encode(noise(length))
    frames = codes.codes["speech"].shape[-1]
    full, rest = divmod(frames, SEGMENT_FRAMES)
    assert codes.envelope is not None
    assert codes.envelope.gains.shape == (1, 16, 50 * full + -(-rest // 2))
    assert tiny.decode(codes).shape == (length,)


def test_each_row_of_a_batch_has_its_own_envelope(tiny):
    wav = np.stack([noise(64_000), noise(64_000, seed=1)])
    wav[1] *= np.linspace(0, 1, 64_000) ** 2
    both = tiny.encode(wav)
    for row in range(2):
        alone = tiny.encode(wav[row])
        assert np.array_equal(both.envelope.gains[row], alone.envelope.gains[0])
        assert np.array_equal(tiny.decode(both)[row], tiny.decode(alone))


def test_silence_has_no_gains(tiny):
    codes = tiny.encode(np.zeros(80_000))
    assert not codes.envelope.gains.any()
    assert not tiny.decode(codes, share=1.0).any()
    encoder = tiny.stream_encoder(envelope=True)
    assert all(segment.gains is None for segment in [*encoder.push(np.zeros(80_000)), *encoder.finish()])


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_a_wrong_call(tiny, share):
    with pytest.raises(ValueError, match="the share of the envelope must be from 0 to 1, got"):
        tiny.decode(tiny.encode(noise(1000)), share=share)


# Files.


def test_a_file_decodes_to_what_the_codec_does(plain, scene, tmp_path):
    soundfile.write(tmp_path / "a.wav", scene[:100_000], 16_000, subtype="FLOAT")
    result = compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=plain)
    assert 1 < result.envelope_bitrate < 2.2
    codes = plain.encode(scene[:100_000])
    stored = gains_of(tmp_path / "a.sdc", plain)
    for number, gains in enumerate(stored):
        expected = codes.envelope.of_segment(0, number * SEGMENT_FRAMES)
        assert np.array_equal(gains[0], expected) if gains else not expected.any()
    for stem, share in (("mix", 0.6), ("mix", 1.0), ("speech", 0.6)):
        found = decode(tmp_path / "a.sdc", {stem: tmp_path / "b.wav"}, codec=plain, share=share, overwrite=True)
        assert (found.envelope, found.problems) == (share, ())
        wav, _ = soundfile.read(tmp_path / "b.wav", dtype="float32")
        assert np.abs(wav - plain.decode(codes, stem=stem, share=share)).max() < 2e-5 + 2**-15


@pytest.mark.parametrize(("start", "duration"), [(0.0, 1.5), (1.99, 0.05), (3.3, 2.0), (5.9, None)])
def test_an_excerpt_is_that_part_of_the_whole(plain, scene, tmp_path, start, duration):
    soundfile.write(tmp_path / "a.wav", scene[60_000:160_000], 16_000, subtype="FLOAT")
    compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=plain)
    whole, part = tmp_path / "whole.wav", tmp_path / "part.wav"
    decode(tmp_path / "a.sdc", {"mix": whole}, codec=plain, share=1.0)
    decode(tmp_path / "a.sdc", {"mix": part}, codec=plain, share=1.0, start=start, duration=duration)
    found, _ = soundfile.read(part)
    first = round(start * 16_000)
    expected = soundfile.read(whole)[0][first : first + len(found)]
    assert len(found) == (100_000 - first if duration is None else round(duration * 16_000))
    assert level(found - expected, expected) > 60


def test_an_envelope_comes_closer_at_other_rates_and_in_every_channel(tiny, tmp_path):
    left, right = noise(60_000), noise(60_000, seed=1) * np.float32(0.3)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 44_100, subtype="FLOAT")
    compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=tiny, channels="keep")
    first, *_ = gains_of(tmp_path / "a.sdc")
    assert first.keys() == {0, 1}
    assert not np.array_equal(first[0], first[1])
    for share in (0.0, 1.0):
        decode(tmp_path / "a.sdc", {"mix": tmp_path / f"{share}.wav"}, codec=tiny, share=share)
    assert soundfile.info(tmp_path / "1.0.wav").frames == 60_000
    assert not np.array_equal(soundfile.read(tmp_path / "1.0.wav")[0], soundfile.read(tmp_path / "0.0.wav")[0])


def test_a_file_of_some_domains_has_no_envelope_and_one_of_all_named_has(tiny, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(64_000), 16_000)
    for domains, expected in ((["speech"], False), (["sfx", "music", "speech"], True), ("all", True), ("auto", True)):
        result = compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=tiny, domains=domains, overwrite=True)
        report = inspect(tmp_path / "a.sdc")
        assert (report.envelope is not None) == (result.envelope_bitrate > 0) == expected
        assert report.format_version == ("1.1" if expected else "1.0")


def test_silent_segments_cost_no_envelope(tiny, tmp_path):
    wav = noise(192_000)
    wav[64_000:128_000] = 0
    soundfile.write(tmp_path / "a.wav", wav, 16_000)
    compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=tiny)
    assert [bool(gains) for gains in gains_of(tmp_path / "a.sdc")] == [True, True, False, False, True, True]
    assert inspect(tmp_path / "a.sdc").envelope.present == pytest.approx(4 / 6)


def test_a_damaged_envelope_is_told_and_everything_is_decoded(tiny, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(96_000), 16_000)
    compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=tiny)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "good.wav"}, codec=tiny)
    data = bytearray((tmp_path / "a.sdc").read_bytes())
    data[data.index(ENVELOPE, data.index(ENVELOPE) + 1) + 15] ^= 1  # in the gains of the second segment
    (tmp_path / "bad.sdc").write_bytes(data)
    result = decode(tmp_path / "bad.sdc", {"mix": tmp_path / "bad.wav"}, codec=tiny)
    assert result.problems == ("an envelope is damaged in segment 1 (frames 100-199, 2.00-4.00 s): it sounds duller",)
    good, bad = (soundfile.read(tmp_path / name)[0] for name in ("good.wav", "bad.wav"))
    assert np.array_equal(bad[:31_000], good[:31_000])
    assert np.array_equal(bad[65_000:], good[65_000:])
    assert not np.array_equal(bad[31_000:65_000], good[31_000:65_000])


class Known:
    """An encoder that has the segments of a file already."""

    rates = (16_000,)

    def __init__(self, segments: list[CodedSegment]) -> None:
        self._segments = segments

    def push(self, wav: np.ndarray) -> list[CodedSegment]:
        return []

    def finish(self) -> list[CodedSegment]:
        return self._segments


def test_codes_alone_are_stored_byte_for_byte_as_in_version_1_0(embedded, tmp_path, monkeypatch):
    """The file of version 0.1.0 holds the 4.3 s of the scene from 4 s on; codes may differ between processors."""
    with GOLDEN.open("rb") as file:
        reader = Reader(file)
        segments = [
            CodedSegment(
                segment.num_frames,
                {
                    domain: segment.codes.get((0, domain), np.zeros((12, segment.num_frames), dtype=np.int64))
                    for domain in embedded.domains
                },
                {domain: (0, domain) in segment.codes for domain in embedded.domains},
            )
            for segment in reader.segments()
        ]
    wav, rate = soundfile.read(SCENE)
    soundfile.write(tmp_path / "a.wav", wav[4 * rate : 4 * rate + 137_600], rate)
    monkeypatch.setattr("sdcodec_cli.engine.stream_header.__version__", "0.1.0")
    monkeypatch.setattr(Codec, "tables", lambda self, sha256=None: None)
    monkeypatch.setattr(Codec, "stream_encoder", lambda self, **options: Known(segments))
    compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=embedded, envelope=False, treble=False)
    assert (tmp_path / "a.sdc").read_bytes() == GOLDEN.read_bytes()


# The command line.


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDC_DEVICE", "cpu")
    monkeypatch.setenv("SDC_RUNTIME", "torch")  # the model has no graphs
    soundfile.write("talk.wav", noise(96_000), 16_000)
    return Path("talk.wav")


def test_the_envelope_is_stored_told_and_applied(talk, folder):
    result = sdc("compress", "talk.wav", "--model", folder, "--json", "-q")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    report = json.loads(sdc("info", "talk.sdc", "--json").stdout)
    assert report["envelope"]["bitrate"] == pytest.approx(told["envelope_bitrate"])
    assert told["payload_bitrate"] == pytest.approx(report["bitrate"])
    assert report["bitrate"] == pytest.approx(
        sum(stream["bitrate"] for stream in report["streams"]) + report["envelope"]["bitrate"]
    )
    found = report["envelope"]
    assert (found["num_bands"], found["seconds"], found["step_db"], found["present"]) == (16, 0.04, 4.0, 1.0)
    (line,) = [line for line in sdc("info", "talk.sdc").stdout.splitlines() if "envelope" in line]
    kbits = f"{found['bitrate']:.2f} kbit/s"
    assert line.split("  ")[-1] == f"{found['num_bytes']} B, {kbits}; 16 bands every 40 ms, in 100 % of the segments"
    waves = []
    for options in ([], ["--envelope", "0.6"], ["--envelope", "0"], ["--envelope", "1"]):
        result = sdc("decode", "talk.sdc", "--model", folder, "--json", "-q", "--force", *options)
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["envelope"] == float([*options, 0.6][-1 if not options else 1])
        waves.append(Path("talk.decoded.wav").read_bytes())
    assert waves[0] == waves[1]
    assert len(set(waves)) == 3


def test_a_file_without_an_envelope_is_smaller_and_says_when_one_is_asked_for(talk, folder):
    assert sdc("compress", "talk.wav", "--model", folder, "-q").exit_code == 0
    result = sdc("compress", "talk.wav", "--model", folder, "--no-envelope", "-o", "plain.sdc", "--json", "-q")
    assert json.loads(result.stdout)["envelope_bitrate"] == 0
    assert Path("plain.sdc").stat().st_size < Path("talk.sdc").stat().st_size
    report = json.loads(sdc("info", "plain.sdc", "--json").stdout)
    assert (report["envelope"], report["format_version"]) == (None, "1.0")
    assert "envelope" not in sdc("info", "plain.sdc").stdout
    quiet, asked = (
        sdc("decode", "plain.sdc", "--model", folder, "--json", "--force", *options)
        for options in ([], ["--envelope", "0.6"])
    )
    assert "envelope" not in quiet.stderr
    assert "plain.sdc: has no envelope, so --envelope changes nothing" in asked.stderr.splitlines()
    assert json.loads(quiet.stdout)["envelope"] is json.loads(asked.stdout)["envelope"] is None


def test_the_envelope_goes_through_pipes(talk, folder):
    packed = sdc("compress", "-", "-o", "-", "--model", folder, "-q", stdin=talk.read_bytes())
    assert packed.exit_code == 0, packed.stderr
    assert inspect(io.BytesIO(packed.stdout_bytes)).envelope is not None
    assert sdc("compress", "talk.wav", "--model", folder, "-q").exit_code == 0
    assert packed.stdout_bytes == Path("talk.sdc").read_bytes()
    for share in ("0", "1"):
        decoded = sdc("decode", "-", "-o", "-", "--model", folder, "--envelope", share, "-q", stdin=packed.stdout_bytes)
        assert decoded.exit_code == 0, decoded.stderr
        sdc("decode", "talk.sdc", "--model", folder, "--envelope", share, "-qf")
        assert decoded.stdout_bytes == Path("talk.decoded.wav").read_bytes()


@pytest.mark.parametrize("value", ["1.5", "-1", "abc", "nan", ""])
def test_a_share_that_is_none_is_a_wrong_command_line(talk, value):
    Path("talk.sdc").touch()
    result = sdc("decode", "talk.sdc", "--envelope", value)
    assert result.exit_code == 2
    assert f"{value!r} is not a number from 0 to 1" in result.stderr


def test_a_fine_envelope_is_asked_for_by_name(talk, folder):
    assert sdc("compress", "talk.wav", "--model", folder, "--fine", "-q").exit_code == 0
    lines = sdc("info", "talk.sdc").stdout.splitlines()
    assert any("; 25 bands every 20 ms, in 100 % of the segments" in line for line in lines)


def test_a_bitrate_is_that_of_codes_and_envelope_together(talk, folder):
    options = ("--model", folder, "--domains", "all")  # two codebooks of 0.3 in each of three domains
    result = sdc("compress", "talk.wav", *options, "--bitrate", "2.5", "--json", "-q")
    told = json.loads(result.stdout)
    assert told["num_codebooks"] == 2
    assert told["payload_bitrate"] == pytest.approx(3 * 0.6 + told["envelope_bitrate"])
    assert 0 < told["envelope_bitrate"] <= 0.6
    (line,) = errors(sdc("compress", "talk.wav", *options, "--bitrate", "0.6", "-f"))
    assert line == (
        "talk.wav: 0.6 kbit/s are too few for what is in it; choose 1.5 to 4.2 (without an envelope 0.9 to 3.6)"
    )
    assert os.path.exists("talk.sdc")
