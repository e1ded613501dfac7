"""The commands with a model of several stages: what they show, and what is decoded with the lower one alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdcodec_cli.weights import read, sha256, within

from cli_examples import errors, sdc
from tiny_models import tiny_bands, tiny_recipe, write_tiny

pytestmark = pytest.mark.usefixtures("without_graphs")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a model, and a file that was made with it."""
    folder = tmp_path_factory.mktemp("made")
    write_tiny(folder / "whole", tiny_bands(domains=("speech", "music")))
    wav = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.05
    soundfile.write(folder / "a.wav", wav, 32_000)
    assert sdc("compress", folder / "a.wav", "--model", folder / "whole", "--quiet").exit_code == 0
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch) -> Path:
    """A working directory with that file, but not the model."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(made / "a.sdc", tmp_path)
    return tmp_path


def audio(path: str | Path) -> np.ndarray:
    return soundfile.read(path)[0]


def test_info_shows_the_stages_of_each_domain_one_after_the_other(folder):
    lines = sdc("info", "a.sdc").stdout.splitlines()
    rows = [line.split("  ")[0] for line in lines if " x 64" in line]
    assert rows == ["speech", "speech above 8 kHz", "music", "music above 8 kHz"]
    (stage,) = (line.split() for line in lines if line.startswith("  stage "))
    assert stage[1:6] == ["tiny-bands.branches.0", "decodes", "what", "is", "below"]


def test_its_json_tells_stems_and_stages_apart(folder):
    found = json.loads(sdc("info", "a.sdc", "--json").stdout)
    assert found["format_version"] == "1.2"
    assert [(stream["domain"], stream["stem"], stream["stage"]) for stream in found["streams"]] == [
        ("speech", "speech", 0),
        ("music", "music", 0),
        ("speech-2", "speech", 1),
        ("music-2", "music", 1),
    ]
    (lower,) = found["lower"]
    assert (lower["model"], lower["sample_rate"]) == ("tiny-bands.branches.0", 16_000)


def test_several_files_are_listed_by_their_domains(folder):
    shutil.copy("a.sdc", "b.sdc")
    assert "speech, music  " in sdc("info", "a.sdc", "b.sdc").stdout


def test_all_stems_are_those_of_the_domains(folder, made):
    assert sdc("decode", "a.sdc", "--stem", "all", "--model", made / "whole").exit_code == 0
    assert sorted(path.name for path in folder.glob("*.wav")) == ["a.music.wav", "a.speech.wav"]
    (line,) = errors(sdc("decode", "a.sdc", "--stem", "speech-2", "--model", made / "whole"))
    assert line == "a.sdc: has no speech-2; choose from speech, music, mix, all"


def test_without_the_whole_model_the_lower_one_decodes_and_says_so(folder, made):
    stage = "tiny-bands.branches.0"
    assert sdc("models", "export", made / "whole", "--stage", "1", "-o", stage).exit_code == 0
    result = sdc("decode", "a.sdc", "-o", "low.wav")
    assert result.exit_code == 0
    assert result.stderr.startswith(
        "a.sdc: was made with tiny-bands, which cannot be used (tiny-bands: no such model; "
    )
    assert f"; decoded up to 8000 Hz, with {stage}\n" in result.stderr
    sdc("decode", "a.sdc", "-o", "below.wav", "--below", "8000", "--model", made / "whole")
    assert np.array_equal(audio("low.wav"), audio("below.wav"))
    sdc("decode", "a.sdc", "-o", "named.wav", "--model", stage)
    assert np.array_equal(audio("low.wav"), audio("named.wav"))


def test_a_lower_model_of_other_weights_is_not_taken(folder, made):
    write_tiny(folder / "tiny-bands.branches.0", tiny_recipe())
    (line,) = errors(sdc("decode", "a.sdc"))
    assert line.startswith("a.sdc: was made with tiny-bands, which cannot be used")
    assert line.endswith("name the folder of that model with --model DIR")


def test_a_frequency_at_which_nothing_can_be_cut_off_is_refused(folder, made):
    (line,) = errors(sdc("decode", "a.sdc", "--below", "5000", "--model", made / "whole", "--quiet"))
    assert line == (
        "a.sdc: its sound can be cut off at 8000 or 16000 Hz only, not at 5000; give --below 8000, or leave it out"
    )


def test_a_pipe_goes_through_both_ways(folder, made):
    coded = sdc("compress", "-", "-o", "-", "--model", made / "whole", stdin=(made / "a.wav").read_bytes())
    back = sdc("decode", "-", "-o", "b.wav", "--model", made / "whole", stdin=coded.stdout_bytes)
    assert (coded.exit_code, back.exit_code) == (0, 0)
    sdc("decode", "a.sdc", "-o", "c.wav", "--model", made / "whole")
    np.testing.assert_allclose(audio("b.wav"), audio("c.wav"), atol=1e-4, rtol=0)


def test_a_stage_is_exported_with_the_name_and_the_weights_that_files_know_it_by(folder, made):
    result = sdc("models", "export", made / "whole", "--stage", "2", "-o", "high", "--json")
    assert json.loads(result.stdout)["name"] == "tiny-bands.branches.1"
    stored = read(made / "whole" / "weights.safetensors")
    assert sha256(read(folder / "high" / "weights.safetensors")) == sha256(within(stored, "branches.1."))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stage", "1"), "--stage 1: name the folder to make with -o DIR"),
        (("--stage", "3", "-o", "x"), "--stage 3: tiny-bands has the stages 1 to 2, so there is no stage 3 of it"),
        (("--stage", "1", "-o", "x", "--bits", "8"), "--bits: a stage has the name and the weights that files know it"),
    ],
)
def test_a_stage_that_cannot_be_exported_is_said_in_one_line(folder, made, options, message):
    (line,) = errors(sdc("models", "export", made / "whole", *options), exit_code=2)
    assert line.startswith(message)


def test_a_model_of_one_stage_has_none_to_export(folder):
    write_tiny(folder / "one", tiny_recipe())
    (line,) = errors(sdc("models", "export", "one", "--stage", "1", "-o", "x"), exit_code=2)
    assert line == "--stage 1: tiny-spectral is a single codec, so there is no stage 1 of it"


def test_a_model_is_shown_with_its_stages(folder, made):
    lines = sdc("models", "show", made / "whole").stdout.splitlines()
    assert "  stage 1  16000 Hz, 2 x 64, up to 0.6 kbit/s" in lines
    assert "  stage 2  32000 Hz, 2 x 64, up to 0.6 kbit/s" in lines
    found = json.loads(sdc("models", "show", made / "whole", "--json").stdout)
    assert [stage["name"] for stage in found["stages"]] == ["tiny-bands.branches.0", "tiny-bands.branches.1"]


def test_a_model_of_stages_cannot_be_replaced(folder, made):
    whole = made / "whole"
    (line,) = errors(sdc("models", "average", whole, whole, "-o", "mean", "--replaces", whole))
    assert line == f"{whole}: is several codecs, of which nothing can be taken over; leave --replaces out"
