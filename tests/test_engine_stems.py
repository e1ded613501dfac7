"""Names of outputs, and what is in them."""

from __future__ import annotations

import pytest

from sdcodec_cli.engine.stems import holds, stems_in, sum_of, without

DOMAINS = ("speech", "music", "sfx")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("music", ("music",)),
        ("mix", DOMAINS),
        (sum_of(["sfx", "speech", "sfx"]), ("speech", "sfx")),
        (without(["speech"]), ("music", "sfx")),
        (without(["sfx", "music"]), ("speech",)),
    ],
)
def test_an_output_is_the_sum_of_the_stems_that_its_name_says(output: str, expected: tuple[str, ...]) -> None:
    assert stems_in(output, DOMAINS) == expected
    assert tuple(stem for stem in DOMAINS if holds(output, stem)) == expected


def test_names_are_short_and_say_what_is_left_out() -> None:
    assert (without(["speech"]), without(["speech", "sfx"])) == ("without-speech", "without-speech+sfx")
    assert sum_of(["music", "sfx"]) == "music+sfx"


@pytest.mark.parametrize("output", ["vocals", "music+vocals", "without-vocals", "without-"])
def test_a_stem_that_is_not_there_is_an_error(output: str) -> None:
    with pytest.raises(ValueError, match="has no .*; choose from speech, music, sfx"):
        stems_in(output, DOMAINS)


def test_without_everything_there_is_nothing() -> None:
    with pytest.raises(ValueError, match="has nothing without speech, music, sfx; leave one of them"):
        stems_in(without(DOMAINS), DOMAINS)
