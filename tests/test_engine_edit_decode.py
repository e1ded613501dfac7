"""What edited streams decode to: the samples that the streams they were made of decode to.

The network is replaced by a sum over its context in whole numbers, which is exact in whatever blocks it is computed: so
samples are the same to the bit as soon as all that they depend on is there, and are not otherwise.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from sdcodec_cli import load_codec
from sdcodec_cli.bitstream import Header
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.engine.edit import cut, join, strip
from sdcodec_cli.engine.stream_header import stream_header

from bitstream_examples import ENVELOPES, TREBLES, Example, pipe, random_codes, random_gains, write_example
from tiny_models import tiny_recipe, write_tiny

HOP, RATE = 320, 16_000
SEGMENTS = 12
"""Of 1 s each, in a talk; its last second is cut short."""


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    codec = load_codec(write_tiny(tmp_path_factory.mktemp("model") / "tiny", tiny_recipe(activity=False)), device="cpu")
    context = codec.model.synthesis_context

    def synthesize(codes: np.ndarray, stems: Sequence[Sequence[int]]) -> np.ndarray:
        """16-bit numbers: sums of the first codebook over the context, and a ramp within each frame."""
        codes = codes[:, 0] + 1
        around = np.pad(codes, ((0, 0), (context, context)))
        sums = np.stack([around[:, n : n + codes.shape[-1]] for n in range(2 * context + 1)]).sum(0)
        values = sums[..., None] * 8 + np.arange(HOP) % 8
        wavs = np.stack([values[list(picked)].sum(0) for picked in stems]).reshape(len(stems), -1)
        return (wavs / 32768).astype(np.float32)

    codec.model.synthesize = synthesize  # type: ignore[method-assign, assignment, union-attr]
    return codec


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def header_of(codec: Codec, **changes: Any) -> Header:
    fields: dict[str, Any] = {
        "num_codebooks": 4,
        "gain_db": 0.0,
        "stored": codec.domains,
        "original_rate": RATE,
        "original_samples": None,
    }
    return stream_header(codec, **(fields | changes))


def talk(codec: Codec, name: str, seed: int = 0, **changes: Any) -> str:
    """A file of random codes; one domain after the other is silent for a second."""
    header = header_of(codec, **changes)
    lengths = [50] * (SEGMENTS - 1) + [37]
    codes: list[Any] = [random_codes(header, length, seed=100 * seed + n) for n, length in enumerate(lengths)]
    for number, segment in enumerate(codes):
        segment[0, header.domains[number % len(header.domains)].name] = None
    samples = (sum(lengths) * HOP - 100) * header.original_rate // RATE
    gains = [{0: random_gains(ENVELOPES, n, seed=n)} if header.envelope else {} for n in lengths]
    treble = [{0: random_gains(TREBLES, n, seed=n)} if header.treble else {} for n in lengths]
    example: Example = write_example(header, codes, lengths, samples, gains, treble)
    Path(name).write_bytes(example.data)
    return name


def decoded(codec: Codec, name: str, stem: str = "mix", **options: Any) -> np.ndarray:
    result = decode(name, {stem: "out.wav"}, codec=codec, overwrite=True, texture=False, **options)
    assert result.problems == ()
    wav, rate = soundfile.read("out.wav", dtype="int16")
    assert result.seconds == len(wav) / rate
    return np.asarray(wav, dtype=int)


@pytest.mark.parametrize(("start", "duration"), [(0.0, 0.31), (0.31, 2.0), (5.0, 1.0), (7.7777, None), (11.5, 0.1)])
def test_a_cut_decodes_to_that_part_of_the_whole_to_the_bit(codec: Codec, start: float, duration: float | None) -> None:
    whole = decoded(codec, talk(codec, "a.sdc"))
    assert len(np.unique(whole)) > 1000
    cut("a.sdc", "b.sdc", start=start, duration=duration)
    begin = round(start * RATE)
    stop = None if duration is None else begin + round(duration * RATE)
    assert np.array_equal(decoded(codec, "b.sdc"), whole[begin:stop])
    domain = codec.domains[1]
    assert np.array_equal(decoded(codec, "b.sdc", domain), decoded(codec, "a.sdc", domain)[begin:stop])


def test_an_excerpt_of_a_cut_is_that_part_of_it(codec: Codec) -> None:
    whole = decoded(codec, talk(codec, "a.sdc"))
    cut("a.sdc", "b.sdc", start=3.3, duration=6)
    part = whole[round(3.3 * RATE) :][: 6 * RATE]
    assert np.array_equal(decoded(codec, "b.sdc", start=4.1, duration=1), part[round(4.1 * RATE) :][:RATE])
    assert np.array_equal(decoded(codec, "b.sdc", start=0, duration=1), part[:RATE])
    cut("b.sdc", "c.sdc", start=4.1, duration=1)
    assert np.array_equal(decoded(codec, "c.sdc"), part[round(4.1 * RATE) :][:RATE])


@pytest.mark.parametrize("rate", [44_100, 11_025])
def test_a_cut_is_exact_to_the_sample_at_any_rate(codec: Codec, rate: int) -> None:
    """With what a resampler rounds, one step of 16 bits; a shift by a sample would be hundreds."""
    whole = decoded(codec, talk(codec, "a.sdc", original_rate=rate))
    for begin, length in ((rate // 3, rate), (4 * rate + 7, rate // 2)):
        cut("a.sdc", "b.sdc", start=begin / rate, duration=length / rate, overwrite=True)
        part = decoded(codec, "b.sdc")
        assert len(part) == length
        assert abs(part - whole[begin : begin + length]).max() <= 1
        assert abs(part - whole[begin + 1 : begin + length + 1]).max() > 100


def test_envelope_and_treble_of_a_cut_are_those_of_the_whole(codec: Codec) -> None:
    options = {"original_rate": 32_000, "envelope": ENVELOPES.layout, "treble": TREBLES.layout}
    whole = decoded(codec, talk(codec, "a.sdc", **options))
    cut("a.sdc", "b.sdc", start=4.4, duration=2)
    part = decoded(codec, "b.sdc")
    assert abs(part - whole[round(4.4 * 32_000) :][: len(part)]).max() <= 1


def test_joined_files_decode_one_after_the_other_at_their_own_levels(codec: Codec) -> None:
    talk(codec, "a.sdc")
    talk(codec, "b.sdc", seed=1, gain_db=-6.0, num_codebooks=3, stored=codec.domains[:2])
    cut("a.sdc", "c.sdc", start=2.2, duration=1.1)
    join(["a.sdc", "c.sdc", "b.sdc"], "d.sdc")
    alone = [decoded(codec, name) for name in ("a.sdc", "c.sdc", "b.sdc")]
    both = np.concatenate(alone)
    assert np.array_equal(decoded(codec, "d.sdc"), both)
    # An excerpt over both seams, and one behind them.
    for start, duration in ((len(alone[0]) / RATE - 1, 3.0), (14.0, 2.0)):
        begin = round(start * RATE)
        assert np.array_equal(
            decoded(codec, "d.sdc", start=start, duration=duration), both[begin : begin + round(duration * RATE)]
        )
    # A domain that the last one does not have is silent there.
    music = decoded(codec, "d.sdc", codec.domains[2])
    assert len(music) == len(both)
    assert not music[-len(alone[2]) :].any()
    assert np.array_equal(music[: len(alone[0])], decoded(codec, "a.sdc", codec.domains[2]))


def test_what_a_pipe_delivers_in_parts_decodes_as_a_file_does(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    talk(codec, "a.sdc")
    cut("a.sdc", "b.sdc", start=5.05, duration=3)
    join(["b.sdc", "a.sdc"], "c.sdc")
    expected = decoded(codec, "c.sdc")
    stdin = types.SimpleNamespace(buffer=pipe(Path("c.sdc").read_bytes(), most=999))
    monkeypatch.setattr("sys.stdin", stdin)
    assert np.array_equal(decoded(codec, "-"), expected)


def test_what_is_left_of_a_stripped_file_decodes_as_before(codec: Codec) -> None:
    options = {"original_rate": 32_000, "envelope": ENVELOPES.layout, "treble": TREBLES.layout}
    talk(codec, "a.sdc", **options)
    first, second = codec.domains[:2]
    strip("a.sdc", "b.sdc", domains=[first])
    assert np.array_equal(decoded(codec, "b.sdc", first), decoded(codec, "a.sdc", first))
    assert not decoded(codec, "b.sdc", second).any()
    strip("a.sdc", "c.sdc", below=8000)
    assert np.array_equal(decoded(codec, "c.sdc"), decoded(codec, "a.sdc", below=8000))


def test_a_lost_segment_is_concealed_as_it_was_and_the_rest_is_where_it_was(codec: Codec) -> None:
    data = bytearray(Path(talk(codec, "a.sdc")).read_bytes())
    second = data.index(b"\xf5SDs", data.index(b"\xf5SDs") + 1)
    data[second + 6] ^= 1
    Path("a.sdc").write_bytes(data)
    join(["a.sdc", "a.sdc"], "b.sdc")
    found = []
    for name in ("a.sdc", "b.sdc"):
        result = decode(name, {"mix": "out.wav"}, codec=codec, overwrite=True, texture=False)
        assert result.problems
        found.append(soundfile.read("out.wav", dtype="int16")[0])
    assert np.array_equal(found[1], np.concatenate([found[0], found[0]]))
    assert found[0][50 * HOP + 8000 :][:HOP].max() < 0.7 * found[0][50 * HOP : 52 * HOP].max()


def test_a_stream_of_parts_that_breaks_off_decodes_as_far_as_it_goes(codec: Codec) -> None:
    talk(codec, "a.sdc")
    join(["a.sdc", "a.sdc"], "b.sdc")
    whole = decoded(codec, "b.sdc")
    data = Path("b.sdc").read_bytes()
    for share in (0.3, 0.7):
        Path("c.sdc").write_bytes(data[: round(share * len(data))])
        result = decode("c.sdc", {"mix": "out.wav"}, codec=codec, overwrite=True, texture=False)
        (problem,) = [problem for problem in result.problems if "stops after" in problem]
        found = soundfile.read("out.wav", dtype="int16")[0]
        assert 0.2 < len(found) / len(whole) < 0.75
        settled = len(found) - 70 * HOP  # the last segment is damaged, and so is the context of those frames before it
        assert np.array_equal(found[:settled], whole[:settled])
        assert f"{len(found) / RATE:.0f}"[0] in problem


def test_without_the_segments_around_it_a_cut_would_not_be_the_same(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = decoded(codec, talk(codec, "a.sdc"))
    monkeypatch.setattr("sdcodec_cli.engine.edit._context", lambda header: 0)
    cut("a.sdc", "b.sdc", start=5, duration=1)
    part = decoded(codec, "b.sdc")
    same = part == whole[5 * RATE :][:RATE]
    assert not same[:HOP].all()
    assert not same[-HOP:].all()
    assert same[RATE // 4 : -RATE // 4].all()
