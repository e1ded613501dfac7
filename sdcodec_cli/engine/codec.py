"""A loaded model that encodes and decodes audio of any length, whole or as it arrives.

Legend: B batch, T samples, F frames, K codebooks.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from ..audio import Wav, db_to_amplitude, integrated_loudness, resampled
from ..audio.bands import SHARE
from ..bitstream import GainLayout
from ..errors import ModelError
from ..families import of
from ..prediction import CodeTables
from ..recipe import MAX_EFFORT
from ..runtime import CascadeModel, CodecModel, Model, load_model
from ..runtime.load import RuntimeName
from ..zoo import ModelEntry, find, weights_path
from .allocation import FEWEST, Allocation
from .cascade import CascadeDecoder, CascadeEncoder
from .causal import FrameDecoder, FrameEncoder, checked_causal
from .codes import Codes, codes_of
from .envelope import Bands, layout_for
from .stems import named, stems_in
from .stereo import StereoEncoder, stereo_layout_for
from .stream import FILES, SEGMENT_FRAMES, Grid, StreamDecoder
from .stream_encoder import StreamEncoder
from .treble import FACTOR, Treble, treble_layout_for

M = TypeVar("M", bound=Model)


def load_codec(
    model: str | Path | None = None,
    *,
    runtime: RuntimeName = "auto",
    device: str = "auto",
    threads: int | None = None,
    effort: int | None = None,
) -> Codec:
    """Load a model of the zoo by name, or any model by its folder.

    Args:
        model: name or folder; None is the model that ships with the package
        runtime: `onnx` (ONNX Runtime, on the CPU), `torch`, or `auto`: torch for CUDA and MPS and for a folder without
            graphs, else ONNX Runtime
        device: `auto`, `cpu`, `cuda` or `mps`, or a `torch.device`
        threads: to compute with on a CPU; by default as many as there are free cores
        effort: see `Codec.effort`; the model's own by default

    Raises:
        ModelError: no such model, or no weights
        MissingExtra: torch is needed and not installed
        DeviceError: no such device
        ValueError: another argument out of its range
    """
    codec = open_codec(model, runtime=runtime, device=device, threads=threads, effort=effort)
    codec.prepare(wait=True)
    return codec


def open_codec(
    model: str | Path | None,
    *,
    runtime: RuntimeName,
    device: str,
    threads: int | None,
    effort: int | None = None,
    made_with: bytes | None = None,
) -> Codec:
    """As `load_codec`, but without `Codec.prepare`, for a command that prepares only what it will use.

    With `made_with`, the weights of a file, it opens what decodes that, which may be a decoder that the model keeps.
    """
    entry = find(model) if made_with is None else find(model).decoder_for(made_with)
    if not of(entry.recipe).streams(entry.recipe):
        raise ModelError(f"{entry.name}: has no codes, it only separates; choose another model, see sdc models list")
    load = functools.partial(load_model, runtime=runtime, device=str(device), threads=threads)
    loaded = load(entry, decoding=made_with is not None)
    assert isinstance(loaded, CodecModel | CascadeModel)
    codec = Codec(loaded, entry, load)
    return codec if effort is None else codec.at_effort(effort)


def checked_audio(wav: Any) -> Wav:
    """Audio `[..., T]` as 32-bit floats, whatever kind of array or tensor it came in.

    Raises:
        ValueError: no samples, samples that are not floats or not finite
    """
    if hasattr(wav, "detach"):  # a tensor, which may want gradients, and lie elsewhere
        wav = wav.detach().cpu()
        wav = wav.float() if wav.is_floating_point() else wav  # numpy has no bfloat16
    given = np.asarray(wav)
    if not np.issubdtype(given.dtype, np.floating):
        raise ValueError(f"wav must be floats in −1…1, got {given.dtype}; divide integers by their full scale")
    signal = np.ascontiguousarray(given, dtype=np.float32)
    if given.ndim == 0 or signal.size == 0:
        raise ValueError(f"wav must be [..., T] with at least one sample, got shape {list(given.shape)}")
    if not np.isfinite(signal).all():
        raise ValueError("wav has samples that are not finite numbers")
    return signal


class Loaded(Generic[M]):
    """A model that is ready to run, and what it says of itself."""

    def __init__(self, model: M) -> None:
        self.model = model
        self.name = model.name

    @property
    def weights_sha256(self) -> bytes:
        """Hash of the model's weights."""
        return self.model.weights_sha256

    @property
    def device(self) -> str:
        """Where it computes: `cpu`, `cuda`, `mps`."""
        return self.model.runtime.device

    @property
    def runtime(self) -> str:
        """What it computes with: `onnx` or `torch`."""
        return self.model.runtime.name

    @property
    def sample_rate(self) -> int:
        """Rate of the audio that goes in and comes out, in Hz."""
        return self.model.sample_rate

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains."""
        return self.model.stems


class Codec(Loaded[CodecModel | CascadeModel]):
    """A model that is ready to encode and decode.

    >>> codec = load_codec()
    >>> codes = codec.encode(np.random.randn(32_000) * 0.1)
    >>> codes.codes["speech"].shape
    (1, 12, 100)
    >>> codec.decode(codes, stem="speech").shape
    (32000,)
    """

    def __init__(
        self,
        model: CodecModel | CascadeModel,
        entry: ModelEntry | None = None,
        load: Callable[..., Model] = load_model,
    ) -> None:
        super().__init__(model)
        self._effort: int | None = None
        self._entry, self._load = entry, load
        self._older = () if entry is None else entry.decodes
        self._tables: dict[bytes | None, CodeTables | None] = {}

    def decodes_older(self, weights_sha256: bytes) -> bool:
        """Whether these are weights that the model has replaced, whose files the codec decodes."""
        return weights_sha256 in self._older

    def tables(self, sha256: bytes | None = None) -> CodeTables | None:
        """The tables that its codes are range-coded with; with a hash those of a file. None if it has none.

        Raises:
            ModelError: they cannot be read
        """
        if sha256 not in self._tables:
            self._tables[sha256] = None if self._entry is None else self._entry.tables(sha256)
        return self._tables[sha256]

    def decoder_for(self, weights_sha256: bytes) -> Codec:
        """What decodes files made with these weights: a decoder that the model keeps for them, else the codec itself.

        A decoder that is kept encodes nothing.
        """
        if self._entry is None:
            return self
        entry = self._entry.decoder_for(weights_sha256)
        if entry is self._entry:
            return self
        loaded = self._load(entry, decoding=True)
        assert isinstance(loaded, CodecModel)
        return Codec(loaded, entry, self._load)

    @property
    def effort(self) -> int:
        """Steps of analysis by synthesis that encoding takes; 0 takes the encoder's own codes.

        Of a cascade, those of its first stage.
        """
        return self._efforts[0]

    @property
    def _efforts(self) -> list[int]:
        """Of each stage: its own unless it was said otherwise."""
        return [stage.effort if self._effort is None else self._effort for stage in self.stages]

    def at_effort(self, effort: int) -> Codec:
        """The same codec with another `effort`.

        Raises:
            ValueError: not a whole number from 0 to `MAX_EFFORT`
        """
        if effort not in range(MAX_EFFORT + 1):
            raise ValueError(f"effort must be a whole number from 0 to {MAX_EFFORT}, got {effort!r}")
        codec = copy.copy(self)
        codec._effort = int(effort)
        return codec

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return self.model.hop_length

    @property
    def wide_rate(self) -> int | None:
        """Of audio with treble, in Hz, twice `sample_rate`; None for a model whose band needs nothing above it."""
        return None if self.treble_layout is None else FACTOR * self.sample_rate

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    @property
    def stages(self) -> tuple[CodecModel, ...]:
        """The model, or those of a cascade, that of the lowest rate first."""
        return self.model.stages if isinstance(self.model, CascadeModel) else (self.model,)

    @property
    def num_codebooks(self) -> int:
        """Codebooks per domain at full quality, of the first stage."""
        return self.model.num_codebooks

    @property
    def frames_of(self) -> dict[str, int]:
        """Frames of each stream in one frame of the model; of a cascade, of its last stage."""
        counts = self.model.frames if isinstance(self.model, CascadeModel) else (1,)
        return {
            stream.name: count for stage, count in zip(self.stages, counts, strict=True) for stream in stage.streams
        }

    def codebooks_of(self, stage: CodecModel, num_codebooks: int) -> int:
        """How many codebooks a stage has for so many of the first one: in proportion, and at least one."""
        return max(1, round(stage.num_codebooks * num_codebooks / self.num_codebooks))

    @property
    def bitrate(self) -> float:
        """Bitrate of the codes of one domain at full quality, in kbit/s."""
        return self.model.codebook_bitrate * self.num_codebooks

    @property
    def context_frames(self) -> int:
        """Frames on each side that the network needs to decode a frame exactly."""
        return self.model.synthesis_context

    def envelope_layout(self, *, fine: bool = False) -> GainLayout:
        """Of the envelopes that are made with this model."""
        first = self.stages[0]
        count = self.frames_of[first.streams[0].name]
        layout = layout_for(first.sample_rate, first.hop_length, fine=fine, multiple=count)
        return replace(layout, frames=layout.frames // count)

    @property
    def treble_layout(self) -> GainLayout | None:
        """Of the treble that is made with this model, if any is."""
        return None if len(self.stages) > 1 else treble_layout_for(self.sample_rate, self.hop_length)

    @property
    def stereo_layout(self) -> GainLayout:
        """Of the places of domains that are found with this model."""
        return stereo_layout_for(self.sample_rate, self.hop_length, self.stages[0].sample_rate / 2)

    def prepare(self, *, encode: bool = True, decode: bool = True, wait: bool = False) -> None:
        """Load what will be used, in the background unless told to wait; anything else is loaded on its first use."""
        refine = encode and any(effort > 0 for effort in self._efforts)
        self.model.prepare(encode=encode, decode=decode, refine=refine, wait=wait)

    def allocate(
        self, num_codebooks: int | None = None, *, envelope: bool = True, fine: bool | None = None
    ) -> Allocation:
        """What the bits of a file go to.

        Args:
            num_codebooks: of each domain, of a cascade in the first stage; None for what the model suggests
            envelope: whether there is one
            fine: whether that is a fine one; None for what the model suggests, if there are `FEWEST` codebooks

        Raises:
            ValueError: the model does not have so many codebooks, or was not trained for less than all
        """
        suggested = self.stages[0].fine_codebooks if envelope else 0
        if num_codebooks is None:
            fine = suggested > 0 if fine is None else fine
            return Allocation(suggested or self.num_codebooks if fine else self.num_codebooks, fine)
        if not 1 <= num_codebooks <= self.num_codebooks:
            raise ValueError(f"{self.name} has 1 to {self.num_codebooks} codebooks, not {num_codebooks}")
        if num_codebooks < self.num_codebooks and not self.model.has_bitrates:
            raise ValueError(
                f"{self.name} was trained without quantizer dropout and needs all of its {self.num_codebooks} codebooks"
            )
        few = num_codebooks < min(FEWEST, self.num_codebooks)
        return Allocation(num_codebooks, suggested > 0 and not few if fine is None else fine)

    def allocations(self, *, envelope: bool = True, fine: bool | None = None) -> list[Allocation]:
        """All of them that a bitrate can choose from, the best first; see `allocate`."""
        suggested = envelope and self.stages[0].fine_codebooks > 0
        counts = range(self.num_codebooks, 0 if self.model.has_bitrates else self.num_codebooks - 1, -1)
        if fine is not None or not suggested:
            return [Allocation(count, bool(fine)) for count in counts]
        fewest = min(FEWEST, self.num_codebooks)
        return [
            *(Allocation(count, True) for count in counts if count >= fewest),
            *(Allocation(count, False) for count in counts),
        ]

    def check_stem(self, stem: str) -> None:
        """Raise a `ValueError` unless the model has this stem, or all that a sum of stems names."""
        try:
            stems_in(stem, self.domains)
        except ValueError as error:
            raise ValueError(f"{self.name} has no stem {stem}; it has mix, {', '.join(self.domains)}") from error

    def gain_for(self, loudness: float) -> float:
        """Gain in dB that brings audio of this loudness (LUFS) to the level the model was trained on.

        A multiple of 1/256, as the stream stores it; 0 for silence.
        """
        return self.model.gain_for(loudness)

    def stream_encoder(
        self,
        *,
        num_codebooks: int | None = None,
        active: Sequence[str] | None = None,
        envelope: bool = False,
        fine: bool = False,
        treble: bool = False,
        everywhere: bool = False,
        grid: Grid = FILES,
    ) -> StreamEncoder | CascadeEncoder:
        """An encoder for one mono signal at the model's rate and level that arrives piece by piece; see `encode`.

        `grid` says how long segments are, and how late they come.

        Raises:
            ModelError: it is a decoder of older weights, see `decoder_for`
            ValueError: `num_codebooks` out of range, no such domain, treble of a model that has none
        """
        if treble and self.treble_layout is None:
            raise ValueError(f"{self.name} codes up to {self.sample_rate / 2:g} Hz and adds no treble above that")
        if self._entry is not None:
            weights_path(self._entry)  # there are none for this in a decoder
        if num_codebooks is not None and not 1 <= num_codebooks <= self.num_codebooks:
            raise ValueError(f"num_codebooks must be between 1 and {self.num_codebooks}, got {num_codebooks}")
        for domain in active or ():
            if domain not in self.domains:
                raise ValueError(f"{self.name} has no domain {domain}; it has {', '.join(self.domains)}")
        count = num_codebooks or self.num_codebooks
        if isinstance(self.model, CascadeModel):
            return CascadeEncoder(
                self.model,
                num_codebooks=[self.codebooks_of(stage, count) for stage in self.stages],
                known=active,
                efforts=self._efforts,
                envelope=envelope,
                fine=fine,
                everywhere=everywhere,
                grid=grid,
            )
        return StreamEncoder(
            self.model,
            num_codebooks=count,
            known=None if active is None else [stream.name for stream in self.model.streams if stream.stem in active],
            effort=self.effort,
            envelope=envelope,
            fine=fine,
            treble=treble,
            grid=grid,
        )

    def stereo_encoder(
        self,
        *,
        num_codebooks: int | None = None,
        active: Sequence[str] | None = None,
        envelope: bool = False,
        fine: bool = False,
        treble: bool = False,
        grid: Grid = FILES,
    ) -> StereoEncoder:
        """As `stream_encoder`, for a mid and a side signal; segments say where domains stand, see `engine.stereo`."""
        encoder = self.stream_encoder(
            num_codebooks=num_codebooks, active=active, envelope=envelope, fine=fine, treble=treble, grid=grid
        )
        # The fine structure that decoders make up says nothing of who is where.
        decoder = self.stream_decoder(self.domains, texture=False, num_stages=1, grid=grid)
        stems = {stream.name: stream.stem for stage in self.stages for stream in stage.streams}
        return StereoEncoder(encoder, decoder, self.domains, stems, self.stereo_layout)

    def stream_decoder(
        self,
        stems: Sequence[str],
        *,
        envelope: GainLayout | None = None,
        share: float = SHARE,
        treble: GainLayout | None = None,
        texture: bool = True,
        num_stages: int | None = None,
        grid: Grid = FILES,
    ) -> StreamDecoder | CascadeDecoder:
        """A decoder for one mono signal whose codes arrive piece by piece.

        Args:
            stems: names, of sums too (see `stems`), or `mix`
            envelope: what gains are for that come with the codes, if any do
            share: see `decode`
            treble: likewise, of what is above; audio comes out at `wide_rate` then
            texture: see `decode`
            num_stages: how many are decoded, from the first on; audio comes out at the rate of the last of them
            grid: that codes come from; audio of live ones comes out with each segment

        Raises:
            ValueError: no such stem, or `share` out of range
        """
        for stem in stems:
            self.check_stem(stem)
        if not 0 <= share <= 1:
            raise ValueError(f"the share of the envelope must be from 0 to 1, got {share}")
        rate, hop = self.stages[0].sample_rate, self.stages[0].hop_length
        bands = Bands(envelope, rate, hop) if envelope else None
        if isinstance(self.model, CascadeModel):
            count = len(self.stages) if num_stages is None else num_stages
            return CascadeDecoder(
                self.model, stems, num_stages=count, envelope=bands, share=share, texture=texture, grid=grid
            )
        above = Treble(treble, rate, hop) if treble else None
        return StreamDecoder(self.model, stems, envelope=bands, share=share, treble=above, texture=texture, grid=grid)

    def frame_encoder(self, *, frames: int = 1) -> FrameEncoder:
        """An encoder that gives out codes of every `frames` frames of a mono signal as soon as they are complete.

        The delay between a sample that goes in and the same that `frame_decoder` gives out is that of the frames,
        `frames / frame_rate` seconds, and the time it takes to compute them.

        Raises:
            ModelError: it is a decoder of older weights, see `decoder_for`
            ValueError: the model looks ahead, or `frames` is below 1
        """
        model = checked_causal(self.model, frames)
        if self._entry is not None:
            weights_path(self._entry)  # there are none for this in a decoder
        return FrameEncoder(model, frames)

    def frame_decoder(self, stems: Sequence[str]) -> FrameDecoder:
        """A decoder for codes of `frame_encoder`, that gives out the audio of all frames which it is given.

        Raises:
            ValueError: the model looks ahead, or has no such stem
        """
        for stem in stems:
            self.check_stem(stem)
        return FrameDecoder(checked_causal(self.model, 1), stems)

    def encode(
        self,
        wav: Any,
        *,
        sample_rate: int | None = None,
        num_codebooks: int | None = None,
        active: Sequence[str] | None = None,
        normalize: bool = True,
        envelope: bool = True,
        fine: bool | None = None,
        everywhere: bool = False,
    ) -> Codes:
        """Encode mono signals.

        Args:
            wav: floats in −1…1, `[..., T]`, an array of any kind or a tensor; each row is a signal by itself
            sample_rate: of `wav`: that of the codec, which is the default, or `wide_rate`, from which treble is taken
            num_codebooks: codebooks to keep of each domain; by default what the model suggests beside the envelope
            active: domains that are active throughout, and no others are; by default the model finds out in which
                segments each is active. Analysis by synthesis puts all of the audio into these: to get one of several
                domains out of a mixture, decode its stem instead
            normalize: bring each signal to the level the model was trained on, which decoding undoes, and take out a
                constant offset
            envelope: take down what the decoded mix lacks in bands, too, for which it is decoded once
            fine: in more bands and more often: a sound closer to the original, for four times as many bits; None for
                what the model suggests
            everywhere: of a cascade, code with every stage what has nothing above the band of the one before, too

        Raises:
            ValueError: no samples, samples that are not floats or not finite, `num_codebooks` out of range, no such
                domain, another rate
        """
        signal = checked_audio(wav)
        known = [rate for rate in (self.sample_rate, self.wide_rate) if rate is not None]
        given = self._checked_rate(sample_rate, known)
        treble = given == self.wide_rate
        allocation = self.allocate(envelope=envelope, fine=fine)
        count = allocation.num_codebooks if num_codebooks is None else num_codebooks
        gains, found = [], []
        for row in signal.reshape(-1, signal.shape[-1]):
            # Training data has no constant offset, and nobody hears one.
            row = row - np.float32(row.mean(dtype=np.float64)) if normalize else row
            encoder = self.stream_encoder(
                num_codebooks=count,
                active=active,
                envelope=envelope,
                fine=allocation.fine,
                treble=treble,
                everywhere=everywhere,
            )
            rows = [row if rate == given else resampled(row, given, rate) for rate in encoder.rates]
            gain = self.gain_for(integrated_loudness(rows[0][None], encoder.rates[0])) if normalize else 0.0
            factor = np.float32(db_to_amplitude(gain))
            found.append([*encoder.push(*(each * factor for each in rows)), *encoder.finish()])
            gains.append(gain)
        return codes_of(
            found,
            gain_db=gains,
            num_samples=-(-signal.shape[-1] * self.sample_rate // given),
            leading=tuple(signal.shape[:-1]),
            envelope=self.envelope_layout(fine=allocation.fine) if envelope else None,
            treble=self.treble_layout if treble else None,
        )

    def decode(
        self,
        codes: Codes,
        *,
        stem: str = "mix",
        share: float = SHARE,
        sample_rate: int | None = None,
        texture: bool = True,
    ) -> Wav:
        """Decode one stem, a sum of some, or the mix of all domains that `codes` has.

        Args:
            codes: what `encode` gave
            stem: a domain, a sum such as `music+sfx` or `without-speech`, or `mix`
            share: of the envelope, from 0, nearest to the waveform, to 1, the levels of the original
            sample_rate: of what comes out: that of the codec, which is the default, `wide_rate`, with the treble, or
                that of one of the stages
            texture: make up the fine structure where codes say levels only, for a model that asks for it; without it
                there is what the network put out

        Returns:
            `[..., T]`, the shape of what was encoded; at another rate than the codec's T is longer or shorter

        Raises:
            ValueError: no such stem, `share` out of range, or another rate
        """
        self.check_stem(stem)
        if not set(named(stem)) <= set(codes.codes):
            raise ValueError(f"these codes have no {stem}; they have {', '.join(codes.codes)}")
        rates = [stage.sample_rate for stage in self.stages]
        rate = self._checked_rate(sample_rate, rates if self.wide_rate is None else [*rates, self.wide_rate])
        envelope, treble = codes.envelope, codes.treble if rate == self.wide_rate else None
        # Codes without treble have nothing above, at whatever rate.
        layout = (treble.layout if treble else self.treble_layout) if rate == self.wide_rate else None
        frames_of = self.frames_of
        wavs = []
        for row, gain in enumerate(codes.gain_db):
            decoder = self.stream_decoder(
                [stem],
                envelope=envelope.layout if envelope else None,
                share=share,
                treble=layout,
                texture=texture,
                num_stages=None if layout else 1 + rates.index(rate),
            )
            frames = next(iter(codes.active.values())).shape[-1]
            gains, above = (each.of_frames(row, frames) if each else None for each in (envelope, treble))
            pieces = []
            for start in range(0, frames, SEGMENT_FRAMES):
                stop = min(start + SEGMENT_FRAMES, frames)
                segment = {
                    name: found[row, :, start * frames_of[name] : stop * frames_of[name]]
                    if bool(codes.active[name][row, start])
                    else None
                    for name, found in codes.codes.items()
                }
                own = (None if each is None else each[:, start:stop] for each in (gains, above))
                pieces += decoder.push(segment, stop - start, *own)
            pieces += decoder.finish()
            whole = np.concatenate([piece[0] for piece in pieces])
            length = -(-codes.num_samples * rate // self.sample_rate)
            wavs.append(whole[:length] * np.float32(db_to_amplitude(-gain)))
        return np.stack(wavs).reshape(*codes.leading, length)

    def _checked_rate(self, sample_rate: int | None, known: Sequence[int]) -> int:
        """The rate that is meant; a `ValueError` for one that is not known."""
        if sample_rate is not None and sample_rate not in known:
            raise ValueError(
                f"sample_rate must be {' or '.join(map(str, known))}, got {sample_rate}; resample it first"
            )
        return self.sample_rate if sample_rate is None else sample_rate
