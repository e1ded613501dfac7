"""docs/format.md and the golden files, read by the package and by a second decoder written from the document alone."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from sdcodec_cli.bitstream import DomainEntry, GainLayout, Header, Part, Reader, Writer, header
from sdcodec_cli.prediction import CodeTables

from bitstream_examples import as_json, pipe, read_all, stream_name

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
DATA = ROOT / "tests" / "data"
TABLES = {name: ROOT / "sdcodec_cli" / "bitstream" / f"{name}_gains.csv" for name in ("band", "treble")}
WRITTEN = ["v1_three_domains", "v1_two_channels", "v1_envelope", "v1_treble", "v1_range_coded", "v1_parts"]
GOLDEN = [*WRITTEN, "v1_future_minor", "v1_damaged", "v1_lost"]


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


class Slow:
    """A decoder of whole streams, as plain as the document: no damage, no speed, nothing shared with the package."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def uint(self, size: int) -> int:
        self.at += size
        return sum(byte << 8 * i for i, byte in enumerate(self.data[self.at - size : self.at]))

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.uint(1)
            value += byte % 128 << shift
            shift += 7
            if byte < 128:
                return value

    def raw(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def crc(self, start: int) -> None:
        stop = self.at
        assert self.uint(4) == zlib.crc32(self.data[start:stop])

    def decode(self) -> dict[str, Any]:
        fields = self.header()
        segments: list[dict[str, Any]] = []
        self.problems: list[list[Any]] = []
        self.lengths: list[tuple[int, int]] = []
        while True:
            start = self.at
            kind = self.raw(4)
            if kind == b"\xf5SDs":
                segments.append(self.segment(start))
                self.lengths.append((start, segments[-1]["num_frames"]))
                continue
            size = self.varint()
            self.crc(start)
            body = self.at
            if kind == b"SIDX":
                assert self.varint() == len(self.lengths)
                before = 0
                for offset, num_frames in self.lengths:
                    assert (self.varint(), self.varint()) == (offset - before, num_frames)
                    before = offset
                index = start
            elif kind == b"SDCE":
                total, samples = self.uint(8), self.uint(8)
                assert (self.uint(8), self.uint(8)) == (index, start)
            elif kind == b"senv":
                self.gains(segments[-1], body + size, "gains", "envelope", 4, -3, 8)
            elif kind == b"strb":
                self.gains(segments[-1], body + size, "treble", "treble", 5, -12, 18)
            else:
                assert kind[:1].islower()
                self.raw(size)
            assert self.at == body + size
            self.crc(body)
            if kind == b"SDCE":
                assert self.at == len(self.data)
                end = {"total_frames": total, "original_samples": samples}
                return {"header": fields, "segments": segments, "end": end, "problems": sorted(self.problems)}

    def header(self) -> dict[str, Any]:
        assert self.raw(8).hex() == "89534443" + "0d0a1a0a"
        assert self.uint(1) == 1
        self.raw(5)
        stop = self.uint(4) + self.at
        fields: dict[str, Any] = {"original_samples": None, "tags": {}}
        names = dict(re.findall(r"^\| (\d+) \| (\w+) \|", DOCUMENT, re.MULTILINE))
        while self.at < stop:
            tag, size = self.varint(), self.varint()
            name, start = names.get(str(tag)), self.at
            if name in ("model", "encoder"):
                fields[name] = self.raw(size).decode()
            elif name == "weights_sha256":
                fields[name] = self.raw(size).hex()
            elif name in ("gain_db", "domains", "envelope", "treble"):
                fields[name] = self.of_part(name, size)
            elif name == "parts":
                fields[name] = []
                while self.at < start + size:
                    fields[name].append(self.part(names))
            elif name == "tags":
                key, _, value = self.raw(size).decode().partition("=")
                fields[name][key] = value
            elif name:
                fields[name] = self.uint(size)
            else:
                assert tag % 2 == 0
                self.raw(size)
            assert self.at == start + size
        self.crc(0)
        self.channels, self.fields = fields["coded_channels"], fields
        own = ("gain_db", "domains", "envelope", "treble")
        self.parts: list[tuple[int, dict[str, Any]]] = []
        for part in fields.get("parts", [{"num_frames": 2**40}]):
            part.update({name: fields.get(name) for name in own if name not in part})
            self.parts += [(part["num_frames"] + sum(frames for frames, _ in self.parts[-1:]), part)]
        return fields

    def of_part(self, name: str, size: int) -> Any:
        """A field that parts may have of their own."""
        if name == "gain_db":
            return ((self.uint(2) + 0x8000) % 0x10000 - 0x8000) / 256
        if name == "domains":
            return [self.domain() for _ in range(self.uint(1))]
        if size == 0:
            return None
        frames, step, num_bands = self.uint(1), self.uint(1), self.uint(1)
        edges = [self.varint() for _ in range(num_bands + 1)]
        return {"frames": frames, "step_db": step / 16, "edges": edges}

    def part(self, names: dict[str, str]) -> dict[str, Any]:
        part: dict[str, Any] = {name: self.varint() for name in ("num_frames", "origin", "first_sample", "num_samples")}
        stop = self.varint() + self.at
        while self.at < stop:
            tag, size = self.varint(), self.varint()
            part[names[str(tag)]] = self.of_part(names[str(tag)], size)
        return part

    def part_at(self, frame: int) -> dict[str, Any]:
        return next(part for stop, part in self.parts if frame < stop)

    def domain(self) -> dict[str, Any]:
        return {
            "name": self.raw(self.uint(1)).decode(),
            "num_codebooks": self.uint(1),
            "codebook_size": self.uint(2) + 1,
            "num_shared": self.uint(1),
            "groups": [self.uint(1) for _ in range(self.uint(1))],
        }

    def segment(self, start: int) -> dict[str, Any]:
        stop = self.varint() + self.at
        sequence, start_frame, num_frames = self.varint(), self.varint(), self.varint()
        domains = self.part_at(start_frame)["domains"]
        num_streams = self.channels * len(domains)
        mask = self.uint(-(-num_streams // 8))
        chunks = []
        for _ in range(self.varint()):
            stream, place, size, crc = self.varint(), self.uint(1), self.varint(), self.uint(4)
            if place % 16 == 15:  # lost, and so all above it
                self.problems.append(["chunk", start_frame])
                continue
            assert place % 16 == 0
            chunks.append((stream, place // 16, size, crc))
        assert self.at == stop
        self.crc(start)
        names = [f"{stream // len(domains)} {domains[stream % len(domains)]['name']}" for stream in range(num_streams)]
        codes: dict[str, list[list[int]]] = {}
        for stream, group, size, crc in chunks:
            data = self.raw(size)
            assert zlib.crc32(data) == crc
            domain = domains[stream % len(domains)]
            bits = len(f"{domain['codebook_size'] - 1:b}")
            number = int.from_bytes(data, "little")
            for _ in range(domain["groups"][group]):
                row = [number >> bits * i & (1 << bits) - 1 for i in range(num_frames)]
                codes.setdefault(names[stream], []).append(row)
                number >>= bits * num_frames
            assert number == 0
        silent = [name for stream, name in enumerate(names) if mask >> stream & 1]
        return {
            "sequence": sequence,
            "start_frame": start_frame,
            "num_frames": num_frames,
            "codes": codes,
            "silent": sorted(silent),
            "removed": sorted(set(names) - set(silent) - set(codes)),
            **({"gains": {}} if "envelope" in self.fields else {}),
            **({"treble": {}} if "treble" in self.fields else {}),
        }

    def gains(self, segment: dict[str, Any], stop: int, key: str, name: str, bits: int, lowest: int, most: int) -> None:
        assert self.varint() == segment["sequence"]
        channel, coding = self.varint(), self.uint(1)
        if coding == 15:
            self.problems.append([name, segment["start_frame"]])
            return
        layout = self.part_at(segment["start_frame"])[name]
        num_bands, num_columns = len(layout["edges"]) - 1, -(-segment["num_frames"] // layout["frames"])
        data = self.raw(stop - self.at)
        if coding == 0:
            number = int.from_bytes(data, "little")
            assert len(data) == -(-bits * num_bands * num_columns // 8)
            values = [number >> bits * i & (1 << bits) - 1 for i in range(num_bands * num_columns)]
            assert max(values) <= most
            stored = [values[band * num_columns :][:num_columns] for band in range(num_bands)]
        else:
            table_of = self.envelope_table if key == "gains" else self.treble_table
            stored = self.range_coded(data, num_bands, num_columns, "band" if key == "gains" else "treble", table_of)
        segment[key][str(channel)] = [[value + lowest for value in row] for row in stored]

    @staticmethod
    def envelope_table(stored: list[list[int]], band: int, n: int) -> int:
        before = sorted((-2, stored[band][n - 1] - 3, 4))[1] if n else 5
        below = sorted((-2, stored[band - 1][n] - 3, 4))[1] if band else 0
        return 28 * (before + 2) + 4 * (below + 2) + 4 * band // len(stored)

    @staticmethod
    def treble_table(stored: list[list[int]], band: int, n: int) -> int:
        if n == 0:
            return stored[band - 1][0] if band else 19
        change = sorted((-2, stored[band - 1][n] - stored[band - 1][n - 1], 2))[1] + 2 if band else 5
        return 20 + 6 * stored[band][n - 1] + change

    def range_coded(
        self,
        data: bytes,
        num_bands: int,
        num_columns: int,
        name: str,
        table_of: Callable[[list[list[int]], int, int], int],
    ) -> list[list[int]]:
        tables = [list(map(int, line.split(","))) for line in TABLES[name].read_text().splitlines()]
        rest = iter(data)
        code, width = 0, 2**32
        for _ in range(4):
            code = 256 * code + next(rest, 0)
        stored: list[list[int]] = [[] for _ in range(num_bands)]
        for n in range(num_columns):
            for band in range(num_bands):
                table = tables[table_of(stored, band, n)]
                share = width // 4096
                value = 0
                while code // share >= sum(table[: value + 1]):
                    value += 1
                code -= share * sum(table[:value])
                width = share * table[value]
                while width < 2**24:
                    code, width = 256 * code + next(rest, 0), 256 * width
                stored[band].append(value)
        assert next(rest, None) is None
        return stored


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
    ["v1_three_domains", "v1_two_channels", "v1_future_minor", "v1_envelope", "v1_treble", "v1_parts", "v1_lost"],
)
def test_golden_files_decode_the_same_with_a_decoder_written_from_the_document(name: str) -> None:
    expected = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    expected["problems"].sort()  # found in another order
    assert Slow((DATA / f"{name}.sdc").read_bytes()).decode() == expected


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
    for name in {"envelope", "treble"} & fields.keys():
        fields[name] = GainLayout(**{**fields[name], "edges": tuple(fields[name]["edges"])})
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
        writer.write(codes | silent, num_frames=part["num_frames"], gains=gains, treble=treble)
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
    assert set(documented) == header.KNOWN_FIELDS
    assert sorted(documented.values()) == sorted(Header.__dataclass_fields__)


def test_the_document_has_the_limits_of_the_code() -> None:
    table = DOCUMENT.split("## Limits")[1].split("##")[0]
    limits = {what: int(number.replace(",", "")) for what, number in re.findall(r"\| (.+?) \| ([\d,]+) \|", table)}
    assert limits == {
        "bytes of the fields of the header": header.MAX_BODY_BYTES,
        "sample rates in Hz": header.MAX_RATE,
        "hop length": header.MAX_HOP_LENGTH,
        "context frames": header.MAX_CONTEXT_FRAMES,
        "channels": header.MAX_CHANNELS,
        "domains": header.MAX_DOMAINS,
        "stages": header.MAX_STAGES,
        "codebooks of a domain": header.MAX_CODEBOOKS,
        "entries of a codebook": header.MAX_CODEBOOK_SIZE,
        "layer groups of a domain": header.MAX_GROUPS,
        "layer groups of all domains × coded channels": header.MAX_CHUNKS,
        "frames of a segment": header.MAX_SEGMENT_FRAMES,
        "codes of a segment, of all streams": header.MAX_CODES,
        "frames of a stream": header.MAX_FRAMES,
        "bands of an envelope, or of treble": header.MAX_BANDS,
        "frames of a gain": header.MAX_GAIN_FRAMES,
        "samples per channel": header.MAX_SAMPLES,
        "parts": header.MAX_PARTS,
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
