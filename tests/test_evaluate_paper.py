"""The paper's numbers, spot-checked against arXiv:2409.11228 and against one another."""

from __future__ import annotations

import pytest

from sdcodec_cli.engine.evaluate.paper import paper_rows

ROWS = paper_rows()


def cell(split, task, system, stem):
    [row] = [row for row in ROWS if (row.split, row.task, row.system, row.stem) == (split, task, system, stem)]
    return row


def test_numbers_are_the_papers():
    mix = cell("test", "resynthesis", "SD-Codec", "mix")
    assert (mix.table, mix.bitrate, mix.si_sdr, mix.si_sdr_std, mix.visqol, mix.visqol_std) == (
        *("II", 18.0),
        *(6.98, 2.49, 4.29, 0.15),
    )
    dac = cell("val", "resynthesis", "DAC", "sfx")
    assert (dac.bitrate, dac.si_sdr, dac.visqol, dac.si_sdri) == (6.0, 0.85, 3.95, None)
    speech = cell("test", "masked separation", "SD-Codec", "speech")
    assert (speech.bitrate, speech.si_sdr, speech.si_sdri, speech.visqol) == (None, 11.31, 9.36, 3.49)
    music = cell("test", "separation", "TDANet", "music")
    assert (music.si_sdr, music.si_sdri, music.visqol) == (2.12, 8.83, 2.74)
    assert cell("test", "resynthesis", "SD-Codec, from DAC", "sfx").si_sdr == -12.22
    enhanced = cell("test", "masked separation", "SD-Codec, separation-enhanced", "speech")
    assert (enhanced.table, enhanced.si_sdr, enhanced.visqol) == ("III", 11.83, None)


def test_every_system_has_every_stem_of_both_splits_once():
    keys = [(row.split, row.task, row.system, row.stem) for row in ROWS]
    assert len(set(keys)) == len(keys)
    # Per split: two codecs and two separators in Table II, four variants in Table III.
    assert len(ROWS) == 2 * (2 * 4 + 2 * 3 + 4 * 7)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("stem", ["speech", "music", "sfx"])
def test_improvements_of_both_systems_are_over_the_same_mixture(split, stem):
    ours, theirs = cell(split, "masked separation", "SD-Codec", stem), cell(split, "separation", "TDANet", stem)
    assert ours.si_sdr - ours.si_sdri == pytest.approx(theirs.si_sdr - theirs.si_sdri, abs=0.021)  # two roundings each


def test_variants_have_no_more_than_si_sdr():
    for row in ROWS:
        assert (row.visqol is None) == (row.table == "III")
        assert (row.si_sdri is None) == (row.table == "III" or row.task == "resynthesis")
