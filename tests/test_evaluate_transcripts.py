"""Edits between what is said and what is heard, and the words of a text."""

from __future__ import annotations

import pytest

from sdcodec_cli.engine.evaluate.transcripts import edit_distance, words_of


@pytest.mark.parametrize(
    ("said", "heard", "edits"),
    [
        ("", "", 0),
        ("abc", "abc", 0),
        ("abc", "", 3),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
        (
            "intention",
            "execution",
            5,
        ),  # Jurafsky and Martin, Speech and Language Processing, 2.5, with Levenshtein's costs
        ("saturday", "sunday", 3),
    ],
)
def test_edits_are_those_of_the_textbooks(said: str, heard: str, edits: int) -> None:
    assert edit_distance(said, heard) == edit_distance(heard, said) == edits


def test_words_and_phonemes_of_several_letters_are_one_each() -> None:
    assert edit_distance(["the", "cat"], ["the", "cart", "sat"]) == 2
    assert edit_distance(("t͡ʃ", "a"), ("a",)) == 1


def test_words_have_no_case_and_no_punctuation() -> None:
    assert words_of("It's — he said: ‘Don’t!’ 42 times.") == ["it's", "he", "said", "don't", "42", "times"]
    assert words_of(" … ") == []
