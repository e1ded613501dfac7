"""A mixing desk as a page: the stems of a `.sdc` file, of any audio or of a folder, to look at, listen to and mix."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from ...audio.output import cannot_write
from ...bitstream import Header
from ...errors import OutputError
from ...progress import Progress
from ..codec import Codec
from ..page import data_block, write_page
from ..separator import Separator
from . import strips
from .pieces import LEAD, PROBE_AT, Pieces
from .stems import Found, Stem, decoded, gathered, is_stream, page_rate, separated, stored

MAX_SECONDS, MAX_BYTES = 20 * 60, 40 * 2**20
"""How long and how large the sound is at most that goes into the page itself."""


@dataclass(frozen=True)
class MixerResult:
    """What became of one input."""

    input: str
    output: str
    """The page."""
    folder: str | None
    """Of the sound that belongs beside the page; null where all of it is inside."""
    stems: dict[str, float]
    """Share of the time, from 0 to 1, in which each is active."""
    seconds: float
    sample_rate: int
    """Of the page's sound, in Hz."""
    num_bytes: int
    """Of the page and the folder together."""
    times_real_time: float
    model: str | None
    """Null for a folder of stems."""
    notes: tuple[str, ...]
    """Anything else worth saying."""
    problems: tuple[str, ...]
    """What is damaged in a `.sdc` file, a line each."""


def mixer(
    source: str | Path,
    target: str | Path,
    *,
    codec: Codec | Callable[[Header], Codec],
    separator: Callable[[], Codec | Separator],
    views: int | None = None,
    track: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> MixerResult:
    """Write the page of one input, in memory that does not grow with its length.

    Sound of up to 20 minutes and 40 MiB is inside the page; more goes into a folder beside it, in pieces. The page is
    there only when all of it is complete.

    Args:
        source: a `.sdc` file, whose stems are decoded; other audio, which is separated; or a folder of stems
        target: the page
        codec: the model for a `.sdc` file, or what finds it for a header
        separator: opens the model for other audio
        views: see `separate`
        track: likewise
        overwrite: replace an existing page and its folder
        progress: called from time to time

    Raises:
        InputError: the source is missing, not audio, damaged, or a folder without stems or with too many
        StreamError, ModelError: see `decode`
        OutputError: the page or its folder exists or cannot be written
    """
    source, target = Path(source), Path(target)
    began = time.monotonic()
    folder = sound_folder(target)
    check_folder(folder, overwrite=overwrite)
    with _scratch() as scratch, contextlib.ExitStack() as stack:
        finding, storing, cutting = (_part(progress, part) for part in range(3))
        if source.is_dir():
            found = gathered(source)
        elif is_stream(source):
            found = decoded(source, scratch, codec, finding)
        else:
            found = separated(source, scratch, separator, views=views, track=track, progress=finding)
        stems, notes = _stored(found, scratch, stack, storing)
        pieces = Pieces(stems)
        seconds = pieces.num_samples / pieces.sample_rate
        texts: list[Path] = []
        for number, text in enumerate(pieces.texts()):
            texts.append(scratch / f"{number}.json")
            texts[-1].write_text(text)
            if cutting:
                cutting(min(seconds, (number + 1) * pieces.length / pieces.sample_rate), seconds)
        pictures = dict(zip(found.paths, pieces.pictures(), strict=True))
        count = sum(path.stat().st_size for path in texts)
        beside = seconds > MAX_SECONDS or count > MAX_BYTES
        title = Path(os.path.abspath(source)).name
        data = {
            "name": title if source.is_dir() else Path(title).stem,
            "rate": pieces.sample_rate,
            "samples": pieces.num_samples,
            "channels": max(stem.channels for stem in stems),
            "piece": pieces.length,
            "lead": LEAD,
            "probe": pieces.probe(),
            "probeAt": PROBE_AT,
            "folder": folder.name if beside else None,
            "command": found.command,
            "stems": [{"name": name, "active": shown.active} for name, shown in pictures.items()],
        }
        num = len(stems)
        body = strips.body(
            title=title,
            tags=found.tags,
            seconds=seconds,
            sample_rate=pieces.sample_rate,
            pictures=pictures,
            stems_of=f"{num} stem{'s' * (num > 1)}, {found.kind}",
        )
        sounds = [] if beside else [_element(number, path) for number, path in enumerate(texts)]
        with _folder_of(texts, folder, overwrite=overwrite) if beside else contextlib.nullcontext():
            write_page(
                target,
                title=f"{title}: mixer",
                body=body + data_block("mixer", data),
                kind="mixer",
                sounds=sounds,
                coding="MP3",
                folder=folder.name if beside else "",
                controls=("controls.js",),
                overwrite=overwrite,
            )
        if not beside and folder.exists():  # of an earlier page
            shutil.rmtree(folder)
    return MixerResult(
        input=str(source),
        output=str(target),
        folder=str(folder) if beside else None,
        stems={
            name: min(1.0, sum(end - begin for begin, end in shown.active) / seconds)
            for name, shown in pictures.items()
        },
        seconds=seconds,
        sample_rate=pieces.sample_rate,
        num_bytes=target.stat().st_size + (count if beside else 0),
        times_real_time=seconds / (time.monotonic() - began),
        model=found.model,
        notes=(*found.notes, *notes),
        problems=found.problems,
    )


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for what is only needed meanwhile; what goes wrong in it is told."""
    try:
        with tempfile.TemporaryDirectory(prefix="sdc-") as folder:
            yield Path(folder)
    except (OSError, soundfile.LibsndfileError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"{tempfile.gettempdir()}: cannot be written: {reason}; set TMPDIR to a folder with more room"
        ) from error


def _part(progress: Progress | None, number: int) -> Progress | None:
    """Progress of one of three parts of the work, as a share of the whole."""
    if progress is None:
        return None

    def update(done: float, total: float | None) -> None:
        if total is not None:
            progress((number * total + min(done, total)) / 3, total)

    return update


def _stored(
    found: Found, scratch: Path, stack: contextlib.ExitStack, progress: Progress | None
) -> tuple[list[Stem], list[str]]:
    """All stems at the rate of the page, and what is worth saying of them."""
    rate = page_rate(list(found.paths.values()))
    stems, mono = [], []
    for number, (name, path) in enumerate(found.paths.items()):
        stem, mixed_down = stored(path, scratch / f"{number}.w64", rate, found.gain_db)
        stack.callback(stem.close)
        if path.parent == scratch:
            path.unlink()
        stems.append(stem)
        mono += [name] * mixed_down
        if progress:
            progress((number + 1) / len(found.paths), 1)
    notes = [f"more than two channels are mixed down to one in the page: {', '.join(mono)}"] if mono else []
    if len({stem.num_samples for stem in stems}) > 1:
        notes.append("stems differ in length; the shorter ones end in silence")
    return stems, notes


def _element(number: int, path: Path) -> str:
    return f'<script type="application/json" id="piece-{number}">{path.read_text()}</script>\n'


def sound_folder(target: Path) -> Path:
    """Where the sound of a page goes that is too long for one file: `song.mixer.sound` beside `song.mixer.html`."""
    return target.with_name(f"{target.stem}.sound")


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a page whose folder of sound is there already, before any work is done for it.

    Raises:
        OutputError: it is and `overwrite` is false, or it holds anything else than such sound
    """
    if not os.path.lexists(folder):
        return
    ours = folder.is_dir() and all(re.fullmatch(r"\d{4,}\.js", name) for name in os.listdir(folder))
    if not ours:
        raise OutputError(
            f"{folder}: is where long sound of the page would go, and holds something else; choose another name with -o"
        )
    if not overwrite:
        raise OutputError(f"{folder} exists; pass --force to overwrite it")


@contextlib.contextmanager
def _folder_of(texts: Sequence[Path], folder: Path, *, overwrite: bool) -> Iterator[None]:
    """Pieces as scripts in a folder, which is there when the block begins, and as it was before after an exception."""
    part, former = (folder.with_name(f".{folder.name}.{end}") for end in ("sdc-part", "sdc-old"))
    placed = False
    try:
        for rest in (part, former):
            shutil.rmtree(rest, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            for number, path in enumerate(texts):
                (part / f"{number + 1:04d}.js").write_text(f"arrive({number}, {path.read_text()});\n")
            check_folder(folder, overwrite=overwrite)
            if folder.exists():
                folder.rename(former)
            part.rename(folder)
            placed = True
        except OSError as error:
            raise cannot_write(folder, error) from error
        yield
    except BaseException:
        if placed:
            shutil.rmtree(folder, ignore_errors=True)
        if former.exists():
            former.rename(folder)
        raise
    finally:
        for rest in (part, former):
            shutil.rmtree(rest, ignore_errors=True)
