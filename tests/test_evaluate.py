"""Scores of a model next to its yardsticks, and speeds next to the plain network's."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import soundfile
import torch

from sdcodec_cli import load_codec
from sdcodec_cli.data.dnr import find_tracks
from sdcodec_cli.engine.bench import bench
from sdcodec_cli.engine.evaluate.score import evaluate

from tiny_models import tiny_recipe, write_tiny

RATE = 16_000


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    return load_codec(write_tiny(tmp_path_factory.mktemp("model") / "tiny", tiny_recipe()), device="cpu")


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    """Two tracks; the second has no music."""
    root, time = tmp_path_factory.mktemp("dnr"), np.arange(2 * RATE) / RATE
    for index in range(2):
        folder = root / "cv" / f"{index:04d}"
        folder.mkdir(parents=True)
        stems = {
            "speech": 0.1 * np.sin(2 * np.pi * 300 * time),
            "music": 0.1 * np.sin(2 * np.pi * 1000 * time) * (index == 0),
            "sfx": 0.01 * np.random.default_rng(index).standard_normal(len(time)),
        }
        for name, wav in {"mix": sum(stems.values()), **stems}.items():
            soundfile.write(folder / f"{name}.wav", wav, RATE, subtype="FLOAT")
    return find_tracks(root, "val", ("speech", "music", "sfx"))


def cells(result):
    return {(score.task, score.system, score.stem): score for score in result.scores}


def test_every_row_is_there_and_the_mixture_scores_what_arithmetic_says(codec, tracks):
    result = evaluate(codec, tracks, opus=False)
    table = cells(result)
    assert (result.num_tracks, result.seconds, result.failures) == (2, 4.0, ())
    # Speech against music of the same level and noise 17 dB below, then against the noise alone.
    power = 0.1**2 / 2
    first, second = (10 * np.log10(power / rest) for rest in (power + 1e-4, 1e-4))
    speech = table["separation", "mixture", "speech"]
    assert speech.si_sdr == pytest.approx((first + second) / 2, abs=0.1)
    assert speech.si_sdr_improvement == 0
    # A silent stem has no score.
    assert table["separation", "mixture", "music"].num_clips == 1
    for task, stems in {
        "resynthesis": ("mix", "speech", "music", "sfx"),
        "separation": ("speech", "music", "sfx"),
        "masked separation": ("speech", "music", "sfx"),
    }.items():
        for stem in stems:
            assert np.isfinite(table[task, codec.name, stem].si_sdr)
    assert table["resynthesis", codec.name, "speech"].bitrate == pytest.approx(1.2)
    # Two tracks of one segment each: the mixtures, and three stems of each by themselves.
    assert [(row.signal, row.domain, row.num_segments) for row in result.activity] == [
        *(("mix", domain, 2) for domain in codec.domains),
        *(("stem", domain, 6) for domain in codec.domains),
    ]


def test_precision_and_recall_count_segments(codec):
    from sdcodec_cli.engine.codec import SEGMENT_FRAMES
    from sdcodec_cli.engine.evaluate.score import _Activity

    frames, length = 4 * SEGMENT_FRAMES, 4 * SEGMENT_FRAMES * codec.hop_length
    codes = codec.encode(np.random.default_rng(0).standard_normal(length) * 0.05, normalize=False)
    loud, silent = np.full(length, 0.1, dtype=np.float32), np.zeros(length, dtype=np.float32)
    half = np.where(np.arange(length) < length // 2, loud, silent)
    for domain, pattern in {"speech": [1, 1, 0, 0], "music": [1, 1, 1, 1], "sfx": [1, 0, 0, 0]}.items():
        codes.active[domain][0] = torch.tensor(pattern).bool().repeat_interleave(frames // 4)
    found = _Activity(codec)
    found.add("mix", codes, {"speech": half, "music": half, "sfx": half})
    scores = {row.domain: (row.precision, row.recall) for row in found.scores() if row.signal == "mix"}
    assert scores == {"speech": (1.0, 1.0), "music": (0.5, 1.0), "sfx": (1.0, 0.5)}
    assert {row.precision for row in found.scores() if row.signal == "stem"} == {None}


@pytest.mark.skipif(shutil.which("opusenc") is None, reason="needs opusenc and opusdec")
def test_opus_stands_beside_it_aligned_and_with_the_bitrate_it_took(codec, tracks):
    result = evaluate(codec, tracks[:1])
    opus = cells(result)["resynthesis", "opus", "speech"]
    assert opus.si_sdr is not None
    assert opus.si_sdr > 3  # a tone survives Opus, but only if it is in time
    assert opus.bitrate is not None
    assert 2 < opus.bitrate < 30


def test_without_opus_installed_the_rest_is_scored_and_a_note_says_so(codec, tracks, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    result = evaluate(codec, tracks[:1])
    assert "opusenc and opusdec are not installed" in result.notes[0]
    assert not any(score.system == "opus" for score in result.scores)


def test_a_broken_track_is_reported_and_skipped(codec, tracks, tmp_path):
    broken = tmp_path / "cv" / "0009"
    shutil.copytree(tracks[0], broken)
    (broken / "sfx.wav").write_bytes(b"nonsense")
    result = evaluate(codec, [tracks[0], broken], opus=False)
    assert result.num_tracks == 1
    assert len(result.failures) == 1
    assert "0009" in result.failures[0]


def test_a_benchmark_gives_speeds_and_their_ratio_to_the_plain_network(codec):
    result = bench(codec, seconds=2.0, repeats=1)
    for value in (result.encode, result.decode_mix, result.decode_one, result.decode_all):
        assert value > 0
    assert 0 < result.encode_ratio < 100
