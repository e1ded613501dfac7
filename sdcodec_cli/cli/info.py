"""`sdc info`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Console, duration, num_bytes, put, source_name, table, wrong
from .options import Force, Json, StreamInputs

if TYPE_CHECKING:
    from ..engine.inspect import CoverReport, FileReport, GainsReport, LowerModelReport, PartReport, StreamReport


SHOWN_PARTS = 6
"""Parts whose length is shown."""


def info(
    inputs: StreamInputs,
    cover: Annotated[
        str | None,
        typer.Option(
            "--cover", metavar="FILE", help="Save the cover of INPUT to this file, .jpg or .png.", show_default=False
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Show what .sdc files hold, without decoding them.

    Every checksum is verified; the exit code is 1 if a file is damaged.

    Example: sdc info talk.sdc
    """
    from ..engine.inputs import STREAM_SUFFIXES, find_inputs
    from ..engine.inspect import inspect, save_cover

    console = Console(json=json)
    try:
        sources, failures = find_inputs(inputs, STREAM_SUFFIXES)
    except ValueError as error:
        wrong(error)
    if cover is not None and (cover == "-" or inputs == ["-"] or len(sources) + len(failures) != 1):
        wrong(f"--cover {cover}: saves the cover of one file to another; name one of each")
    if force and cover is None:
        wrong("--force is about the file of --cover; leave it out")
    for failure in failures:
        console.fail(failure)
    reports = []
    for source in sources:
        with console.catching():
            report = inspect(source)
            console.result(report)
            reports.append(report)
            if cover is not None:
                save_cover(source, cover, overwrite=force)
    if not json and len(reports) == 1:
        _show_one(reports[0])
    elif not json and reports:
        _show_several(reports)
    for report in reports:
        for problem in report.problems:
            console.fail(f"{source_name(report.name)}: {problem.message}")
    console.finish()


def _show_one(report: FileReport) -> None:
    gains = (("envelope", report.envelope), ("treble", report.treble), ("stereo", report.stereo))
    coded = "mono" if report.coded_channels == 1 else f"{report.coded_channels} channels"
    coded = "mono with the places of domains" if report.stereo else coded
    rows = [
        ("duration", duration(report.duration)),
        ("audio", f"{report.original_rate} Hz, {report.original_channels} channel(s), coded as {coded}"),
        ("model", f"{report.model} ({report.sample_rate} Hz), weights {report.weights_sha256[:8]}"),
        *(("stage", _lower(lower)) for lower in reversed(report.lower)),
        ("size", f"{num_bytes(report.num_bytes)}, {report.file_bitrate:.2f} kbit/s"),
        ("payload", f"{num_bytes(report.payload_bytes)}, {report.bitrate:.2f} kbit/s"),
        *((("codes", _saved(report)),) if report.saved is not None else ()),
        *((name, _gains(found)) for name, found in gains if found),
        ("gain", _gain_range(report)),
        *((("parts", _parts(report.parts)),) if report.parts else ()),
        ("segments", f"{report.num_segments} of up to {report.segment_frames / report.frame_rate:g} s"),
        ("format", f"{report.format_version}, written by {report.encoder}"),
        *report.tags.items(),
        *((("cover", _cover(report.cover)),) if report.cover else ()),
    ]
    width = max(len(name) for name, _ in rows)
    put(source_name(report.name))
    for name, value in rows:
        put(f"  {name:{width}}  {value}")
    put("")
    several = report.coded_channels > 1
    # The stages of a domain stand together.
    places = {stem: place for place, stem in enumerate(dict.fromkeys(stream.stem for stream in report.streams))}
    streams = sorted(report.streams, key=lambda stream: (stream.channel, places[stream.stem], stream.stage))
    table(
        (*(("channel",) if several else ()), "domain", "active", "kbit/s", "size", "codebooks"),
        [
            (
                *((str(stream.channel + 1),) if several else ()),
                _name(stream, report),
                "removed" if stream.removed and not stream.active else f"{100 * stream.active:.0f} %",
                f"{stream.bitrate:.2f}",
                num_bytes(stream.num_bytes),
                f"{stream.num_codebooks} x {stream.codebook_size}",
            )
            for stream in streams
        ],
        right=("active", "kbit/s", "size", "codebooks"),
    )


def _name(stream: StreamReport, report: FileReport) -> str:
    if stream.stage == 0:
        return stream.stem
    return f"{stream.stem} above {report.lower[stream.stage - 1].sample_rate / 2000:g} kHz"


def _lower(report: LowerModelReport) -> str:
    return (
        f"{report.model} decodes what is below {report.sample_rate / 2000:g} kHz, weights {report.weights_sha256[:8]}"
    )


def _gain_range(report: FileReport) -> str:
    gains = sorted({part.gain_db for part in report.parts} or {report.gain_db})
    last = f" to {gains[-1]:+.1f}" if len(gains) > 1 else ""
    return f"{gains[0]:+.1f}{last} dB before coding"


def _parts(parts: Sequence[PartReport]) -> str:
    """How long parts are, and how much context there is beside them."""
    context = sum(part.before + part.behind for part in parts)
    around = f"{duration(context)} of context around {'them' if len(parts) > 1 else 'it'}"
    if len(parts) == 1:
        return f"an excerpt, {around}"
    lengths = [duration(part.seconds) for part in parts[:SHOWN_PARTS]]
    more = ", …" if len(parts) > SHOWN_PARTS else ""
    return f"{len(parts)}, of {', '.join(lengths)}{more}; {around}"


def _saved(report: FileReport) -> str:
    tables = f"range-coded, {report.saved:.1f} % smaller than raw; tables {(report.tables_sha256 or '')[:8]}"
    return tables if report.codes_checked else f"{tables}, which are not here: only checksums were checked"


def _cover(report: CoverReport) -> str:
    kind = "neither JPEG nor PNG" if report.media_type is None else report.media_type.removeprefix("image/").upper()
    pixels = f", {report.width} x {report.height}" if report.width and report.height else ""
    return f"{kind}{pixels}, {num_bytes(report.num_bytes)}"


def _gains(report: GainsReport) -> str:
    return (
        f"{num_bytes(report.num_bytes)}, {report.bitrate:.2f} kbit/s; {report.num_bands} bands every "
        f"{1000 * report.seconds:g} ms, in {100 * report.present:.0f} % of the segments"
    )


def _show_several(reports: list[FileReport]) -> None:
    table(
        ("file", "duration", "size", "kbit/s", "domains", "model", "state"),
        [
            (
                source_name(report.name),
                duration(report.duration),
                num_bytes(report.num_bytes),
                f"{report.file_bitrate:.2f}",
                ", ".join(dict.fromkeys(stream.stem for stream in report.streams if stream.num_bytes)) or "none",
                report.model,
                "damaged" if report.problems else "whole",
            )
            for report in reports
        ],
        right=("duration", "size", "kbit/s"),
    )
