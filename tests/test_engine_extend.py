"""Audio that ends at 8 kHz is extended: what is below stays, and what is added lies above it and comes in time."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdcodec_cli.audio import AudioReader, AudioWriter, resampled
from sdcodec_cli.engine import extend as module
from sdcodec_cli.engine.extend import FEW, extend, extend_wav
from sdcodec_cli.engine.treble_guess import HOP_LENGTH, guessed_gains, shapes_of
from sdcodec_cli.errors import InputError, OutputError

RATE = 16_000


def noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    """White up to 8 kHz, at −20 dB."""
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def tone(hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return (0.1 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def power(wav: np.ndarray, lowest: float, highest: float, rate: int = 2 * RATE) -> float:
    """In dB, of what lies between two frequencies, a fade of 10 ms at either end left out."""
    fade = np.minimum(1, np.minimum(np.arange(len(wav)), np.arange(len(wav))[::-1]) / (0.01 * rate))
    bins = np.fft.rfftfreq(len(wav), 1 / rate)
    found = np.square(np.abs(np.fft.rfft(wav * fade)))[(bins >= lowest) & (bins < highest)].sum()
    return float(10 * np.log10(2 * found / len(wav) ** 2 + 1e-20))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def extended(wav: np.ndarray, rate: int, **options: object) -> tuple[np.ndarray, module.ExtendResult]:
    """Audio `[T, C]` or `[T]` by way of files of floats and of 16 bits."""
    soundfile.write("in.wav", wav, rate, "FLOAT")
    result = extend("in.wav", "out.wav", overwrite=True, **options)
    assert result.output == "out.wav"
    back, found_rate = soundfile.read("out.wav", dtype="float32")
    assert found_rate == result.output_rate
    return back, result


# Arrays ---------------------------------------------------------------------------------------------------------------


def test_below_7_khz_nothing_changes_and_above_8_there_is_something() -> None:
    wav = noise()
    plain, found = resampled(wav, RATE, 2 * RATE), extend_wav(wav, RATE)
    assert power(found - plain, 0, 7000) < power(plain, 0, 7000) - 60
    assert power(plain, 8100, 16_000) < -100
    assert power(found, 8100, 16_000) > power(plain, 4000, 8000) - 20


def test_a_steady_sound_stays_steady() -> None:
    """Partials of 200 Hz, four periods a frame: gains stay, copies move by 21 partials, so frames are still alike."""
    time = np.arange(RATE) / RATE
    wav = sum(0.01 * np.sin(2 * np.pi * 200 * number * time + number**2) for number in range(1, 40))
    found = extend_wav(wav.astype(np.float32), RATE)[4000:-4000]
    assert power(found, 8100, 16_000) > -60
    assert np.allclose(found[640:], found[:-640], atol=1e-5)
    assert power(found[160:] - found[:-160], 8100, 16_000) < power(found, 8100, 16_000) - 15  # within them, too


def test_what_is_added_comes_in_time() -> None:
    """Noise in bursts is as loud above as below at the same time."""
    wav = noise() * (np.sin(2 * np.pi * 4 * np.arange(RATE) / RATE) > 0)
    found = extend_wav(wav, RATE)
    added = np.square(found - resampled(wav, RATE, 2 * RATE))
    below = np.square(resampled(wav, RATE, 2 * RATE))
    size = 1 << 16
    correlation = np.fft.irfft(np.fft.rfft(added, size) * np.conj(np.fft.rfft(below, size)))
    lag = int(correlation.argmax())
    assert min(lag, size - lag) < 0.005 * 2 * RATE


def test_silence_stays_silent() -> None:
    assert not extend_wav(np.zeros(5000, np.float32), RATE).any()


def test_a_signal_twice_as_loud_comes_out_twice_as_loud() -> None:
    wav = noise(0.3)
    assert np.allclose(extend_wav(2 * wav, RATE), 2 * extend_wav(wav, RATE), atol=1e-5)


@pytest.mark.parametrize(("rate", "new_rate"), [(16_000, 32_000), (16_000, 44_100), (22_050, 32_000), (48_000, 48_000)])
@pytest.mark.parametrize("length", [1, 641, 2000])
def test_lengths_are_exact_and_rounded_up(rate: int, new_rate: int, length: int) -> None:
    wav = np.stack([noise()[:length], noise(seed=1)[:length]])
    assert extend_wav(wav, rate, new_rate).shape == (2, -(-length * new_rate // rate))


def test_rows_are_extended_by_themselves() -> None:
    wav = np.stack([noise(0.3), np.zeros(4800, np.float32), noise(0.3, seed=1)])
    together = extend_wav(wav, RATE)
    assert np.allclose(together, [extend_wav(row, RATE) for row in wav], atol=1e-6)
    assert not together[1].any()


def test_audio_in_pieces_is_extended_as_the_whole() -> None:
    wav = noise(0.5)[None]
    stream = module._StreamExtender(RATE, 44_100, 1, replace=False)
    cuts = [0, 1, 300, 301, 2000, 5555, 8000]
    pieces = [stream.push(wav[:, start:stop]) for start, stop in itertools.pairwise(cuts)]
    whole = np.concatenate([*pieces, stream.finish()], axis=-1)
    assert np.allclose(whole, extend_wav(wav, RATE, 44_100), atol=1e-6)


def test_little_is_held_back() -> None:
    """Memory does not grow with the length of a signal, not even at its end."""
    stream = module._StreamExtender(RATE, 44_100, 1, replace=True)
    for _ in range(20):
        stream.push(noise(0.5)[None])
    assert stream.finish().shape[1] < 0.3 * 44_100


def test_rates_that_make_no_sense_are_refused() -> None:
    for rates in ((8000, 32_000), (48_000, 32_000)):
        with pytest.raises(ValueError, match="^sample_rate must be at least 16000, and new_rate not below it"):
            extend_wav(noise(0.1), *rates)


def test_a_gain_is_guessed_for_40_ms_from_levels_that_do_not_depend_on_loudness() -> None:
    wav = np.pad(noise(0.2), HOP_LENGTH // 2)
    assert guessed_gains(wav).shape == (8, 5)
    assert shapes_of(wav).shape == (5, 16)
    assert np.allclose(shapes_of(wav), shapes_of(2 * wav), atol=1e-3)


def test_dull_audio_gets_less_above_than_bright_audio() -> None:
    dull = np.cumsum(noise(0.4)).astype(np.float32)  # falls by 6 dB an octave
    assert guessed_gains(dull).mean() < guessed_gains(noise(0.4)).mean()


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "new_rate"), [(16_000, 32_000), (24_000, 32_000), (44_100, 44_100), (48_000, 48_000)])
def test_files_that_end_at_8_khz_come_out_at_32_or_at_their_own_higher_rate(rate: int, new_rate: int) -> None:
    wav = resampled(noise(0.5), RATE, rate)
    back, result = extended(wav, rate)
    assert (result.input_rate, result.output_rate, result.replaced) == (rate, new_rate, False)
    assert result.above <= FEW
    assert len(back) == -(-len(wav) * new_rate // rate)
    plain = resampled(wav, rate, new_rate)
    assert power(back - plain, 0, 7000, new_rate) < power(plain, 0, 7000, new_rate) - 55  # 16 bits
    assert power(back, 8500, 15_500, new_rate) > power(plain, 4000, 8000, new_rate) - 20


def test_tags_go_along() -> None:
    with AudioWriter("in.flac", RATE, 1, tags={"title": "Rain"}) as writer:
        writer.write(noise(0.5)[None])
    extend("in.flac", "out.flac")
    with AudioReader("out.flac") as reader:
        assert reader.info.tags["title"] == "Rain"


def test_a_file_that_has_something_above_is_left_alone() -> None:
    soundfile.write("in.wav", tone(1000, 44_100) + 0.1 * tone(12_000, 44_100), 44_100)
    result = extend("in.wav", "out.wav")
    assert (result.output, result.above, result.clipped, result.seconds) == (None, 1.0, 0, 1.0)
    assert not Path("out.wav").exists()


def test_clicks_and_the_noise_of_16_bits_are_nothing() -> None:
    wav = resampled(noise(3.0), RATE, 48_000)
    wav[96_000:] = np.random.default_rng(1).normal(0, 2**-16, 48_000)
    wav[20_000] += 0.5
    _, result = extended(wav, 48_000)
    assert 0 < result.above <= FEW


def test_what_a_file_has_above_is_replaced_if_it_is_asked_for() -> None:
    wav = resampled(noise(0.5), RATE, 48_000)
    back, result = extended(wav + tone(12_000, 48_000, 0.5), 48_000, replace=True)
    assert result.replaced
    assert result.above == 1
    plain, _ = extended(wav, 48_000)
    assert power(back - plain, 0, 7000, 48_000) < power(plain, 0, 7000, 48_000) - 55
    assert power(back, 11_990, 12_010, 48_000) < -50
    assert power(back, 8500, 15_500, 48_000) == pytest.approx(power(plain, 8500, 15_500, 48_000), abs=0.5)


def test_channels_of_a_file_are_extended_by_themselves() -> None:
    back, _ = extended(np.stack([noise(0.5), np.zeros(8000, np.float32)], axis=1), RATE)
    alone, _ = extended(noise(0.5), RATE)
    assert np.abs(back[:, 0] - alone).max() <= 2**-15
    assert not back[:, 1].any()


def test_a_file_longer_than_a_block_is_what_its_array_is(monkeypatch: pytest.MonkeyPatch) -> None:
    wav = noise(1.0)
    blocks = module.AudioReader.blocks
    monkeypatch.setattr(module.AudioReader, "blocks", lambda self: blocks(self, 0.3))
    told: list[tuple[float, float | None]] = []
    back, _ = extended(wav, RATE, progress=lambda done, total: told.append((done, total)))
    assert np.abs(back - extend_wav(wav, RATE)).max() < 2**-15
    assert told == [(pytest.approx(done), 1.0) for done in (0.3, 0.6, 0.9, 1.0)]


def test_audio_below_16_khz_is_refused() -> None:
    soundfile.write("in.wav", tone(1000, 8000), 8000)
    with pytest.raises(InputError, match=r"^in.wav: its band ends at 4000 Hz, and 8000 are needed; take a file with"):
        extend("in.wav", "out.wav")


def test_an_existing_output_stays_unless_it_is_to_be_overwritten() -> None:
    soundfile.write("in.wav", noise(0.1), RATE)
    Path("out.wav").write_text("mine")
    with pytest.raises(OutputError, match="^out.wav exists; pass --force"):
        extend("in.wav", "out.wav")
    assert Path("out.wav").read_text() == "mine"


def test_nothing_is_left_behind_where_a_file_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write("in.wav", noise(0.1), RATE)

    def stop(done: float, total: float | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extend("in.wav", "out.wav", progress=stop)
    assert [path.name for path in Path().iterdir()] == ["in.wav"]
