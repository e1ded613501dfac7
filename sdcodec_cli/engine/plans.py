"""What each command reads and writes: how its outputs are named, and which it refuses."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ..audio import (
    FILM_SUFFIXES,
    WITH_BITRATE,
    Soundtrack,
    WriteOptions,
    audio_format,
    check_film,
    film_codec,
    is_special,
)
from ..errors import InputError, OutputError
from .files import ALL, Plan, Selection, plan
from .inputs import AUDIO_SUFFIXES, MADE, STREAM_SUFFIXES, TOKENS_SUFFIXES, domains_of, search
from .stems import check_stems

PAGE_SUFFIXES = frozenset({".html", ".htm"})


def plan_compress(
    inputs: Sequence[str],
    output: str | None,
    *,
    overwrite: bool,
    domains: Collection[str] = (),
    only: Selection = ALL,
) -> Plan:
    """`a.wav` becomes `a.sdc` beside it, unless `output` names a file, a folder or `-`.

    In a folder that is searched, what `sdc` made of the files beside it is left out: `a.decoded.wav` and the others
    of `MADE`, and `a.speech.wav` if `domains` has `speech`.

    Raises:
        ValueError: the arguments contradict each other, such as two inputs for one output file.
    """
    return plan(
        inputs,
        output,
        suffixes=AUDIO_SUFFIXES,
        stems=lambda source: ("sdc",),
        name=lambda base, stem: f"{base}.sdc",
        check=_check_stream,
        overwrite=overwrite,
        only=only,
        made={*MADE, *domains},
    )


def plan_decode(
    inputs: Sequence[str],
    output: str | None,
    stems: Sequence[str],
    gains: Collection[str] = (),
    *,
    overwrite: bool,
    only: Selection = ALL,
    film: str | None = None,
    soundtrack: Soundtrack | None = None,
    write: WriteOptions | None = None,
) -> Plan:
    """`a.sdc` becomes `a.decoded.wav` beside it, or `a.speech.wav` for a stem; with a `film`, a film as that is.

    Without one it is audio of the format that is asked for.

    `all` stands for every domain that a file has. Reads the header of every file, to know them, and to refuse files
    that do not have all of `stems` and `gains`.

    Raises:
        InputError: there is no such film
        ValueError: the arguments contradict each other, such as two stems for one output file.
    """
    write = _write_options(write, output)
    suffix = write.suffix if film is None else Path(film).suffix
    if film is not None:
        _refuse_stdout(inputs, output)
        if not film:
            raise ValueError("--film is empty; name a film")
        check_film(film)

    def check(target: str) -> None:
        _check_sound(target, None if film is None else soundtrack or Soundtrack(), write)
        if film is not None and os.path.realpath(target) == os.path.realpath(film):
            raise OutputError(f"{target}: is the film itself; choose another output with -o")

    def stems_of(source: str) -> Sequence[str]:
        if not os.path.isfile(source):  # standard input, a pipe: what is read now would be missing later
            if "all" in stems:
                raise ValueError("what a pipe holds is not known in advance; name the stems instead of all")
            return _each_once(stems)
        known = domains_of(source)
        check_stems(source, known, stems, gains)
        return _each_once(stem for name in stems for stem in (known if name == "all" else (name,)))

    return plan(
        inputs,
        output,
        suffixes=STREAM_SUFFIXES,
        stems=stems_of,
        name=lambda base, stem: f"{base}.{'decoded' if stem == 'mix' else stem}{suffix}",
        check=check,
        overwrite=overwrite,
        only=only,
    )


def plan_separate(
    inputs: Sequence[str],
    output: str | None,
    stems: Sequence[str],
    *,
    overwrite: bool,
    domains: Collection[str] = (),
    only: Selection = ALL,
    soundtrack: Soundtrack | None = None,
    write: WriteOptions | None = None,
) -> Plan:
    """`a.wav` becomes `a.speech.wav` and so on, beside it or in the folder `output`.

    With a `soundtrack`, `a.mp4` becomes `a.speech.mp4`.

    Of folders that are searched the same is left out as in `plan_compress`.

    Raises:
        ValueError: the arguments contradict each other.
    """
    write = _write_options(write, output)
    one = len(set(stems)) == 1
    if not one and output is not None and Path(output).suffix.lower() in AUDIO_SUFFIXES and not os.path.isdir(output):
        raise ValueError(
            f"-o {output}: one file cannot hold several stems; name a folder, such as -o stems/, or one with --stem"
        )

    if soundtrack is not None:
        _refuse_stdout((), output)

    def stems_of(source: str) -> Sequence[str]:
        if soundtrack is not None and not os.path.isfile(source):
            raise InputError(
                f"{'stdin' if source == '-' else source}: is a pipe, and a film is read more than once; save it first"
            )
        return _each_once(stems)

    return plan(
        inputs,
        output,
        suffixes=AUDIO_SUFFIXES,
        stems=stems_of,
        name=lambda base, stem: f"{base}.{stem}{write.suffix}",
        check=lambda target: _check_sound(target, soundtrack, write),
        films=soundtrack is not None,
        overwrite=overwrite,
        only=only,
        into_folder=not (one and output is not None and (Path(output).suffix or is_special(Path(output)))),
        made={*MADE, *domains},
    )


def plan_tokens(
    inputs: Sequence[str],
    output: str | None,
    suffix: str,
    *,
    overwrite: bool,
    domains: Collection[str] = (),
    only: Selection = ALL,
) -> Plan:
    """`a.sdc` or `a.wav` becomes `a.npz` beside it for the suffix `.npz`; for `.sdc` `a.npz` becomes `a.sdc`.

    Of folders that are searched the same is left out as in `plan_compress`, and audio whose `.sdc` is there.

    Raises:
        ValueError: the arguments contradict each other, such as two inputs for one output file.
    """
    back = suffix in STREAM_SUFFIXES

    def stems_of(source: str) -> Sequence[str]:
        has_tokens = Path(source).suffix.lower() in TOKENS_SUFFIXES
        if back and source == "-":
            raise InputError("stdin: tokens are read from files, whose names say what they are; name one")
        if back and not has_tokens:
            raise InputError(
                f"{source}: is no file of tokens, whose names end in {', '.join(sorted(TOKENS_SUFFIXES))}; for others "
                "choose another --format or -o"
            )
        if has_tokens and not back:
            raise InputError(f"{source}: holds tokens already; --format sdc makes a .sdc file of it")
        return ("tokens",)

    def check(target: str) -> None:
        if Path(target).suffix.lower() != suffix and not is_special(Path(target)):
            raise _misnamed(target, suffix[1:], suffix)

    return plan(
        inputs,
        output,
        suffixes=TOKENS_SUFFIXES if back else STREAM_SUFFIXES | AUDIO_SUFFIXES,
        stems=stems_of,
        name=lambda base, stem: f"{base}{suffix}",
        check=check,
        overwrite=overwrite,
        only=only,
        made={*MADE, *domains},
    )


def plan_extend(
    inputs: Sequence[str],
    output: str | None,
    *,
    overwrite: bool,
    only: Selection = ALL,
    write: WriteOptions | None = None,
) -> Plan:
    """`a.wav` becomes `a.extended.wav` beside it, unless `output` names a file, a folder or `-`.

    In a folder that is searched, only what this made of the files beside it is left out.

    Raises:
        ValueError: the arguments contradict each other, such as two inputs for one output file.
    """
    write = _write_options(write, output)
    return plan(
        inputs,
        output,
        suffixes=AUDIO_SUFFIXES,
        stems=lambda source: ("extended",),
        name=lambda base, stem: f"{base}.{stem}{write.suffix}",
        check=lambda target: audio_format(target, write),
        overwrite=overwrite,
        only=only,
        made={"extended"},
    )


def plan_speech(
    inputs: Sequence[str],
    output: str | None,
    made: str,
    *,
    sdc: bool,
    overwrite: bool,
    domains: Collection[str] = (),
    only: Selection = ALL,
    beside: str | None = None,
    write: WriteOptions | None = None,
) -> Plan:
    """`a.wav` and `a.sdc` become `a.enhanced.wav` beside them, unless `output` names a file, a folder or `-`.

    In a folder that is searched, what `sdc` made of the files beside it is left out, see `plan_compress`, and so is
    audio whose `.sdc` file is there.

    Args:
        inputs: files, folders, `-`
        output: if there is one
        made: what stands before the suffix, one of `MADE`
        sdc: outputs that are not named hold a `.sdc` stream
        overwrite: replace existing outputs
        domains: stems that are left out, too
        only: which inputs are worked on
        beside: an input of every job, which is not overwritten
        write: how audio is written

    Raises:
        ValueError: the arguments contradict each other, such as two inputs for one output file.
    """
    if beside == "-" and "-" in inputs:
        raise ValueError("standard input can be read only once; name - once")
    if write is not None and write != WriteOptions() and (sdc or Path(output or "").suffix.lower() in STREAM_SUFFIXES):
        raise ValueError("--format, --audio-bitrate and --rescale are of audio, and a .sdc is written; leave them out")
    write = WriteOptions() if sdc else _write_options(write, output)

    def check(target: str) -> None:
        is_stream = Path(target).suffix.lower() in STREAM_SUFFIXES
        if sdc and not is_stream and not is_special(Path(target)):
            raise _misnamed(target, "a .sdc stream", ".sdc")
        if not is_stream and not sdc:
            audio_format(target, write)

    settled = plan(
        inputs,
        output,
        suffixes=STREAM_SUFFIXES | AUDIO_SUFFIXES,
        stems=lambda source: (made,),
        name=lambda base, stem: f"{base}.{stem}{'.sdc' if sdc else write.suffix}",
        check=check,
        overwrite=overwrite,
        only=only,
        made={*MADE, *domains},
        beside=beside,
    )
    if beside == "-" and len(settled.jobs) > 1:
        raise ValueError("standard input can be read only once, and there are several inputs; name a file instead")
    return settled


def plan_edit(inputs: Sequence[str], output: str, *, overwrite: bool) -> Plan:
    """One or more `.sdc` files become one, `output`, or one named after the first input in the folder `output`.

    Inputs are files or `-`, in their order, and may come twice. Nothing is to be done unless all of them are there.

    Raises:
        ValueError: the arguments contradict each other, or an input is a folder.
    """
    for given in inputs:
        if os.path.isdir(given):
            raise ValueError(f"{given}: is a folder; name a file in it")

    def check(target: str) -> None:
        _check_stream(target)
        for given in inputs[1:]:
            if given != "-" and os.path.realpath(given) == os.path.realpath(target):
                raise OutputError(f"{target}: is an input; choose another output with -o")

    found = search(inputs, STREAM_SUFFIXES)
    if found.failures:
        return Plan((), tuple(found.failures))
    return plan(
        inputs[:1],
        output,
        suffixes=STREAM_SUFFIXES,
        stems=lambda source: ("sdc",),
        name=lambda base, stem: f"{base}.sdc",
        check=check,
        overwrite=overwrite,
    )


def plan_mixer(inputs: Sequence[str], output: str | None, *, overwrite: bool, only: Selection = ALL) -> Plan:
    """`a.sdc`, `a.wav` and the folder `a` become `a.mixer.html` beside them, unless `output` names a file or a folder.

    A folder is one input, with a stem in each of its files.

    Raises:
        ValueError: the arguments contradict each other, such as two inputs for one output file.
    """
    if output == "-":
        raise ValueError("-o -: a page may need a folder beside it; name a file, such as -o song.html")

    def stems(source: str) -> Sequence[str]:
        if source == "-":
            raise InputError("stdin: a page is made of a file or a folder; name one")
        if not os.path.isfile(source) and not os.path.isdir(source):
            raise InputError(f"{source}: is a pipe or a device; a page is made of a file or a folder, name one")
        return ("page",)

    def check(target: str) -> None:
        if Path(target).suffix.lower() not in PAGE_SUFFIXES:
            raise _misnamed(target, "a page", ".html")

    return plan(
        inputs,
        output,
        suffixes=STREAM_SUFFIXES | AUDIO_SUFFIXES,
        stems=stems,
        name=lambda base, stem: f"{base}.mixer.html",
        check=check,
        overwrite=overwrite,
        only=only,
        whole_folders=True,
    )


def _write_options(write: WriteOptions | None, output: str | None) -> WriteOptions:
    """The options, or a ValueError if a bitrate is asked for where names that are made are those of WAV files."""
    write = write or WriteOptions()
    named = output is not None and Path(output).suffix and not os.path.isdir(output)
    if write.bitrate is not None and write.format is None and not named:
        raise ValueError(
            f"a bitrate of {write.bitrate:g} kbit/s: WAV has none to choose; ask for {WITH_BITRATE} with --format"
        )
    return write


def _refuse_stdout(inputs: Sequence[str], output: str | None) -> None:
    """Raise a `ValueError` if a film would go to standard output."""
    if output == "-" or (output is None and "-" in inputs):
        raise ValueError("a film cannot go to standard output, because it is not written in order; name a file with -o")


def _misnamed(target: str, what: str, suffix: str) -> OutputError:
    """An error about an output that is named like something else."""
    return OutputError(f"{target}: would hold {what}; name it {Path(target).with_suffix(suffix).name}")


def _check_stream(target: str) -> None:
    """Raise an OutputError if a stream would have the name of audio."""
    if Path(target).suffix.lower() in AUDIO_SUFFIXES:
        raise _misnamed(target, "a .sdc stream", ".sdc")


def _check_sound(target: str, soundtrack: Soundtrack | None, write: WriteOptions) -> None:
    """Raise an OutputError if sound cannot be written under this name: alone, or, with a soundtrack, in a film."""
    if soundtrack is None:
        audio_format(target, write, film_suffixes=FILM_SUFFIXES)
    else:
        film_codec(target, soundtrack)


def _each_once(stems: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(stems))
