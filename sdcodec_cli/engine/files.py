"""Which files a command reads and writes, settled and checked before any model is loaded."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypedDict, cast

from ..audio import (
    FILM_SUFFIXES,
    READ_SUFFIXES,
    WITH_BITRATE,
    AudioWriter,
    FilmWriter,
    Soundtrack,
    WriteOptions,
    amplitude_to_db,
    audio_format,
    check_film,
    check_name,
    check_target,
    film_codec,
    is_special,
    refuse_terminal,
)
from ..bitstream import Reader
from ..errors import InputError, OutputError, SdcError
from .stems import named, stems_in

if TYPE_CHECKING:
    from .batch import Shard

STREAM_SUFFIXES = frozenset({".sdc"})
AUDIO_SUFFIXES = READ_SUFFIXES
TOKENS_SUFFIXES = frozenset({".npz", ".safetensors", ".parquet", ".jsonl"})
MADE = frozenset({"decoded", "extended", "enhanced", "exchanged", "converted"})
"""What stands before the suffix of files that commands make of others; stems do so, too."""
PAGE_SUFFIXES = frozenset({".html", ".htm"})
_UNREAD_SUFFIXES = frozenset(
    {".m4p", ".aa", ".aax", ".ra", ".rm", ".rmvb", ".mpc", ".mp+", ".spx", ".tak", ".shn", ".ofr", ".dsf", ".dff"}
    | {".gsm", ".awb", ".qcp", ".sd2", ".thd", ".mlp", ".dtshd", ".mid", ".midi", ".mod", ".xm", ".it", ".s3m"}
    | {".mxf", ".ogm", ".f4v", ".divx", ".dv", ".m2v", ".swf", ".wtv", ".nut", ".braw", ".r3d"}
)
"""Audio and films that `sdc` does not read; a search of a folder leaves them out, and says so."""


@dataclass(frozen=True)
class StemsResult:
    """What became of one input whose stems were written as audio."""

    input: str
    outputs: dict[str, str]
    """File of each stem."""
    seconds: float
    times_real_time: float
    model: str
    device: str
    clipped: dict[str, int]
    """Samples beyond full scale, limited to it, of each stem."""
    peak_db: dict[str, float]
    """Largest sample of each stem, in dB of full scale, before anything was limited or made softer."""
    rescaled_db: float
    """What all stems alike were made louder by, in dB: 0, or less where that was asked for and one of them went beyond
    full scale."""


class Levels(TypedDict):
    """Those fields of a `StemsResult` that are about full scale."""

    clipped: dict[str, int]
    peak_db: dict[str, float]
    rescaled_db: float


def levels(writers: Mapping[str, AudioWriter | FilmWriter]) -> Levels:
    """What the writers of all stems of an input say about full scale, once they are done."""
    return {
        "clipped": {stem: writer.clipped for stem, writer in writers.items()},
        "peak_db": {stem: amplitude_to_db(writer.peak) for stem, writer in writers.items()},
        "rescaled_db": min(amplitude_to_db(writer.scale) for writer in writers.values()),
    }


def check_targets(targets: Mapping[str, str | Path]) -> None:
    """Raise a `ValueError` unless each stem has a file of its own, and there is one."""
    if not isinstance(targets, Mapping):
        raise ValueError(f'targets must be a file for each stem, such as {{"mix": "a.wav"}}, got {targets!r}')
    files = {"-" if str(target) == "-" else os.path.realpath(target) for target in targets.values()}
    if not targets or len(files) < len(targets):
        raise ValueError("targets must name a file of its own for each stem, and at least one")


@dataclass(frozen=True)
class Job:
    """One input and where its outputs go."""

    source: str
    """A path, or `-` for standard input."""
    targets: dict[str, str]
    """Path of each output, `-` for standard output; keyed by stem, by `sdc` for a compressed file, by one of `MADE`,
    `tokens` or `page`."""

    @contextlib.contextmanager
    def folders(self) -> Iterator[None]:
        """Create the folders that the outputs go to, where they are missing; its end takes empty ones away."""
        made: list[Path] = []
        try:
            for target in self.targets.values():
                folder = Path(target).parent
                made += [place for place in (folder, *folder.parents) if not os.path.exists(place)]
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise OutputError(
                        f"{folder}: cannot be created: {error.strerror}; choose another with -o"
                    ) from error
            yield
        finally:
            for place in made:
                with contextlib.suppress(OSError):
                    place.rmdir()


@dataclass(frozen=True)
class Plan:
    """What to do, and what cannot be done; both in the order of the inputs."""

    jobs: tuple[Job, ...]
    failures: tuple[SdcError, ...]
    notes: tuple[str, ...] = ()
    """What was left out, for people."""
    skipped: tuple[str, ...] = ()
    """Inputs all of whose outputs are there, where that was asked for."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which inputs are worked on, if not all of them."""

    skip_existing: bool = False
    """Leave out those all of whose outputs are there."""
    shard: Shard | None = None
    """Only those of one part; inputs that would have the same output are in the same."""


ALL = Selection()


@dataclass(frozen=True)
class _Source:
    name: str
    """As the user named it; a file found in a folder begins with the name of the folder."""
    inside: Path
    """Its folder, relative to the one that was searched."""


def find_inputs(inputs: Sequence[str], suffixes: frozenset[str]) -> tuple[list[str], list[SdcError]]:
    """Files named, files with one of `suffixes` in folders named (searched recursively), and `-`; each once.

    Raises:
        ValueError: standard input is named twice.
    """
    sources, failures, _ = _find(inputs, suffixes)
    return [source.name for source in sources], failures


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

    def check(target: str) -> None:
        if Path(target).suffix.lower() in AUDIO_SUFFIXES:
            raise OutputError(f"{target}: would hold a .sdc stream; name it {Path(target).with_suffix('.sdc').name}")

    return _plan(
        inputs,
        output,
        suffixes=AUDIO_SUFFIXES,
        stems=lambda source: ("sdc",),
        name=lambda base, stem: f"{base}.sdc",
        check=check,
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

    return _plan(
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

    return _plan(
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
            raise OutputError(f"{target}: would hold {suffix[1:]}; name it {Path(target).with_suffix(suffix).name}")

    return _plan(
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

    def check(target: str) -> None:
        audio_format(target, write)

    return _plan(
        inputs,
        output,
        suffixes=AUDIO_SUFFIXES,
        stems=lambda source: ("extended",),
        name=lambda base, stem: f"{base}.{stem}{write.suffix}",
        check=check,
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
            raise OutputError(f"{target}: would hold a .sdc stream; name it {Path(target).with_suffix('.sdc').name}")
        if not is_stream and not sdc:
            audio_format(target, write)

    plan = _plan(
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
    if beside == "-" and len(plan.jobs) > 1:
        raise ValueError("standard input can be read only once, and there are several inputs; name a file instead")
    return plan


def plan_edit(inputs: Sequence[str], output: str, *, overwrite: bool) -> Plan:
    """One or more `.sdc` files become one, `output`, or one named after the first input in the folder `output`.

    Inputs are files or `-`, in their order, and may come twice. Nothing is to be done unless all of them are there.

    Raises:
        ValueError: the arguments contradict each other, or an input is a folder.
    """
    for given in inputs:
        if os.path.isdir(given):
            raise ValueError(f"{given}: is a folder; name a file in it")
    if inputs.count("-") > 1:
        raise ValueError("standard input can be read only once; name - once")

    def check(target: str) -> None:
        if Path(target).suffix.lower() in AUDIO_SUFFIXES:
            raise OutputError(f"{target}: would hold a .sdc stream; name it {Path(target).with_suffix('.sdc').name}")
        for given in inputs[1:]:
            if given != "-" and os.path.realpath(given) == os.path.realpath(target):
                raise OutputError(f"{target}: is an input; choose another output with -o")

    _, failures, _ = _find(inputs, STREAM_SUFFIXES)
    if failures:
        return Plan((), tuple(failures))
    return _plan(
        inputs[:1],
        output,
        suffixes=STREAM_SUFFIXES,
        stems=lambda source: ("sdc",),
        name=lambda base, stem: f"{base}.sdc",
        check=check,
        overwrite=overwrite,
    )


@contextlib.contextmanager
def opened_file(source: str | Path) -> Iterator[BinaryIO]:
    """A file for reading, or standard input.

    Raises:
        InputError: it cannot be opened
    """
    if str(source) == "-":
        yield cast(BinaryIO, sys.stdin.buffer)
        return
    try:
        file = open(source, "rb")  # noqa: SIM115 (closed below; only the opening may raise an InputError)
    except IsADirectoryError as error:
        raise InputError(f"{source}: is a folder; name a file in it") from error
    except FileNotFoundError as error:
        raise InputError(f"{source}: no such file; check the name") from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}; check its permissions") from error
    with file:
        yield file


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
            raise OutputError(f"{target}: would hold a page; name it {Path(target).with_suffix('.html').name}")

    return _plan(
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


def check_stems(source: str, domains: Sequence[str], stems: Collection[str], gains: Collection[str]) -> None:
    """Raise an InputError unless a file with these domains has all of `stems`, sums among them, and `gains`."""
    shown = "stdin" if source == "-" else source
    for output in stems:
        if output == "all":
            continue
        for name in named(output):
            if name not in domains:
                raise InputError(f"{shown}: has no {name}; choose from {', '.join(domains)}, mix, all")
        try:
            stems_in(output, domains)
        except ValueError as error:
            raise InputError(f"{shown}: {error}") from error
    for name in gains:
        if name not in (*domains, "mix"):
            raise InputError(f"{shown}: has no {name}; choose from {', '.join(domains)}, mix")


def domains_of(source: str) -> tuple[str, ...]:
    """Names of the domains in a `.sdc` file.

    Raises:
        InputError: it cannot be opened; StreamError: it is not a usable stream.
    """
    try:
        with open(source, "rb") as file:
            return Reader(file, source).header.stems
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}; check its permissions") from error


def _plan(
    inputs: Sequence[str],
    output: str | None,
    *,
    suffixes: frozenset[str],
    stems: Callable[[str], Sequence[str]],
    name: Callable[[str, str], str],
    check: Callable[[str], None],
    overwrite: bool,
    only: Selection = ALL,
    into_folder: bool = False,
    films: bool = False,
    made: Collection[str] = (),
    beside: str | None = None,
    whole_folders: bool = False,
) -> Plan:
    if output == "":
        raise ValueError("-o is empty; name a file, a folder, or - for standard output")
    sources, failures, notes = _find(inputs, suffixes, made, whole_folders=whole_folders)
    folder = output is not None and output != "-" and (into_folder or output.endswith("/") or os.path.isdir(output))

    def place_of(source: _Source) -> Path:
        """What the outputs of an input are named after: where they go, and its name without the suffix."""
        parent = Path(source.name).parent if output is None else Path(output) / source.inside
        return parent / _base(source.name, suffixes)

    places_here = None if only.shard is None else only.shard.of({str(place_of(source)) for source in sources})
    wanted: list[tuple[_Source, Sequence[str]]] = []
    for source in sources:
        if places_here is not None and str(place_of(source)) not in places_here:
            continue
        try:
            wanted.append((source, stems(source.name)))
        except SdcError as error:
            failures.append(error)

    several = sum(len(keys) for _, keys in wanted) > 1 or len(sources) > 1 or len(inputs) > 1
    if several and output is not None and not folder:
        what = "standard output" if output == "-" else "one file"
        raise ValueError(f"-o {output}: {what} cannot hold several outputs; name a folder, such as -o out/")

    jobs: list[Job] = []
    skipped: list[str] = []
    read = [*(source.name for source in sources), *([] if beside is None else [beside])]
    inputs_taken = {os.path.realpath(name): name for name in read if name != "-"}
    outputs_taken: dict[str, str] = {}
    for source, keys in wanted:
        if output is None and source.name != "-" and not whole_folders and not os.path.isfile(source.name):
            failures.append(InputError(f"{source.name}: is a pipe or a device; name the output with -o"))
            continue
        targets = {}
        for key in keys:
            if output is not None and not folder:
                targets[key] = output
            elif source.name == "-" and output is None:
                targets[key] = "-"
            else:
                place = place_of(source)
                targets[key] = str(place.parent / name(place.name, key))
                default = name(_base(source.name, suffixes), key)
                default = str(Path(default).with_suffix(Path(source.name).suffix)) if films else default
                parent = Path(source.name).parent if output is None else Path(output) / source.inside
                targets[key] = str(parent / default)
        if len(keys) > 1 and "-" in targets.values():
            raise ValueError("standard output cannot hold several stems; name a folder, such as -o out/")
        there = only.skip_existing and all(os.path.isfile(target) for target in targets.values())
        files: dict[str, str] = {}
        try:
            for target in targets.values():
                if target == "-":
                    refuse_terminal()
                    continue
                file = os.path.realpath(target)
                if file in inputs_taken:
                    raise OutputError(f"{target}: is an input; choose another output with -o")
                if file in outputs_taken:
                    raise OutputError(
                        f"{source.name}: would write {target}, as {outputs_taken[file]} does; "
                        "give it another name, or its own output with -o"
                    )
                if file in files:
                    raise OutputError(f"{target}: is the same file as {files[file]}; remove the link")
                files[file] = target
                check(target)
                if not there:
                    _check_place(target, overwrite=overwrite, create=folder)
        except SdcError as error:
            failures.append(error)
            continue
        outputs_taken.update(dict.fromkeys(files, source.name))
        if there:
            skipped.append(source.name)
        else:
            jobs.append(Job(source.name, targets))
    return Plan(tuple(jobs), tuple(failures), tuple(notes), tuple(skipped))


def _refuse_stdout(inputs: Sequence[str], output: str | None) -> None:
    """Raise a `ValueError` if a film would go to standard output."""
    if output == "-" or (output is None and "-" in inputs):
        raise ValueError("a film cannot go to standard output, because it is not written in order; name a file with -o")


def _check_sound(target: str, soundtrack: Soundtrack | None, write: WriteOptions) -> None:
    """Raise an OutputError if sound cannot be written under this name: alone, or, with a soundtrack, in a film."""
    if soundtrack is None:
        audio_format(target, write, film_suffixes=FILM_SUFFIXES)
    else:
        film_codec(target, soundtrack)


def _check_place(target: str, *, overwrite: bool, create: bool) -> None:
    folder = Path(target).parent
    if not create or os.path.isdir(folder):
        check_target(target, overwrite=overwrite)
        return
    for place in (Path(target), *(place for place in (folder, *folder.parents) if not os.path.lexists(place))):
        check_name(place)
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not os.path.isdir(nearest):
        raise OutputError(f"{nearest}: is a file, not a folder; choose another with -o")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: the folder {nearest} is not writable; choose another with -o")


def _find(
    inputs: Sequence[str],
    suffixes: frozenset[str],
    made: Collection[str] = (),
    *,
    whole_folders: bool = False,
) -> tuple[list[_Source], list[SdcError], list[str]]:
    if "" in inputs:
        raise ValueError("the name of an input is empty; name a file, a folder, or - for standard input")
    if inputs.count("-") > 1:
        raise ValueError("standard input can be read only once; name - once")
    if "-" in inputs and sys.stdin.isatty():
        raise ValueError("refusing to read from the terminal; pipe something in, or name a file")
    sources: list[_Source] = []
    failures: list[SdcError] = []
    notes: list[str] = []
    seen: set[str] = set()
    for given in inputs:
        if given == "-":
            sources.append(_Source(given, Path()))
        elif os.path.isdir(given) and not whole_folders:
            unreadable: list[SdcError] = []
            unread: list[Path] = []
            everything = list(_search(Path(given), suffixes, unreadable, unread))
            failures += unreadable
            if unread and suffixes >= AUDIO_SUFFIXES:
                notes.append(
                    f"{given}: left out what sdc does not read there, {len(unread)} in all, such as {unread[0].name}; "
                    "name a file to try it, or convert it first"
                )
            found = [path for path in everything if not _made_of_another(path, made)]
            if len(found) < len(everything):
                example = next(path.name for path in everything if path not in found)
                notes.append(
                    f"{given}: left out what sdc made of others there, {len(everything) - len(found)} in all, such as "
                    f"{example}; name a file to take it along"
                )
            if suffixes > AUDIO_SUFFIXES:
                coded = [path for path in found if _is_coded(path)]
                found = [path for path in found if path not in coded]
                if coded:
                    notes.append(
                        f"{given}: left out audio whose .sdc file lies beside it, {len(coded)} in all, such as "
                        f"{coded[0].name}; name a file to take it along"
                    )
            if not everything and not unreadable:
                failures.append(InputError(f"{given}: no {_names(suffixes)} in this folder; name a file"))
            sources += (_Source(str(path), path.parent.relative_to(given)) for path in found)
        elif os.path.exists(given):
            sources.append(_Source(given, Path()))
        else:
            failures.append(InputError(f"{given}: no such file; check the name"))
    unique = []
    for source in sources:
        place = source.name if source.name == "-" else os.path.realpath(source.name)
        if place not in seen:
            seen.add(place)
            unique.append(source)
    return unique, failures, notes


def _search(folder: Path, suffixes: frozenset[str], unreadable: list[SdcError], unread: list[Path]) -> Iterator[Path]:
    """Files below a folder in the order of their names; hidden ones (`._a.wav` of macOS) are left out.

    Folders that cannot be looked into are added to `unreadable`, and files that only look like audio to `unread`.
    """

    def note(error: OSError) -> None:
        unreadable.append(InputError(f"{error.filename}: cannot be read: {error.strerror}; check its permissions"))

    for root, folders, files in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                continue
            suffix = Path(name).suffix.lower()
            if suffix in suffixes:
                yield Path(root, name)
            elif suffix in _UNREAD_SUFFIXES:
                unread.append(Path(root, name))


def _made_of_another(path: Path, made: Collection[str]) -> bool:
    """Whether a file has the name of audio that `sdc` writes, as `a.decoded.wav`, and its origin lies beside it."""
    origin, _, kind = path.stem.rpartition(".")
    parts = named(kind)  # of what is called `without-speech` as well
    if not origin or not parts or not set(parts) <= set(made):
        return False
    return any(
        os.path.lexists(path.with_name(origin + written))  # recorders write `A.WAV`
        for suffix in (*STREAM_SUFFIXES, *AUDIO_SUFFIXES)
        for written in (suffix, suffix.upper())
    )


def _is_coded(path: Path) -> bool:
    """Whether a file is audio and its `.sdc` file lies beside it."""
    return path.suffix.lower() not in STREAM_SUFFIXES and path.with_suffix(".sdc").is_file()


def _base(source: str, suffixes: frozenset[str]) -> str:
    if source == "-":
        return "stdin"
    path = Path(source)
    if os.path.isdir(source):
        return os.path.basename(os.path.abspath(source))
    return path.stem if path.suffix.lower() in suffixes else path.name


def _names(suffixes: frozenset[str]) -> str:
    if suffixes > AUDIO_SUFFIXES:
        return "audio or .sdc files"
    return {STREAM_SUFFIXES: ".sdc files", TOKENS_SUFFIXES: "files of tokens"}.get(frozenset(suffixes), "audio files")


def _each_once(stems: Iterator[str] | Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(stems))
