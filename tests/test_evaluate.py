"""An evaluation from tracks to tables: what arithmetic says, what is left out, and what goes on after a stop."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdcodec_cli import load_codec, zoo
from sdcodec_cli.engine.bench import bench
from sdcodec_cli.engine.evaluate import evaluation, measure, visqol
from sdcodec_cli.engine.evaluate.evaluation import BASELINE, evaluate
from sdcodec_cli.engine.evaluate.score import EvalResult
from sdcodec_cli.engine.evaluate.settings import Settings
from sdcodec_cli.engine.evaluate.speech import available
from sdcodec_cli.engine.evaluate.tables import tables
from sdcodec_cli.engine.stream import SEGMENT_FRAMES
from sdcodec_cli.errors import InputError, ModelError, OutputError, SdcError

from cli_examples import errors, sdc
from tiny_models import tiny_recipe, write_tiny

RATE = 16_000
DOMAINS = ("speech", "music", "sfx")
SECONDS = 2.4
"""Of a clip; two segments of a stream."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model") / "tiny", tiny_recipe())


@pytest.fixture(scope="module")
def codec(folder):
    return load_codec(folder, device="cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two tracks of one clip each; in the second, music is 20 dB quieter."""
    root, time = tmp_path_factory.mktemp("dnr"), np.arange(round(SECONDS * RATE)) / RATE
    for index in range(2):
        track = root / "cv" / f"{index:04d}"
        track.mkdir(parents=True)
        stems = {
            "speech": 0.1 * np.sin(2 * np.pi * 300 * time),
            "music": 0.1 * np.sin(2 * np.pi * 1000 * time) * (0.1 if index else 1.0),
            "sfx": 0.01 * np.random.default_rng(index).standard_normal(len(time)),
        }
        for name, wav in {"mix": sum(stems.values()), **stems}.items():
            soundfile.write(track / f"{name}.wav", wav, RATE, subtype="FLOAT")
    return root


@pytest.fixture(autouse=True, scope="module")
def quick_cost(folder):
    """A DAC of the paper's size takes seconds to build, and its cost to measure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "COST_SECONDS", 0.1)
        patch.setattr(evaluation, "BASELINE", str(folder))
        yield


@pytest.fixture(scope="module")
def result(codec, root, quick_cost) -> EvalResult:
    """Of both clips, beside the mixture; most tests look at it."""
    return evaluate(codec, settings_for(root))


@pytest.fixture(scope="module")
def one(codec, root, quick_cost) -> EvalResult:
    """Of the first clip."""
    return evaluate(codec, settings_for(root, limit=1))


@pytest.fixture(scope="module")
def bare(codec, root, quick_cost) -> EvalResult:
    """Of the first clip, without an envelope."""
    return evaluate(codec, settings_for(root, limit=1, envelope=None))


@pytest.fixture(scope="module")
def beside(codec, root, other, quick_cost) -> EvalResult:
    """Of the first clip, with another model that separates."""
    return evaluate(codec, settings_for(root, limit=1, against=(str(other), "mixture")))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Another model with the same domains. Without the activity head all of them are active, and share the mixture."""
    recipe = dataclasses.replace(tiny_recipe(activity=False), name="other")
    return write_tiny(tmp_path_factory.mktemp("other") / "other", recipe, seed=1)


def names_of_measured_clips(monkeypatch) -> list[str]:
    """A list that grows with every clip that is measured from now on."""
    measured: list[str] = []
    original = measure._measure_clip

    def counting(model, systems, plan, *rest):
        measured.append(plan.name)
        return original(model, systems, plan, *rest)

    monkeypatch.setattr(measure, "_measure_clip", counting)
    return measured


def settings_for(root: Path, **changes) -> Settings:
    plain = {"data_root": root, "split": "val", "against": ("mixture",), "visqol": "off", "speech": (), "device": "cpu"}
    return Settings(**{**plain, **changes})


def cells(result: EvalResult) -> dict[tuple[str, str, str, str | None], float | None]:
    return {(row.task, row.system, row.stem, row.through): row.metrics["si_sdr"].mean for row in result.rows}


def test_every_row_is_there_and_the_mixture_scores_what_arithmetic_says(codec, result):
    assert (result.num_clips, result.seconds, result.failures) == (2, 2 * SECONDS, ())
    table = cells(result)
    # Speech against music of the same level and noise 17 dB below, then against both 20 and 17 dB below.
    power = 0.1**2 / 2
    first, second = (10 * np.log10(power / rest) for rest in (power + 1e-4, power / 100 + 1e-4))
    assert table["separation", "mixture", "speech", None] == pytest.approx((first + second) / 2, abs=0.1)
    expected = {("resynthesis", codec.name, "mix", None)}
    for stem in DOMAINS:
        expected |= {("separation", "mixture", stem, None)}
        expected |= {
            (task, codec.name, stem, None) for task in ("resynthesis", "separation", "masked separation", "whole")
        }
        expected |= {("cross", codec.name, stem, through) for through in DOMAINS}
    assert set(table) == expected
    assert all(value is not None and np.isfinite(value) for value in table.values())
    rows = {(row.task, row.system, row.stem): row for row in result.rows}
    assert rows["separation", "mixture", "music"].metrics["si_sdri"].mean == 0
    assert 1.2 < rows["resynthesis", codec.name, "speech"].bitrate < 1.2 + 0.6  # what the envelope takes, at most
    assert {"mel", "stft"} <= rows["resynthesis", codec.name, "mix"].metrics.keys()


def test_without_an_envelope_a_stem_through_its_own_domain_is_its_resynthesis(codec, bare):
    assert (bare.envelope, bare.bitrate) == (None, 1.2)
    table = cells(bare)
    for stem in DOMAINS:
        assert table["cross", codec.name, stem, stem] == table["resynthesis", codec.name, stem, None]
    (speech,) = [row for row in bare.rows if (row.task, row.stem) == ("resynthesis", "speech")]
    assert speech.bitrate == pytest.approx(1.2)


def test_the_envelope_is_for_what_is_decoded_and_leaves_masks_alone(codec, root, tmp_path, one, bare):
    unused = evaluate(codec, settings_for(root, limit=1, envelope=0.0, work=tmp_path))
    assert [found.envelope for found in (one, unused, bare)] == [0.6, 0.0, None]
    shaped, plain, without = (
        {(r.task, r.system, r.stem, r.through): r.metrics["si_sdr"].mean for r in result.rows}
        for result in (one, unused, bare)
    )
    assert plain == without
    changed = {key[:2] for key, score in shaped.items() if score != plain[key]}
    assert changed == {(task, codec.name) for task in ("resynthesis", "separation", "whole")}
    assert unused.file_bitrate > bare.file_bitrate
    # What was kept is of another share, so it is not taken for this one.
    again = evaluate(codec, settings_for(root, limit=1, work=tmp_path))
    assert again.rows == one.rows


def test_progress_counts_the_tracks_and_then_the_clips_that_are_done(codec, root, tmp_path):
    told: list[tuple[str, float, float | None]] = []

    def progress(unit):
        return contextlib.nullcontext(lambda done, total: told.append((unit, done, total)))

    work = tmp_path / "work"
    evaluate(codec, settings_for(root, work=work, limit=1))
    evaluate(codec, settings_for(root, work=work), progress=progress)
    tracks = [entry for entry in told if entry[0] == "tracks"]
    assert tracks == [("tracks", number, len(tracks)) for number in range(1, len(tracks) + 1)]
    # The first clip's results are there already.
    assert told[len(tracks) :] == [("clips", 1, 2), ("clips", 2, 2)]


def test_what_a_model_shows_of_itself_is_counted(codec, result):
    # Each clip has two segments; every mixture, and three stems of each by themselves.
    assert [(row.signal, row.domain, row.num_segments) for row in result.activity] == [
        *(("mix", domain, 4) for domain in DOMAINS),
        *(("stem", domain, 12) for domain in DOMAINS),
    ]
    assert [use.domain for use in result.codebooks] == list(DOMAINS)
    found = {row.domain for row in result.activity if row.signal == "mix" and row.precision is not None}
    assert found
    for use in result.codebooks:
        assert len(use.perplexity) == 4
        assert all(1 <= value <= 64 for value in use.perplexity)
        # What is found in no mixture takes no entries.
        assert all((count == 64) == (use.domain not in found) for count in use.unused)
    assert result.file_bitrate is not None
    assert 1.0 < result.file_bitrate < 10.0
    assert [cost.system for cost in result.cost] == [codec.name, f"{codec.name} (random weights)"]
    assert all(cost.encode > 0 and cost.decode > 0 for cost in result.cost)
    assert {row.system for row in result.paper if row.table == "II"} == {"DAC", "SD-Codec", "TDANet"}
    assert {row.split for row in result.paper} == {"val"}


def test_the_cost_stands_beside_that_of_a_dac_of_the_papers_size():
    recipe = zoo.find(BASELINE).recipe
    assert (recipe.name, recipe.encoder.width, recipe.decoder.width) == ("dac-16k", 64, 1536)


def test_precision_and_recall_count_segments(codec):
    frames, length = 4 * SEGMENT_FRAMES, 4 * SEGMENT_FRAMES * codec.hop_length
    codes = codec.encode(np.random.default_rng(0).standard_normal(length) * 0.05, normalize=False)
    loud, silent = np.full(length, 0.1, dtype=np.float32), np.zeros(length, dtype=np.float32)
    half = np.where(np.arange(length) < length // 2, loud, silent)
    for domain, pattern in {"speech": [1, 1, 0, 0], "music": [1, 1, 1, 1], "sfx": [1, 0, 0, 0]}.items():
        codes.active[domain][0] = np.repeat(np.array(pattern, dtype=bool), frames // 4)
    rows = measure.activity(codec, codes, {"speech": half, "music": half, "sfx": half}, "clip", "mix")
    assert measure.COUNTS == ("rejected", "false", "missed", "right")
    assert [row.value for row in rows if row.stem == "speech"] == [2, 0, 0, 2]
    assert [row.value for row in rows if row.stem == "music"] == [0, 2, 0, 2]
    assert [row.value for row in rows if row.stem == "sfx"] == [2, 0, 1, 1]


def test_effort_counts_where_the_mix_is_wanted_and_leaves_masks_and_quantizers_alone(codec, root, one):
    plain, tried = one, evaluate(codec.at_effort(2), settings_for(root, limit=1))
    assert (plain.effort, tried.effort) == (0, 2)
    before, after = ({(r.task, r.stem, r.through): r for r in result.rows} for result in (plain, tried))
    assert before.keys() == after.keys()
    changed = {task for (task, *_), row in after.items() if row not in plain.rows}
    assert {"resynthesis", "whole"} <= changed <= {"resynthesis", "whole", "separation"}


def test_effort_is_that_of_all_models_and_measurements_at_another_are_kept_apart(codec, root, tmp_path, other):
    single_domain = dataclasses.replace(
        tiny_recipe(),
        name="single",
        model=dataclasses.replace(tiny_recipe().model, domains=("audio",), activity=False),
        mixing=dataclasses.replace(tiny_recipe().mixing, domains=DOMAINS),
    )
    single = write_tiny(tmp_path / "single", single_domain)
    work = tmp_path / "work"
    asked = settings_for(root, limit=1, against=(str(other), str(single)))
    plain = evaluate(codec, dataclasses.replace(asked, work=work))
    tried = evaluate(codec, dataclasses.replace(asked, effort=2))
    for system in ("other", "single"):
        before, after = (
            next(row for row in result.rows if (row.task, row.system, row.stem) == ("resynthesis", system, "mix"))
            for result in (plain, tried)
        )
        assert before.metrics["si_sdr"].mean != after.metrics["si_sdr"].mean
    assert evaluate(codec, dataclasses.replace(asked, work=work, effort=2)).rows == tried.rows


def test_codebooks_are_those_of_models_with_these_domains_and_leave_masks_alone(codec, root, other):
    half = codec.num_codebooks // 2
    asked = settings_for(root, limit=1, against=(str(other), "mixture"), envelope=None)
    full, tried = (evaluate(codec, dataclasses.replace(asked, codebooks=count)) for count in (None, half))
    assert (full.bitrate, tried.bitrate) == (codec.bitrate, codec.bitrate / 2)
    assert {len(use.perplexity) for use in tried.codebooks} == {len(use.unused) for use in tried.codebooks} == {half}
    assert tried.file_bitrate < 0.75 * full.file_bitrate
    before, after = ({(r.task, r.system, r.stem, r.through): r for r in result.rows} for result in (full, tried))
    assert before.keys() == after.keys()
    for system in (codec.name, "other"):
        changed = {key[0] for key, row in after.items() if key[1] == system and row.metrics != before[key].metrics}
        assert {"resynthesis", "separation"} <= changed <= {"resynthesis", "separation", "cross", "whole"}
    for key, row in after.items():
        assert row.bitrate is None or row.bitrate == pytest.approx(before[key].bitrate / 2)


def test_views_are_those_of_masks_alone_and_measurements_of_other_numbers_are_kept_apart(
    codec, root, tmp_path, other, beside
):
    asked = settings_for(root, limit=1, against=(str(other), "mixture"))
    work = tmp_path / "work"
    one, four = evaluate(codec, dataclasses.replace(asked, views=1, work=work)), beside
    assert (one.views, four.views) == (1, 4)
    before, after = ({(r.task, r.system, r.stem, r.through): r for r in result.rows} for result in (one, four))
    changed = {key[:2] for key, row in after.items() if row.metrics != before[key].metrics}
    assert changed == {("masked separation", codec.name), ("masked separation", "other")}
    assert evaluate(codec, dataclasses.replace(asked, work=work)).rows == four.rows
    with pytest.raises(ValueError, match="views must be a whole number from 1 to 16, got 17"):
        evaluate(codec, dataclasses.replace(asked, views=17))


def test_codebooks_that_a_model_does_not_have_are_refused_before_any_work(codec, root, tmp_path):
    with pytest.raises(ValueError, match="codebooks, not 100"):
        evaluate(codec, settings_for(root, codebooks=100))
    training = dataclasses.replace(tiny_recipe().training, quantizer_dropout=0.0)
    whole = write_tiny(tmp_path / "whole", dataclasses.replace(tiny_recipe(), name="whole", training=training), seed=1)
    asked = settings_for(root, codebooks=codec.num_codebooks // 2, envelope=None, against=(str(whole),))
    with pytest.raises(ModelError, match="^--against whole: whole was trained without quantizer dropout"):
        evaluate(codec, asked)


def test_what_was_measured_is_not_measured_again(codec, root, tmp_path, monkeypatch, result):
    work = tmp_path / "work"
    one = evaluate(codec, settings_for(root, work=work, limit=1))
    assert one.num_clips == 1
    measured = names_of_measured_clips(monkeypatch)
    both = evaluate(codec, settings_for(root, work=work))
    assert measured == ["0001-0.0"]
    assert both.rows == result.rows


def test_measurements_of_other_set_ups_stand_side_by_side_and_are_not_mixed(codec, root, tmp_path, monkeypatch):
    work, ways = tmp_path / "work", [(codec, ("mixture",)), (codec, ()), (codec.at_effort(1), ("mixture",))]
    expected = [evaluate(model, settings_for(root, limit=1, against=against)) for model, against in ways]
    measured = names_of_measured_clips(monkeypatch)
    for again in range(2):
        found = [evaluate(model, settings_for(root, limit=1, against=against, work=work)) for model, against in ways]
        assert [result.rows for result in found] == [result.rows for result in expected]
        assert measured == ["0000-0.0"] * 3, again
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: cannot be created: File exists; choose another --work"):
        evaluate(codec, settings_for(root, work=tmp_path / "file"))


def test_results_of_an_earlier_version_are_not_mixed_in(codec, root, tmp_path, monkeypatch, one):
    with monkeypatch.context() as patch:
        patch.setattr(measure, "__version__", "0.0.9")
        evaluate(codec, settings_for(root, work=tmp_path, limit=1))
    measured = names_of_measured_clips(monkeypatch)
    assert evaluate(codec, settings_for(root, work=tmp_path, limit=1)).rows == one.rows
    assert measured == ["0000-0.0"]


def test_results_without_what_is_measured_now_are_measured_again(codec, root, tmp_path, monkeypatch, result):
    """Levels of bands came later than the first evaluations that somebody may have kept."""
    work = tmp_path / "work"
    with monkeypatch.context() as patch:
        patch.setattr(measure, "LAYOUT", measure.LAYOUT - 1)
        patch.setattr(measure, "JUDGED", ())
        assert not any("band_bias" in row.metrics for row in evaluate(codec, settings_for(root, work=work)).rows)
    measured = names_of_measured_clips(monkeypatch)
    assert evaluate(codec, settings_for(root, work=work)).rows == result.rows
    assert measured == ["0000-0.0", "0001-0.0"]


def test_processes_share_the_clips(codec, root, tmp_path, monkeypatch, result):
    """As under torchrun, one after the other: the second collects what both have measured."""
    monkeypatch.setattr(
        "accelerate.PartialState", lambda cpu, timeout: type("State", (), {"wait_for_everyone": lambda self: None})()
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(OutputError, match="share their results through a folder; pass --work DIR"):
        evaluate(codec, settings_for(root))
    with pytest.raises(OutputError, match="lacks results of 0001-0.0"):  # the other one has not measured its share
        evaluate(codec, settings_for(root, work=tmp_path))
    monkeypatch.setenv("RANK", "1")
    together = evaluate(codec, settings_for(root, work=tmp_path))
    assert together.rows == result.rows


def test_a_broken_track_is_reported_and_skipped(codec, root, tmp_path):
    shutil.copytree(root, tmp_path / "dnr")
    (tmp_path / "dnr" / "cv" / "0001" / "sfx.wav").write_bytes(b"nonsense")
    result = evaluate(codec, settings_for(tmp_path / "dnr"))
    assert result.num_clips == 1
    assert len(result.failures) == 1
    assert "0001" in result.failures[0]


def test_tracks_of_silence_are_nothing_to_evaluate_on(codec, tmp_path):
    track = tmp_path / "cv" / "0000"
    track.mkdir(parents=True)
    for name in ("mix", *DOMAINS):
        soundfile.write(track / f"{name}.wav", np.zeros(5 * RATE), RATE)
    with pytest.raises(InputError, match="nothing to score in split val: 1 segments are left out, in which a track is"):
        evaluate(codec, settings_for(tmp_path))


def test_what_is_wrong_with_all_tracks_is_said(codec, root, tmp_path):
    shutil.copytree(root, tmp_path / "dnr")
    for track in ("0000", "0001"):
        (tmp_path / "dnr" / "cv" / track / "mix.wav").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"nothing to score in split val: .*0000.mix.wav: .* \(and 1 more\)"):
        evaluate(codec, settings_for(tmp_path / "dnr"))


def test_a_track_that_lacks_a_stem_or_is_too_short_is_reported(codec, root, tmp_path):
    shutil.copytree(root, tmp_path / "dnr")
    (tmp_path / "dnr" / "cv" / "0001" / "sfx.wav").unlink()
    short = tmp_path / "dnr" / "cv" / "0002"
    short.mkdir()
    for name in ("mix", *DOMAINS):
        soundfile.write(short / f"{name}.wav", 0.1 * np.ones(800), RATE)
    result = evaluate(codec, settings_for(tmp_path / "dnr"))
    assert result.num_clips == 1
    assert [failure.split(": ")[1] for failure in result.failures] == [
        "has no sfx.wav; restore the track",
        "has 0.05 s of sound, and clips need 0.5 s; leave it out",
    ]


class Halving:
    """A system whose output is 6 dB too quiet."""

    name = identity = "halving"

    def resynthesize(self, wav, sample_rate, domain=None):
        return wav / 2, 1.0


def test_levels_of_bands_are_measured_wherever_something_is_resynthesized_or_separated(codec, root, monkeypatch):
    monkeypatch.setattr(evaluation, "find_system", lambda *_, **__: Halving())
    result = evaluate(codec, settings_for(root, envelope=None))  # of about the bitrate of the other system
    assert len(result.band_edges) == 22
    for row in result.rows:
        if row.task in ("cross", "whole"):
            assert (row.band_bias, row.band_spread) == (None, None)
            assert not {"band_bias", "band_spread"} & row.metrics.keys()
        else:
            assert len(row.band_bias) == len(row.band_spread) == 21
            for metric, bands in (("band_bias", row.band_bias), ("band_spread", row.band_spread)):
                assert row.metrics[metric].mean == pytest.approx(np.mean(bands[9:]))  # those above 1 kHz
        if row.system == "halving" and row.stem == "sfx":  # noise in all bands
            np.testing.assert_allclose(row.band_bias, 20 * np.log10(0.5), atol=0.01)
            np.testing.assert_allclose(row.band_spread, 0.0, atol=0.01)
    (table,) = (table for table in tables(result) if "Resynthesis" in table.title)
    (quiet,) = (row for row in table.rows if row[:2] == ("sfx", "halving"))
    assert quiet[table.heads.index("bias >1 kHz, dB")] == "-6.02 ± 0.00"
    assert "lower is better for mel, STFT, spread >1 kHz; 0 is best for bias >1 kHz" in table.note


class Failing:
    """A system that cannot code what is loud, at first."""

    name = identity = "failing"
    well = False

    def resynthesize(self, wav, sample_rate, domain=None):
        if np.abs(wav).max() > 0.15 and not self.well:
            raise SdcError("ffmpeg: failed: out of luck; leave opus out")
        return wav, 1.0


def test_a_system_that_fails_costs_a_clip_which_is_measured_again_and_the_report_is_of_the_others(
    codec, root, tmp_path, monkeypatch
):
    system = Failing()
    monkeypatch.setattr(evaluation, "find_system", lambda *_, **__: system)
    settings = settings_for(root, work=tmp_path / "work", report=tmp_path / "pages", overwrite=True, examples=1)
    result = evaluate(codec, settings)
    assert (result.num_clips, len(result.failures)) == (1, 1)
    assert "0000: ffmpeg: failed: out of luck" in result.failures[0]
    assert "clip 0001-0.0" in (tmp_path / "pages" / "index.html").read_text(encoding="utf-8")
    system.well = True
    measured = names_of_measured_clips(monkeypatch)
    again = evaluate(codec, dataclasses.replace(settings, report=None))
    assert (again.num_clips, again.failures, measured) == (2, (), ["0000-0.0"])
    # The model under test stands before systems that only code.
    speech = dict.fromkeys((row.task, row.system) for row in again.rows if row.stem == "speech")
    assert list(speech)[-3:] == [("cross", codec.name), ("whole", codec.name), ("resynthesis", "failing")]


def test_visqol_that_ends_is_no_failure_of_the_clips(codec, root, tmp_path, monkeypatch):
    class Ended:
        def __init__(self, work: object, jobs: int) -> None:
            pass

        def __enter__(self):
            return self

        def __exit__(self, *rest: object) -> None:
            pass

        def submit(self, task: object) -> None:
            raise InputError("a worker process was killed")

    monkeypatch.setattr(measure, "ProcessPool", Ended)
    monkeypatch.setattr("sdcodec_cli.engine.evaluate.visqol.available", lambda: None)
    with pytest.raises(InputError, match="was killed"):
        evaluate(codec, settings_for(root, work=tmp_path / "work", visqol="speech"))
    assert list((tmp_path / "work").glob("clip-*")) == []


def test_results_are_kept_for_the_files_they_are_of_wherever_those_are(codec, root, tmp_path, monkeypatch):
    measured = names_of_measured_clips(monkeypatch)
    work = tmp_path / "work"
    shutil.copytree(root, tmp_path / "dnr")  # with the times of its files
    evaluate(codec, settings_for(tmp_path / "dnr", work=work))
    (tmp_path / "dnr").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    evaluate(codec, settings_for(Path("moved"), work=work))
    assert measured == ["0000-0.0", "0001-0.0"]
    music = tmp_path / "moved" / "cv" / "0000" / "music.wav"
    soundfile.write(music, soundfile.read(music)[0] * 0.5, RATE, subtype="FLOAT")
    next(path for path in work.glob("clip-*") if '"0001-0.0"' in path.read_text()).write_text("{")
    evaluate(codec, settings_for(Path("moved"), work=work))
    assert measured[2:] == ["0000-0.0", "0001-0.0"]  # one has changed, and the results of the other are damaged


def test_models_of_one_name_have_rows_of_their_own_and_a_system_is_measured_once(codec, folder, root, tmp_path):
    others = [write_tiny(tmp_path / name / "model", tiny_recipe(), seed=seed) for seed, name in enumerate("ab", 1)]
    names = tuple(map(str, (*others, folder, others[0])))
    result = evaluate(codec, settings_for(root, limit=1, against=names))
    # As much of their paths as it takes.
    assert {row.system for row in result.rows} == {codec.name, f"{codec.name} (model)", f"{codec.name} (b/model)"}
    assert all(row.metrics["si_sdr"].num_clips == 1 for row in result.rows)
    assert result.notes == tuple(f"{name} is there already, and is measured once" for name in names[2:])


def test_a_listening_test_without_room_for_its_anchor_is_refused_at_once(root, tmp_path):
    recipe = dataclasses.replace(tiny_recipe(), model=dataclasses.replace(tiny_recipe().model, sample_rate=8000))
    codec = load_codec(write_tiny(tmp_path / "slow", recipe), device="cpu")
    request = settings_for(root, report=tmp_path / "pages", mushra=True, work=tmp_path / "work")
    with pytest.raises(InputError, match="--mushra: the low anchor of a listening test needs a sample rate above 8000"):
        evaluate(codec, request)
    assert not (tmp_path / "work").exists()


def test_a_model_of_another_rate_only_codes(codec, root, tmp_path):
    recipe = dataclasses.replace(
        tiny_recipe(), name="slow", model=dataclasses.replace(tiny_recipe().model, sample_rate=8000)
    )
    other = write_tiny(tmp_path / "slow", recipe, seed=1)
    table = cells(evaluate(codec, settings_for(root, limit=1, against=(str(other),))))
    assert {task for task, system, _, _ in table if system == "slow"} == {"resynthesis"}


def test_a_report_that_cannot_be_written_is_refused_at_once_and_numbers_come_before_pages(
    codec, root, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "measure", lambda *args, **kwargs: pytest.fail("measured"))
        with pytest.raises(OutputError, match="file: cannot be created: File exists; choose another --report"):
            evaluate(codec, settings_for(root, report=tmp_path / "file"))

    def full(*args, **kwargs):
        raise OutputError("disk full")

    monkeypatch.setattr(evaluation, "write_report", full)
    monkeypatch.setattr(evaluation, "examples", lambda *args: [])
    results: list[EvalResult] = []
    with pytest.raises(OutputError, match="disk full"):
        evaluate(codec, settings_for(root, limit=1, report=tmp_path / "report"), finished=results.append)
    assert [result.num_clips for result in results] == [1]


def test_the_best_is_the_best_of_its_bitrate(result):
    row = next(row for row in result.rows if (row.task, row.stem) == ("resynthesis", "speech"))

    def rival(system: str, bitrate: float, score: float):
        found = dataclasses.replace(row.metrics["si_sdr"], mean=score)
        return dataclasses.replace(row, system=system, bitrate=bitrate, metrics={"si_sdr": found})

    assert row.bitrate is not None
    rivals = (rival("ours", 6.0, 5.0), rival("same", 5.5, 4.0), rival("three times", 18.0, 20.0))
    (table,) = (table for table in tables(dataclasses.replace(result, rows=rivals)) if "Resynthesis" in table.title)
    assert [row[1] for row in table.rows][:3] == ["ours", "same", "three times"]
    assert (table.best, table.paper) == ({(0, 2)}, {3, 4})


@pytest.mark.parametrize("columns", [60, 80, 100, 120, 200])
def test_tables_fit_any_terminal_and_say_what_they_leave_out(result, monkeypatch, capsys, columns):
    from sdcodec_cli.cli.eval import _show

    wide = dataclasses.replace(
        result,
        rows=tuple(
            dataclasses.replace(
                row, metrics={**row.metrics, "visqol_speech": row.metrics["si_sdr"], "visqol_audio": row.metrics["mel"]}
            )
            for row in result.rows
        ),
    )
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    _show(wide)
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in capsys.readouterr().out.splitlines()]
    found = [line for line in lines if "SI-SDR, dB  " in line or line.startswith(("mix ", "speech ", "music ", "sfx "))]
    assert [line for line in found if len(line) > columns] == []
    shown = " ".join(lines)
    for row in result.rows:
        if row.task == "separation":
            assert f"{row.metrics['si_sdr'].mean:.2f}" in shown
    assert ("not enough room for" in shown) == (columns <= 100)


@pytest.mark.skipif(
    shutil.which("opusenc") is None and shutil.which("ffmpeg") is None, reason="needs ffmpeg or opusenc"
)
def test_opus_and_another_model_stand_beside_it(codec, root, other):
    request = settings_for(root, limit=1, against=("mixture", "opus:18", str(other)))
    table = cells(evaluate(codec, request))
    assert table["resynthesis", "opus 18", "speech", None] > 10  # a tone survives Opus, but only if it is in time
    assert ("resynthesis", "opus 18", "mix", None) in table
    # Another codec with the same domains also separates.
    assert ("masked separation", "other", "music", None) in table
    assert not any(system == "other" for task, system, _, _ in table if task == "cross")


def test_a_system_that_is_missing_is_an_error_only_if_it_was_asked_for(codec, root, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    request = settings_for(root, limit=1, against=("mixture", "opus:18"))
    with pytest.raises(ModelError, match="opus"):
        evaluate(codec, request)
    result = evaluate(codec, dataclasses.replace(request, all_needed=False))
    assert any(note.startswith("opus:18 is left out") for note in result.notes)
    assert not any("opus" in row.system for row in result.rows)


def test_without_visqol_the_rest_is_measured_and_a_line_says_what_to_install(codec, root, monkeypatch):
    monkeypatch.setattr(visqol, "available", lambda: "install it with pip install '.[eval]' in the clone")
    result = evaluate(codec, settings_for(root, limit=1, visqol="auto"))
    assert result.notes == ("no ViSQOL: install it with pip install '.[eval]' in the clone",)
    assert not any("visqol_speech" in row.metrics for row in result.rows)


@pytest.mark.skipif(visqol.available() is not None, reason="needs the extra [eval]")
def test_visqol_stands_in_the_table(codec, root):
    result = evaluate(codec, settings_for(root, limit=1, visqol="speech"))
    rows = {(row.task, row.system, row.stem): row.metrics for row in result.rows}
    score = rows["separation", "mixture", "speech"]["visqol_speech"]
    assert score.mean is not None
    assert 1 <= score.mean <= 5
    assert "visqol_speech" not in rows["whole", codec.name, "speech"]


@pytest.mark.skipif(available("estoi") is not None, reason="needs pystoi")
def test_scores_of_speech_stand_in_its_rows_and_what_has_none_is_counted(codec, root, tmp_path):
    shutil.copytree(root, tmp_path / "dnr")
    speech = tmp_path / "dnr" / "cv" / "0001" / "speech.wav"
    wav, _ = soundfile.read(speech)
    wav[3000:] *= 1e-4  # a word, and then nothing that ESTOI would hear
    soundfile.write(speech, wav, RATE, subtype="FLOAT")
    result = evaluate(codec, settings_for(tmp_path / "dnr", speech=("estoi",)))
    assert result.speech == ("estoi",)
    with_scores = {(row.task, row.stem) for row in result.rows if "estoi" in row.metrics}
    assert with_scores == {(task, "speech") for task in ("resynthesis", "separation", "masked separation")}
    for row in result.rows:
        if "estoi" in row.metrics:
            assert (row.metrics["estoi"].num_clips, row.metrics["estoi"].reason) == (1, "too_little_speech")
    assert result.notes == ("ESTOI: no value for 4 of 8 estimates: too little speech (4)",)


def test_a_report_and_a_listening_test_are_written_beside_the_tables(codec, root, tmp_path, one):
    pages = tmp_path / "report"
    settings = settings_for(root, limit=1, report=pages, mushra=True, examples=1)
    assert evaluate(codec, settings).rows == one.rows
    text = (pages / "index.html").read_text(encoding="utf-8")
    assert f"{codec.name} on {root.name}, val" in text
    for heading in (
        "Resynthesis",
        "Separation by masks",
        "Each stem through each quantizer",
        "Codebook use",
        "What it takes",
    ):
        assert heading in text
    mixture = next(row for row in one.rows if (row.task, row.system, row.stem) == ("separation", "mixture", "music"))
    assert f"{mixture.metrics['si_sdr'].mean:.2f}" in text
    assert (pages / "mushra.html").stat().st_size > 10_000
    with pytest.raises(OutputError, match="exists; pass --force"):
        evaluate(codec, settings)


def test_the_command_prints_tables_and_json(folder, root, one):
    command = ["eval", "--data-root", root, "--dnr", "val", "--limit", "1", "--model", folder, "--visqol", "off"]
    command += ["--speech", "none", "--against", "mixture", "--device", "cpu"]
    shown = sdc(*command)
    assert shown.exit_code == 0, shown.stderr
    single = "those of the paper of one (--views 1)"
    for text in (
        "Separation by masks on the mixture, or by a network made for it",
        "SD-Codec, paper",
        "Each stem through each quantizer",
        "perplexity of codebooks",
        "kbit/s",
        "effort 0, views 4, ",
        f"Masks are the mean over 4 views, {single}",
    ):
        assert text in shown.stdout
    assert not any(single in table.note for table in tables(dataclasses.replace(one, views=1)))
    found = json.loads(sdc(*command, "--json").stdout)
    assert (found["split"], found["protocol"], found["num_clips"], found["views"]) == ("val", "paper", 1, 4)
    assert found["rows"] == json.loads(json.dumps([dataclasses.asdict(row) for row in one.rows]))


def test_wrong_requests_are_one_line(folder, root, tmp_path):
    (line,) = errors(sdc("eval", "--data-root", str(root), "--mushra"), exit_code=2)
    assert line == "--mushra needs a place to go; pass --report DIR"
    (line,) = errors(sdc("eval", "--data-root", root, "--examples", "2"), exit_code=2)
    assert line == "--examples are of the report; pass --report DIR"
    for asked, wrong in ((("loud",), "loud"), (("none", "pesq"), "none")):
        options = [option for name in asked for option in ("--speech", name)]
        (line,) = errors(sdc("eval", "--data-root", root, *options), exit_code=2)
        assert line == f"--speech {wrong}: give pesq, estoi or dnsmos, several of them, or none alone"
    (line,) = errors(sdc("eval", "--data-root", str(tmp_path), "--model", str(folder), "--device", "cpu"))
    assert "tt: no tracks" in line


def test_a_benchmark_gives_speeds_and_what_each_part_takes_beside_the_same_in_torch(codec):
    result = bench(codec.at_effort(2), seconds=2.0, repeats=1)
    for value in (result.encode, result.decode_mix, result.decode_one, result.decode_all, result.separate):
        assert value > 0
    assert result.effort == 2
    assert result.encode_refined > 0
    plain = bench(codec.at_effort(0), seconds=1.0, repeats=1)
    assert plain.encode_refined == plain.encode_enveloped > 0
    assert [part.part for part in plain.parts] == [part.part for part in result.parts]
    assert all(part.seconds > 0 and part.torch_seconds is None for part in plain.parts)
    beside = bench(codec.at_effort(0), in_torch=codec, seconds=1.0, repeats=1)
    assert all(part.torch_seconds > 0 for part in beside.parts)


def test_a_benchmark_counts_the_best_of_several_times_against_the_length_of_the_signal(codec, monkeypatch):
    # Of 2 s: encoding in 1 and 0.5 s, with an envelope in 4 and 2, the mix in 2 and 4, one stem in 1, all stems in
    # 0.25; then all else in 1 s each.
    took = itertools.chain((1, 0.5, 4, 2, 2, 4, 1, 1, 0.25, 0.25), itertools.repeat(1))
    clock = itertools.accumulate(itertools.chain.from_iterable((0.0, seconds) for seconds in took))
    monkeypatch.setattr("sdcodec_cli.engine.bench.time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    result = bench(codec.at_effort(0), seconds=2.0, repeats=2)
    assert (result.encode, result.decode_mix, result.decode_one, result.decode_all) == (4, 1, 2, 8)
    assert (result.encode_enveloped, result.encode_refined, result.separate) == (1, 1, 2)
    assert {part.seconds for part in result.parts} == {1}
