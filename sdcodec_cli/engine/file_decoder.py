"""Audio of the stems of a file: its codes through decoders, at its original rate and level, and of its exact length.

Legend: S stems, C channels, T samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..audio import StreamResampler, Wav, db_to_amplitude
from ..audio.bands import SHARE
from ..bitstream import GainLayout, Header, Reader, Segment
from ..bitstream.codings import ENVELOPE_GAINS, TREBLE_GAINS
from . import texture as texturing
from .cascade import Decoder
from .codec import Codec
from .conceal import Fader, concealed
from .excerpts import Excerpt, by_part, excerpts_of
from .shaper import CONTEXT_FRAMES
from .stems import stems_in
from .stereo import StreamPlacer
from .stream import Grid
from .stretches import breaks_off, stretches
from .treble import FACTOR


class FileDecoder:
    """Decodes stems of a file.

    Args:
        reader: of the file
        header: as far as the codec decodes it, see `fitting.fitted`
        codec: see `decode`
        stems: S of them, `mix` being the sum of `domains`
        domains: those that are read
        num_stages: how many are decoded
        mixed: see `concealed`
        share, below, texture: see `decode`
    """

    def __init__(
        self,
        reader: Reader,
        header: Header,
        codec: Codec,
        stems: Sequence[str],
        domains: Sequence[str],
        *,
        num_stages: int,
        mixed: bool,
        share: float = SHARE,
        below: float | None = None,
        texture: bool = True,
    ) -> None:
        self.made_up: dict[str, float] = {}
        """Seconds of each domain that were made up so far."""
        self._reader, self._header, self._codec = reader, header, codec
        self._num_stages, self._mixed, self._share, self._texture = num_stages, mixed, share, texture
        self._with_treble = below is None
        self._num_outputs = len(stems)
        self._held = {stem: tuple(domains) if stem == "mix" else stems_in(stem, header.stems) for stem in stems}
        if header.stereo:
            # Where a sum stands is what its stems say.
            parts = (part for held in self._held.values() for part in held if part not in stems)
            stems = [*stems, *dict.fromkeys(parts)]
        self._stems = stems
        self._streams = {
            entry.name
            for part in header.of_parts
            for entry in part.domains
            if entry.stem in domains and entry.stage < num_stages
        }

    def run(self, excerpts: Sequence[Excerpt]) -> Iterator[tuple[Wav, int]]:
        """Audio of one excerpt after the other `[S, C, T]`, and the rate that it was decoded at."""
        spans = [excerpt.span(self._context(excerpt.header)) for excerpt in excerpts]
        segments = self._reader.segments(spans[0][0], spans[-1][1], self._streams)
        for (excerpt, own), span in zip(by_part(segments, self._header, excerpts), spans, strict=True):
            if own is None:
                if breaks_off(self._reader):  # before this part
                    return
                own = iter(())
            treble = excerpt.header.treble if self._with_treble else None
            stages = self._header.stages
            rate = self._header.sample_rate * FACTOR if treble else stages[self._num_stages - 1].sample_rate
            decoded = self._at_model_rate(own, excerpt, span, treble, rate)
            cut = _at_original_rate(decoded, rate, excerpt, len(self._stems))
            if self._reader.end is None and not self._header.parts:
                cut = _to_the_end(cut, self._reader, excerpt.begin)
            for wavs in cut:
                yield wavs[: self._num_outputs], rate

    def _context(self, header: Header) -> int:
        """Frames on each side of an excerpt that its audio depends on."""
        context = self._codec.context_frames
        context += CONTEXT_FRAMES * (header.envelope is not None or header.treble is not None)
        context += CONTEXT_FRAMES * (header.stereo is not None)  # under the same windows
        return context + texturing.CONTEXT_FRAMES * self._texture

    def _at_model_rate(
        self,
        segments: Iterator[Segment],
        excerpt: Excerpt,
        span: tuple[int, int | None],
        treble: GainLayout | None,
        rate: int,
    ) -> Iterator[Wav]:
        """Audio at the model's rate, or twice that, and the original level, from where resampling begins."""
        header = excerpt.header
        decoders = [
            self._codec.stream_decoder(
                self._stems,
                envelope=header.envelope,
                share=self._share,
                treble=treble,
                texture=self._texture,
                num_stages=self._num_stages,
                grid=Grid.of(header.segment_frames),
            )
            for _ in range(header.coded_channels)
        ]
        level = np.float32(db_to_amplitude(-header.gain_db))
        trim = (excerpt.first_frame + excerpt.shift - span[0]) * decoders[0].hop_length
        trim += excerpt.lead * rate // header.sample_rate
        for wav in self._through(decoders, segments, header, span):
            if wav.shape[-1] > trim:
                yield wav[..., trim:] * level
            trim = max(0, trim - wav.shape[-1])

    def _through(
        self,
        decoders: Sequence[Decoder],
        segments: Iterator[Segment],
        header: Header,
        span: tuple[int, int | None],
    ) -> Iterator[Wav]:
        """Audio of a span of frames of a part, of all channels."""
        stem_of = {entry.name: entry.stem for entry in header.domains if entry.name in self._streams}
        channels = range(header.coded_channels)
        picked = [
            [[(channel, name) for name, stem in stem_of.items() if wanted in ("mix", stem)] for channel in channels]
            for wanted in self._stems
        ]
        fader = Fader(picked, decoders[0].hop_length)
        placer = None
        if header.stereo:
            placer = StreamPlacer(header.stereo, decoders[0].hop_length, header.frame_rate, self._stems, self._held)

        def together(pieces: list[list[Wav]]) -> Iterator[Wav]:
            for of_channels in zip(*pieces, strict=True):
                wavs = fader.applied(np.stack(of_channels, axis=1))
                yield placer.push(wavs[:, 0]) if placer else wavs

        absent = ENVELOPE_GAINS.absent, TREBLE_GAINS.absent
        found = stretches(self._reader, segments, header, stem_of, *span)
        for stretch in concealed(found, absent, mixed=self._mixed):
            fader.push(stretch)
            if placer:
                placer.push_places(stretch.num_frames, stretch.places)
            for stem in header.stems:
                levels = [level for (_, name), level in stretch.made_up.items() if stem_of[name] == stem]
                if levels:
                    seconds = int(np.any(levels, axis=0).sum()) / header.frame_rate
                    self.made_up[stem] = self.made_up.get(stem, 0.0) + seconds
            yield from together(
                [
                    decoder.push(
                        {name: codes for (owner, name), codes in stretch.codes.items() if owner == channel},
                        stretch.num_frames,
                        stretch.gains.get(channel),
                        stretch.treble.get(channel),
                    )
                    for channel, decoder in enumerate(decoders)
                ]
            )
        yield from together([decoder.finish() for decoder in decoders])
        if placer:
            yield placer.finish()


def sum_of(
    domains: Sequence[str], reader: Reader, header: Header, codec: Codec, *, share: float = SHARE
) -> Iterator[Wav]:
    """Audio of the sum of some domains of a file that can be sought in, at its original rate and level: `[C, T]`.

    Of stereo, the mean of both sides.
    """
    header = header.without_stereo
    decoder = FileDecoder(
        reader, header, codec, ["mix"], domains, num_stages=len(header.stages), mixed=True, share=share
    )
    for wavs, _ in decoder.run(excerpts_of(reader, header)):
        yield wavs[0]


def _at_original_rate(stems: Iterator[Wav], rate: int, excerpt: Excerpt, num_stems: int) -> Iterator[Wav]:
    """Resample `[S, C, T]` from `rate` to the original rate and cut out the excerpt."""
    header = excerpt.header
    resampler = StreamResampler(rate, header.original_rate, num_stems * header.decoded_channels)
    skip, left = excerpt.skip_samples, excerpt.num_samples

    def resampled() -> Iterator[Wav]:
        for wav in stems:
            yield resampler.push(wav.reshape(-1, wav.shape[-1]))
        yield resampler.flush()

    for wav in resampled():
        piece = wav[:, skip:]
        skip = max(0, skip - wav.shape[-1])
        if left is not None:
            piece = piece[:, :left]
            left -= piece.shape[-1]
        if piece.shape[-1]:
            yield piece.reshape(num_stems, header.decoded_channels, -1)


def _to_the_end(wavs: Iterator[Wav], reader: Reader, begin: int) -> Iterator[Wav]:
    """Cut audio `[S, C, T]`, which begins at sample `begin`, to the length that a pipe states only at its end.

    Codes cover whole frames, so up to a frame is held back until the end is read.
    """
    header = reader.header
    margin = 2 * math.ceil(header.hop_length * header.original_rate / header.sample_rate)
    held: Wav | None = None
    given = begin
    for wav in wavs:
        held = wav if held is None else np.concatenate([held, wav], axis=-1)
        ready = held.shape[-1] - margin
        if ready > 0:
            yield held[..., :ready]
            held, given = held[..., ready:], given + ready
    if held is not None and reader.end is not None:
        held = held[..., : max(0, reader.end.original_samples - given)]
    if held is not None and held.shape[-1]:
        yield held
