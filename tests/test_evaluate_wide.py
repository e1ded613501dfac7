"""Evaluations at 32 kHz: which audio they are of, and what tones and gains score in bands and at both rates."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdcodec_cli import load_codec
from sdcodec_cli.audio import READ_SUFFIXES, resampled
from sdcodec_cli.data.scan import scan
from sdcodec_cli.engine.evaluate import evaluation, wide
from sdcodec_cli.engine.evaluate.evaluation import evaluate
from sdcodec_cli.engine.evaluate.score import EvalResult
from sdcodec_cli.engine.evaluate.settings import Settings
from sdcodec_cli.engine.evaluate.tables import about, tables
from sdcodec_cli.engine.systems import Upsample
from sdcodec_cli.errors import InputError, ModelError

from cli_examples import errors, sdc
from film_examples import film
from tiny_models import tiny_recipe, write_tiny

RATE = 32_000
DOMAINS = ("speech", "music", "sfx")
AT_32, AT_16 = "resynthesis at 32 kHz", "resynthesis at 16 kHz"


def tones(*frequencies: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return np.sum([0.1 * np.sin(2 * np.pi * frequency * time) for frequency in frequencies], 0).astype(np.float32)


def write(path: Path, wav: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, rate, subtype="FLOAT")
    return path


def settings_for(root: Path, task: str = "bands", **changes) -> Settings:
    plain = {"data_root": root, "split": "test", "task": task, "visqol": "off", "device": "cpu", "envelope": None}
    return Settings(**{**plain, **changes})


def planned(root: Path, domains: tuple[str, ...] = DOMAINS, **changes):
    """Clips, split, reports and notes."""
    reports: list[str] = []
    notes: list[str] = []
    clips, split = wide.plan(settings_for(root, **changes), domains, report=reports.append, note=notes.append)
    return clips, split, reports, notes


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model") / "tiny", tiny_recipe())


@pytest.fixture(scope="module")
def codec(folder):
    return load_codec(folder, device="cpu")


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    """A second with a tone below 8 kHz and one above, and a second with the lower alone."""
    root = tmp_path_factory.mktemp("audio")
    write(root / "a.wav", tones(1_000, 12_000))
    write(root / "inner" / "b.wav", tones(1_000))
    return root


@dataclasses.dataclass
class System:
    """A system that multiplies what it is given, and may lose what 16 kHz cannot hold."""

    gain: float = 1.0
    low: bool = False
    name: str = "system"
    identity: str = "system"

    def resynthesize(self, wav, sample_rate, domain=None):
        back = resampled(resampled(wav, sample_rate, 16_000), 16_000, sample_rate) if self.low else wav
        return self.gain * back, 2.0

    def extend(self, wav, sample_rate, new_rate):
        assert (sample_rate, new_rate) == (16_000, 32_000)
        return np.pad(self.gain * resampled(wav, sample_rate, new_rate) + 0.5 * tones(12_000), (0, 3))


def result_with(system: object, codec, audio: Path, monkeypatch, **changes) -> EvalResult:
    monkeypatch.setattr(evaluation, "find_system", lambda *_, **__: system)
    return evaluate(codec, settings_for(audio, against=("system",), **changes))


def means(result: EvalResult, task: str, system: str = "system") -> dict[str, float | None]:
    (row,) = (row for row in result.rows if (row.task, row.system, row.stem) == (task, system, "mix"))
    return {metric: found.mean for metric, found in row.metrics.items()}


def test_of_a_file_by_itself_the_middle_is_measured(tmp_path):
    wav = np.arange(44_100 * 12, dtype=np.float32) / 1e6
    write(tmp_path / "long.flac.wav", wav, 44_100)
    write(tmp_path / "inner" / "short.wav", tones(500, seconds=0.6))
    clips, split, reports, notes = planned(tmp_path)
    assert [clip.name for clip in clips] == ["long.flac.wav-1.0", "inner/short.wav-0.0"]
    assert (split, reports, notes) == (None, [], [])
    long, short = (clip.load() for clip in clips)
    assert (len(long.mix), len(short.mix), long.stems) == (320_000, 19_200, {})
    assert long.mix[160_000] == pytest.approx(44_100 * 6 / 1e6, abs=1e-4)
    assert [clip.name for clip in planned(tmp_path, limit=1)[0]] == ["long.flac.wav-1.0"]
    assert [clip.name for clip in planned(tmp_path / "inner" / "short.wav")[0]] == ["short.wav-0.0"]


def test_what_has_nothing_at_the_top_or_cannot_be_used_is_left_out_and_told(tmp_path):
    write(tmp_path / "low.wav", tones(500, rate=16_000), 16_000)
    write(tmp_path / "short.wav", tones(500, seconds=0.3))
    (tmp_path / "broken.wav").write_bytes(b"nonsense")
    clips, _, reports, notes = planned(tmp_path)
    assert clips == []
    assert ["broken.wav: not audio" in line for line in reports] == [True]
    assert notes == [
        "1 files are left out, which have a sample rate below 32000 Hz",
        "1 files are left out, which have less than 0.5 s",
    ]


def test_the_mixture_of_a_film_of_stems_is_its_first_track(tmp_path):
    assert ".mp4" in READ_SUFFIXES
    film(tmp_path / "song.stem.mp4", [tones(1_000, rate=44_100)[None], tones(5_000, rate=44_100)[None]])
    ((clip,), *_) = planned(tmp_path)
    assert clip.name == "song.stem.mp4-0.0"
    wav = clip.load().mix
    assert np.abs(np.fft.rfft(wav)).argmax() == pytest.approx(1_000 * len(wav) / RATE, abs=2)


def test_a_split_is_that_of_folders_or_of_a_manifest_where_they_have_splits(tmp_path):
    for split in ("train", "valid", "test"):
        for domain in DOMAINS:
            write(tmp_path / split / domain / f"{split}.wav", tones(500))
    listed = {"val": ("valid", 3), "test": ("test", 3), "train": ("train", 3)}
    for name, (split, count) in listed.items():
        clips, found, *_ = planned(tmp_path, split=name)
        assert (found, len(clips)) == (split, count)
        assert all(clip.file.startswith(f"{split}/") for clip in clips)
    scan(tmp_path, tmp_path / "list.parquet", domains=DOMAINS, jobs=1, measure=False)
    from_manifest, found, *_ = planned(tmp_path / "list.parquet", split="val")
    assert (found, [clip.name for clip in from_manifest]) == (
        "valid",
        [f"valid/{domain}/valid.wav-0.0" for domain in sorted(DOMAINS)],
    )
    assert planned(tmp_path / "valid", split="val")[1] is None
    (tmp_path / "test").rename(tmp_path / "more")
    with pytest.raises(InputError, match="has no test split, only train, valid; choose another with --dnr"):
        planned(tmp_path)


def test_tracks_of_dnr_are_cut_as_ever_and_have_stems_for_models_of_several_domains(tmp_path):
    for name in ("mix", *DOMAINS):
        write(tmp_path / "cv" / "0000" / f"{name}.wav", tones(500, seconds=11.0))
        write(tmp_path / "cv" / "0001" / f"{name}.wav", tones(500, rate=16_000), 16_000)
    clips, split, _, notes = planned(tmp_path, split="val")
    assert ([clip.name for clip in clips], split) == (["0000-0.0", "0000-5.0"], "val")
    assert notes == ["1 clips are left out, of tracks with a sample rate below 32000 Hz"]
    assert clips[0].load().stems.keys() == set(DOMAINS)
    assert planned(tmp_path, ("audio",), split="val")[0][0].load().stems == {}
    with pytest.raises(InputError, match="no tracks .* but cv has 2: --dnr val"):
        planned(tmp_path)
    with pytest.raises(InputError, match="give the folder above"):
        planned(tmp_path / "cv", split="val")


def test_what_16_khz_cannot_hold_is_lost_above_8_khz_alone(codec, audio, monkeypatch):
    result = result_with(System(low=True), codec, audio, monkeypatch, limit=1)
    found = means(result, AT_32)
    assert found["sdr_high"] == pytest.approx(0.0, abs=0.01)
    assert found["sdr_low"] > 40
    assert found["si_sdr"] == pytest.approx(0.0, abs=0.1)  # half of the power is above
    assert found["bias_high"] < -10
    assert found["mel_high"] > found["mel"] > 0
    # At 16 kHz it has lost nothing; how much that is above 1 kHz is known from there too.
    assert means(result, AT_16)["si_sdr"] > 40
    assert {"band_bias", "band_spread"} <= means(result, AT_16).keys()
    assert not {"sdr_high", "mel_high"} & means(result, AT_16).keys()


def test_a_model_is_measured_with_its_treble_or_without(codec, audio, monkeypatch):
    found = [
        means(result_with(System(), codec, audio, monkeypatch, limit=1, treble=treble), AT_32, codec.name)
        for treble in (True, False)
    ]
    assert found[1]["sdr_high"] == pytest.approx(0.0, abs=0.01)
    assert found[0]["sdr_high"] < -1  # copies are no waveform


def test_stems_of_tracks_go_through_their_own_domains(codec, tmp_path):
    for name, wav in {
        "mix": tones(500, 900, 1_300),
        **dict(zip(DOMAINS, map(tones, (500, 900, 1_300)), strict=True)),
    }.items():
        write(tmp_path / "tt" / "0000" / f"{name}.wav", wav)
    result = evaluate(codec, settings_for(tmp_path))
    assert (result.split, {row.task for row in result.rows}) == ("test", {AT_32, AT_16})
    assert [row.stem for row in result.rows if row.task == AT_32] == ["mix", *DOMAINS]
    assert [row.bitrate for row in result.rows if row.task == AT_32][1:] == [pytest.approx(1.2)] * 3


def test_a_gain_is_a_distance_of_waveforms_and_an_sdr_in_every_band(codec, audio, monkeypatch):
    result = result_with(System(gain=0.9), codec, audio, monkeypatch, limit=1)
    found = means(result, AT_32)
    assert found["sdr_low"] == pytest.approx(20.0, abs=1e-3)
    assert found["sdr_high"] == pytest.approx(20.0, abs=1e-3)
    assert found["wave"] == pytest.approx(100 * 0.1 * np.abs(tones(1_000, 12_000)).mean(), rel=1e-4)
    (row,) = (row for row in result.rows if (row.task, row.system) == (AT_32, "system"))
    assert (len(row.band_bias), len(result.band_edges), result.band_edges[-1]) == (25, 26, 16_000)
    assert row.band_bias[23] == pytest.approx(20 * np.log10(0.9), abs=0.01)  # the band of the upper tone
    (row,) = (row for row in result.rows if (row.task, row.system) == (AT_16, "system"))
    assert len(row.band_bias) == 21
    assert row.bitrate == 2.0


def test_what_has_nothing_above_8_khz_has_no_value_there(codec, audio, monkeypatch):
    result = result_with(System(), codec, audio, monkeypatch)
    assert result.num_clips == 2
    (row,) = (row for row in result.rows if (row.task, row.system) == (AT_32, "system"))
    for metric in ("sdr_high", "sdr_near", "mel_high", "bias_high", "spread_high"):
        assert row.metrics[metric].num_clips == (0 if metric == "sdr_near" else 1)
        assert row.metrics[metric].reason == "silent_reference"
    assert row.metrics["sdr_low"].num_clips == row.metrics["si_sdr"].num_clips == 2


def test_audio_at_16_khz_is_extended_beside_plain_upsampling_and_the_papers_figures(codec, audio, monkeypatch):
    plain = result_with(Upsample(), codec, audio, monkeypatch, task="extend", limit=1)
    assert plain.notes[0] == f"{codec.name} is left out: it does not extend audio"
    assert {row.task for row in plain.rows} == {"extension"}
    assert means(plain, "extension", "upsample")["sdr_high"] == pytest.approx(0.0, abs=0.01)
    # Half of the tone that is lost, in its phase.
    extended = result_with(System(), codec, audio, monkeypatch, task="extend", limit=1)
    assert means(extended, "extension")["sdr_high"] == pytest.approx(20 * np.log10(2), abs=0.01)
    (table,) = tables(plain)
    assert [row[:2] for row in table.rows] == [
        ("mix", "upsample"),
        ("mix", "frequency-band codec"),
        ("mix", "plain upsampling"),
    ]
    theirs = [table.rows[index] for index in sorted(table.paper)]
    columns = [table.heads.index(head) for head in ("mel", "STFT", "SI-SDR, dB")]
    assert [[row[column] for column in columns] for row in theirs] == [
        ["2.04", "5.37", "6.22"],
        ["2.56", "8.65", "3.75"],
    ]
    assert "arXiv:2510.03735" in table.note


def test_systems_that_cannot_do_what_is_evaluated_are_refused(codec, audio):
    with pytest.raises(ModelError, match="^--against mixture: does not code audio; leave it out of --task bands"):
        evaluate(codec, settings_for(audio, against=("mixture",)))
    with pytest.raises(
        ModelError, match="^--against upsample: does not code or separate audio; leave it out of --task dnr"
    ):
        evaluate(codec, settings_for(audio, task="dnr", against=("upsample",)))
    with pytest.raises(InputError, match="^--task extend: nothing here can extend audio; pass --against upsample"):
        evaluate(codec, settings_for(audio, task="extend"))


def test_results_are_kept_by_task_and_the_report_has_pictures_up_to_16_khz(codec, audio, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "find_system", lambda *_, **__: System(low=True))
    asked = {"against": ("system",), "work": tmp_path / "work", "limit": 1}
    bands = evaluate(codec, settings_for(audio, report=tmp_path / "page", **asked))
    assert evaluate(codec, settings_for(audio, **asked)).rows == bands.rows
    assert {row.task for row in evaluate(codec, settings_for(audio, "extend", **asked)).rows} == {"extension"}
    assert (bands.seconds, bands.cost, bands.codebooks, bands.split) == (1.0, (), (), None)
    assert "task bands, effort" in about(bands)
    text = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "15 kHz</span>" in text
    assert text.count('class="tile ') == 3  # the original, the model, the system: not what was resampled to 16 kHz
    assert "Resynthesis, compared at 32 kHz" in text


def test_the_command_evaluates_any_folder(folder, audio, tmp_path):
    command = ["eval", "--data-root", audio, "--model", folder, "--visqol", "off", "--device", "cpu", "--limit", "1"]
    shown = sdc(*command, "--task", "bands", "--against", "none")
    assert shown.exit_code == 0, shown.stderr
    assert "Resynthesis, resampled to 16 kHz and compared" in shown.stdout
    assert "SDR 8–16 kHz, dB" in shown.stdout
    # Plain upsampling and guessed treble are there without being named.
    found = json.loads(sdc(*command, "--task", "extend", "--json").stdout)
    assert (found["task"], [row["system"] for row in found["rows"]]) == ("extend", ["upsample", "treble"])
    (line,) = errors(sdc("eval", "--data-root", tmp_path, "--model", folder, "--device", "cpu", "--task", "extend"))
    assert line.startswith(f"{tmp_path}: nothing to score: {tmp_path}: no ")
