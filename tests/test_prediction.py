"""Codes that are range-coded come back, on every way there is, and by the words of docs/format.md."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sdcodec_cli.prediction import Coded, CodeTables
from sdcodec_cli.prediction.range_coder import RangeDecoder, RangeEncoder, bounds_of

from prediction_examples import frequencies, likely_codes, random_tensors, toy_tables

TABLES = toy_tables(speech={}, music={}, sfx={"num_codebooks": 2, "num_entries": 64})
GROUPS = {"speech": (2, 1), "music": (2, 1), "sfx": (1, 1)}
SIZES = {"speech": (3, 16), "music": (3, 16), "sfx": (2, 64)}


def random_segment(num_frames: int, seed: int, names: tuple[str, ...] = ("speech", "music", "sfx")) -> Coded[Any]:
    rng = np.random.default_rng(seed)
    return Coded(num_frames, {name: rng.integers(0, SIZES[name][1], (SIZES[name][0], num_frames)) for name in names})


def there_and_back(segments: list[Coded[Any]]) -> list[dict[str, NDArray[np.int64]]]:
    chunks = TABLES.encode(segments, GROUPS)
    found = TABLES.decode([Coded(each.num_frames, data) for each, data in zip(segments, chunks, strict=True)], GROUPS)
    return [
        {
            name: np.concatenate([each for (owner, _), each in sorted(codes.items()) if owner == name])  # type: ignore[misc]
            for name, _ in codes
        }
        for codes in found
    ]


def same(found: dict[str, NDArray[np.int64]], segment: Coded[Any]) -> bool:
    return found.keys() == segment.of.keys() and all((found[name] == segment.of[name]).all() for name in found)


def test_codes_come_back_whatever_they_are_and_whichever_streams_there_are() -> None:
    segments = [
        random_segment(9, 0),
        random_segment(1, 1),
        random_segment(9, 2, ("sfx",)),
        random_segment(5, 3, ("speech", "sfx")),
    ]
    assert all(same(found, segment) for found, segment in zip(there_and_back(segments), segments, strict=True))


def test_what_a_segment_becomes_does_not_depend_on_those_beside_it() -> None:
    segments = [random_segment(num_frames, num_frames) for num_frames in (4, 9, 2)]
    alone = [TABLES.encode([segment], GROUPS)[0] for segment in segments]
    assert TABLES.encode(segments, GROUPS) == alone


def test_lower_groups_decode_without_upper_ones() -> None:
    segment = random_segment(9, 0)
    (chunks,) = TABLES.encode([segment], GROUPS)
    below = {key: data for key, data in chunks.items() if key[1] == 0}
    (found,) = TABLES.decode([Coded(9, below)], GROUPS)
    assert found.keys() == below.keys()
    assert all((found[name, 0] == segment.of[name][: GROUPS[name][0]]).all() for name, _ in below)


def test_lower_groups_are_the_same_bytes_without_upper_ones() -> None:
    segment = random_segment(9, 0)
    lower = Coded(9, {name: codes[: GROUPS[name][0]] for name, codes in segment.of.items()})
    (whole,), (part,) = TABLES.encode([segment], GROUPS), TABLES.encode([lower], GROUPS)
    assert part == {key: data for key, data in whole.items() if key[1] == 0}


def test_a_chunk_that_is_stored_otherwise_is_context_for_those_above() -> None:
    segment = random_segment(9, 0)
    (chunks,) = TABLES.encode([segment], GROUPS)
    given_codes = {**chunks, ("speech", 0): segment.of["speech"][:2]}
    (found,) = TABLES.decode([Coded(9, given_codes)], GROUPS)
    assert (found["speech", 1] == segment.of["speech"][2:]).all()


def test_likely_codes_take_fewer_bytes() -> None:
    codes = likely_codes(TABLES, "speech", (2, 1), 40)
    (chunks,) = TABLES.encode([Coded(40, {"speech": codes})], GROUPS)
    assert sum(map(len, chunks.values())) <= 12


def test_bits_are_those_that_chunks_take() -> None:
    segment = random_segment(200, 5, ("speech",))
    (chunks,) = TABLES.encode([segment], GROUPS)
    bits = TABLES.bits("speech", segment.of["speech"][None], (2, 1))
    assert 8 * len(chunks["speech", 0]) == pytest.approx(200 * bits[:2].sum(), abs=16)
    assert 8 * len(chunks["speech", 1]) == pytest.approx(200 * bits[2], abs=16)


@given(st.binary(max_size=40), st.binary(max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_codes_or_damage(first: bytes, second: bytes) -> None:
    (found,) = TABLES.decode([Coded(7, {("sfx", 0): first, ("sfx", 1): second})], GROUPS)
    for codes in found.values():
        assert codes is None or (codes.shape == (1, 7) and codes.min() >= 0 and codes.max() < 64)


def test_bytes_after_the_last_code_are_damage() -> None:
    (chunks,) = TABLES.encode([random_segment(7, 0, ("sfx",))], GROUPS)
    (found,) = TABLES.decode([Coded(7, {**chunks, ("sfx", 0): chunks["sfx", 0] + bytes(5) + b"\1"})], GROUPS)
    assert found["sfx", 0] is None


class Plain:
    """The document's words, one whole number at a time."""

    def __init__(self, tensors: dict[str, NDArray[Any]], name: str, groups: tuple[int, ...], num_frames: int) -> None:
        self.weights = tensors["weights"].tolist()
        self.of = {key.partition(".")[2]: each.tolist() for key, each in tensors.items() if key.startswith(f"{name}.")}
        self.groups, self.num_frames = groups, num_frames
        self.places: dict[tuple[int, int], int] = {}

    def decode(self, chunks: list[bytes]) -> list[list[int]]:
        first = 0
        for size, data in zip(self.groups, chunks, strict=True):
            self.data, self.at = data.ljust(1000, b"\0"), 6
            self.code, self.width = int.from_bytes(self.data[:6], "big"), 1 << 48
            for frame in range(self.num_frames):
                for codebook in range(first, first + size):
                    self.places[frame, codebook] = self.place(frame, codebook, first + size)
            first += size
        return [[self.of["order"][k][self.places[t, k]] for t in range(self.num_frames)] for k in range(first)]

    def place(self, t: int, k: int, reach: int) -> int:
        context = [(0, t, j) for j in range(k)]
        context += [(m, t - m, j) for m in range(1, min(len(self.of["past"]) - 1, t) + 1) for j in range(reach)]
        x = list(self.of["past_bias"][k])
        for lag, frame, codebook in context:
            vector = self.of["vectors"][codebook][self.places[frame, codebook]]
            x = [each + more for each, more in zip(x, product(vector, self.of["past"][lag][codebook]), strict=True)]
        u = [min(max(each >> self.of["shifts"][0], 0), 127) for each in x]
        v = [min(max(each, 0), 127) for each in self.layer(u, "hidden", k, 1)]
        q = [min(max(each, -127), 127) for each in self.layer(v, "query", k, 2)]
        branch = self.take(self.layer(q, "branches", k, 3))
        leaves = len(self.of["leaves"][k]) // len(self.of["branches_bias"][k])
        span = range(branch * leaves, (branch + 1) * leaves)
        logits = [
            sum(a * b for a, b in zip(q, self.of["leaves"][k][place], strict=True)) + self.of["leaves_bias"][k][place]
            for place in span
        ]
        return span[self.take([each >> self.of["shifts"][4] for each in logits])]

    def layer(self, units: list[int], key: str, k: int, number: int) -> list[int]:
        sums = product(units, self.of[key][k])
        return [
            each + bias >> self.of["shifts"][number] for each, bias in zip(sums, self.of[f"{key}_bias"][k], strict=True)
        ]

    def take(self, logits: list[int]) -> int:
        f = [self.weights[min(max(logits) - each, len(self.weights) - 1)] for each in logits]
        share = self.width // sum(f)
        value = next(v for v in range(len(f)) if self.code // share < sum(f[: v + 1]))
        self.code -= share * sum(f[:value])
        self.width = share * f[value]
        while self.width < 1 << 32:
            self.code = self.code << 16 | int.from_bytes(self.data[self.at : self.at + 2], "big")
            self.width, self.at = self.width << 16, self.at + 2
        return value


def product(row: list[int], matrix: list[list[int]]) -> list[int]:
    return [sum(a * b for a, b in zip(row, column, strict=True)) for column in zip(*matrix, strict=True)]


def test_a_decoder_written_from_the_document_finds_the_same_codes() -> None:
    tensors = frequencies() | random_tensors("speech")
    codes = np.random.default_rng(3).integers(0, 16, (3, 9))
    (chunks,) = CodeTables(tensors).encode([Coded(9, {"speech": codes})], {"speech": (2, 1)})
    plain = Plain(tensors, "speech", (2, 1), 9)
    assert plain.decode([chunks["speech", 0], chunks["speech", 1]]) == codes.tolist()


def test_sums_are_exact_with_the_largest_numbers_there_can_be() -> None:
    tensors = frequencies() | random_tensors("speech", most=127)
    for key in ("past", "hidden", "query", "leaves"):
        tensors[f"speech.{key}"] = np.where(tensors[f"speech.{key}"] < 0, -127, 127).astype(np.int8)
    tensors["speech.past_bias"][:] = (1 << 24) - 1 - 127 * 127 * 2 * 3 * 3
    codes = np.random.default_rng(4).integers(0, 16, (3, 9))
    (chunks,) = CodeTables(tensors).encode([Coded(9, {"speech": codes})], {"speech": (2, 1)})
    plain = Plain(tensors, "speech", (2, 1), 9)
    assert plain.decode([chunks["speech", 0], chunks["speech", 1]]) == codes.tolist()


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("speech.hidden_bias", lambda given: given + (1 << 24), "speech.hidden has sums of up to"),
        ("speech.leaves", lambda given: given[:, :-1], "speech.leaves is of shape [3, 15, 4]"),
        ("speech.order", lambda given: given * 0, "speech.order does not name every entry once"),
        ("speech.shifts", lambda given: given - 9, "speech.shifts must be 0 to 16"),
        ("speech.query", lambda given: given.astype(np.float32), "speech.query is missing or no array"),
        ("weights", lambda given: given * 0, "weights must be numbers from 1 to 32768"),
    ],
)
def test_tables_that_cannot_be_used_say_why(key: str, change: Any, message: str) -> None:
    tensors = frequencies() | random_tensors("speech")
    tensors[key] = change(tensors[key])
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        CodeTables(tensors)


def test_tables_without_a_tensor_say_which() -> None:
    for missing in ("weights", "speech.past"):
        tensors = frequencies() | random_tensors("speech")
        del tensors[missing]
        with pytest.raises(ValueError, match=missing):
            CodeTables(tensors)


def test_the_hash_is_that_of_the_values() -> None:
    first, again = toy_tables(speech={}), toy_tables(speech={})
    assert first.sha256 == again.sha256
    assert toy_tables(speech={"most": 39}).sha256 != first.sha256


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=80), st.integers(0, 1 << 32))
@settings(max_examples=40, deadline=None)
def test_the_range_coder_gives_back_any_values(steps: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    frequencies_of = [np.where(rng.random(6) < 0.3, 1, rng.integers(1, 32_768, 6)) for _ in steps]
    encoder = RangeEncoder(4)
    for (chunk, value), each in zip(steps, frequencies_of, strict=True):
        bounds = bounds_of(each)
        encoder.put(np.array([chunk]), bounds[[value]], each[[value]], bounds[[-1]])
    decoder = RangeDecoder(encoder.finish())
    for (chunk, value), each in zip(steps, frequencies_of, strict=True):
        assert decoder.take(np.array([chunk]), bounds_of(each)[None]).tolist() == [value]
    assert not decoder.damaged.any()
