"""`sdc eval`."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..extras import require
from .console import Console, put, table, wrong
from .options import (
    DEFAULT_SHARE,
    DEFAULT_VIEWS,
    Codebooks,
    DeviceOption,
    Effort,
    Fine,
    Force,
    Json,
    Model,
    Quiet,
    TextureOption,
    Views,
    check_codebooks,
    parse_envelope,
)

if TYPE_CHECKING:
    from ..engine.evaluate.score import EvalResult
    from ..engine.evaluate.tables import Table

LEAST = (
    *(
        "before",
        "voicing errors",
        "level to recorded, dB",
        "wave, %",
        "spread >8 kHz, dB",
        "SDR 7–9 kHz, dB",
        "bias >8 kHz, dB",
    ),
    *("clips", "STFT", "mel", "DNSMOS BAK", "DNSMOS SIG", "ESTOI", "bias >1 kHz, dB", "spread >1 kHz, dB"),
    *("SDR 0–8 kHz, dB", "mel >8 kHz", "ViSQOL audio", "kbit/s", "DNSMOS OVRL", "PESQ", "ViSQOL speech", "SDR, dB"),
)
"""Columns of scores, the first of which go first where a terminal is narrow."""

DEFAULT_SYSTEMS = {
    "dnr": ("mixture", "opus:18"),
    "bands": ("opus:18",),
    "extend": ("upsample", "treble"),
    "decodec": ("mixture",),
}
"""By task. Left out with a note where a program is missing; systems that were asked for are an error then."""

DEFAULT_SNRS = (-5.0, 0.0, 5.0, 10.0, 20.0)  # engine.evaluate.settings.DEFAULT_SNRS

DEFAULT_EXAMPLES = 4


def eval_(
    data_root: Annotated[
        Path,
        typer.Option(
            metavar="DIR|FILE",
            help="Root of DnR v2, or of a set made by sdc data mix; for tasks other than dnr any folder, file or "
            "manifest, too; for decodec with folders speech, and sfx, music or background.",
            envvar="SDC_DATA_ROOT",
            show_default=False,
        ),
    ],
    task: Annotated[
        Literal["dnr", "bands", "extend", "decodec"],
        typer.Option(
            help="dnr: resynthesis and separation, as in the paper's tables. bands: resynthesis of any audio, compared "
            "at 32 and 16 kHz and by band. extend: audio at 16 kHz that systems bring to 32 kHz. decodec: speech with "
            "a background mixed behind it, coded whole, without that, and with another."
        ),
    ] = "dnr",
    dnr: Annotated[
        Literal["train", "val", "test"],
        typer.Option(help="Split: tr (train), cv (val) or tt (test); all there is where there are no splits."),
    ] = "test",
    model: Model = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="NAME",
            help="System to measure beside it: mixture (unprocessed), upsample and treble (of extend), opus:KBPS, dac, "
            "encodec:KBPS, a model of the zoo or its folder, or none. May be given several times; by default mixture "
            "and opus:18, of bands opus:18, of extend upsample and treble, of decodec mixture.",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[
        Literal["paper", "published-code"],
        typer.Option(help="How tracks are cut: as the paper says, or as its code does."),
    ] = "paper",
    visqol: Annotated[
        Literal["auto", "off", "speech", "audio", "both"],
        typer.Option(
            help="ViSQOL mode; auto is both, of bands and extend audio, if the extra [eval] is installed, and of "
            "decodec off. Most of the time goes into it."
        ),
    ] = "auto",
    speech: Annotated[
        list[str] | None,
        typer.Option(
            "--speech",
            metavar="NAME",
            help="Score of speech: pesq, estoi, dnsmos, or none. May be given several times; for dnr pesq and "
            "estoi by default, for decodec all, where they are installed.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write index.html there: tables, distributions, spectrograms, and a player to compare by ear.",
            show_default=False,
        ),
    ] = None,
    mushra: Annotated[
        bool, typer.Option("--mushra", help="Write a blind listening test, mushra.html, into the folder of --report.")
    ] = False,
    examples: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Clips to listen to in the report of --report; 4 by default.", show_default=False
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep each clip's results here; the same command goes on from them.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Processes for ViSQOL and scores of speech; the number of cores by default.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Use the first N clips; all by default.", show_default=False),
    ] = None,
    snr: Annotated[
        list[float] | None,
        typer.Option(
            "--snr",
            metavar="DB",
            help="Of decodec: how much more power the speech has than its background. May be given several times; "
            f"{', '.join(f'{ratio:g}' for ratio in DEFAULT_SNRS[:-1])} and {DEFAULT_SNRS[-1]:g} by default.",
            show_default=False,
        ),
    ] = None,
    reverberation: Annotated[
        bool,
        typer.Option(
            "--reverberation/--no-reverberation", help="Of decodec: whether speech is heard in simulated rooms, too."
        ),
    ] = True,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Of decodec: teach small networks to tell phonemes from codes of noisy speech; takes the extra "
            "[phonemes], and a minute or two for each.",
        ),
    ] = False,
    effort: Effort = None,
    codebooks: Codebooks = None,
    views: Views = DEFAULT_VIEWS,
    envelope: Annotated[
        str,
        typer.Option(
            metavar="SHARE|off",
            parser=parse_envelope,
            help="Share of the envelope that models of ours apply, from 0 to 1, see sdc decode; off is without one.",
        ),
    ] = str(DEFAULT_SHARE),
    fine: Fine = None,
    treble: Annotated[
        bool,
        typer.Option(
            "--treble/--no-treble", help="Whether models of ours keep what lies above their band, see sdc compress."
        ),
    ] = True,
    texture: TextureOption = True,
    device: DeviceOption = "auto",
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Score a model: resynthesis, separation, bitrate and speed on DnR; on any audio what is above 8 kHz, too; or how
    well it tells speech from its background.

    A clip that cannot be read is reported and skipped, and the exit code is 1 at the end. Under torchrun the processes
    share the clips, through --work.

    Example: sdc eval --dnr test --data-root dnr_v2 --against opus:6 --report report
    """
    require("eval", "sdc eval")
    if mushra and report is None:
        wrong("--mushra needs a place to go; pass --report DIR")
    if examples is not None and report is None:
        wrong("--examples are of the report; pass --report DIR")
    examples = DEFAULT_EXAMPLES if examples is None else examples

    from ..data.parallel import own_cores
    from ..engine.codec import load_codec
    from ..engine.evaluate.evaluation import evaluate
    from ..engine.evaluate.settings import Settings
    from ..engine.evaluate.speech import PACKAGES
    from ..engine.torchrun import is_first_process

    first = is_first_process()
    if fine is not None and envelope == "off":
        wrong(f"{'--fine' if fine else '--coarse'} is about the envelope; leave it out, or --envelope off")
    if not treble and task != "bands":
        wrong("--no-treble is about resynthesis of audio at more than the model's rate; leave it out, or --task bands")
    if task != "decodec" and (snr is not None or not reverberation or probe):
        option = "--snr" if snr is not None else "--probe" if probe else "--no-reverberation"
        wrong(f"{option} is about speech with a background; leave it out, or --task decodec")
    share = None if envelope == "off" else float(envelope)
    console = Console(quiet=quiet or not first, json=json and first)
    chosen = tuple(against) if against is not None else DEFAULT_SYSTEMS[task]
    if "none" in chosen and len(chosen) > 1:
        wrong("--against none stands alone; leave it out, or the others")
    for name in speech or ():
        if name not in (*PACKAGES, "none") or (name == "none" and len(speech or ()) > 1):
            wrong(f"--speech {name}: give pesq, estoi or dnsmos, several of them, or none alone")
    try:
        settings = Settings(
            data_root=data_root,
            split=dnr,
            task=task,
            protocol=protocol,
            against=() if chosen == ("none",) else chosen,
            all_needed=against is not None,
            visqol=visqol,
            speech=None if speech is None else tuple(name for name in PACKAGES if name in speech),
            jobs=jobs or own_cores(),
            work=work,
            limit=limit,
            report=report,
            mushra=mushra,
            examples=examples,
            overwrite=force,
            device=device,
            effort=effort,
            codebooks=codebooks,
            views=views or DEFAULT_VIEWS,
            envelope=share,
            fine=fine,
            treble=treble,
            texture=texture,
            snrs=DEFAULT_SNRS if snr is None else tuple(snr),
            reverberation=reverberation,
            probe=probe,
        )
    except ValueError as error:
        wrong(error)
    codec = load_codec(model, device=device, effort=effort)
    check_codebooks(codec, codebooks)

    def finished(result: EvalResult) -> None:
        # Before pages are made: whatever becomes of them, the numbers are there.
        for note in result.notes:
            console.say(note)
        if not json:
            _show(result)
        console.result(result)
        for failure in result.failures:
            console.fail(failure)

    try:
        result = evaluate(codec, settings, progress=lambda unit: console.progress(dnr, unit=unit), finished=finished)
    except KeyboardInterrupt:
        kept = (
            f"{work} has what is measured, and the same command goes on" if work else "without --work nothing is kept"
        )
        console.say(f"sdc: stopped; {kept}")
        raise
    if report is not None and first:
        heard = min(examples, result.num_clips)
        clips = "1 clip" if heard == 1 else f"{heard} clips"
        console.say(f"{report / 'index.html'}: tables, distributions and {clips} to listen to")
    console.finish()


def _show(result: EvalResult) -> None:
    from ..engine.evaluate.tables import about, tables

    put(about(result))
    for shown in tables(result):
        put(f"\n{shown.title}\n")
        _show_table(shown)


def _show_table(shown: Table) -> None:
    """A table in the width there is; what has no room is named below it."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    heads = list(shown.heads)
    rows = [
        [
            cell + " *" * ((index, at) in shown.best) + ", paper" * (index in shown.paper and at == 1)
            for at, cell in enumerate(row)
        ]
        for index, row in enumerate(shown.rows)
    ]
    if _width(heads, rows) > room:
        rows = [[re.sub(r" ± [\d.]+", "", cell) for cell in row] for row in rows]
    dropped = []
    for head in LEAST:
        if _width(heads, rows) > room and head in heads:
            dropped.append(head)
            at = heads.index(head)
            heads, rows = heads[:at] + heads[at + 1 :], [row[:at] + row[at + 1 :] for row in rows]
    table(heads, rows, right=heads[shown.names :], whole=heads[: shown.names])
    if shown.note:
        put(shown.note)
    if dropped:
        put(f"not enough room for {', '.join(dropped)}: use a wider terminal, or --json")


def _width(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Of a table whose heads may be broken between words."""
    widths = [max(max(map(len, head.split())), *(len(row[at]) for row in rows)) for at, head in enumerate(heads)]
    return sum(widths) + 3 * (len(widths) - 1)
