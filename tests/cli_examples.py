"""What the tests of the command line share: a way to run it, and a stand-in for the engine that needs no model.

The stand-in records how it was called, and writes small valid files. `install` puts it in place of the real modules.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from sdcodec_cli.audio import AudioReader, AudioWriter, atomic_output
from sdcodec_cli.bitstream import Reader
from sdcodec_cli.engine.compress import CompressResult
from sdcodec_cli.engine.decode import DecodeResult
from sdcodec_cli.engine.separate import SeparateResult
from sdcodec_cli.errors import SdcError

from bitstream_examples import small_example

SPOKEN = {"seconds": 61.23, "model": "toy", "device": "cpu"}
"""What the stand-in says of everything it makes, unless a test wants it otherwise."""
STEMS = {**SPOKEN, "times_real_time": 77.7, "clipped": {}, "peak_db": {}, "rescaled_db": 0.0}


@dataclass
class Engine:
    """Stand-in for the modules that need a model. Fields named `result` change what is returned."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    loaded: list[tuple[Any, str]] = field(default_factory=list)
    computed: list[tuple[str, int | None]] = field(default_factory=list)
    """In which runtime, on how many threads."""
    efforts: list[int | None] = field(default_factory=list)
    made_with: list[bytes | None] = field(default_factory=list)
    prepared: list[dict[str, bool]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None

    def open_codec(
        self,
        model: str | None = None,
        *,
        runtime: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        effort: int | None = None,
        made_with: bytes | None = None,
    ) -> SimpleNamespace:
        self.loaded.append((model, device))
        self.computed.append((runtime, threads))
        self.efforts.append(effort)
        self.made_with.append(made_with)

        def allocate(num_codebooks: int | None) -> None:
            if num_codebooks is not None and not 1 <= num_codebooks <= 12:
                raise ValueError(f"toy has 1 to 12 codebooks, not {num_codebooks}")

        def prepare(**wanted: bool) -> None:
            self.prepared.append(wanted)

        return SimpleNamespace(name=model or "toy", runtime="onnx", device="cpu", allocate=allocate, prepare=prepare)

    def open_separator(self, model: str | None = None, **options: Any) -> SimpleNamespace:
        return self.open_codec(model, effort=0, **options)

    def compress(self, source: str, target: str, *, progress: Any, **options: Any) -> CompressResult:
        self.calls.append({"source": source, "target": target, **options})
        overwrite = options.get("overwrite", False)
        with AudioReader(source) as reader, atomic_output(target, overwrite=overwrite) as file:
            for _ in reader.blocks():
                if progress:
                    progress(1.0, None)
                    progress(2.0, 61.23)
            self._fail()
            file.write(small_example().data)
        said = {
            "bytes": 46_300,
            "bitrate": 6.05,
            "num_codebooks": 12,
            "payload_bitrate": 6.0,
            "envelope_bitrate": 0.5,
            "treble_bitrate": 0.0,
            "stereo_bitrate": 0.0,
            "saved_percent": 0.0,
            "overhead_percent": 0.8,
            "cover_bytes": 0,
            "times_real_time": 38.4,
            "effort": 4,
            "channels_note": None,
            "activity": {},
            "notes": (),
            "problems": (),
        }
        return CompressResult(source, target, **{**SPOKEN, **said, **self.result})

    def decode(
        self, source: str, targets: Mapping[str, str], *, codec: Any, progress: Any, **options: Any
    ) -> DecodeResult:
        self.calls.append({"source": source, "targets": dict(targets), **options})
        file = sys.stdin.buffer if source == "-" else Path(source).open("rb")  # noqa: SIM115
        with file:
            codec(Reader(file, source).header)
        self._write(targets, options["overwrite"])
        weights = {"older_weights": None, "decoder_weights": "ab" * 32, "notes": ()}
        damage: dict[str, Any] = {"problems": (), "concealed": {}}
        found = {**STEMS, "envelope": options["share"], "band": 8000.0, **weights, **damage, **self.result}
        return DecodeResult(source, dict(targets), **found)

    def separate(self, source: str, targets: Mapping[str, str], *, progress: Any, **options: Any) -> SeparateResult:
        self.calls.append({"source": source, "targets": dict(targets), **options})
        self._write(targets, options["overwrite"])
        return SeparateResult(source, dict(targets), **{**STEMS, "views": 4, "notes": (), **self.result})

    def _write(self, targets: Mapping[str, str], overwrite: bool) -> None:
        self._fail()
        for target in targets.values():
            with AudioWriter(target, 16_000, 1, overwrite=overwrite) as writer:
                writer.write(np.zeros((1, 1600), np.float32))

    def _fail(self) -> None:
        if self.error is not None:
            error, self.error = self.error, None if isinstance(self.error, SdcError) else self.error
            raise error


def install(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-in where the commands import the engine from."""
    for name in ("codec", "compress", "decode", "separate", "separator"):
        module = ModuleType(f"sdcodec_cli.engine.{name}")
        for function in ("open_codec", "open_separator", "compress", "decode", "separate"):
            setattr(module, function, getattr(engine, function))
        monkeypatch.setitem(sys.modules, module.__name__, module)


def sdc(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    """Run `sdc` in this process; an unexpected exception is raised here."""
    from sdcodec_cli.cli.app import app

    result = CliRunner().invoke(app, list(map(str, arguments)), input=stdin, prog_name="sdc")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def errors(result: Result, exit_code: int = 1) -> list[str]:
    """Lines on standard error, each without the name of the program."""
    assert result.exit_code == exit_code, result.output
    lines = result.stderr.splitlines()
    assert all(line.startswith("sdc: ") for line in lines), lines
    return [line.removeprefix("sdc: ") for line in lines]
