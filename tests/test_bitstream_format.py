"""docs/format.md and the golden files, read by the package and by a second decoder written from the document alone."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from second_decoder import DOCUMENT, TABLES, Slow

from sdcodec_cli.bitstream import DomainEntry, GainLayout, Header, LowerModel, Part, Reader, Writer, limits
from sdcodec_cli.bitstream.fields import KNOWN_FIELDS
from sdcodec_cli.prediction import CodeTables

from bitstream_examples import as_json, pipe, read_all, stream_name

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
WRITTEN = ["v1_three_domains", "v1_two_channels", "v1_envelope", "v1_treble", "v1_range_coded", "v1_parts", "v1_stages"]
WRITTEN += ["v1_stereo"]
GOLDEN = [*WRITTEN, "v1_future_minor", "v1_damaged", "v1_lost", "v1_cover"]


def fenced(language: str, number: int = 0) -> str:
    """One of the document's two blocks in a language: that of the worked example, then that of its envelope."""
    first, second = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    return str((first, second)[number])


def dumped(number: int) -> bytes:
    """The bytes of a hex dump in the document, each line at the offset it claims."""
    data = b""
    for line in fenced("hex", number).splitlines():
        offset, digits = re.fullmatch(r"([0-9a-f]{4})  ((?:[0-9a-f]{2} )*[0-9a-f]{2}) +\S.*", line).groups()  # type: ignore[union-attr]
        assert int(offset, 16) == len(data)
        data += bytes.fromhex(digits)
    return data


def worked_example() -> bytes:
    return dumped(0)


def test_the_worked_example_decodes_to_what_the_document_says() -> None:
    expected = json.loads(fenced("json"))
    for fo in (io.BytesIO(worked_example()), pipe(worked_example())):
        assert as_json(*read_all(fo)) == expected
    assert Slow(worked_example()).decode() == expected


def test_the_worked_example_decodes_with_its_envelope() -> None:
    expected = json.loads(fenced("json"))
    envelope, gains = (json.loads(fenced("json", 1))[key] for key in ("envelope", "gains"))
    expected["header"]["envelope"], expected["segments"][0]["gains"] = envelope, gains
    field, unit = re.fullmatch(b"(\x08.*)(senv.*)", dumped(1), re.DOTALL).groups()  # type: ignore[union-attr]
    data = rewrite(expected)
    assert data[18:].startswith(worked_example()[0x12:0x89] + field)
    assert worked_example()[0x8D:0xB1] + unit in data
    assert as_json(*read_all(io.BytesIO(data))) == expected
    assert Slow(data).decode() == expected


def test_the_writer_still_produces_the_worked_example() -> None:
    assert rewrite(json.loads(fenced("json"))) == worked_example()


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_decode_as_they_always_did(name: str) -> None:
    expected = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    with (DATA / f"{name}.sdc").open("rb") as fo:
        assert as_json(*read_all(fo, tables_of(name))) == expected
        fo.seek(0)
        assert as_json(*read_all(pipe(fo.read(), most=3), tables_of(name))) == expected


def tables_of(name: str) -> CodeTables | None:
    """Those of a golden file, which lie beside it."""
    path = DATA / f"{name}.safetensors"
    return CodeTables(load_file(path)) if path.is_file() else None


@pytest.mark.parametrize(
    "name",
    [name for name in GOLDEN if name != "v1_damaged"],
)
def test_golden_files_decode_the_same_with_a_decoder_written_from_the_document(name: str) -> None:
    expected = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    expected["problems"].sort()  # found in another order
    tables = DATA / f"{name}.safetensors"
    given = load_file(tables) if tables.is_file() else None
    assert Slow((DATA / f"{name}.sdc").read_bytes(), given).decode() == expected


@pytest.mark.parametrize("name", WRITTEN)
def test_the_writer_still_produces_the_golden_files(name: str) -> None:
    content = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    assert rewrite(content, tables_of(name)) == (DATA / f"{name}.sdc").read_bytes()


def test_every_golden_file_is_tested() -> None:
    assert sorted(path.stem for path in DATA.glob("*.sdc")) == sorted(GOLDEN)


def test_a_golden_file_of_a_later_minor_version_is_read_without_a_problem() -> None:
    with (DATA / "v1_future_minor.sdc").open("rb") as fo:
        reader = Reader(fo)
        assert reader.version == (1, 3)
        assert [part.sequence for part in reader.segments(start_frame=8)] == [1]
        assert reader.problems == []


def rewrite(content: dict[str, Any], tables: CodeTables | None = None) -> bytes:
    fields = dict(content["header"])
    fields["weights_sha256"] = bytes.fromhex(fields["weights_sha256"])
    fields["domains"] = tuple(DomainEntry(**{**entry, "groups": tuple(entry["groups"])}) for entry in fields["domains"])
    if "tables_sha256" in fields:
        fields["tables_sha256"] = bytes.fromhex(fields["tables_sha256"])
    for name in {"envelope", "treble", "stereo"} & fields.keys():
        fields[name] = GainLayout(**{**fields[name], "edges": tuple(fields[name]["edges"])})
    if "lower" in fields:
        fields["lower"] = tuple(
            LowerModel(**{**low, "weights_sha256": bytes.fromhex(low["weights_sha256"])}) for low in fields["lower"]
        )
    if "parts" in fields:
        fields["parts"] = tuple(part_of_json(part) for part in fields["parts"])
    fo = io.BytesIO()
    writer = Writer(fo, Header(**fields), tables=tables)
    keys = {stream_name(key): key for key in writer_streams(fields)}
    for part in content["segments"]:
        codes: dict[Any, Any] = {keys[name]: rows for name, rows in part["codes"].items()}
        gains, treble = (
            {int(channel): np.array(values) for channel, values in part.get(name, {}).items()}
            for name in ("gains", "treble")
        )
        silent = {keys[name]: None for name in part["silent"]}
        places = {stem: np.array(values) for stem, values in part.get("places", {}).items()}
        writer.write(codes | silent, num_frames=part["num_frames"], gains=gains, treble=treble, places=places)
    writer.close(content["end"]["original_samples"])
    return fo.getvalue()


def part_of_json(fields: dict[str, Any]) -> Part:
    layout = fields["envelope"]
    return Part(
        **{
            **fields,
            "domains": tuple(DomainEntry(**{**entry, "groups": tuple(entry["groups"])}) for entry in fields["domains"]),
            "envelope": layout and GainLayout(**{**layout, "edges": tuple(layout["edges"])}),
        }
    )


def writer_streams(fields: dict[str, Any]) -> list[tuple[int, str]]:
    return [(channel, entry.name) for channel in range(fields["coded_channels"]) for entry in fields["domains"]]


def test_the_document_names_every_field() -> None:
    documented = {int(tag): name for tag, name in re.findall(r"^\| (\d+) \| (\w+) \|", DOCUMENT, re.MULTILINE)}
    assert set(documented) == KNOWN_FIELDS
    assert sorted(documented.values()) == sorted(Header.__dataclass_fields__)


def test_the_document_has_the_limits_of_the_code() -> None:
    table = DOCUMENT.split("## Limits")[1].split("##")[0]
    documented = {what: int(number.replace(",", "")) for what, number in re.findall(r"\| (.+?) \| ([\d,]+) \|", table)}
    assert documented == {
        "bytes of the fields of the header": limits.MAX_BODY_BYTES,
        "sample rates in Hz": limits.MAX_RATE,
        "hop length": limits.MAX_HOP_LENGTH,
        "context frames": limits.MAX_CONTEXT_FRAMES,
        "channels": limits.MAX_CHANNELS,
        "domains": limits.MAX_DOMAINS,
        "stages": limits.MAX_STAGES,
        "codebooks of a domain": limits.MAX_CODEBOOKS,
        "entries of a codebook": limits.MAX_CODEBOOK_SIZE,
        "layer groups of a domain": limits.MAX_GROUPS,
        "layer groups of all domains × coded channels": limits.MAX_CHUNKS,
        "frames of a segment": limits.MAX_SEGMENT_FRAMES,
        "codes of a segment, of all streams": limits.MAX_CODES,
        "frames of a stream": limits.MAX_FRAMES,
        "bands of an envelope, or of treble": limits.MAX_BANDS,
        "frames of a gain": limits.MAX_GAIN_FRAMES,
        "bytes of a cover": limits.MAX_COVER_BYTES,
        "samples per channel": limits.MAX_SAMPLES,
        "parts": limits.MAX_PARTS,
    }


def test_the_document_names_the_tables_and_their_contexts() -> None:
    for path in TABLES.values():
        assert hashlib.sha256(path.read_bytes()).hexdigest() in DOCUMENT.replace("\n", "")
    section = DOCUMENT.split("### Gains, range-coded")[1].split("\n## ")[0]
    for fact in ("224 lines of 9", "28 · before + 4 · below + ⌊4 · band / bands⌋", "4096", "2^24", "2^32"):
        assert fact in section
    section = DOCUMENT.split("## Treble")[1].split("\n## ")[0]
    for fact in ("134 lines of 19", "20 + 6 · before + change", "4096", "−12 to 6"):
        assert fact in " ".join(section.split())
    section = DOCUMENT.split("## Stereo")[1].split("\n## ")[0]
    for fact in ("240 lines of 17", "18 + 6 · before + change", "4096", "−8 to 8"):
        assert fact in " ".join(section.split())
