"""`sdc eval --task decodec`: mixtures of known ratios, and what systems whose answers are known score on them."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from speech_examples import small_codec

from sdcodec_cli import load_codec
from sdcodec_cli.cli import eval as command_line
from sdcodec_cli.data.scan import scan
from sdcodec_cli.engine.evaluate import evaluation, noisy, settings
from sdcodec_cli.engine.evaluate.evaluation import evaluate
from sdcodec_cli.engine.evaluate.judges import asked_of_voices, resolved
from sdcodec_cli.engine.evaluate.measure import conversion, measure
from sdcodec_cli.engine.evaluate.paper import decodec_rows
from sdcodec_cli.engine.evaluate.protocol import Clip
from sdcodec_cli.engine.evaluate.score import EvalResult, summarize
from sdcodec_cli.engine.evaluate.settings import Settings
from sdcodec_cli.engine.evaluate.speech import available
from sdcodec_cli.engine.evaluate.tables import tables
from sdcodec_cli.engine.evaluate.voices import METRICS
from sdcodec_cli.engine.metrics import sdr
from sdcodec_cli.engine.systems import (
    Enhanced,
    Enhances,
    Exchanged,
    Resynthesis,
    Separates,
    SeparatingCodec,
    find_system,
)
from sdcodec_cli.engine.voice import convert_voice
from sdcodec_cli.errors import InputError, ModelError

from cli_examples import errors, sdc
from tiny_models import tiny_bands, tiny_recipe, tiny_separator, write_tiny

RATE = 16_000


def noise(seconds: float, seed: int, level: float = 0.05, rate: int = RATE) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def write(path: Path, wav: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, rate, subtype="FLOAT")
    return path


def power(wav: np.ndarray) -> float:
    return float(np.square(wav, dtype=np.float64).mean())


def settings_for(root: Path, **changes) -> Settings:
    plain = {"data_root": root, "split": "test", "task": "decodec", "visqol": "off", "speech": (), "device": "cpu"}
    return Settings(**{**plain, "views": 1, "snrs": (0.0,), "reverberation": False, **changes})


def planned(root: Path, **changes):
    """Mixtures, split, reports and notes."""
    reports: list[str] = []
    notes: list[str] = []
    plans, split = noisy.plan(settings_for(root, **changes), RATE, report=reports.append, note=notes.append)
    return plans, split, reports, notes


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two seconds of speech, or what stands for it, in two files; and backgrounds, some shorter and of another rate."""
    root = tmp_path_factory.mktemp("corpus")
    for index in range(2):
        write(root / "speech" / f"{index}.wav", noise(1.0, index))
        write(root / "sfx" / f"{index}.wav", noise(0.3, 10 + index, rate=22_050), 22_050)
    write(root / "music" / "0.wav", noise(3.0, 20))
    return root


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    return small_codec("three", tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="module")
def two_domains(tmp_path_factory) -> Path:
    small_codec("decodec", tmp_path_factory.mktemp("two"))
    return next(tmp_path_factory.getbasetemp().glob("two*/decodec"))


class Known:
    """A system that knows what is at the front, halves it where it codes, and leaves a tenth of the background."""

    name = identity = "known"
    exchanged: Exchanged | None = None

    def __init__(self, speech: np.ndarray) -> None:
        self.speech = speech

    def resynthesize(self, wav, sample_rate, domain=None):
        return Resynthesis(wav / 2, 6.0)

    def enhance(self, mix, sample_rate):
        scale = (mix @ self.speech) / (self.speech @ self.speech)
        speech = np.float32(scale) * self.speech
        return {"enhancement": Enhanced(speech + 0.1 * (mix - speech), 0.9 * (mix - speech))}

    def exchange(self, mix, other, sample_rate):
        if self.exchanged is None:
            raise InputError("nothing in it")
        return self.exchanged


def means(result: EvalResult, task: str, system: str, stem: str, condition: str) -> dict[str, float | None]:
    (row,) = (
        row for row in result.rows if (row.task, row.system, row.stem, row.condition) == (task, system, stem, condition)
    )
    return {metric: found.mean for metric, found in row.metrics.items()}


# --- mixtures


def test_a_room_is_direct_sound_and_noise_that_decays_and_another_one_for_every_seed():
    response = noisy.room(RATE, 3)
    np.testing.assert_array_equal(response, noisy.room(RATE, 3))
    assert response[0] == 1
    gap = round(noisy.GAP_SECONDS * RATE)
    assert not response[1:gap].any()
    assert 0.2 * RATE <= len(response) - 1 <= 0.8 * RATE
    direct = 10 * np.log10(1 / np.square(response[1:]).sum())
    assert noisy.DIRECT_DB[0] <= direct <= noisy.DIRECT_DB[1]
    # 60 dB over all of it, so 30 dB from the first quarter to the third.
    quarters = [10 * np.log10(power(quarter)) for quarter in np.array_split(response[1 + gap :], 4)]
    assert quarters[0] - quarters[2] == pytest.approx(30, abs=3)
    wav = noise(1.0, 0)
    heard = noisy.reverberant(wav, RATE, 3)
    assert len(heard) == len(wav)
    assert power(heard) == pytest.approx(power(wav), rel=1e-4)
    full = np.convolve(wav, response)[: len(wav)]
    assert sdr(heard / heard.std(), full / full.std()) > 60
    assert not np.array_equal(noisy.room(RATE, 4)[:4000], response[:4000])


def test_every_clip_of_speech_is_heard_alone_and_at_every_ratio_dry_and_in_a_room(root):
    plans, split, reports, notes = planned(root, snrs=(-5.0, 20.0), reverberation=True)
    conditions = ["-5 dB", "20 dB", "-5 dB, reverberant", "20 dB, reverberant", "clean"]
    assert [plan.condition for plan in plans] == 2 * conditions
    assert (split, reports, notes, len({plan.identity for plan in plans})) == (None, [], [], 10)
    for plan in plans:
        clip = plan.load()
        assert (clip.name, clip.condition) == (f"{plan.speech.name}, {plan.condition}", plan.condition)
        assert len(clip.mix) == RATE
        assert np.abs(clip.mix).max() <= 1
        if plan.snr is None:
            np.testing.assert_array_equal(clip.mix, plan.speech.load().mix)
            assert list(clip.stems) == ["speech"]
            continue
        speech, background = clip.stems["speech"], clip.stems["background"]
        np.testing.assert_allclose(clip.mix, speech + background, atol=1e-6)
        assert 10 * np.log10(power(speech) / power(background)) == pytest.approx(plan.snr, abs=1e-3)
        # Short sounds follow one another until there is no gap at the end.
        assert all(power(piece) > 0 for piece in np.array_split(background, 10))
        assert (clip.other is not None) == (plan.room is None)
    dry, reverberant = plans[0].load().stems["speech"], plans[2].load().stems["speech"]
    assert not np.allclose(dry, reverberant, atol=1e-3)
    again = planned(root, snrs=(-5.0, 20.0), reverberation=True)[0]
    assert again == plans
    heard = noisy.to_hear(plans, settings_for(root, snrs=(-5.0, 20.0), reverberation=True))
    assert [plan.condition for plan in heard] == ["-5 dB", "20 dB"]
    assert heard[0].speech != heard[1].speech


def test_speech_of_a_track_has_its_other_stems_behind_it(tmp_path):
    stems = {"speech": 1, "music": 2, "sfx": 3}
    for track in range(2):
        wavs = {name: noise(1.0, 10 * track + seed) for name, seed in stems.items()}
        for name, wav in {"mix": sum(wavs.values()), **wavs}.items():
            write(tmp_path / "tt" / f"{track:04d}" / f"{name}.wav", wav)
    plans, split, *_ = planned(tmp_path, snrs=(5.0,))
    assert (split, [plan.name for plan in plans][:2]) == (
        "test",
        [f"0000/speech.wav-0.0, {c}" for c in ("5 dB", "clean")],
    )
    clip = plans[0].load()
    behind = noise(1.0, 2) + noise(1.0, 3)
    np.testing.assert_allclose(clip.stems["speech"], noise(1.0, 1), atol=1e-6)
    np.testing.assert_allclose(clip.stems["background"], noisy.at_ratio(noise(1.0, 1), behind, 5.0), atol=1e-6)
    np.testing.assert_allclose(clip.other, noise(1.0, 12) + noise(1.0, 13), atol=1e-6)
    for track in range(2):
        (tmp_path / "tt" / f"{track:04d}" / "music.wav").unlink()
        (tmp_path / "tt" / f"{track:04d}" / "sfx.wav").unlink()
    with pytest.raises(InputError, match="0000: has nothing but speech; it needs a background, such as music.wav"):
        planned(tmp_path)


def test_speech_and_backgrounds_are_found_by_folders_or_by_a_manifest_and_split(tmp_path):
    for split in ("valid", "test"):
        write(tmp_path / split / "speech" / "a.wav", noise(0.6, 0))
        write(tmp_path / split / "background" / "b.wav", noise(1.0, 1))
    for name, split in (("val", "valid"), ("test", "test")):
        (plan, _), found, *_ = planned(tmp_path, split=name)
        assert (found, plan.speech.file) == (split, f"{split}/speech/a.wav")
        assert plan.layers[0][0].file == f"{split}/background/b.wav"
    scan(tmp_path, tmp_path / "list.parquet", domains=("speech", "background"), jobs=1, measure=False)
    assert planned(tmp_path / "list.parquet", split="val")[0][0].speech.file == "valid/speech/a.wav"
    with pytest.raises(InputError, match="has no train split, only test, valid"):
        planned(tmp_path, split="train")


def test_what_cannot_be_used_is_left_out_and_told(tmp_path):
    write(tmp_path / "speech" / "short.wav", noise(0.3, 0))
    write(tmp_path / "speech" / "silent.wav", 0 * noise(1.0, 0))
    write(tmp_path / "speech" / "good.wav", noise(1.0, 0))
    (tmp_path / "speech" / "broken.wav").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="has no sfx or music or background; add some"):
        planned(tmp_path)
    write(tmp_path / "sfx" / "silent.wav", 0 * noise(1.0, 0))
    with pytest.raises(InputError, match="backgrounds in a row were silent or damaged; check its files"):
        planned(tmp_path)
    write(tmp_path / "sfx" / "good.wav", noise(1.0, 0))
    plans, _, reports, notes = planned(tmp_path)
    assert {plan.speech.file for plan in plans} == {"speech/good.wav"}
    assert plans[0].layers[0][0].file == "sfx/good.wav"
    assert ["broken.wav: " in line for line in reports] == [True]
    assert notes == ["2 files of speech are left out, which are silent or have less than 0.5 s"]
    with pytest.raises(ValueError, match="snr must be from -40 to 100 dB, got 200"):
        settings_for(tmp_path, snrs=(200.0,))
    with pytest.raises(ValueError, match="at least one ratio of speech to background, and each of them once"):
        settings_for(tmp_path, snrs=(5.0, 5.0))


# --- systems


def test_codes_of_silence_take_the_place_of_those_of_the_background(codec):
    system = SeparatingCodec(codec, views=1, share=None)
    mix = noise(1.0, 0)
    codes = codec.encode(mix, envelope=False)
    silent = codec.encode(np.zeros_like(mix), active=codec.domains, envelope=False)
    found = system._with_silence(codes)
    np.testing.assert_array_equal(found.codes["speech"], codes.codes["speech"])
    for domain in ("music", "sfx"):
        np.testing.assert_array_equal(found.codes[domain], silent.codes[domain])
        assert found.active[domain].all()
    enhanced = system.enhance(mix, RATE)
    np.testing.assert_array_equal(enhanced["enhancement"].speech, codec.decode(codes, stem="speech"))
    np.testing.assert_array_equal(enhanced["enhancement"].background, codec.decode(codes, stem="music+sfx"))
    np.testing.assert_array_equal(enhanced["enhancement with silence"].speech, codec.decode(found))
    assert enhanced["masked enhancement"].speech.shape == mix.shape


def test_an_exchanged_background_is_that_of_the_file_that_is_written(codec):
    system = SeparatingCodec(codec, views=1)
    mix, other = noise(2.0, 0), noise(1.0, 1)
    found = system.exchange(mix, other, RATE)
    assert {len(wav) for wav in found} == {len(mix)}
    codes = codec.at_effort(0).encode(mix)
    np.testing.assert_allclose(found.speech_before, codec.decode(codes, stem="speech"), atol=1e-5)
    assert not np.array_equal(found.background, found.background_before)


def test_a_separator_of_other_domains_finds_speech_by_what_it_puts_out(root, tmp_path):
    folder = write_tiny(tmp_path / "separator", tiny_separator())
    beside = SimpleNamespace(domains=("speech", "background"), sample_rate=RATE)
    system = find_system(str(folder), beside, settings_for(root))
    mix = noise(1.0, 0)
    ((way, found),) = system.enhance(mix, RATE).items()
    assert (way, found.background) == ("masked enhancement", None)
    np.testing.assert_array_equal(found.speech, system.separate(mix, RATE)["masked separation"]["speech"])
    with pytest.raises(ModelError, match="it finds speech, music, sfx; leave it out"):
        find_system(str(folder), beside, settings_for(root, task="dnr"))


def test_a_model_of_bands_without_speech_only_codes(root, tmp_path):
    folder = write_tiny(tmp_path / "bands", tiny_bands())
    beside = SimpleNamespace(domains=("speech", "background"), sample_rate=RATE)
    for task in ("decodec", "dnr", "bands"):
        assert not isinstance(find_system(str(folder), beside, settings_for(root, task=task)), Separates | Enhances)


# --- tables


@pytest.fixture(scope="module")
def known(root) -> Known:
    return Known(planned(root)[0][0].speech.load().mix)


@pytest.fixture(scope="module")
def result(codec, two_domains, root, known) -> EvalResult:
    """Of one clip at 0 and 10 dB: models of three domains and of two, a system whose scores are known, the mixture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            evaluation, "find_system", lambda name, *rest: known if name == "known" else find_system(name, *rest)
        )
        asked = settings_for(root, snrs=(0.0, 10.0), limit=1, against=("known", str(two_domains), "mixture"))
        return evaluate(codec, asked)


def test_models_of_two_domains_and_of_three_are_measured_on_speech_against_all_else(codec, result):
    assert (result.num_clips, result.failures, result.cost, result.codebooks) == (3, (), (), ())
    ways = {row.task for row in result.rows if row.system == codec.name}
    assert ways == {
        *("reconstruction", "enhancement", "enhancement with silence", "masked enhancement", "exchange"),
    }
    for system in (codec.name, "tiny-decodec"):
        found = {(r.task, r.stem, r.condition) for r in result.rows if r.system == system}
        assert {condition for _, _, condition in found} == {"noisy", "0 dB", "10 dB", "clean"}
        assert ("enhancement", "background", "clean") not in found
        assert ("exchange", "background", "noisy") in found
        assert ("reconstruction", "speech", "clean") in found
    (clean,) = (r for r in result.rows if (r.task, r.system, r.condition) == ("reconstruction", codec.name, "clean"))
    (mixed,) = (r for r in result.rows if (r.task, r.system, r.condition) == ("reconstruction", codec.name, "noisy"))
    assert clean.bitrate is not None
    assert mixed.metrics["sdr"].num_clips == 2


def test_scores_are_what_arithmetic_says(result):
    for snr in (0.0, 10.0):
        assert means(result, "enhancement", "mixture", "speech", f"{snr:g} dB")["sdr"] == pytest.approx(snr, abs=1e-3)
        # Both are noise, which is not quite orthogonal.
        enhanced = means(result, "enhancement", "known", "speech", f"{snr:g} dB")
        assert enhanced["si_sdr"] == pytest.approx(snr + 20, abs=0.5)
    assert means(result, "enhancement", "mixture", "speech", "noisy")["sdr"] == pytest.approx(5.0, abs=1e-3)
    half = means(result, "reconstruction", "known", "speech", "clean")
    assert half["sdr"] == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert half["si_sdr"] > 60
    assert means(result, "enhancement", "known", "background", "10 dB")["sdr"] == pytest.approx(20, abs=1)


def test_what_cannot_be_exchanged_has_no_value_and_a_reason(codec, root, known, result):
    (row,) = (
        r for r in result.rows if (r.task, r.system, r.stem, r.condition) == ("exchange", "known", "speech", "0 dB")
    )
    assert (row.metrics["kept"].mean, row.metrics["kept"].reason) == (None, "nothing_to_exchange")


def test_levels_of_an_exchange_are_against_the_old_background_as_decoded_and_as_recorded(codec, root, monkeypatch):
    clip = planned(root)[0][0].load()
    speech, behind = clip.stems["speech"], clip.stems["background"]
    system = Known(speech)
    system.exchanged = Exchanged(speech, 0.9 * speech, behind / 2, behind / 2 * np.float32(10**0.1))
    monkeypatch.setattr(evaluation, "find_system", lambda *_: system)
    found = evaluate(codec, settings_for(root, limit=1, against=("known",)))
    speech_of, behind_of = (means(found, "exchange", "known", stem, "0 dB") for stem in ("speech", "background"))
    assert speech_of == {"sdr": pytest.approx(20, abs=1e-3), "kept": pytest.approx(20, abs=1e-3)}
    assert behind_of["level"] == pytest.approx(2.0, abs=0.01)
    assert behind_of["level_recorded"] == pytest.approx(2 - 20 * np.log10(2), abs=0.01)
    table = tables(found)[-1]
    (line,) = (row for row in table.rows if row[:2] == ("0 dB", "known"))
    assert line[2:] == ("20.00", "20.00", "2.00", "-4.02")


def test_the_papers_rows_stand_beside_ours(codec, result):
    assert {row.table for row in decodec_rows()} == {"decodec"}
    shown = {table.title: table for table in tables(result)}
    assert list(shown) == [
        "Speech, clean and noisy, coded whole",
        "Stems straight from the decoder",
        "Speech without its background",
        "Background exchanged",
    ]

    def paper(title: str, label: str, system: str, *heads: str) -> list[str]:
        table = shown[title]
        ((index, row),) = ((at, row) for at, row in enumerate(table.rows) if row[:2] == (label, system))
        assert index in table.paper
        return [row[table.heads.index(head)] for head in heads]

    assert paper("Speech, clean and noisy, coded whole", "clean", "DeCodec", "SDR, dB", "mel", "kbit/s") == [
        *("7.61", "0.89", "8.00"),
    ]
    assert paper("Stems straight from the decoder", "background", "SOP and swap", "SDR, dB") == ["0.49"]
    enhanced = shown["Speech without its background"]
    assert {row[0] for row in enhanced.rows} == {"noisy", "0 dB", "10 dB", "clean"}
    assert {f"{codec.name}{way}" for way in ("", ", with silence", ", masked")} <= {row[1] for row in enhanced.rows}
    # Nothing is the best at clean speech, which is its own reference.
    assert not any(enhanced.rows[row][0] == "clean" for row, _ in enhanced.best)
    stems = shown["Stems straight from the decoder"]
    assert [row[0] for row in stems.rows if row[1] == codec.name] == ["speech", "background", "sum"]
    assert "mixture" not in {row[1] for row in stems.rows}
    # DNSMOS takes its time, so another metric stands for it.
    rows = tuple(
        dataclasses.replace(row, metrics={**row.metrics, "dnsmos_ovrl": row.metrics["si_sdr"]})
        for row in result.rows
        if "enhancement" in row.task
    )
    (table,) = (each for each in tables(dataclasses.replace(result, rows=rows)) if "without its" in each.title)
    theirs = [table.rows[index] for index in sorted(table.paper)]
    assert [(*row[:2], row[table.heads.index("DNSMOS OVRL")]) for row in theirs] == [
        ("noisy", "DeCodec", "3.39"),
        ("noisy", "DeCodec, causal", "–"),
        ("noisy", "SELM", "–"),
    ]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_tables_fit_any_terminal_and_say_what_they_leave_out(result, monkeypatch, capsys, columns):
    scores = ("pesq", "estoi", "dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak")
    rows = tuple(
        dataclasses.replace(row, metrics={**row.metrics, **dict.fromkeys(scores, row.metrics["si_sdr"])})
        for row in result.rows
        if row.task != "exchange"
    )
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    command_line._show(dataclasses.replace(result, rows=rows))
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in capsys.readouterr().out.splitlines()]
    found = [line for line in lines if line.startswith(("input ", "noisy ", "clean ", "0 dB ", "speech ", "sum "))]
    assert len(found) > 20
    assert [line for line in found if len(line) > columns] == []
    assert any("not enough room for" in line for line in lines) == (columns < 200)


def test_all_judges_of_speech_are_asked_where_they_are_installed(root):
    notes: list[str] = []
    found = resolved(settings_for(root, speech=None, visqol="auto"), notes)
    assert found.speech == tuple(judge for judge in ("pesq", "estoi", "dnsmos") if available(judge) is None)
    assert found.visqol == "off"


def test_a_model_that_does_not_tell_speech_from_other_sounds_is_refused(root, tmp_path):
    recipe = tiny_recipe(activity=False)
    recipe = dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, domains=("audio",)),
        mixing=dataclasses.replace(recipe.mixing, domains=("speech", "music", "sfx")),
    )
    single = write_tiny(tmp_path / "single", recipe)
    with pytest.raises(ModelError, match="does not tell speech from other sounds"):
        evaluate(load_codec(single, device="cpu"), settings_for(root))


def test_the_command_goes_on_from_what_it_has_and_writes_a_page(two_domains, root, tmp_path):
    command = ["eval", "--task", "decodec", "--data-root", root, "--model", two_domains, "--device", "cpu"]
    command += ["--limit", "1", "--snr", "5", "--no-reverberation", "--speech", "none", "--views", "1"]
    command += ["--work", tmp_path / "work"]
    shown = sdc(*command, "--report", tmp_path / "page", "--examples", "1")
    assert shown.exit_code == 0, shown.stderr
    for text in ("Speech without its background", "tiny-decodec, with silence", "SOP and swap, paper", "task decodec"):
        assert text in shown.stdout
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "tiny-decodec, with silence" in page
    assert page.count("<article") == 3  # the mixture coded, the speech, the background
    assert "SDR of speech, enhancement. mixture: mean 5.00 of 1;" in page  # not of clean speech, too
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    found = json.loads(sdc(*command, "--json").stdout)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()} == kept
    assert (found["task"], found["num_clips"]) == ("decodec", 2)
    assert {row["condition"] for row in found["rows"]} == {"noisy", "5 dB", "clean"}
    assert settings.DEFAULT_SNRS == command_line.DEFAULT_SNRS
    for option in (["--snr", "5"], ["--no-reverberation"]):
        (line,) = errors(sdc("eval", "--data-root", root, *option), exit_code=2)
        assert line == f"{option[0]} is about speech with a background; leave it out, or --task decodec"
    (line,) = errors(sdc("eval", "--data-root", root, "--task", "decodec", "--snr", "200"), exit_code=2)
    assert line == "snr must be from -40 to 100 dB, got 200"


# --- voices


def test_a_voice_is_converted_as_by_the_command_for_it_by_models_that_were_taught_what_is_said(codec, tmp_path):
    assert not SeparatingCodec(codec).can_convert
    taught = small_codec("decodec", tmp_path)
    system = SeparatingCodec(taught)
    assert system.can_convert
    mix, voice = noise(1.0, 0), noise(1.5, 1)
    found = system.convert(mix, voice, RATE)
    assert found.shape == mix.shape
    for name, wav in {"mix": mix, "voice": voice}.items():
        write(tmp_path / f"{name}.wav", wav)
    convert_voice(tmp_path / "mix.wav", tmp_path / "voice.wav", tmp_path / "out.wav", codec=taught)
    np.testing.assert_allclose(found, soundfile.read(tmp_path / "out.wav")[0], atol=1e-4)


class Converting(Known):
    """Says nothing in another voice."""

    can_convert = True

    def convert(self, mix, voice, sample_rate):
        if len(mix) == len(voice) and mix @ voice == voice @ voice:
            raise InputError("nobody speaks")
        return np.zeros_like(mix)


def test_judges_are_asked_about_converted_voices_and_say_why_they_cannot_tell(codec, root, known, tmp_path):
    asked = settings_for(root, limit=2, voices=("similarity", "pitch"))
    measured = measure(SeparatingCodec(codec), [Converting(known.speech)], planned(root, limit=2)[0], asked, tmp_path)
    found = summarize(measured, codec, asked, split=None, cost=[], failures=[], notes=[])
    assert (found.voices, found.failures) == (("similarity", "pitch"), ())
    rows = {row.condition: row for row in found.rows if row.task == "conversion"}
    assert set(rows) == {"clean", "0 dB", "noisy"}
    for row in rows.values():
        assert list(row.metrics) == [*METRICS["similarity"], *METRICS["pitch"]]
        assert {(summary.mean, summary.reason) for summary in row.metrics.values()} == {(None, "silent")}
    assert any("Similarity of the voice to the wanted one: no value for 4 of 4" in note for note in found.notes)
    table = tables(found)[-1]
    assert table.title == "Voice converted"
    assert table.heads == ("input", "system", "similarity", "to the source", "before", "pitch", "voicing errors")


def test_the_voice_is_that_of_another_clip_and_there_is_none_where_there_is_one_clip(root):
    plans = planned(root, limit=2)[0]
    assert [plan.voice for plan in plans] == [plans[-1].speech] * 2 + [plans[0].speech] * 2
    assert {plan.voice for plan in planned(root, limit=1)[0]} == {None}
    dry, room, clean = planned(root, limit=2, reverberation=True)[0][:3]
    assert (dry.voice is None, room.voice is None, clean.voice is None) == (False, True, False)


def test_where_nobody_speaks_nothing_is_converted(known):
    clip = dataclasses.replace(planned_clip(known.speech), voice=known.speech)
    assert conversion(Converting(known.speech), clip, known.speech, RATE) is None


def planned_clip(speech: np.ndarray) -> Clip:
    return Clip("a", speech, {"speech": speech}, "clean")


def test_judges_of_voices_that_are_not_installed_are_noted(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pocketsphinx" else object())
    notes: list[str] = []
    assert asked_of_voices(notes) == ("similarity", "pitch")
    assert notes == [
        "no word errors of converted voices: pocketsphinx is not installed; pip install '.[voices]' in the clone"
    ]
