"""Systems: real Opus where it is installed, stand-ins for the packages of DAC and EnCodec, tiny models of our own."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from sdcodec_cli import load_codec, zoo
from sdcodec_cli.audio import resampled
from sdcodec_cli.engine import other_codecs, systems
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.evaluate.settings import Settings
from sdcodec_cli.engine.extend import extend_wav
from sdcodec_cli.engine.other_codecs import in_time
from sdcodec_cli.engine.separate import separate_wav
from sdcodec_cli.errors import DeviceError, ModelError, SdcError
from sdcodec_cli.recipe import override

from tiny_models import tiny_bands, tiny_recipe, tiny_separator, write_tiny

RATE = 16_000
DOMAINS = ("speech", "music", "sfx")


def tones(seconds=2.0, rate=RATE, start=0.0):
    """Four partials in bursts: a correlation with one clear peak."""
    time = np.arange(round(seconds * rate)) / rate + start
    wave = sum(
        np.sin(2 * np.pi * frequency * time) / number for number, frequency in enumerate((220, 517, 930, 1610), 1)
    )
    return (0.1 * wave * (1 + np.sin(2 * np.pi * 3.1 * time))).astype(np.float32)


def lag(estimate, reference):
    """In samples, by cross-correlation."""
    size = 1 << (2 * len(reference)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(estimate, size) * np.conj(np.fft.rfft(reference, size)))
    best = int(correlation.argmax())
    return best if best < size // 2 else best - size


def snr(estimate, reference):
    return 10 * np.log10(np.sum(reference**2) / np.sum((estimate - reference) ** 2))


def find_system(name, **options):
    """Beside a model of three domains at 16 kHz."""
    beside = SimpleNamespace(domains=DOMAINS, sample_rate=RATE)
    return systems.find_system(name, beside, Settings(data_root=Path(), split="val", **options))


@pytest.fixture
def only(monkeypatch):
    """Hide all programs but these."""

    def hide(*programs):
        which = shutil.which
        monkeypatch.setattr(shutil, "which", lambda name: which(name) if name in programs else None)

    return hide


def test_guessed_treble_extends_as_the_command_does():
    system = find_system("treble", task="extend")
    wav = tones()
    assert system.name == "treble"
    assert system.identity == find_system("treble").identity != find_system("upsample").identity
    assert np.array_equal(system.extend(wav, RATE, 2 * RATE), extend_wav(wav, RATE, 2 * RATE))


def test_a_cascade_extends_by_what_its_upper_codecs_make_of_what_the_lower_lost(tmp_path):
    folder = write_tiny(tmp_path / "bands", tiny_bands())
    system = find_system(str(folder), task="extend")
    wav = tones()
    upsampled = resampled(wav, RATE, 2 * RATE)
    found = system.extend(wav, RATE, 2 * RATE)
    # With nothing above its band the model stops there by itself, and everywhere is what makes it go on.
    codes = system.codec.encode(upsampled, envelope=False, everywhere=True)
    assert codes.active["audio-2"].all()
    assert not system.codec.encode(upsampled, envelope=False).active["audio-2"].any()
    assert found.shape == upsampled.shape
    assert not np.allclose(found, upsampled, atol=1e-3)


# Opus -----------------------------------------------------------------------------------------------------------------

TOOLS = [("ffmpeg",), ("opusenc", "opusdec")]


def need(programs):
    if not all(map(shutil.which, programs)) or (programs == ("ffmpeg",) and not other_codecs.ffmpeg_has_opus()):
        pytest.skip(f"needs {' and '.join(programs)}")


@pytest.mark.parametrize("tools", TOOLS, ids="+".join)
@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("bitrate", [8, 24])  # at 8 every program is late by a sample or more
def test_opus_comes_back_in_time_and_as_long_as_it_was(tools, rate, bitrate, only):
    need(tools)
    only(*tools)
    system = find_system(f"opus:{bitrate}")
    wav = tones(2.01, rate)
    back, written = system.resynthesize(wav, rate)
    assert system.name == f"opus {bitrate}"
    assert back.shape == wav.shape
    assert back.dtype == np.float32
    assert lag(back, wav) == 0
    assert snr(back, wav) > 13
    assert written == pytest.approx(bitrate, abs=6.5)  # in so short a file headers count


@pytest.mark.parametrize("tools", TOOLS, ids="+".join)
def test_a_higher_bitrate_writes_more_and_what_is_written_counts(tools, only, monkeypatch):
    need(tools)
    only(*tools)
    written = []
    run = other_codecs.run
    monkeypatch.setattr(other_codecs, "run", lambda command, data: written.append(run(command, data)) or written[-1])
    noise = (np.random.default_rng(0).standard_normal(3 * RATE) * 0.1).astype(np.float32)
    rates = [find_system(text).resynthesize(noise, RATE)[1] for text in ("opus:6", "opus", "opus:64")]
    assert rates == sorted(rates)
    assert rates == pytest.approx([len(coded) * 8 / 1000 / 3 for coded in written[::2]])
    assert rates == pytest.approx([6, 18, 64], rel=0.25)


def test_opus_louder_than_full_scale_is_not_clipped():
    need(("ffmpeg",))
    wav = tones() * 20
    back, _ = find_system("opus:64").resynthesize(wav, RATE)
    assert np.abs(back).max() > 2


def test_a_fraction_of_a_sample_is_moved_back():
    original, late = tones(), tones(start=-0.7 / RATE)
    moved = in_time(late, original, RATE)
    assert snr(late, original) < 20
    inner = slice(200, -200)  # what is cut off at the ends cannot be moved in
    assert snr(moved[inner], original[inner]) > 45


def test_a_signal_is_not_moved_by_more_than_a_quarter_of_a_millisecond():
    original, late = tones(), tones(start=-40 / RATE)
    assert snr(in_time(late, original, RATE), original) < 10


def test_silence_stays_where_it_is():
    silent = np.zeros(1_000, dtype=np.float32)
    np.testing.assert_array_equal(in_time(silent, tones(1_000 / RATE), RATE), silent)


@pytest.mark.parametrize("text", ["opus:5.9", "opus:257", "opus:nan"])
def test_opus_has_a_range_of_bitrates(text):
    with pytest.raises(ModelError, match=f"{text}: Opus codes mono at 6 to 256 kbit/s"):
        find_system(text)


def test_a_bitrate_is_a_number():
    with pytest.raises(ModelError, match=r"opus:fast: 'fast' is not a bitrate; write opus:18"):
        find_system("opus:fast")
    with pytest.raises(ModelError, match=r"encodec:: '' is not a bitrate; write encodec:6"):
        find_system("encodec:")


def test_without_any_opus_the_error_says_what_to_install(only):
    only("opusdec")
    with pytest.raises(
        ModelError, match=r"^opus: needs ffmpeg with libopus, or opusenc and opusdec; install .*opus-tools"
    ):
        find_system("opus")


def test_an_ffmpeg_without_libopus_does_not_count(only, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/ffmpeg" if name == "ffmpeg" else None)
    listing = SimpleNamespace(stdout=" A..X.. opus                 Opus\n")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **keywords: listing)
    with pytest.raises(ModelError, match="needs ffmpeg with libopus"):
        find_system("opus")


def test_an_encoder_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(other_codecs, "ffmpeg_has_opus", lambda: True)
    failed = SimpleNamespace(returncode=1, stderr=b"warning\nno space left\n", stdout=b"")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **keywords: failed)
    with pytest.raises(SdcError, match="ffmpeg: failed: no space left"):
        find_system("opus").resynthesize(tones(), RATE)


# Models ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model") / "tiny", tiny_recipe(activity=False))


def test_a_model_codes_as_compress_does_and_counts_the_codes_it_writes(tiny):
    system, codec = find_system(str(tiny), device="cpu"), load_codec(tiny, device="cpu")
    wav = np.concatenate([tones(2.0), np.zeros(2 * RATE, dtype=np.float32)])  # the second segment is silent
    back, bitrate = system.resynthesize(wav, RATE)
    codes = codec.encode(wav)
    np.testing.assert_array_equal(back, codec.decode(codes))
    assert system.name == codec.name
    assert bitrate == pytest.approx(3 * 1.2 / 2 + envelope_bitrate(system, wav))  # half of the time, three domains
    alone, bitrate = system.resynthesize(wav, RATE, "music")
    np.testing.assert_array_equal(alone, codec.decode(codec.encode(wav, active=["music"]), stem="music"))
    assert bitrate == pytest.approx(1.2 + envelope_bitrate(system, wav, "music"))


def envelope_bitrate(system, wav, domain=None):
    """Of the gains alone, in kbit/s."""
    found = system.written(system.encode(wav, domain)).gains_bytes * 8 / 1000 / (len(wav) / RATE)
    assert 0 < found < 0.6
    return found


def test_a_model_may_do_without_an_envelope_or_without_applying_it(tiny):
    codec, wav = load_codec(tiny, device="cpu"), tones(2.0)
    bare, unused = (find_system(str(tiny), device="cpu", envelope=share) for share in (None, 0.0))
    assert bare.resynthesize(wav, RATE).bitrate == pytest.approx(3 * 1.2)
    assert unused.resynthesize(wav, RATE).bitrate > 3 * 1.2
    expected = codec.decode(codec.encode(wav, envelope=False))
    for system in (bare, unused):
        np.testing.assert_array_equal(system.resynthesize(wav, RATE).wav, expected)
    assert len({bare.identity, unused.identity, find_system(str(tiny), device="cpu").identity}) == 3


def test_a_kind_of_envelope_that_is_left_open_is_measured_as_the_one_that_it_is(tmp_path):
    recipe = override(tiny_recipe(), {"model.fine_codebooks": "3"})
    codec = load_codec(write_tiny(tmp_path / "m", recipe))
    open_, fine, coarse = (systems.ModelCodec(codec, fine=fine) for fine in (None, True, False))
    assert open_.identity == fine.identity != coarse.identity


def test_what_a_model_writes_is_a_stream_that_decodes_to_its_codes(tiny, tmp_path):
    system, wav = find_system(str(tiny), device="cpu"), tones(3.0)
    soundfile.write(tmp_path / "a.wav", wav, RATE, subtype="FLOAT")
    compressed = compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=system.codec)
    written = system.written(system.encode(wav))
    assert (written.bytes_written, written.payload_bytes) == (
        compressed.bytes,
        round(compressed.payload_bitrate * 3 / 8 * 1000),
    )


def test_a_model_separates_straight_from_its_codes_and_by_masks(tiny):
    system, codec, wav = find_system(str(tiny), device="cpu", views=2), load_codec(tiny, device="cpu"), tones()
    found = system.separate(wav, RATE)
    codes = codec.encode(wav)
    np.testing.assert_array_equal(found["separation"]["sfx"], codec.decode(codes, stem="sfx"))
    masks = separate_wav(wav[None], codec=codec, views=2)[:, 0]
    assert list(found["masked separation"]) == list(DOMAINS)
    np.testing.assert_array_equal(list(found["masked separation"].values()), masks)


def test_the_mixture_is_what_every_stem_is_taken_for():
    assert find_system("mixture").separate(tones(), RATE)["separation"].keys() == set(DOMAINS)
    assert not isinstance(find_system("mixture"), systems.Resynthesizes)


def test_a_separator_of_another_rate_only_separates(tmp_path):
    folder = write_tiny(tmp_path / "separator", tiny_separator())
    system, wav = find_system(str(folder), device="cpu"), tones(1.003, 22_050)
    assert not isinstance(system, systems.Resynthesizes)
    found = system.separate(wav, 22_050)
    assert list(found) == ["masked separation"]  # beside masks, as what sdc separate gives
    assert {stem.shape for stem in found["masked separation"].values()} == {wav.shape}
    np.testing.assert_allclose(sum(found["masked separation"].values())[400:-400], wav[400:-400], atol=2e-3)


def test_a_model_at_another_rate_gives_the_rate_and_length_back_and_does_not_separate(tiny):
    wav = tones(1.003, 22_050)
    beside = SimpleNamespace(domains=DOMAINS, sample_rate=22_050)
    system = systems.find_system(str(tiny), beside, Settings(data_root=Path(), split="val", device="cpu"))
    assert system.resynthesize(wav, 22_050).wav.shape == wav.shape
    assert not isinstance(system, systems.Separates)


def test_a_model_at_another_rate_codes_each_domain_by_itself_where_nothing_is_separated(tiny):
    beside = SimpleNamespace(domains=DOMAINS, sample_rate=32_000)
    settings = Settings(data_root=Path(), split="val", task="bands", device="cpu", envelope=None, treble=False)
    system, codec, wav = systems.find_system(str(tiny), beside, settings), load_codec(tiny, device="cpu"), tones()
    wav = systems.resampled(wav, RATE, 32_000)
    back = system.resynthesize(wav, 32_000, "music")
    alone = codec.encode(systems.resampled(wav, 32_000, RATE), active=["music"], envelope=False)
    expected = systems.resampled(codec.decode(alone, stem="music"), RATE, 32_000)
    np.testing.assert_array_equal(back.wav, systems.fitted(expected, len(wav)))


def test_a_model_keeps_its_treble_where_audio_has_a_rate_for_it(tiny):
    beside = SimpleNamespace(domains=DOMAINS, sample_rate=32_000)
    settings = Settings(data_root=Path(), split="val", task="bands", device="cpu")
    system, codec = systems.find_system(str(tiny), beside, settings), load_codec(tiny, device="cpu")
    wav = np.random.default_rng(0).standard_normal(2 * 48_000).astype(np.float32) * np.float32(0.1)
    back = system.resynthesize(wav, 48_000)
    codes = codec.encode(systems.resampled(wav, 48_000, 32_000), sample_rate=32_000)
    expected = systems.resampled(codec.decode(codes, sample_rate=32_000), 32_000, 48_000)
    np.testing.assert_array_equal(back.wav, systems.fitted(expected, len(wav)))
    without = dataclasses.replace(codes, treble=None)
    assert back.bitrate == pytest.approx(system.bitrate(codes))
    assert system.bitrate(codes) > system.bitrate(without)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(
        ModelError, match=r"opuss: no such model; the zoo has .*; what is not a model is mixture, opus:KBPS"
    ):
        find_system("opuss")


def test_a_recipe_without_weights_says_how_to_get_them():
    with pytest.raises(ModelError, match="comes without weights"):
        find_system("sdcodec-16k")


def test_a_device_that_is_not_there_is_an_error(tiny):
    with pytest.raises(DeviceError, match="no such device"):
        find_system(str(tiny), device="abacus")


# Packages -------------------------------------------------------------------------------------------------------------


class Network:
    """What the stand-ins have of a torch module."""

    def to(self, device):
        return self

    def eval(self):
        return self


class FakeDac(Network):
    """Gives its input back, 8 samples short as DAC at 16 kHz does, and remembers it."""

    codebook_size = 1024

    @classmethod
    def load(cls, path):
        assert Path(path).read_text() == "weights"
        cls.last = cls()
        return cls.last

    def preprocess(self, wav, sample_rate):
        assert sample_rate == 16_000
        return torch.nn.functional.pad(wav, (0, -wav.shape[-1] % 320))

    def encode(self, wav):
        self.given = wav
        return wav, torch.zeros(1, 12, wav.shape[-1] // 320, dtype=torch.int64), None, None, None

    def decode(self, latent):
        return latent[..., :-8]


class FakeEncodec(Network):
    """Gives its input back, one sample too long, at 75 frames/s."""

    sample_rate, bits_per_codebook = 24_000, 10

    @staticmethod
    def encodec_model_24khz():
        return FakeEncodec()

    def set_target_bandwidth(self, bitrate):
        self.num_codebooks = int(bitrate / 0.75)

    def encode(self, wav):
        self.given = wav
        return [(torch.zeros(1, self.num_codebooks, -(-wav.shape[-1] // 320), dtype=torch.int64), None)]

    def decode(self, frames):
        return torch.nn.functional.pad(self.given, (0, 1))


@pytest.fixture
def packages(monkeypatch, tmp_path):
    """Both packages and their weights."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for path in (tmp_path / other_codecs.DAC_WEIGHTS, tmp_path / "hub" / "checkpoints" / other_codecs.ENCODEC_WEIGHTS):
        path.parent.mkdir(parents=True)
        path.write_text("weights")
    for name, module in {"dac": {"DAC": FakeDac}, "encodec": {"EncodecModel": FakeEncodec}}.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__spec__=object(), **module))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [("dac", "dac", 6.0), ("encodec", "encodec 6", 6.0), ("encodec:1.5", "encodec 1.5", 1.5)],
)
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_packages_keep_time_length_and_level_at_any_rate(text, name, expected, rate, packages):
    system = find_system(text, device="cpu")
    wav = tones(2.0, rate)
    back, bitrate = system.resynthesize(wav, rate)
    assert system.name == name
    assert bitrate == pytest.approx(expected, rel=0.01)
    assert back.shape == wav.shape
    assert back.dtype == np.float32
    assert lag(back, wav) == 0
    assert snr(back[200:-200], wav[200:-200]) > 50


def test_dac_hears_audio_at_the_loudness_of_its_encoder(packages):
    from sdcodec_cli.audio import integrated_loudness

    find_system("dac", device="cpu").resynthesize(tones() * 0.01, RATE)
    heard = FakeDac.last.given[0].numpy()
    assert integrated_loudness(heard, RATE) == pytest.approx(-16, abs=0.05)
    click = np.zeros(2 * RATE, dtype=np.float32)
    click[::4_000] = 0.5
    find_system("dac", device="cpu").resynthesize(click, RATE)
    assert float(FakeDac.last.given.abs().max()) == pytest.approx(1.0)


def test_dac_passes_silence_on(packages):
    back, _ = find_system("dac", device="cpu").resynthesize(np.zeros(RATE, dtype=np.float32), RATE)
    assert not back.any()


def test_dac_without_its_weights_is_the_zoos_if_that_has_weights(packages, tiny, monkeypatch):
    (packages / other_codecs.DAC_WEIGHTS).unlink()
    find = zoo.find
    monkeypatch.setattr(zoo, "find", lambda model: find(tiny if model == "dac-16k" else model))
    loaded = []
    monkeypatch.setattr(
        systems, "load_codec", lambda *asked, **options: loaded.append((asked, options)) or load_codec(tiny)
    )
    find_system("dac", device="cpu", effort=2)
    assert loaded == [(("dac-16k",), {"device": "cpu", "effort": 2})]


def test_dac_of_a_user_without_a_home_has_no_weights(packages, monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as it is without HOME and an entry in passwd
    with pytest.raises(ModelError, match="dac: needs the package descript-audio-codec and its weights"):
        find_system("dac")


def test_dac_without_any_weights_says_how_to_get_them(packages):
    (packages / other_codecs.DAC_WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"dac: needs the package descript-audio-codec and its weights .*16khz"):
        find_system("dac")


def test_encodec_is_never_downloaded(packages):
    weights = packages / "hub" / "checkpoints" / other_codecs.ENCODEC_WEIGHTS
    weights.unlink()
    with pytest.raises(ModelError, match=f"encodec: its weights are not at {weights}"):
        find_system("encodec")


def test_without_the_package_encodec_the_error_names_it(packages, monkeypatch):
    monkeypatch.setattr(other_codecs, "installed", lambda package: False)
    with pytest.raises(ModelError, match="encodec:12: needs the package encodec"):
        find_system("encodec:12")


def test_encodec_has_five_bitrates(packages):
    with pytest.raises(ModelError, match=r"encodec:7: EnCodec codes at 1.5, 3, 6, 12, 24 kbit/s"):
        find_system("encodec:7")


def test_finding_opus_needs_no_torch():
    need(("ffmpeg",))
    code = (
        "import sys; from sdcodec_cli.engine.systems import find_system; find_system('opus', None, None); "
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
