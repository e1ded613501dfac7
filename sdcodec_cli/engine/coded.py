"""Codes of any input as a file that can be read as often as wanted: a `.sdc` itself, or audio that is coded first.

Commands that take codes apart and put them together begin with this, so that they need not know what they were given.

Legend: C channels, T samples.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from ..audio import LoudnessMeter, Source, Wav, loudness_weights, parse_mask
from ..bitstream import Header, Reader
from ..errors import InputError, ModelError
from ..progress import Progress
from .codec import Codec
from .compress import MASK_TAG, compress
from .decode import fitted, sum_of

SPEECH = "speech"
"""The domain whose voice is kept, or changed; all others are its background."""

MAGIC = b"\x89SDC"

CodecFor = Callable[[Header | None], Codec]
"""Finds a model: for the header of a `.sdc` file, or, for None, to code audio with."""


class Coded:
    """A `.sdc` file with the model that decodes it; see `opened`.

    Args:
        name: of the input, for messages
        path: of the file
        codec: a model for its header
        notes: what is worth saying about its making

    Raises:
        StreamError: not a stream, a newer one, or one damaged beyond use
        ModelError: the model is not the one that it was made with
    """

    def __init__(self, name: str, path: Path, codec: Callable[[Header], Codec], notes: Sequence[str] = ()) -> None:
        self.name, self.path, self.notes = name, path, tuple(notes)
        self._problems: dict[str, None] = {}
        with path.open("rb") as file:
            reader = Reader(file, name)
            self.encoder = codec(reader.header)
            """What encodes codes that go with its own."""
            self.codec, self.header = fitted(reader, name, self.encoder)
            """What decodes it, and its header as far as that does."""
            self.num_samples = reader.end.original_samples if reader.end else self.header.original_samples
            """Per channel, at the original rate; None where nothing says."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is damaged, as far as it was read, a line each."""
        return tuple(self._problems)

    @property
    def speech(self) -> tuple[str, ...]:
        """The domain of speech, if it has it."""
        return tuple(domain for domain in self.header.stems if domain == SPEECH)

    @property
    def background(self) -> tuple[str, ...]:
        """All other domains that it has."""
        return tuple(domain for domain in self.header.stems if domain != SPEECH)

    def streams_of(self, domains: Sequence[str]) -> tuple[str, ...]:
        """Names of the streams of some domains."""
        return tuple(entry.name for entry in self.header.domains if entry.stem in domains)

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """Read it from its beginning; what is damaged is among `problems` then."""
        with self.path.open("rb") as file:
            reader = Reader(file, self.name)
            fitted(reader, self.name, self.encoder)
            try:
                yield reader
            finally:
                self._problems |= dict.fromkeys(problem.message for problem in reader.problems)

    def audio(self, domains: Sequence[str], *, share: float | None = None) -> Iterator[Wav]:
        """Audio of the sum of some domains as `decode` makes it, `[C, T]`; with another share of the envelope if told."""
        with self.reader() as reader:
            options = {} if share is None else {"share": share}
            yield from sum_of(domains, reader, self.header, self.codec, **options)

    def meter(self) -> LoudnessMeter:
        """Measures audio of its rate and channels."""
        header = self.header
        mask = parse_mask(header.tags.get(MASK_TAG, ""), header.coded_channels)
        return LoudnessMeter(header.original_rate, loudness_weights(mask, header.coded_channels))

    def loudness(self, domains: Sequence[str], progress: Progress | None = None) -> float:
        """Of the sum of some domains, in LUFS; −inf for silence."""
        meter, done = self.meter(), 0
        for wav in self.audio(domains):
            meter.push(wav)
            done += wav.shape[-1]
            tell(progress, done, self)
        return meter.integrated() if done else float("-inf")


def tell(progress: Progress | None, done: int, coded: Coded) -> None:
    """Report so many samples of an input."""
    if progress:
        rate, total = coded.header.original_rate, coded.num_samples
        progress(done / rate, None if total is None else total / rate)


def phase(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Progress of one of several passes through an input of known length."""
    if progress is None:
        return None

    def report(done: float, total: float | None) -> None:
        if total is not None:
            progress((number * total + min(done, total)) / count, total)

    return report


@contextlib.contextmanager
def opened(
    given: str | Path,
    codec: CodecFor,
    *,
    channels: Literal["mono", "keep"] = "keep",
    track: int = 1,
    progress: Progress | None = None,
) -> Iterator[Coded]:
    """Codes of an input, which is a `.sdc` or audio by its content, whatever its name.

    Audio is coded into a temporary file: without analysis by synthesis, which brings the mix closer and not its stems.

    Args:
        given: a path, or `-` for standard input
        codec: finds the model
        channels: of audio: `keep`, or `mono` to mix them down
        track: of a film, from 1
        progress: called after every block that is coded

    Raises:
        InputError: the input is missing, or neither
        ModelError, StreamError: see `Coded`; or the model does not tell speech from other sounds
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(contextlib.closing(Source(str(given))))
        with source.path.open("rb") as file:
            is_stream = file.read(len(MAGIC)) == MAGIC
        if is_stream:
            yield Coded(source.name, source.path, codec)
            return
        model = codec(None)
        check_domains(model)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sdc-", ignore_cleanup_errors=True))
        path = Path(folder) / "coded.sdc"
        result = compress(
            source,
            path,
            codec=model.at_effort(0),
            channels=channels,
            track=track,
            progress=progress,
        )
        yield Coded(source.name, path, lambda header: model, result.notes)


def check_domains(codec: Codec) -> None:
    """Raise a ModelError unless a model tells speech from other sounds."""
    if SPEECH not in codec.domains or len(codec.domains) < 2:
        raise ModelError(
            f"{codec.name}: does not tell speech from other sounds (it has {', '.join(codec.domains)}); choose a model "
            "that does, see sdc models list"
        )


def check_speech(coded: Coded) -> None:
    """Raise an InputError unless a file has a domain of speech."""
    if not coded.speech:
        raise InputError(f"{coded.name}: has no speech; it has {', '.join(coded.header.stems)}")
