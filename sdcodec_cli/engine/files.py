"""Which files a command reads and writes, settled and checked before any model is loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..audio import check_name, check_target, refuse_terminal
from ..errors import InputError, OutputError, SdcError
from .inputs import Input, search

if TYPE_CHECKING:
    from .batch import Shard


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


def plan(
    inputs: Sequence[str],
    output: str | None,
    *,
    suffixes: frozenset[str],
    stems: Callable[[str], Sequence[str]],
    name: Callable[[str, str], str],
    check: Callable[[str], object],
    overwrite: bool,
    only: Selection = ALL,
    into_folder: bool = False,
    films: bool = False,
    made: Collection[str] = (),
    beside: str | None = None,
    whole_folders: bool = False,
) -> Plan:
    """Settle where the outputs of `inputs` go: beside them, unless `output` names a file, a folder or `-`.

    Args:
        inputs: files, folders, `-`
        output: if there is one
        suffixes: of the files that are looked for in folders, and that outputs are named without
        stems: what is made of an input; raises an `SdcError` if nothing can be
        name: of an output, given that of its input without the suffix, and the stem
        check: raises an `SdcError` if an output cannot have a name
        overwrite: replace existing outputs
        only: which inputs are worked on
        into_folder: `output` is a folder, whether it is there or not
        films: outputs have the suffix of their input
        made: see `inputs.search`
        beside: an input of every job, which is not overwritten
        whole_folders: a folder is an input, and is not searched

    Raises:
        ValueError: the arguments contradict each other, such as two inputs for one output file.
    """
    if output == "":
        raise ValueError("-o is empty; name a file, a folder, or - for standard output")
    found = search(inputs, suffixes, made, whole_folders=whole_folders)
    sources, failures = found.inputs, found.failures
    folder = output is not None and output != "-" and (into_folder or output.endswith("/") or os.path.isdir(output))

    def folder_of(source: Input) -> Path:
        """Where the outputs of an input go, if not to one file."""
        return Path(source.name).parent if output is None else Path(output) / source.inside

    def place_of(source: Input) -> str:
        """What is the same for inputs that would have the same output."""
        return str(folder_of(source) / _base(source.name, suffixes))

    places_here = None if only.shard is None else only.shard.of({place_of(source) for source in sources})
    wanted: list[tuple[Input, Sequence[str]]] = []
    for source in sources:
        if places_here is not None and place_of(source) not in places_here:
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
                default = Path(name(_base(source.name, suffixes), key))
                default = default.with_suffix(Path(source.name).suffix) if films else default
                targets[key] = str(folder_of(source) / default)
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
    return Plan(tuple(jobs), tuple(failures), tuple(found.notes), tuple(skipped))


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


def _base(source: str, suffixes: frozenset[str]) -> str:
    if source == "-":
        return "stdin"
    path = Path(source)
    if os.path.isdir(source):
        return os.path.basename(os.path.abspath(source))
    return path.stem if path.suffix.lower() in suffixes else path.name
