"""ViSQOL against the scores of Google's own program, and the processes that compute it."""

from __future__ import annotations

import importlib.metadata
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest

from sdcodec_cli.data.parallel import ProcessPool
from sdcodec_cli.engine.evaluate import visqol as module
from sdcodec_cli.engine.evaluate.judges import score
from sdcodec_cli.engine.evaluate.visqol import available, visqol
from sdcodec_cli.errors import SdcError

ROOT = Path(__file__).resolve().parents[1]
needs_visqol = pytest.mark.skipif(available() is not None, reason=available() or "")
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="stops and kills processes as POSIX does")

SAMPLE_RATE = 16_000
NUM_SAMPLES = 5 * SAMPLE_RATE

# CRC-32 of reference and estimate, and their score by a build of google/visqol 3.3.3: speech mode, exponential mapping.
GOLDEN = {
    "speech_noise": ("94787988", 2.218405861),
    "speech_ma4": ("60afa33d", 4.926128412),
    "speech_6bit": ("fb8ca854", 3.724711138),
    "speech_leak": ("154a97da", 3.954258332),
    "music_noise": ("8dae1500", 2.370774690),
    "music_ma8": ("7fd85e1f", 4.721268913),
    "sfx_ma4": ("68daf755", 3.429226910),
    "mix_noise": ("852124a3", 4.040796307),
    "mix_delay37": ("0b6978e3", 3.830892549),
    "mix_identity": ("c3eb6a9a", 4.999999943),
}


def random_numbers(seed: int) -> np.ndarray:
    """From −1 to 1, the same everywhere: a linear congruential generator."""
    numbers, state = np.empty(NUM_SAMPLES), seed
    for index in range(NUM_SAMPLES):
        state = (1664525 * state + 1013904223) % 2**32
        numbers[index] = state / 2**31 - 1
    return numbers


def moving_average(wav: np.ndarray, length: int) -> np.ndarray:
    return np.convolve(wav, np.ones(length) / length, "full")[:NUM_SAMPLES]


def make_pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reference and estimate as int16. The order of every operation matters to the last bit."""
    t = np.arange(NUM_SAMPLES) / SAMPLE_RATE
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    voice = sum(np.sin(k * phase) / k * np.exp(-(((k * pitch - 700) / 900) ** 2)) for k in range(1, 30))
    speech = 0.3 * voice * np.clip(np.sin(2 * np.pi * 3.1 * t), 0, 1)
    tones = enumerate([220, 277.18, 329.63, 440])
    music = 0.12 * np.exp(-(t % 0.5) * 4) * sum(np.sin(2 * np.pi * f * (1 + (i % 3) * 0.5) * t) for i, f in tones)
    sfx = 0.25 * random_numbers(7) * np.exp(-(t % 1.0) * 6)
    mix = speech + music + sfx
    pairs = {
        "speech_noise": (speech, speech + 0.01 * random_numbers(1)),
        "speech_ma4": (speech, moving_average(speech, 4)),
        "speech_6bit": (speech, np.rint(speech * 32) / 32),
        "speech_leak": (speech, speech + 0.15 * music),
        "music_noise": (music, music + 0.01 * random_numbers(2)),
        "music_ma8": (music, moving_average(music, 8)),
        "sfx_ma4": (sfx, moving_average(sfx, 4)),
        "mix_noise": (mix, mix + 0.02 * random_numbers(3)),
        "mix_delay37": (mix, np.r_[np.zeros(37), moving_average(mix, 3)[:-37]]),
        "mix_identity": (mix, mix),
    }
    return {
        name: tuple(np.clip(np.rint(wav * 32767), -32768, 32767).astype(np.int16) for wav in pair)
        for name, pair in pairs.items()
    }


PCM = make_pairs()
PAIRS = {name: tuple(np.float32(wav) / 32768 for wav in pair) for name, pair in PCM.items()}
SPEECH, NOISY = PAIRS["speech_noise"]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_signals_are_the_ones_that_google_scored(name):
    reference, estimate = PCM[name]
    assert f"{zlib.crc32(reference.tobytes() + estimate.tobytes()):08x}" == GOLDEN[name][0]


@needs_visqol
@pytest.mark.parametrize("name", GOLDEN)
def test_speech_mode_is_googles(name):
    score, reason = visqol(*PAIRS[name], SAMPLE_RATE, "speech")
    assert score == pytest.approx(GOLDEN[name][1], abs=1e-6)
    assert reason is None


@needs_visqol
def test_the_package_does_not_talk_about_patches():
    visqol(*PAIRS["mix_noise"], SAMPLE_RATE, "speech")
    assert not logging.getLogger("visqol.patch_selector").isEnabledFor(logging.WARNING)


@needs_visqol
@pytest.mark.parametrize("mode", ["speech", "audio"])
def test_a_reference_that_comes_again_is_not_computed_again_and_scores_the_same(monkeypatch, mode):
    from visqol.gammatone import GammatoneSpectrogramBuilder

    reference, estimate = (wav[: 2 * SAMPLE_RATE] for wav in PAIRS["music_noise"])
    built = []

    def build(self, signal, window, original=GammatoneSpectrogramBuilder.build):
        built.append(len(signal.data))
        return original(self, signal, window)

    monkeypatch.setattr(GammatoneSpectrogramBuilder, "build", build)
    module._scorer.cache_clear()
    first = visqol(reference, estimate, SAMPLE_RATE, mode)
    once = len(built)
    visqol(reference, 0.5 * reference[::-1], SAMPLE_RATE, mode)
    assert once < len(built) < 2 * once
    seen = len(built)
    assert visqol(reference, estimate, SAMPLE_RATE, mode) == first
    assert len(built) == seen
    # What is not kept is computed again, to the same end.
    monkeypatch.setattr("sdcodec_cli.engine.evaluate.visqol.SPECTROGRAMS", 1)
    assert visqol(reference, estimate, SAMPLE_RATE, mode) == first
    module._scorer.cache_clear()


@needs_visqol
@pytest.mark.parametrize(("name", "error"), [("speech_leak", 3.9e-3), ("music_noise", 2.0e-3), ("mix_delay37", 1.2e-3)])
def test_the_package_by_itself_is_not_googles_and_stays_as_it_is(name, error):
    from visqol import VisqolApi

    visqol(*PAIRS[name], SAMPLE_RATE, "speech")
    theirs = VisqolApi()
    theirs.create(mode="speech", use_lattice_model=False)
    score = theirs.measure_from_arrays(*PAIRS[name], SAMPLE_RATE).moslqo
    assert abs(score - GOLDEN[name][1]) == pytest.approx(error, abs=1e-4)


@pytest.mark.parametrize(("length", "size", "top"), [(64, 64, 1), (63, 64, 2), (20, 32, 2), (65, 128, 2)])
def test_the_envelope_is_of_twice_the_signal_but_for_both_ends_of_its_spectrum(length, size, top):
    """Google's inverse transform keeps the negative frequencies; zeros are appended up to a power of two."""
    wav = np.random.default_rng(0).standard_normal(length)
    signs = (-1.0) ** np.arange(length)
    expected = 2 * wav - wav.sum() / size - top * (wav @ signs) / size * signs
    np.testing.assert_allclose(module._doubled(wav), expected, atol=1e-12)


@needs_visqol
def test_audio_mode_gives_identical_signals_what_google_gives_them():
    """4.732101 is the constant of google/visqol's conformance test for castanets."""
    reference, estimate = PAIRS["mix_identity"]
    assert visqol(reference, estimate, SAMPLE_RATE, "audio") == (pytest.approx(4.732101, abs=1e-6), None)
    worse = visqol(*PAIRS["mix_noise"], SAMPLE_RATE, "audio")[0]
    assert 1 < worse < 4.5


@needs_visqol
def test_other_rates_are_resampled_to_that_of_the_mode():
    import soxr

    wide = [soxr.resample(wav.astype(np.float64), SAMPLE_RATE, 48_000) for wav in PAIRS["mix_noise"]]
    assert visqol(*wide, 48_000, "audio") == visqol(*PAIRS["mix_noise"], SAMPLE_RATE, "audio")
    assert visqol(*wide, 48_000, "speech")[0] == pytest.approx(GOLDEN["mix_noise"][1], abs=0.1)


@pytest.mark.parametrize("level", [0.0, 1e-4])
@pytest.mark.parametrize("mode", ["speech", "audio"])
def test_a_silent_reference_has_no_score(mode, level):
    silence = level * PAIRS["speech_noise"][0]
    assert visqol(silence, NOISY, SAMPLE_RATE, mode) == (None, "silent_reference")
    assert visqol(silence, np.zeros_like(silence), SAMPLE_RATE, mode) == (None, "silent_reference")


@pytest.mark.parametrize("mode", ["speech", "audio"])
def test_a_silent_estimate_scores_the_least(mode):
    assert visqol(SPEECH, np.zeros_like(SPEECH), SAMPLE_RATE, mode) == (1.0, None)


@needs_visqol
@pytest.mark.parametrize("mode", ["speech", "audio"])
def test_a_second_is_enough_and_less_is_too_short(mode):
    wavs = SPEECH[:SAMPLE_RATE], NOISY[:SAMPLE_RATE]
    score, reason = visqol(*wavs, SAMPLE_RATE, mode)
    assert score is not None
    assert 1 < score < 5
    assert reason is None
    assert visqol(*(wav[1:] for wav in wavs), SAMPLE_RATE, mode) == (None, "too_short")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_has_no_score(value):
    broken = NOISY.copy()
    broken[1000] = value
    assert visqol(SPEECH, broken, SAMPLE_RATE, "speech") == (None, "not_finite")
    assert visqol(broken, SPEECH, SAMPLE_RATE, "speech") == (None, "not_finite")


def test_lengths_that_differ_and_several_channels_are_a_wrong_call():
    with pytest.raises(ValueError, match=r"one length, got \(80000,\), \(79999,\)"):
        visqol(SPEECH, NOISY[:-1], SAMPLE_RATE, "speech")
    with pytest.raises(ValueError, match=r"must be \[T\]"):
        visqol(np.stack([SPEECH] * 2), np.stack([NOISY] * 2), SAMPLE_RATE, "speech")


@needs_visqol
@pytest.mark.parametrize("gain", [1.0, -0.1])
def test_gain_and_polarity_are_not_heard_and_the_best_is_not_quite_5(gain):
    """Google stretches the scale to 5 by a factor in single precision."""
    score, _ = visqol(SPEECH, np.float32(gain) * SPEECH, SAMPLE_RATE, "speech")
    assert score == pytest.approx(GOLDEN["mix_identity"][1], abs=1e-8)


def python(code: str, **environment: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_costs_nothing():
    loaded = python("import sys, sdcodec_cli.engine.evaluate.visqol; print(*sys.modules)").split()
    assert not {"numpy", "torch", "scipy", "visqol", "numba"} & set(loaded)


@needs_visqol
def test_threads_take_turns_and_nothing_loads_torch():
    """Two scorings at once would abort the process."""
    code = """
import sys, threading
from sdcodec_cli.engine.evaluate.visqol import visqol
import numpy as np
wav = np.sin(np.arange(16000, dtype=np.float32) ** 1.5)
scores = []
threads = [threading.Thread(target=lambda: scores.append(visqol(wav, wav, 16000, "speech")[0])) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert "torch" not in sys.modules
print(*scores)
"""
    assert [float(score) for score in python(code).split()] == pytest.approx([5.0] * 3, abs=1e-6)


def test_what_is_missing_is_said_in_a_line(monkeypatch):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert available() == "ViSQOL is not installed; pip install '.[eval]' in the clone"
    module._scorer.cache_clear()
    with pytest.raises(SdcError, match="not installed"):
        visqol(SPEECH, NOISY, SAMPLE_RATE, "speech")


def test_another_version_counts_as_missing(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.9.0")
    assert available() == "visqol-python 3.9.0 scores differently than 3.8.0; pip install '.[eval]' in the clone"


@needs_visqol
def test_a_pool_gives_what_one_process_gives():
    jobs = [(name, mode) for name in ("speech_leak", "music_noise") for mode in ("speech", "audio")]
    with ProcessPool(score, 2) as pool:
        futures = [pool.submit((*PAIRS[name], SAMPLE_RATE, f"visqol_{mode}")) for name, mode in jobs]
        quiet = silent(pool)
        wrong = pool.submit((SPEECH, NOISY[1:], SAMPLE_RATE, "visqol_speech"))
    assert [future.result(0) for future in futures] == [
        {f"visqol_{mode}": visqol(*PAIRS[name], SAMPLE_RATE, mode)} for name, mode in jobs
    ]
    assert quiet.result(0) == SILENT
    with pytest.raises(ValueError, match="one length"):
        wrong.result(0)
    assert not multiprocessing.active_children()


SILENT = {"visqol_speech": (None, "silent_reference")}


def silent(pool: ProcessPool):
    """A job that needs no ViSQOL."""
    return pool.submit((np.zeros_like(SPEECH), NOISY, SAMPLE_RATE, "visqol_speech"))


@needs_signals
def test_whoever_submits_waits_while_enough_is_waiting():
    submitted = []
    with ProcessPool(score, 1) as pool:
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGSTOP)
        feeder = threading.Thread(target=lambda: [submitted.append(silent(pool)) for _ in range(10)])
        feeder.start()
        time.sleep(0.5)
        assert len(submitted) == 3  # one with the worker, and two
        os.kill(worker.pid, signal.SIGCONT)
        feeder.join()
    assert [future.result(0) for future in submitted] == [SILENT] * 10


@needs_signals
def test_a_worker_that_is_killed_is_an_error_in_a_line():
    with ProcessPool(score, 1) as pool:
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGSTOP)
        futures = [silent(pool) for _ in range(3)]
        worker.kill()
        for future in futures:
            with pytest.raises(SdcError, match="was killed, perhaps for want of memory; .* fewer --jobs"):
                future.result(60)
        with pytest.raises(SdcError, match="was killed"):
            silent(pool)
    assert not multiprocessing.active_children()


@needs_visqol
def test_an_exception_drops_what_is_not_done():
    futures = []

    def interrupted() -> None:
        with ProcessPool(score, 2) as pool:
            futures.extend(pool.submit((SPEECH, NOISY, SAMPLE_RATE, "visqol_audio")) for _ in range(4))
            while not futures[0].running():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    for future in futures:
        with pytest.raises(SdcError, match="stopped before it was done"):
            future.result(0)
    assert not multiprocessing.active_children()


@needs_signals
@pytest.mark.parametrize("how", ["Ctrl-C", "kill -9"])
def test_no_worker_outlives_an_interrupted_run(how, tmp_path):
    script = tmp_path / "run.py"
    script.write_text("""
import multiprocessing, time
from sdcodec_cli.data.parallel import ProcessPool
from sdcodec_cli.engine.evaluate.judges import score

if __name__ == "__main__":
    with ProcessPool(score, 2):
        print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
        time.sleep(600)
""")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # A shell that runs tests in the background has them ignore Ctrl-C, and so would the run.
    command = [
        sys.executable,
        "-c",
        "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "runpy.run_path(sys.argv[1], run_name='__main__')",
        str(script),
    ]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert run.stdout is not None
    workers = [psutil.Process(int(pid)) for pid in run.stdout.readline().split()]
    assert len(workers) == 2
    if how == "Ctrl-C":
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to everybody
    else:
        run.kill()
    _, errors = run.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]
    assert errors.count("Traceback") == (how == "Ctrl-C")


def test_no_jobs_are_a_wrong_call():
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        ProcessPool(score, 0)
