"""What a teacher says of clean speech: where in time, asked once, and of which files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from sdcodec_cli.data import targets
from sdcodec_cli.data.mixing import draw
from sdcodec_cli.data.pool import Pool, find_manifest, open_pool
from sdcodec_cli.data.targets import Targets, with_targets
from sdcodec_cli.errors import InputError, MissingExtra
from sdcodec_cli.recipe import AugmentationFields, MixingFields, SemanticFields

HAMA, FOLDER = SemanticFields(teacher="hama"), SemanticFields(teacher="folder", folder="said", width=2)


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Two clips of speech, of 1 and 2 s, whose samples grow; a folder has times in s, and their numbers."""
    for number, name in enumerate("ab"):
        length = 16_000 * (number + 1)
        for folder in ("speech", "said/speech"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / f"speech/{name}.wav", np.sin(np.arange(length)) * np.arange(length) / 2**16, 16_000)
        seconds = (np.arange(25 * (number + 1)) + 0.5) / 25
        np.save(tmp_path / f"said/speech/{name}.npy", np.stack([seconds, np.full_like(seconds, number + 1)], axis=1))
    return tmp_path


def taught(corpus: Path, fields: SemanticFields, report: Callable[[str], None] = lambda line: None) -> Pool:
    manifest = find_manifest(corpus, ["speech"], kept=corpus, jobs=1)
    pool = open_pool(manifest, split=None, domains=["speech"], sample_rate=16_000)
    return with_targets(
        pool,
        manifest,
        fields,
        domain="speech",
        split=None,
        min_sample_rate=0,
        hop_length=320,
        folder=corpus / "cache",
        jobs=1,
        report=report,
    )


def test_rows_of_a_folder_are_spread_over_the_clip_and_looked_up_in_between(corpus):
    said = taught(corpus, FOLDER).targets["speech"]
    assert (said.width, said.num_frames(16_001)) == (2, 51)
    np.testing.assert_allclose(said.mean, (50 * np.array([0.5, 1]) + 100 * np.array([1, 2])) / 150, atol=2e-3)
    found = said.at(1, 4000, 1.0, 25) + said.mean
    np.testing.assert_allclose(found[:, 0], 0.25 + (np.arange(25) + 0.5) / 50, atol=2e-3)
    np.testing.assert_allclose(found[:, 1], 2, atol=2e-3)
    stretched = said.at(1, 4000, 1.1, 25) + said.mean
    np.testing.assert_allclose(stretched[:, 0], 0.25 + 1.1 * (np.arange(25) + 0.5) / 50, atol=2e-3)
    around = said.at(0, -3200, 1.0, 70).any(axis=1)
    assert (around[:10].any(), around[10:60].all(), around[60:].any()) == (False, True, False)


def test_an_example_has_what_is_said_of_its_crop_however_fast_it_is_played(corpus):
    pool = taught(corpus, FOLDER)
    fields = MixingFields(seconds=0.5, track_probabilities=(1.0,), loudness=(-24.0,))
    for index in range(5):
        example = draw(pool, fields, seed=0, index=index, augmentation=AugmentationFields(speed_range=0.1))
        # Samples grow, so that the loudest ones of the crop tell when it was.
        assert example.guide is not None
        heard = np.abs(example.crops[0]).reshape(25, -1).max(1) * 2**16 / 16_000
        inside = slice(2, -2)
        said = example.guide[inside, 0] + pool.targets["speech"].mean[0]
        np.testing.assert_allclose(said, heard[inside] - 0.01, atol=0.02)
    layered = draw(pool, fields, seed=0, index=0, augmentation=AugmentationFields(layering=(1.0,)))
    assert layered.guide is not None
    assert not layered.guide.any()


class FakeModel:
    """As hama's: of each 320 samples the log probabilities of two phonemes, by the level, in one row of five."""

    decoder_tokens = ("a", "<blank>", "b", "<wb>")
    blank_id = 1
    asked = 0

    def __init__(self) -> None:
        self.session = SimpleNamespace(run=self.run)

    def run(self, names: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
        type(self).asked += 1
        wav = given["waveform"][0]
        level = np.abs(wav[: len(wav) // 320 * 320]).reshape(-1, 320).max(1).clip(0.1, 0.9)
        sure = np.where((np.arange(len(level)) % 5 == 0) & (level > 0.1), 0.9, 1e-6)
        none = np.full_like(level, 0.05)
        return [np.log(np.stack([sure * level, none, sure * (1 - level), 0.95 - sure], axis=1))[None]]


def test_phonemes_are_told_around_where_they_are_heard_and_asked_for_once(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "hama", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "hama.asr", SimpleNamespace(ASRModel=FakeModel))
    monkeypatch.setattr(targets, "PIECE", 30)
    monkeypatch.setattr(targets, "CONTEXT", 5)
    targets._teacher.cache_clear()
    lines: list[str] = []
    said = taught(corpus, HAMA, lines.append).targets["speech"]
    assert FakeModel.asked == 2 + 4  # pieces of 30 rows
    assert said.ends.tolist() == [50, 150]
    seconds = (np.arange(100) + 1) / 50  # the loudest sample is the last of each row
    nearest = np.round(np.arange(20, 98) / 5).astype(int) * 5
    expected = (seconds * 16_000 / 2**16)[nearest]
    np.testing.assert_allclose(said.rows[70:148], np.stack([expected, 1 - expected], axis=1), atol=0.005)
    np.testing.assert_allclose(said.rows[68:148].sum(axis=1), 1, atol=0.001)
    assert not said.rows[50:68].any()  # too quiet for the model to be sure
    assert not said.mean.any()
    again = taught(corpus, HAMA, lines.append).targets["speech"]
    assert np.array_equal(again.rows, said.rows)
    assert FakeModel.asked == 6
    assert len(lines) == 2
    targets._teacher.cache_clear()


def test_what_is_missing_is_told_in_a_line(corpus, monkeypatch):
    (corpus / "said/speech/b.npy").unlink()
    with pytest.raises(
        InputError, match=r"said/speech/b.npy: cannot be read; semantic.folder needs an array for every"
    ):
        taught(corpus, FOLDER)
    np.save(corpus / "said/speech/b.npy", np.zeros((3, 5)))
    with pytest.raises(InputError, match=r"b.npy: has shape \[3, 5\]; it must be \[frames, 2\], of finite numbers"):
        taught(corpus, FOLDER)
    monkeypatch.setitem(sys.modules, "hama", None)
    targets._teacher.cache_clear()
    with pytest.raises(
        MissingExtra, match="teacher hama: cannot be asked .* install the package hama, or do without: --set "
    ):
        taught(corpus, HAMA)


def test_a_damaged_file_of_targets_names_itself(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match="x.npy: is damaged or incomplete; remove it and start again"):
        Targets(tmp_path / "x.npy", 0.0, 320, centred=True)
