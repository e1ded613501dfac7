"""Systems: anything that resynthesizes audio, separates a mixture, or extends audio to a higher sample rate.

Models of ours are here, and the unprocessed mixture; `other_codecs` has Opus, DAC and EnCodec.

Legend: T samples.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from .. import zoo
from ..audio import AudioReader, AudioWriter, Wav, WriteOptions, resampled
from ..audio.bands import SHARE
from ..bitstream import Writer
from ..bitstream.codings import ENVELOPE_GAINS, TREBLE_GAINS
from ..bitstream.writer import TOGETHER
from ..errors import ModelError
from ..families import of
from ..runtime.model import CascadeModel, CodecModel
from .background import exchange_background
from .codec import Codec, load_codec
from .coded import SPEECH, Coded, opened, tells_speech
from .codes import Codes
from .extend import extend_wav
from .other_codecs import Opus, find_dac, find_encodec, fitted
from .separate import separate_wav
from .separator import Separator, open_separator
from .stems import without
from .stream import SEGMENT_FRAMES
from .stream_header import stream_header
from .treble_guess import WEIGHTS
from .voice import convert_voice

if TYPE_CHECKING:
    from .evaluate.settings import Settings

Way = Literal["separation", "masked separation"]
"""How stems were found in a mixture: straight out of a codec, or as `sdc separate` gives them, by masks on the mixture
that are made of those, or by a network that is made for it."""


EnhancementWay = Literal["enhancement", "enhancement with silence", "masked enhancement"]
"""How speech was found in a mixture: as a codec decodes its codes, without those of the background; beside codes that
silence has in the place of those, as in arXiv:2509.09201; or by masks on the mixture, as `sdc separate` gives it."""


class Enhanced(NamedTuple):
    """What was found in a mixture; wavs are `[T]`."""

    speech: Wav
    background: Wav | None = None
    """Everything but the speech, where it was decoded, too."""


class Exchanged(NamedTuple):
    """Speech that got another background, as both decode before and after; wavs are `[T]`."""

    speech_before: Wav
    speech: Wav
    background_before: Wav
    background: Wav


class Resynthesis(NamedTuple):
    """Audio that was coded and decoded."""

    wav: Wav
    """`[T]`, as long as what was given and in time with it."""
    bitrate: float
    """In kbit/s, of the bytes or codes that were written."""


class System(Protocol):
    """What every system has; it resynthesizes, separates or extends as well."""

    name: str
    """Such as `opus 18`."""
    identity: str
    """What tells it from others of the same name."""


@runtime_checkable
class Resynthesizes(Protocol):
    """A system that codes audio."""

    def resynthesize(self, wav: Wav, sample_rate: int, domain: str | None = None) -> Resynthesis:
        """A mono signal `[T]` there and back at its own rate, to which systems of another rate resample what they make.

        `domain` says what it is where it is one domain's and no mixture.
        """


@runtime_checkable
class Separates(Protocol):
    """A system that finds the stems of a mixture."""

    def separate(self, mix: Wav, sample_rate: int) -> Mapping[Way, Mapping[str, Wav]]:
        """A mono mixture `[T]` to a stem `[T]` of each domain, in one way or several."""


@runtime_checkable
class Enhances(Protocol):
    """A system that finds the speech in a mixture."""

    def enhance(self, mix: Wav, sample_rate: int) -> Mapping[EnhancementWay, Enhanced]:
        """A mono mixture `[T]` to speech without its background, `[T]`, in one way or several."""


@runtime_checkable
class Exchanges(Protocol):
    """A system that puts another background behind speech."""

    name: str

    def exchange(self, mix: Wav, other: Wav, sample_rate: int) -> Exchanged:
        """A mono mixture `[T]`, and another background of any length, which is to be as loud as the one it replaces.

        Raises:
            InputError: the system finds no background in one of both, or no speech
        """


@runtime_checkable
class Converts(Protocol):
    """A system that may be able to say what somebody says in the voice of somebody else."""

    name: str

    @property
    def can_convert(self) -> bool:
        """Whether it is: only models that were taught what is said are."""

    def convert(self, mix: Wav, voice: Wav, sample_rate: int) -> Wav:
        """A mono mixture `[T]`, and speech of the voice that is wanted, of any length, to speech alone, `[T]`.

        Raises:
            InputError: nobody speaks in one of both
        """


@runtime_checkable
class Extends(Protocol):
    """A system that gives audio of a low sample rate the high frequencies that it lacks."""

    def extend(self, wav: Wav, sample_rate: int, new_rate: int) -> Wav:
        """A mono signal `[T]` to one at a higher rate, with something above half of its own rate, too."""


@dataclass
class Mixture:
    """The mixture as it is, for each of its stems: what a separation has to improve on."""

    domains: tuple[str, ...]
    name: str = "mixture"
    identity: str = "mixture"

    def separate(self, mix: Wav, sample_rate: int) -> dict[Way, dict[str, Wav]]:
        """See `Separates`."""
        return {"separation": dict.fromkeys(self.domains, mix)}

    def enhance(self, mix: Wav, sample_rate: int) -> dict[EnhancementWay, Enhanced]:
        """See `Enhances`."""
        return {"enhancement": Enhanced(mix)}


@dataclass
class Upsample:
    """Plain resampling, with nothing above what there was: what an extension has to improve on."""

    name: str = "upsample"
    identity: str = "upsample"

    def extend(self, wav: Wav, sample_rate: int, new_rate: int) -> Wav:
        """See `Extends`."""
        return resampled(wav, sample_rate, new_rate)


@dataclass
class GuessedTreble:
    """The octave below copied up, with gains that are guessed, as by `sdc extend`."""

    name: str = "treble"
    identity: str = ""

    def __post_init__(self) -> None:
        self.identity = f"treble, guessed by {hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()}"

    def extend(self, wav: Wav, sample_rate: int, new_rate: int) -> Wav:
        """See `Extends`."""
        return extend_wav(wav, sample_rate, new_rate)


@dataclass
class ModelCodec:
    """A model of ours: what `sdc compress` and `sdc decode` make of a signal."""

    codec: Codec
    name: str = ""
    identity: str = ""
    num_codebooks: int | None = None
    share: float | None = SHARE
    """Of the envelope that is applied; None for no envelope at all."""
    fine: bool | None = None
    """Whether that is a fine one, see `Codec.encode`; settled when the system is made."""
    treble: bool = True
    """Whether what lies above the model's band is kept, of audio at a higher rate than the model's."""
    texture: bool = True
    """See `Codec.decode`."""
    _kept: list[tuple[Wav, str | None, Codes]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.name = self.codec.name
        # Left open it is what the model suggests, and measurements of either kind must not be taken for one another.
        self.fine = self.codec.allocate(envelope=self.share is not None, fine=self.fine).fine
        tables = self.codec.tables()
        self.identity = (
            f"{self.codec.weights_sha256.hex()}, effort {self.codec.effort}, envelope {self.share}"
            f"{' fine' * self.fine}{'' if self.treble else ', no treble'}"
            f"{'' if self.texture else ', no texture'}"
            f"{'' if tables is None else f', tables {tables.sha256.hex()}'}"
        )

    def encode(self, wav: Wav, domain: str | None = None, sample_rate: int | None = None) -> Codes:
        """Codes of a signal `[T]`, which are kept for a while: several things are made of them; see `Codec.encode`."""
        for known, its_domain, codes in self._kept:
            if known is wav and its_domain == domain:
                return codes
        active = None if domain is None else [domain]
        codes = self.codec.encode(
            wav,
            sample_rate=sample_rate,
            num_codebooks=self.num_codebooks,
            active=active,
            envelope=self.share is not None,
            fine=self.fine,
        )
        self._kept = [*self._kept[-2 * len(self.codec.domains) :], (wav, domain, codes)]
        return codes

    def decode(self, codes: Codes, stem: str = "mix", sample_rate: int | None = None) -> Wav:
        """What `encode` gave as audio `[T]`; see `Codec.decode`."""
        return self.codec.decode(
            codes, stem=stem, share=self.share or 0.0, sample_rate=sample_rate, texture=self.texture
        )

    def resynthesize(self, wav: Wav, sample_rate: int, domain: str | None = None) -> Resynthesis:
        """See `Resynthesizes`; activity detection decides what a mixture has."""
        return self._there_and_back(wav, sample_rate, None)

    def _there_and_back(self, wav: Wav, sample_rate: int, domain: str | None) -> Resynthesis:
        rate, wide = self.codec.sample_rate, self.codec.wide_rate
        if self.treble and wide is not None and sample_rate > rate:
            rate = wide
        codes = self.encode(resampled(wav, sample_rate, rate), domain, rate)
        back = resampled(self.decode(codes, domain or "mix", rate), rate, sample_rate)
        return Resynthesis(fitted(back, len(wav)), self.bitrate(codes))

    def bitrate(self, codes: Codes) -> float:
        """Of codes, envelope and treble as a file stores them, in kbit/s."""
        frames: int = next(iter(codes.active.values())).shape[-1]
        return self.written(codes).payload_bytes * 8 / 1000 / (frames / self.codec.frame_rate)

    def written(self, codes: Codes, file: BinaryIO | None = None) -> Writer:
        """The codes of one signal written as `sdc compress` writes them; the writer has counted the bytes.

        They go into `file`, if there is one.
        """
        frames: int = next(iter(codes.active.values())).shape[-1]
        num_codebooks = next(iter(codes.codes.values())).shape[-2]
        header = stream_header(
            self.codec,
            num_codebooks=num_codebooks,
            gain_db=float(codes.gain_db[0]),
            stored=self.codec.domains,
            original_rate=self.codec.sample_rate,
            original_samples=codes.num_samples,
            envelope=codes.envelope.layout if codes.envelope else None,
            treble=codes.treble.layout if codes.treble else None,
        )
        writer = Writer(file or io.BytesIO(), header, tables=self.codec.tables(), together=TOGETHER)
        for start in range(0, frames, SEGMENT_FRAMES):
            stop = min(start + SEGMENT_FRAMES, frames)
            segment = {
                (0, name): found[0, :, start * count : stop * count] if codes.active[name][0, start] else None
                for (name, found), count in zip(codes.codes.items(), self.codec.frames_of.values(), strict=True)
            }
            gains = codes.envelope.of_segment(0, start) if codes.envelope else None
            treble = codes.treble.of_segment(0, start) if codes.treble else None
            writer.write(
                segment,
                num_frames=stop - start,
                gains={} if gains is None or (gains == ENVELOPE_GAINS.absent).all() else {0: gains},
                treble={} if treble is None or (treble == TREBLE_GAINS.absent).all() else {0: treble},
            )
        writer.close(codes.num_samples)
        return writer


@dataclass
class SeparatingCodec(ModelCodec):
    """A model of ours for the domains and the rate of what is evaluated: it separates, too.

    A signal of one domain is coded with that as the only one, as in arXiv:2409.11228.
    """

    views: int | None = None
    """Of a mixture, whose masks are averaged, see `separate`."""

    def resynthesize(self, wav: Wav, sample_rate: int, domain: str | None = None) -> Resynthesis:
        """See `Resynthesizes`."""
        return self._there_and_back(wav, sample_rate, domain)

    def separate(self, mix: Wav, sample_rate: int) -> dict[Way, dict[str, Wav]]:
        """See `Separates`: straight from the decoder, and by masks as `sdc separate` makes them."""
        codes, domains = self.encode(mix), self.codec.domains
        masked = separate_wav(mix[None], codec=self.codec, views=self.views)[:, 0]
        return {
            "separation": {domain: self.decode(codes, domain) for domain in domains},
            "masked separation": dict(zip(domains, masked, strict=True)),
        }

    def enhance(self, mix: Wav, sample_rate: int) -> dict[EnhancementWay, Enhanced]:
        """See `Enhances`; coded as by `sdc enhance`, without analysis by synthesis."""
        codec = self.codec.at_effort(0)
        codes = codec.encode(mix, num_codebooks=self.num_codebooks, envelope=self.share is not None, fine=self.fine)
        masked = separate_wav(mix[None], codec=codec, views=self.views)[self.codec.domains.index(SPEECH), 0]
        return {
            "enhancement": Enhanced(self.decode(codes, SPEECH), self.decode(codes, without([SPEECH]))),
            "enhancement with silence": Enhanced(self.decode(self._with_silence(codes))),
            "masked enhancement": Enhanced(masked),
        }

    def _with_silence(self, codes: Codes) -> Codes:
        """The codes of speech, and those that silence has beside them."""
        codec = self.codec.at_effort(0)
        num_codebooks = next(iter(codes.codes.values())).shape[-2]
        nothing = np.zeros(codes.num_samples, dtype=np.float32)
        silent = codec.encode(nothing, num_codebooks=num_codebooks, active=codec.domains, envelope=False)
        speech = {stream.name for stage in codec.stages for stream in stage.streams if stream.stem == SPEECH}
        return replace(
            codes,
            codes={name: (codes if name in speech else silent).codes[name] for name in codes.codes},
            active={name: (codes if name in speech else silent).active[name] for name in codes.active},
        )

    @property
    def can_convert(self) -> bool:
        """See `Converts`."""
        return isinstance(self.codec.model, CodecModel) and self.codec.model.semantic_codebook is not None

    def convert(self, mix: Wav, voice: Wav, sample_rate: int) -> Wav:
        """See `Converts`; what `sdc voice` writes."""
        with tempfile.TemporaryDirectory(prefix="sdc-", ignore_cleanup_errors=True) as name:
            mixture, reference, target = (Path(name) / file for file in ("mixture.wav", "voice.wav", "converted.wav"))
            _write_floats({mixture: mix, reference: voice}, sample_rate)
            convert_voice(mixture, reference, target, codec=self.codec, write=WriteOptions(format="wav-float"))
            with AudioReader(target) as reader:
                return np.concatenate([block[0] for block in reader.blocks()])

    def exchange(self, mix: Wav, other: Wav, sample_rate: int) -> Exchanged:
        """See `Exchanges`; what `sdc background` writes as a `.sdc` file, with the envelope it has by default."""
        with tempfile.TemporaryDirectory(prefix="sdc-", ignore_cleanup_errors=True) as name:
            mixture, behind, target = (Path(name) / file for file in ("mixture.wav", "other.wav", "exchanged.sdc"))
            _write_floats({mixture: mix, behind: other}, sample_rate)
            with opened(mixture, self.codec) as scene:
                exchange_background(scene.path, behind, target, codec=self.codec)
                before = [self._audio(scene, domains) for domains in (scene.speech, scene.background)]
            found = Coded(mixture.name, target, lambda header: self.codec)
            after = [self._audio(found, domains) for domains in (found.speech, found.background)]
        return Exchanged(before[0], after[0], before[1], after[1])

    def _audio(self, coded: Coded, domains: Sequence[str]) -> Wav:
        wavs = coded.audio(domains, share=self.share or 0.0)
        return np.concatenate([wav[0] for wav in wavs])[: coded.num_samples]


def _write_floats(wavs: Mapping[Path, Wav], sample_rate: int) -> None:
    """Write each wav `[T]` as a file."""
    for path, wav in wavs.items():
        with AudioWriter(path, sample_rate, 1, write=WriteOptions(format="wav-float")) as writer:
            writer.write(wav[None])


@dataclass
class ExtendingCodec(SeparatingCodec):
    """A model of ours of several codecs, each of what the sum of those before it lacks: it extends audio, too."""

    def extend(self, wav: Wav, sample_rate: int, new_rate: int) -> Wav:
        """See `Extends`: as in arXiv:2510.03735, of the sum of all stages.

        Those above the first one are given what it lost, and have to guess from that what there may have been above.
        """
        rate = self.codec.sample_rate
        upsampled = resampled(wav, sample_rate, rate)
        codes = self.codec.encode(
            upsampled,
            num_codebooks=self.num_codebooks,
            envelope=self.share is not None,
            fine=self.fine,
            everywhere=True,
        )
        return resampled(self.decode(codes), rate, new_rate)


@dataclass
class SeparatorNetwork:
    """A model of ours that has no codes; what it puts out stands beside masks, which is what `sdc separate` gives."""

    separator: Separator
    name: str = ""
    identity: str = ""

    def __post_init__(self) -> None:
        self.name, self.identity = self.separator.name, self.separator.model.weights_sha256.hex()

    def separate(self, mix: Wav, sample_rate: int) -> dict[Way, dict[str, Wav]]:
        """See `Separates`."""
        rate = self.separator.sample_rate
        stems = separate_wav(resampled(mix, sample_rate, rate)[None], codec=self.separator)[:, 0]
        back = [fitted(resampled(stem, rate, sample_rate), len(mix)) for stem in stems]
        return {"masked separation": dict(zip(self.separator.domains, back, strict=True))}

    def enhance(self, mix: Wav, sample_rate: int) -> dict[EnhancementWay, Enhanced]:
        """See `Enhances`."""
        return {"masked enhancement": Enhanced(self.separate(mix, sample_rate)["masked separation"][SPEECH])}


def find_system(name: str, codec: Codec, settings: Settings) -> System:
    """A system by what a person writes.

    Args:
        name: `mixture`, `upsample`, `treble`, `opus`, `opus:18` (kbit/s), `dac`, `encodec`, `encodec:6`, a model of the
            zoo, or its folder
        codec: the model that it is to stand beside; another of the same domains and rate separates, and codes
            each domain by itself
        settings: task, device, effort, codebooks, envelope and views of models

    Raises:
        ModelError: there is no such system, a bitrate that it does not have, or something is not installed
        DeviceError: no such device
    """
    kind = name.partition(":")[0]
    if not name:
        raise ModelError("--against needs a name, such as mixture, opus:18, or that of a model")
    if name == "mixture":
        return Mixture(codec.domains)
    if name == "upsample":
        return Upsample()
    if name == "treble":
        return GuessedTreble()
    if kind == "opus":
        return Opus(name)
    if kind == "encodec":
        return find_encodec(name, settings.device)
    if name == "dac":
        packaged = find_dac(settings.device)
        if packaged is not None:
            return packaged
        name = "dac-16k"
    try:
        recipe = zoo.find(name).recipe
    except ModelError as error:
        raise ModelError(
            f"{error}; what is not a model is mixture, opus:KBPS, dac, encodec:KBPS, upsample or treble"
        ) from error
    if not of(recipe).streams(recipe):
        separator = open_separator(name, runtime="auto", device=settings.device, threads=None)
        assert isinstance(separator, Separator)
        known = tells_speech(separator.domains) if settings.task == "decodec" else separator.domains == codec.domains
        if not known:
            raise ModelError(f"--against {name}: it finds {', '.join(separator.domains)}; leave it out")
        return SeparatorNetwork(separator)
    found = load_codec(name, device=settings.device, effort=settings.effort)
    # Where nothing is separated, only domains matter: signals come at a rate of their own, and are resampled.
    at_rate = found.sample_rate == codec.sample_rate or settings.task not in ("dnr", "decodec")
    alike = tells_speech(found.domains) if settings.task == "decodec" else found.domains == codec.domains
    if not (alike and at_rate):
        # One that extends audio separates, too, and may have other domains or another rate than what is evaluated.
        made_of = ExtendingCodec if settings.task == "extend" and _extends(found) else ModelCodec
        return made_of(found, **_sound(settings))
    try:
        return separating_codec(found, settings)
    except ValueError as error:
        raise ModelError(f"--against {found.name}: {error}") from error


def separating_codec(codec: Codec, settings: Settings) -> SeparatingCodec:
    """A model of ours as the settings ask for it.

    Raises:
        ValueError: codebooks that the model does not have
    """
    has_envelope = settings.envelope is not None
    bits = codec.allocate(settings.codebooks, envelope=has_envelope, fine=settings.fine)
    sound = {**_sound(settings), "fine": bits.fine}
    kind = ExtendingCodec if _extends(codec) else SeparatingCodec
    return kind(codec, num_codebooks=bits.num_codebooks, views=settings.views, **sound)


def _extends(codec: Codec) -> bool:
    return isinstance(codec.model, CascadeModel) and set(codec.model.residuals[1:]) == {"whole"}


def _sound(settings: Settings) -> dict[str, Any]:
    """What every model of ours is told of them."""
    fine, treble, texture = settings.fine, settings.treble, settings.texture
    return {"share": settings.envelope, "fine": fine, "treble": treble, "texture": texture}
