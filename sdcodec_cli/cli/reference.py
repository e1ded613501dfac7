"""Writes the page about the command line: `python -m sdcodec_cli.cli.reference > docs/cli.md`.

A test fails when the page is out of date.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any, cast

import typer.main

from .app import app

INTRODUCTION = """\
# `sdc` on the command line

*This page is generated from `sdc --help` by `python -m sdcodec_cli.cli.reference > docs/cli.md`.*

```
sdc compress talk.wav                      # talk.sdc
sdc decode talk.sdc                        # talk.decoded.wav
sdc decode talk.sdc --stem speech          # talk.speech.wav
sdc separate film.wav -o stems/            # stems/film.speech.wav, ...
sdc separate film.mp4 --without speech     # film.without-speech.wav; a film with --film
sdc enhance talk.sdc                       # talk.enhanced.wav
sdc background talk.sdc --with rain.wav    # talk.exchanged.wav
sdc extend talk.wav                        # talk.extended.wav
sdc mixer talk.sdc                         # talk.mixer.html
sdc info talk.sdc                          # what is in it
sdc tokens talk.sdc                        # talk.npz: its codes, for other programs
sdc cut talk.sdc --start 3 --duration 8 -o excerpt.sdc
```

## What all commands have in common

**Inputs** are files, folders, or `-` for standard input. A folder is searched for audio (`compress`, `separate`,
`extend`), `.sdc` files (`decode`, `info`) or both (`enhance`, `background`, `voice`, `tokens`), subfolders included,
hidden files left out, and so is what `sdc` made of other files there (`a.decoded.wav`, `a.speech.wav`, `a.extended.wav`
and so on; `extend` leaves out only the last of these; where both are searched for, also audio whose `.sdc` file lies
beside it). `strip`, `cut` and `join` take files only, and to `mixer` a folder is one input, with a stem in each of its
files. Audio is WAV, FLAC, Ogg Vorbis, Opus, AIFF, AU, CAF, W64 and RF64, and whatever FFmpeg reads: MP3, AAC, the sound
of films (MP4, MOV, MKV, WebM, AVI, WMV, MPEG-TS) and more; its first track, unless `--track` says otherwise. A track
that starts late begins with silence. What a file is, is decided by its content. Files that are cut short, damaged or
encrypted are refused, and so are samples that are not numbers.

**Channels** are mixed down to one for `compress`, and for what the model of `separate` hears: those of a film, where
the file says what they are for, as to stereo (ITU-R BS.775: centre and surrounds at −3 dB, no LFE) and from there to
one; others to their mean. Where channels are kept, what each of them is for is kept, too. `enhance`, `background` and
`voice` keep those of audio, unless `--channels mono` says otherwise; a `.sdc` file has those that were coded.

**Outputs** lie beside their inputs, unless `-o` says otherwise (`strip`, `cut` and `join` always need it):

| `-o` | means |
|---|---|
| not given | beside the input: `a.wav` → `a.sdc`, `a.sdc` → `a.decoded.wav` or `a.speech.wav`; from `-` to `-` |
| `-o FILE` | this file; for one input and one stem |
| `-o DIR/` | the usual names in this folder, which is created if need be; a searched folder keeps its subfolders |
| `-o -` | standard output, but never a terminal; audio is WAV then |

`enhance`, `background` and `voice` write audio or `.sdc` files, as the suffix of `-o FILE` says; elsewhere WAV, or with
`--sdc` codes.

Audio is written in the format of its suffix: `.wav` and `.flac` with 16 bits, `.ogg` (Vorbis), `.opus`, `.mp3`, `.m4a`
(AAC); a WAV file beyond 4 GiB is RF64. `--format` asks for one of these, or for others, and names that are made get its
suffix:

| `--format` | samples | sample rate | `--audio-bitrate`, of all channels together |
|---|---|---|---|
| `wav`, `wav-24` | 16 or 24 bits | any | |
| `wav-float` | 32 bit floats, which keep what is beyond full scale | any | |
| `flac`, `flac-24` | 16 or 24 bits, compressed without loss | up to 655,350 Hz | |
| `ogg` | Vorbis | up to 200 kHz; with a bitrate 50 kHz | nominal; 64 to 500 of stereo at 44.1 kHz, else other limits |
| `opus` | Opus | 8, 12, 16, 24 or 48 kHz | 6 to 256 per channel, in the mean |
| `mp3` | MP3, up to two channels | nine from 8 to 48 kHz | constant: one of 14 from 32 to 320, at low rates from 8 |
| `m4a` | AAC, not late and exactly as long | 13 from 7.35 to 96 kHz | 8 to 256 per channel in the mean, usually 96 |
| `m4a-alac` | 16 bits, compressed without loss, in MPEG-4 | any | |

`--audio-bitrate` is for sound in films, too, which has `--audio-codec` instead of `--format`, and no `--rescale`. To a
pipe `decode` writes at once only WAV of 16 bits that is not rescaled.

Where a format does not take the sample rate, audio is resampled to the next higher one that it takes, and a line says
so. Samples beyond full scale are limited to it, and a line says how many. With `--rescale`, where an output would go
beyond full scale, all outputs of that input are made softer alike, by no more than it takes: stems still fit together.
They are held in the folder of the output until the peak is known, 4 bytes a sample.

**Tags and covers**: a `.sdc` file has the tags of its input, and with `compress --cover` its cover: a JPEG or PNG
picture of up to 4 MiB, as it is. `decode` writes both back, `info` shows them, `strip`, `cut`, `join`, `enhance`,
`background` and `voice` keep them in `.sdc` files; of several files joined they are those of the first. `separate`
gives stems the tags of its input, and with `--cover` its cover. What goes where:

| | tags (title, artist, album, date, track number, genre, comment, copyright, licence) | cover |
|---|---|---|
| WAV | all but the licence; none through a pipe | not held, which a line says; `info --cover FILE` saves it |
| FLAC, Ogg Vorbis, Opus | all, as Vorbis comments | as a picture block (in Ogg as `METADATA_BLOCK_PICTURE`) |
| MP3 | all, as ID3 2.4 | as ID3's `APIC` |
| `.m4a` | all, as items of iTunes | as its `covr` |
| films | those of the film stay, and no others come | that of the film stays |

An output appears under its name only when it is complete, and those of one input all
together: on an error, Ctrl-C or a full disk, nothing is left behind. Where a program is killed outright, the unfinished
`.NAME.sdc-part` goes when the same output is written again. Existing outputs are refused, before any model is
loaded; `--force` replaces them. An input is never replaced.

**Films** keep their picture: with `--film`, or if the name after `-o` is that of a film (`.mp4`, `.m4v`, `.mov`,
`.mkv`, `.webm`), `separate` copies picture, subtitles, chapters, covers, attachments, metadata and other sound tracks
of its input as they are, and puts its sound in the place of the first sound track, or of `--track N`; `decode` does
so with the film that `--film` names. With `--add-track` it becomes one track more. It is in sync to the sample; a
film that begins late begins at zero. Subtitles of text that the container
does not take as they are become those that it takes, with the same text and times, but simpler styles. What a container
cannot hold is refused. What is left out or converted is said, and so are both lengths where film and sound differ by
more than half a second.

**Standard output** carries results only: audio, streams, tables, JSON. Everything else is on standard error: a
progress bar if that is a terminal, with stage and time left, one line per file when it is done, notes and errors.
`--quiet`, of commands that work on files, leaves the errors.

**Progress for programs**: with `--progress json` every line on standard error is a JSON object, with or without
`--jobs` and `--quiet`:

```
{"event": "progress", "file": "a.wav", "stage": "measuring", "done": 60.0, "total": 60.0}
{"event": "progress", "file": "a.wav", "stage": "coding", "done": 8.0, "total": 60.0}
{"event": "end", "file": "a.wav", "ok": true}
```

| `event` | other keys |
|---|---|
| `progress` | `file`, `stage`, `done` and `total`: seconds of audio; `total` is null where it is not known |
| `end` | `file`, and `ok`: whether its outputs are there |
| `note` | `message`: a line for people, which `--quiet` leaves out |
| `error` | `message`: likewise, without `sdc: `, and `--quiet` keeps it |

Stages are `measuring` and then `coding` (`compress`, with `estimating` in between for `--bitrate`; `tokens` of audio),
`separating` or `extending`; `decode` has `decoding`; with `--rescale` there is `writing` in the end, of all outputs
together. For `enhance`, `background`, `voice` and `mixer` `stage` is null, and `done` is of all their passes. Of each
stage there is an event about every 0.2 s, and the last one. Files that fail before work begins have an `error` only;
what ends the whole command is a plain line, `sdc: <what>`.

Bytes of a file's name that are not UTF-8 appear as `\\xNN`, in JSON as well.

**Many inputs** are done one after the other, or with `--jobs N` in as many processes, which share the cores (0: one
process for each core); lines then come in the order in which inputs are done. A process that is killed fails the input
that it had, and the others go on. `--shard 3/16` does the third of sixteen parts, which depend on nothing but the names
of the inputs: `1/16` to `16/16` on sixteen machines do all of them. `--shard auto` takes what torchrun (`RANK`,
`WORLD_SIZE`) or a SLURM array (`SLURM_ARRAY_TASK_ID`, `_MIN`, `_STEP`, `_COUNT`) says. `--skip-existing` leaves out
inputs whose outputs are all there: outputs appear whole, so that goes on where something stopped. Several inputs end
with a summary.

**Errors** are one line each, `sdc: <file>: <what>; <what to do>`. With several inputs, the others go on. A damaged
`.sdc` file is decoded as far as possible, and each problem is a line. An error that was not foreseen keeps its
traceback.

| exit code | means |
|---|---|
| 0 | done |
| 1 | something failed: an input is missing or damaged, an output exists, ... |
| 2 | the command line is wrong |
| 130 | Ctrl-C (another signal: 128 and its number, but for `sdc train`, which saves and stops: 130) |

| environment | means |
|---|---|
| `SDC_DEVICE` | default of `--device` |
| `TMPDIR` | where audio from standard input, or for standard output, is held while it is incomplete |
| `SDC_DATA_ROOT` | default of `--data-root` of `sdc eval` |

`sdc --install-completion` teaches the shell to complete commands, options and names of models.
"""

JSON_INTRODUCTION = """\
## JSON

`--json` prints one object per line: one line per input (per model for `sdc models`, one in all for `join`, `train`,
`eval`, `bench` and `data scan`). Numbers are not rounded; what JSON cannot express, such as infinity, is `null`. Inputs
that fail have a line on standard error and none here.
"""

SCHEMAS = [
    ("`sdc compress --json`", "sdcodec_cli.engine.compress", "CompressResult"),
    ("`sdc decode --json`", "sdcodec_cli.engine.decode", "DecodeResult"),
    ("`sdc separate --json`", "sdcodec_cli.engine.separate", "SeparateResult"),
    ("`--json` of `sdc enhance`, `background` and `voice`", "sdcodec_cli.engine.coded", "SpeechResult"),
    ("`sdc extend --json`", "sdcodec_cli.engine.extend", "ExtendResult"),
    ("`sdc mixer --json`", "sdcodec_cli.engine.mixer.mixer", "MixerResult"),
    ("`sdc tokens --json`", "sdcodec_cli.engine.tokens", "TokensResult"),
    ("`--json` of `sdc strip`, `cut` and `join`", "sdcodec_cli.engine.edit", "EditResult"),
    ("`sdc info --json`", "sdcodec_cli.engine.inspect", "FileReport"),
    ("Each of `streams`", "sdcodec_cli.engine.inspect", "StreamReport"),
    ("Each of `lower`", "sdcodec_cli.engine.inspect", "LowerModelReport"),
    ("`envelope`, `treble` and `stereo`", "sdcodec_cli.engine.inspect", "GainsReport"),
    ("Each of `parts`", "sdcodec_cli.engine.inspect", "PartReport"),
    ("`cover`", "sdcodec_cli.engine.inspect", "CoverReport"),
    ("Each of `problems`", "sdcodec_cli.bitstream.reader", "Problem"),
    ("`sdc train --json`", "sdcodec_cli.engine.train.loop", "TrainResult"),
    ("`sdc eval --json`", "sdcodec_cli.engine.evaluate.score", "EvalResult"),
    ("Each of `rows`", "sdcodec_cli.engine.evaluate.score", "Row"),
    ("Each of `metrics`", "sdcodec_cli.engine.evaluate.score", "Summary"),
    ("Each of `activity`", "sdcodec_cli.engine.evaluate.score", "ActivityScore"),
    ("Each of `codebooks`", "sdcodec_cli.engine.evaluate.score", "CodebookUse"),
    ("Each of `cost`", "sdcodec_cli.engine.evaluate.score", "Cost"),
    ("Each of `paper`", "sdcodec_cli.engine.evaluate.paper", "PaperRow"),
    ("`sdc data scan --json`", "sdcodec_cli.data.scan", "ScanResult"),
    ("`sdc bench --json`", "sdcodec_cli.engine.bench", "BenchResult"),
    ("`parts`", "sdcodec_cli.engine.bench", "PartTime"),
    ("`sdc bench --recipe --json`", "sdcodec_cli.engine.bench_training", "TrainingBenchResult"),
    ("`step`", "sdcodec_cli.engine.bench_training", "StepCost"),
    ("`sdc bench --data-root --json`", "sdcodec_cli.engine.bench_training", "LoaderBenchResult"),
    ("`--json` of all `sdc models`", "sdcodec_cli.cli.models", "ModelReport"),
    ("Each of `stages`", "sdcodec_cli.cli.models", "StageReport"),
]

_TYPES = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "None": "null",
    "dict[str, str]": "object of texts",
    "dict[str, int]": "object of integers",
    "dict[str, float]": "object of numbers",
    "tuple[str, ...]": "list of texts",
    "tuple[float, ...]": "list of numbers",
    "tuple[int, ...]": "list of integers",
    "dict[str, Summary]": "object of objects",
    "Split": "text",
    "Task": "text",
    "StepCost": "object",
    "GainsReport": "object",
    "CoverReport": "object",
    "ProblemKind": "text",
}


_MEANINGS = {
    "input": "As given; `-` for standard input.",
    "output": "`-` for standard output.",
    "seconds": "Length of the audio.",
    "bytes": "Size of the file.",
    "times_real_time": "Seconds of audio per second of work.",
    "model": "Its name.",
    "device": "Where it was computed.",
    "name": "Of the file, as given, or of the model.",
    "format_version": "Major and minor version of the format.",
    "encoder": "The program that wrote the file.",
    "tags": "Such as `title` and `artist`.",
    "sample_rate": "Of the model, in Hz.",
    "hop_length": "Samples per frame.",
    "context_frames": "Frames on each side that decoding a frame needs.",
    "original_rate": "Of the audio that was compressed, in Hz.",
    "original_channels": "Of the audio that was compressed.",
    "coded_channels": "1 where channels were mixed down.",
    "segment_frames": "Frames of the longest segment.",
    "streams": "One per channel, stage and domain.",
    "domain": "Its name.",
    "domains": "Their names.",
    "num_codebooks": "Of this domain.",
    "codebook_size": "Entries of each codebook.",
    "num_bytes": "Size of its codes.",
    "active": "Share of segments with codes.",
    "silent": "Share of segments in which the domain was not active.",
    "removed": "Share of segments from which the domain was taken out.",
    "damaged": "Share of segments whose codes are lost.",
    "kind": "One word for the sort of damage.",
    "message": "One line for people.",
    "folder": "Where the model is.",
    "description": "One line for people.",
    "run": "Folder of the run.",
    "step": "Optimizer steps done, or the cost of one.",
    "recipe": "Its name.",
    "plain": "The same step done plainly.",
    "data_root": "As given.",
    "weights_sha256": "Of the model's tensors.",
    "version": "Of the program.",
    "workers": "Processes that read.",
    "split": "`train`, `val` or `test`.",
    "protocol": "`paper` or `published-code`.",
    "rows": "The table.",
    "mean": "Over clips.",
    "std": "Standard deviation over clips.",
    "system": "Its name.",
    "codebooks": "One per domain.",
    "task": "As in `rows`.",
    "si_sdri_std": "Standard deviation over clips, in dB.",
    "visqol_std": "Standard deviation over clips.",
    "notes": "Anything else worth saying.",
    "stem": "A domain, or `mix`.",
    "si_sdr_std": "Standard deviation over clips, in dB.",
    "num_clips": "How many the mean is of.",
    "threads": "How many compute on the processor.",
    "decode_mix": "All domains to their mix.",
}
"""What fields mean whose class has no docstring for them."""


def reference() -> str:
    """The whole page."""
    root: Any = typer.main.get_command(app)
    parts = [INTRODUCTION]
    for path in commands(root):
        parts.append(f"## `sdc {' '.join(path)}`\n\n```\n{help_text(root, path)}\n```\n")
    parts.append(JSON_INTRODUCTION)
    for title, module, name in SCHEMAS:
        rows = [f"| `{key}` | {kind} | {meaning} |" for key, kind, meaning in fields(module, name)]
        parts.append("\n".join([f"{title}:\n", "| key | type | meaning |", "|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command that is not a group, in the order of the help."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def help_text(root: Any, path: tuple[str, ...]) -> str:
    """What `sdc PATH --help` prints on a terminal of 100 columns, of the app `root`."""
    command, context = root, root.make_context("sdc", [], resilient_parsing=True, terminal_width=100)
    for name in path:
        command = command.commands[name]
        context = command.context_class(command, info_name=name, parent=context, terminal_width=100)
    return str(command.get_help(context))


def fields(module: str, name: str) -> list[tuple[str, str, str]]:
    """Name, type and meaning of each field of a dataclass, those of its bases first."""
    described = getattr(importlib.import_module(module), name)
    rows: list[tuple[str, str, str]] = []
    for part in reversed(described.__mro__[:-1]):
        rows += _own_fields(inspect.getsource(part))
    return rows


def _kind(annotation: str) -> str:
    """The type of a field in words."""
    if annotation.startswith("Literal["):
        return "text"
    if annotation not in _TYPES and re.fullmatch(r"tuple\[[A-Z]\w+, \.\.\.\]", annotation):
        return "list of objects"
    return _TYPES[annotation]


def _own_fields(source: str) -> list[tuple[str, str, str]]:
    """The same of a class from its source, without the fields of its bases."""
    rows: list[tuple[str, str, str]] = []
    for statement in cast(ast.ClassDef, ast.parse(source).body[0]).body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            kinds = [_kind(kind.strip()) for kind in ast.unparse(statement.annotation).split("|")]
            field = statement.target.id
            rows.append((field, " or ".join(kinds), _MEANINGS.get(field, "")))
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and rows:
            meaning = " ".join(str(statement.value.value).split())
            rows[-1] = (*rows[-1][:2], re.sub(r"\bNone\b", "null", re.sub(r"\bFalse\b", "false", meaning)))
    return rows


if __name__ == "__main__":
    print(reference(), end="")
