"""How tracks become clips: against librosa, torch's STFT, and tracks built by hand."""

from __future__ import annotations

import shutil
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch

from sdcodec_cli.engine.evaluate import protocol
from sdcodec_cli.engine.evaluate.protocol import active_share, protocol_facts, trim
from sdcodec_cli.engine.evaluate.settings import Settings
from sdcodec_cli.errors import InputError

RATE = 8_000
DOMAINS = ("speech", "music", "sfx")


def noise(seconds, *, seed, rate=RATE, level=0.1):
    return (np.random.default_rng(seed).standard_normal(round(seconds * rate)) * level).astype(np.float32)


def write_track(root, name, stems, *, split="cv", mix=None, rate=RATE):
    folder = root / split / name
    folder.mkdir(parents=True)
    for stem, wav in {"mix": sum(stems.values()) if mix is None else mix, **stems}.items():
        soundfile.write(folder / f"{stem}.wav", wav, rate, subtype="FLOAT")
    return folder


def full_track(root, name="0000", *, seconds=12.0, split="cv", rate=RATE):
    """Nowhere silent."""
    stems = {domain: noise(seconds, seed=seed, rate=rate) for seed, domain in enumerate(DOMAINS)}
    write_track(root, name, stems, split=split, rate=rate)
    return stems


def plan(root, split, domains, sample_rate, name, *, limit=None, **tellers):
    settings = Settings(data_root=root, split=split, protocol=name, limit=limit)
    return protocol.plan(settings, domains, sample_rate, **tellers)


def spans(clips):
    return [(clip.start / clip.file_rate, clip.stop / clip.file_rate) for clip in clips]


@pytest.mark.parametrize(
    ("head", "middle", "tail"), [(0, 20_000, 0), (9_000, 30_000, 5_000), (511, 513, 4_001), (0, 700, 60_000)]
)
def test_trimming_is_librosas(head, middle, tail):
    librosa = pytest.importorskip("librosa")
    wav = np.concatenate(
        [np.full(head, 1e-4), noise(middle / RATE, seed=1), noise(tail / RATE, seed=2, level=0.1 * 10 ** (-29 / 20))]
    ).astype(np.float32)
    wav[-tail // 2 :] *= 0.3  # 29 dB below is heard, 39 dB is not
    _, expected = librosa.effects.trim(wav, top_db=30)
    assert trim(wav) == tuple(expected)


def test_silence_is_not_trimmed_to_nothing():
    assert trim(np.zeros(5_000, dtype=np.float32)) == (0, 5_000)


def test_a_stem_is_active_where_its_magnitudes_add_up_to_more_than_a_millionth():
    """Against the definition, on levels to either side of it and frames that hold only the edge of a sound."""
    rng = np.random.default_rng(3)
    wav = np.zeros(40_000)
    wav[3_000:3_010] = 0.5
    wav[8_000:9_000] = rng.standard_normal(1_000) * 2e-10
    wav[15_000:16_000] = rng.standard_normal(1_000) * 2e-11
    wav[20_000:30_000] = rng.standard_normal(10_000) * 1e-9
    wav[-1] = 1e-3
    magnitudes = torch.stft(
        torch.from_numpy(wav), 1024, 256, window=torch.hann_window(1024).double(), return_complex=True
    ).abs()
    expected = (magnitudes.sum(0) > 1e-6).numpy()
    assert 0.1 < expected.mean() < 0.9
    assert (protocol._active_frames(wav) == expected).all()


def test_a_share_of_zero_is_digital_silence_and_one_is_sound_throughout():
    assert active_share(np.zeros(4_000, dtype=np.float32)) == 0
    assert active_share(noise(1, seed=0) * 1e-5) == 1


def test_validation_is_cut_into_5_seconds_and_test_into_10_and_the_rest_is_dropped(tmp_path):
    full_track(tmp_path, seconds=12)
    full_track(tmp_path, seconds=23, split="tt")
    assert spans(plan(tmp_path, "val", DOMAINS, RATE, "paper")) == [(0, 5), (5, 10)]
    assert spans(plan(tmp_path, "test", DOMAINS, RATE, "paper")) == [(0, 10), (10, 20)]


def test_segments_begin_where_the_mixture_is_first_heard(tmp_path):
    stems = {domain: np.concatenate([np.zeros(8_192), noise(6, seed=1)]).astype(np.float32) for domain in DOMAINS}
    write_track(tmp_path, "0000", stems)
    [clip] = plan(tmp_path, "val", DOMAINS, RATE, "paper")
    assert 8_192 - 2 * 1_024 < clip.start <= 8_192
    assert clip.stop - clip.start == 5 * RATE


@pytest.mark.parametrize(("heard", "kept"), [(0.46, False), (0.54, True)])
def test_a_segment_with_a_stem_that_is_silent_for_more_than_half_of_it_is_dropped(tmp_path, heard, kept):
    stems = {domain: noise(5, seed=seed) for seed, domain in enumerate(DOMAINS)}
    stems["music"][round(heard * 5 * RATE) :] = 0
    write_track(tmp_path, "0000", stems)
    assert len(plan(tmp_path, "val", DOMAINS, RATE, "paper")) == kept


def test_silence_is_judged_before_resampling_blurs_it(tmp_path):
    rate = 44_100
    stems = {domain: noise(5, seed=seed, rate=rate) for seed, domain in enumerate(DOMAINS)}
    stems["sfx"][:] = 0
    stems["sfx"][::4_410] = 0.5  # a click every 0.1 s: in 4 of 17 frames of the file, and in 4 of 6 at 16 kHz
    write_track(tmp_path, "0000", stems, rate=rate)
    assert plan(tmp_path, "val", DOMAINS, 16_000, "paper") == []


def test_a_short_track_is_one_clip_of_what_is_left_after_trimming(tmp_path):
    full_track(tmp_path, seconds=3)
    assert spans(plan(tmp_path, "val", DOMAINS, RATE, "paper")) == [(0, 3)]
    assert plan(tmp_path, "val", DOMAINS, RATE, "published-code") == []


def test_a_track_that_trimming_makes_shorter_than_a_segment_gives_nothing(tmp_path):
    stems = {domain: np.concatenate([noise(4, seed=1), np.zeros(4 * RATE)]).astype(np.float32) for domain in DOMAINS}
    write_track(tmp_path, "0000", stems)
    assert plan(tmp_path, "val", DOMAINS, RATE, "paper") == []


def test_the_published_code_loses_a_segment_that_ends_where_the_track_ends(tmp_path):
    full_track(tmp_path, seconds=10)
    assert spans(plan(tmp_path, "val", DOMAINS, RATE, "paper")) == [(0, 5), (5, 10)]
    assert spans(plan(tmp_path, "val", DOMAINS, RATE, "published-code")) == [(0, 5)]


def test_the_mixture_is_the_file_or_in_the_published_code_the_sum_of_the_stems(tmp_path):
    stems = {domain: noise(6, seed=seed) for seed, domain in enumerate(DOMAINS)}
    mix = 0.5 * sum(stems.values())
    write_track(tmp_path, "0000", stems, mix=mix)
    [paper], [code] = (plan(tmp_path, "val", DOMAINS, RATE, name) for name in ("paper", "published-code"))
    np.testing.assert_array_equal(paper.load().mix, mix[: 5 * RATE])
    np.testing.assert_allclose(code.load().mix, 2 * mix[: 5 * RATE], atol=1e-6)


def test_test_is_tt_in_both_protocols(tmp_path):
    full_track(tmp_path, seconds=23, split="tt")
    for name in ("paper", "published-code"):
        assert {clip.folder.parent.name for clip in plan(tmp_path, "test", DOMAINS, RATE, name)} == {"tt"}


def test_a_clip_has_its_part_of_every_file(tmp_path):
    stems = full_track(tmp_path, "0042", seconds=11)
    clip = plan(tmp_path, "val", DOMAINS, RATE, "paper")[1].load()
    assert clip.name == "0042-5.0"
    assert clip.mix.dtype == np.float32
    for domain in DOMAINS:
        np.testing.assert_array_equal(clip.stems[domain], stems[domain][5 * RATE : 10 * RATE])


def test_clips_are_resampled_in_time_and_to_the_very_length(tmp_path):
    rate, new = 44_100, 16_000
    time = np.arange(11 * rate) / rate
    tone = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    write_track(tmp_path, "0000", dict.fromkeys(DOMAINS, tone), rate=rate)
    clips = plan(tmp_path, "val", DOMAINS, new, "paper")
    wav = clips[1].load().stems["music"]
    assert wav.shape == (5 * new,)
    expected = 0.3 * np.sin(2 * np.pi * 440 * (5 + np.arange(5 * new) / new))
    np.testing.assert_allclose(wav[1_000:-1_000], expected[1_000:-1_000], atol=1e-4)


def test_a_broken_track_is_reported_and_the_others_are_planned(tmp_path):
    for name in ("0000", "0001", "0002"):
        full_track(tmp_path, name, seconds=5)
    (tmp_path / "cv" / "0001" / "music.wav").write_bytes(b"nonsense")
    soundfile.write(tmp_path / "cv" / "0002" / "sfx.wav", noise(4, seed=0), RATE)
    problems: list[str] = []
    clips = plan(tmp_path, "val", DOMAINS, RATE, "paper", report=problems.append)
    assert [clip.folder.name for clip in clips] == ["0000"]
    assert len(problems) == 2
    assert "0001/music.wav" in problems[0]
    assert "different lengths" in problems[1]


def test_a_split_without_tracks_is_an_error(tmp_path):
    full_track(tmp_path)
    with pytest.raises(InputError, match="no tracks"):
        plan(tmp_path, "test", DOMAINS, RATE, "paper")


def test_a_track_that_was_cut_after_planning_is_an_error(tmp_path):
    full_track(tmp_path, seconds=10)
    last = plan(tmp_path, "val", DOMAINS, RATE, "paper")[1]
    soundfile.write(tmp_path / "cv" / "0000" / "sfx.wav", noise(7, seed=0), RATE)
    with pytest.raises(InputError, match=r"sfx\.wav: ends before 10\.000 s"):
        last.load()


def test_a_limit_reads_no_more_tracks_than_it_needs(tmp_path):
    for name in ("0000", "0001", "0002"):
        full_track(tmp_path, name, seconds=10)
    shutil.copy(__file__, tmp_path / "cv" / "0002" / "mix.wav")
    problems, done = [], []
    clips = plan(
        tmp_path,
        "val",
        DOMAINS,
        RATE,
        "paper",
        limit=3,
        report=problems.append,
        progress=lambda now, total: done.append((now, total)),
    )
    assert [clip.name for clip in clips] == ["0000-0.0", "0000-5.0", "0001-0.0"]
    assert problems == []
    assert done == [(1, 3), (2, 3)]


def test_clips_follow_one_another_without_gaps_and_with_names_of_their_own(tmp_path):
    full_track(tmp_path, seconds=31)
    clips = plan(tmp_path, "val", DOMAINS, RATE, "paper")
    assert len({clip.name for clip in clips}) == 6
    assert all(before.stop == after.start for before, after in pairwise(clips))


def test_every_difference_is_a_line():
    paper, code = protocol_facts("paper"), protocol_facts("published-code")
    assert not set(paper) & set(code)
    for fact in (*paper, *code):
        assert "\n" not in fact
    for word in ("mixture", "segments", "short tracks", "test split", "silent stems", "ViSQOL", "mel", "mask"):
        assert any(fact.startswith(word) for fact in code)
