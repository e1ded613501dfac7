"""A decoder of `.sdc` streams, down to codes and gains, written from docs/format.md alone."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
TABLES = {name: ROOT / "sdcodec_cli" / "bitstream" / f"{name}_gains.csv" for name in ("band", "treble", "stereo")}


class Slow:
    """A decoder of whole streams, as plain as the document: no damage, no speed, nothing shared with the package."""

    def __init__(self, data: bytes, tables: Mapping[str, np.ndarray] | None = None) -> None:
        self.data, self.at, self.tables = data, 0, tables or {}

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
            elif kind == b"ster":
                self.gains(segments[-1], body + size, "places", "stereo", 5, -8, 16)
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
            elif name in ("weights_sha256", "tables_sha256"):
                fields[name] = self.raw(size).hex()
            elif name in ("gain_db", "domains", "envelope", "treble", "stereo"):
                fields[name] = self.of_part(name, size)
            elif name == "lower":
                fields[name] = self.lower(fields["domains"], start + size)
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
        own = ("gain_db", "domains", "envelope", "treble", *({"stereo"} & fields.keys()))
        self.parts: list[tuple[int, dict[str, Any]]] = []
        for part in fields.get("parts", [{"num_frames": 2**40}]):
            part.update({name: fields.get(name) for name in own if name not in part})
            self.parts += [(part["num_frames"] + sum(frames for frames, _ in self.parts[-1:]), part)]
        return fields

    def lower(self, domains: list[dict[str, Any]], stop: int) -> list[dict[str, Any]]:
        """Stages below the last one; the entries of streams get theirs."""
        stages = [
            {
                "model": self.raw(self.uint(1)).decode(),
                "weights_sha256": self.raw(32).hex(),
                **{name: self.varint() for name in ("sample_rate", "hop_length", "context_frames")},
            }
            for _ in range(self.uint(1))
        ]
        for domain in domains:
            domain["stage"], domain["stem"] = self.uint(1), self.raw(self.uint(1)).decode()
        assert self.at == stop
        return stages

    def frames_in(self, domain: dict[str, Any], num_frames: int) -> int:
        stages = [*self.fields.get("lower", []), self.fields]
        stage = stages[domain.get("stage", 0)]
        return int(num_frames * stage["sample_rate"] * self.fields["hop_length"]) // (
            stage["hop_length"] * self.fields["sample_rate"]
        )

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
            chunks.append((stream, place // 16, place % 16, size, crc))
        assert self.at == stop
        self.crc(start)
        names = [f"{stream // len(domains)} {domains[stream % len(domains)]['name']}" for stream in range(num_streams)]
        codes: dict[str, list[list[int]]] = {}
        for stream, group, coding, size, crc in chunks:
            data = self.raw(size)
            assert zlib.crc32(data) == crc
            domain = domains[stream % len(domains)]
            if coding:
                assert coding == 1
                rows = codes.setdefault(names[stream], [])
                rows += self.predicted(data, domain["name"], rows, domain["groups"][group], num_frames)
                continue
            num_codes = self.frames_in(domain, num_frames)
            bits = len(f"{domain['codebook_size'] - 1:b}")
            number = int.from_bytes(data, "little")
            for _ in range(domain["groups"][group]):
                row = [number >> bits * i & (1 << bits) - 1 for i in range(num_codes)]
                codes.setdefault(names[stream], []).append(row)
                number >>= bits * num_codes
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
            **({"places": {}} if "stereo" in self.fields else {}),
        }

    def predicted(self, data: bytes, name: str, lower: list[list[int]], count: int, num_frames: int) -> list[list[int]]:
        """Codes of a layer group, above those of lower groups."""
        of = {key.partition(".")[2]: each.astype(np.int64) for key, each in self.tables.items() if key.startswith(name)}
        places = np.argsort(of["order"], axis=-1)
        vectors: list[list[np.ndarray]] = [
            [of["vectors"][j, places[j, code]] for code in row] for j, row in enumerate(lower)
        ]
        found: list[list[int]] = [[] for _ in range(count)]
        vectors += [[] for _ in range(count)]
        rest = iter(data)
        code, width = sum(next(rest, 0) << 8 * place for place in range(5, -1, -1)), 2**48

        def value(likely: np.ndarray) -> int:
            nonlocal code, width
            weights = self.tables["weights"].astype(np.int64)
            frequencies = weights[np.minimum(likely.max() - likely, len(weights) - 1)]
            ends = np.cumsum(frequencies)
            share = width // int(ends[-1])
            place = int(np.searchsorted(ends, code // share, side="right"))
            width = share * int(frequencies[place])
            code -= share * int(ends[place] - frequencies[place])
            while width < 2**32:
                code, width = (code << 16) + (next(rest, 0) << 8) + next(rest, 0), width << 16
            return place

        def layer(inputs: np.ndarray, name: str, number: int, k: int, lowest: int) -> np.ndarray:
            return np.clip((inputs @ of[name][k] + of[f"{name}_bias"][k]) >> int(of["shifts"][number]), lowest, 127)

        for t in range(num_frames):
            for k in range(len(lower), len(lower) + count):
                total = of["past_bias"][k] + sum(vectors[j][t] @ of["past"][0, j] for j in range(k))
                for lag in range(1, min(len(of["past"]) - 1, t) + 1):
                    total = total + sum(vectors[j][t - lag] @ of["past"][lag, j] for j in range(len(vectors)))
                u = np.clip(total >> int(of["shifts"][0]), 0, 127)
                q = layer(layer(u, "hidden", 1, k, 0), "query", 2, k, -127)
                branch = value((q @ of["branches"][k] + of["branches_bias"][k]) >> int(of["shifts"][3]))
                size = len(of["leaves"][k]) // len(of["branches_bias"][k])
                own = slice(branch * size, (branch + 1) * size)
                leaf = value((of["leaves"][k][own] @ q + of["leaves_bias"][k][own]) >> int(of["shifts"][4]))
                found[k - len(lower)].append(int(of["order"][k, own][leaf]))
                vectors[k].append(of["vectors"][k, own.start + leaf])
        assert next(rest, None) is None
        return found

    def gains(self, segment: dict[str, Any], stop: int, key: str, name: str, bits: int, lowest: int, most: int) -> None:
        assert self.varint() == segment["sequence"]
        channel, coding = self.varint(), self.uint(1)
        if coding == 15:
            self.problems.append([name, segment["start_frame"]])
            return
        layout = self.part_at(segment["start_frame"])[name]
        num_bands, num_columns = len(layout["edges"]) - 1, -(-segment["num_frames"] // layout["frames"])
        num_bands *= 2 if name == "stereo" else 1
        data = self.raw(stop - self.at)
        if coding == 0:
            number = int.from_bytes(data, "little")
            assert len(data) == -(-bits * num_bands * num_columns // 8)
            values = [number >> bits * i & (1 << bits) - 1 for i in range(num_bands * num_columns)]
            assert max(values) <= most
            stored = [values[band * num_columns :][:num_columns] for band in range(num_bands)]
        else:
            table_of = {
                "envelope": self.envelope_table,
                "treble": self.treble_table,
                "stereo": self.stereo_table,
            }[name]
            stored = self.range_coded(data, num_bands, num_columns, "band" if key == "gains" else name, table_of)
        domains = self.part_at(segment["start_frame"])["domains"]
        owner = domains[channel]["name"] if name == "stereo" else str(channel)
        segment[key][owner] = [[value + lowest for value in row] for row in stored]

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

    @staticmethod
    def stereo_table(stored: list[list[int]], row: int, n: int) -> int:
        first, band = (0, row) if row < len(stored) // 2 else (120, row - len(stored) // 2)
        if n == 0:
            return first + (stored[row - 1][0] if band else 17)
        change = sorted((-2, stored[row - 1][n] - stored[row - 1][n - 1], 2))[1] + 2 if band else 5
        return first + 18 + 6 * stored[row][n - 1] + change

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
