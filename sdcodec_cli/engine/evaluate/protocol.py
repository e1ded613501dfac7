"""From tracks of DnR v2 to the clips that are scored.

`paper` is what "Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228, IV-A, says: leading and
trailing silence of the mixture trimmed, consecutive segments of 5 s (validation) or 10 s (test), segments in which a
stem is there for less than half of the time removed. Where it leaves something open we do as the published
preparation (`prepare/mani_dnr.py` of XiaoyuBIE1994/SDCodec) does: trimming is 30 dB below the loudest frame, and a stem
is there, "active", in a frame whose STFT magnitudes add up to more than 1e-6, so that only digital silence counts as
silence. Both are found at the rate of the files; cut clips are then resampled.

`docs/evaluation.md` has a table of where that code differs, and of what `published-code` does about it. Its second
threshold for silent stems, 0.4 at the model's rate, changes nothing: its frames are longer in time (64 ms against 23 ms
at 44.1 kHz), so a stem fills at least as large a share of them, and whatever is below 0.4 is below 0.5 here.

Legend: T samples, F frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...audio import AudioReader, StreamResampler, Wav, downmix
from ...data.dnr import Split, find_tracks, read_track
from ...errors import InputError
from ...progress import Progress
from .settings import Protocol, Settings

SEGMENT_SECONDS: dict[Split, float] = {"train": 5.0, "val": 5.0, "test": 10.0}
"""The paper has no segments of `train`; they are as those of `val`."""

TOP_DB = 30.0
"""Silence at the ends is what is further than this below the loudest frame of the mixture."""

TRIM_WINDOW, TRIM_HOP = 2048, 512
"""Frames of the trimming, in samples: librosa's defaults, which the published preparation uses."""

TRIM_FLOOR = 1e-10
"""Mean square that counts as silence whatever else there is, as in librosa."""

SHORTEST = 0.5
"""Seconds that a clip needs: the windows of the metrics have 0.13 s, and the codec's loudness needs 0.4."""

ACTIVE_SHARE = 0.5
"""Share of a segment's frames in which the mixture and every stem must be there."""

WINDOW, HOP = 1024, 256
"""Of the Hann-windowed STFT that tells whether a stem is there, in samples of the file."""

ACTIVE_SUM = 1e-6
"""Sum of a frame's magnitudes above which something is there."""


@dataclass(frozen=True)
class Clip:
    """A stretch of a track that is scored; mixture and stems are mono, `[T]`."""

    name: str
    """Such as `0042-10.0`: track and start in seconds."""
    mix: Wav
    stems: dict[str, Wav]
    condition: str | None = None
    """What it is heard in, where that is told apart, see `noisy`."""
    other: Wav | None = None
    """Another background, `[T]`, where this one's is to be exchanged."""
    voice: Wav | None = None
    """Somebody else's speech, `[T]`, where this one's voice is to be converted to that."""


@dataclass(frozen=True)
class ClipPlan:
    """Where a clip is to be found."""

    folder: Path
    """Of the track; of a file by itself, one that it lies somewhere below."""
    start: int
    """First sample, at the rate of the mixture's file."""
    stop: int
    """The sample after the last one."""
    file_rate: int
    """Of the mixture's file, in Hz."""
    domains: tuple[str, ...]
    sample_rate: int
    """What the clip is resampled to, in Hz."""
    sum_of_stems: bool
    """Whether the mixture is made of the stems, instead of read."""
    file: str = ""
    """Of a file by itself, which is no track and has no stems: its path below `folder`."""

    @property
    def paths(self) -> dict[str, Path]:
        """Files of the mixture, `mix`, and of each domain."""
        if self.file:
            return {"mix": self.folder / self.file}
        return {name: self.folder / f"{name}.wav" for name in ("mix", *self.domains)}

    @property
    def identity(self) -> str:
        """The same for the same clip of the same files, wherever they are, and no other."""
        files = [path.stat() for path in self.paths.values()]
        stamps = [(file.st_size, file.st_mtime_ns) for file in files]
        return repr((dataclasses.replace(self, folder=Path(self.folder.name)), stamps))

    @property
    def name(self) -> str:
        """Track, or file, and start in seconds, such as `0042-10.0`."""
        return f"{self.file or self.folder.name}-{self.start / self.file_rate:.1f}"

    @property
    def place(self) -> Path:
        """Folder of the track, or the file, for messages."""
        return self.folder / self.file

    def load(self) -> Clip:
        """Read the clip.

        Raises:
            InputError: a file is missing, damaged, or shorter than it was
        """
        stems = {domain: _read(self, domain) for domain in self.domains}
        mix = np.asarray(sum(stems.values()), dtype=np.float32) if self.sum_of_stems else _read(self, "mix")
        return Clip(self.name, mix, stems)


def plan(
    settings: Settings,
    domains: tuple[str, ...],
    sample_rate: int,
    *,
    report: Callable[[str], None] = lambda message: None,
    note: Callable[[str], None] = lambda message: None,
    progress: Progress | None = None,
) -> list[ClipPlan]:
    """The clips of a split, in order. Every track is read once, and none beyond the limit of clips.

    Args:
        settings: of which set and split (`test` is the folder `tt`), by which protocol, how many
        domains: the stems
        sample_rate: of the clips, in Hz
        report: gets a line about each track that is broken; the others are planned all the same
        note: gets a line about what the protocol leaves out
        progress: called after every track

    Raises:
        InputError: the split has no tracks
    """
    seconds, published = SEGMENT_SECONDS[settings.split], settings.protocol == "published-code"
    tracks = find_tracks(settings.data_root, settings.split, domains, report=report)
    clips: list[ClipPlan] = []
    short = silent = 0
    for number, folder in enumerate(tracks, 1):
        try:
            with AudioReader(folder / "mix.wav") as reader:
                file_rate = reader.info.sample_rate
            track = read_track(folder, domains, file_rate)
        except InputError as error:
            report(str(error))
        else:
            segments = _segments(track.mix, round(seconds * file_rate), published)
            short += not segments
            for start, stop in segments:
                if (stop - start) / file_rate < SHORTEST:
                    found = (stop - start) / file_rate
                    report(f"{folder}: has {found:.3g} s of sound, and clips need {SHORTEST:g} s; leave it out")
                elif all(active_share(wav[start:stop]) >= ACTIVE_SHARE for wav in (track.mix, *track.stems.values())):
                    clips.append(
                        ClipPlan(folder, start, stop, file_rate, domains, sample_rate, published and bool(domains))
                    )
                else:
                    silent += 1
        if progress:
            progress(number, len(tracks))
        if settings.limit is not None and len(clips) >= settings.limit:
            break
    if silent:
        note(f"{silent} segments are left out, in which a track is silent for more than half of the time")
    if short:
        note(f"{short} tracks have no segment: they are no longer than {seconds:g} s")
    return clips[: settings.limit]


def protocol_facts(protocol: Protocol) -> tuple[str, ...]:
    """What there is to know about a protocol, a line each: for `paper` what the paper leaves open, for
    `published-code` where it differs from `paper`, and where we do not follow it.
    """
    if protocol == "paper":
        return (
            "silence: the ends of a mixture that are 30 dB below its loudest frame are trimmed, and a stem is absent "
            "where it is digital silence (STFT magnitudes add up to 1e-6 or less), as in the published preparation",
            "short tracks: one that is no longer than a segment is a clip by itself",
        )
    return (
        "mixture: the plain sum of the stems, not mix.wav",
        "segments: the last one is lost if it ends exactly where the trimmed track ends",
        "short tracks: one that is no longer than a segment gives nothing",
        "test split: the published manifest is made of cv; not followed, test is tt",
        "silent stems: the published evaluation leaves out stems below 0.4 of a segment; no difference, since its "
        "preparation has dropped those below 0.5",
        "ViSQOL: the published evaluation uses speech mode for music and sfx too: compare visqol_speech",
        "mel distance: the published code builds its filters for 44.1 kHz; not followed",
        "mask: the published code divides by zero where all stems are silent; not followed",
    )


def trim(wav: Wav) -> tuple[int, int]:
    """Start and end, in samples, of a signal without the silence around it: `[T]`.

    As `librosa.effects.trim` with its defaults and `top_db=30` has it: the mean square of frames of 2048 samples,
    centred on every 512th, against the greatest of them. A signal that is silent throughout is not trimmed.
    """
    frames = 1 + len(wav) // TRIM_HOP
    padded = np.pad(wav, TRIM_WINDOW // 2)[: (frames - 1) * TRIM_HOP + TRIM_WINDOW].astype(np.float64)
    hops = np.square(padded).reshape(-1, TRIM_HOP).sum(1)
    power = np.lib.stride_tricks.sliding_window_view(hops, TRIM_WINDOW // TRIM_HOP).sum(1) / TRIM_WINDOW
    power = np.maximum(power, TRIM_FLOOR)
    heard = np.flatnonzero(power > power.max() * 10 ** (-TOP_DB / 10))
    return int(heard[0]) * TRIM_HOP, min(len(wav), (int(heard[-1]) + 1) * TRIM_HOP)


def active_share(wav: Wav) -> float:
    """Share of the frames of a signal `[T]` in which there is more than digital silence."""
    return float(_active_frames(wav).mean())


def _active_frames(wav: Wav) -> NDArray[np.bool_]:
    """Whether the magnitudes of each frame add up to more than 1e-6: `[T]` to `[F]`.

    Most frames need no FFT. One of zeros has a sum of zero; and by the inverse transform no windowed sample exceeds
    2 / WINDOW times the sum, and the window is at least 1/2 in the inner half, so that one sample there can be enough.
    """
    frames = 1 + len(wav) // HOP
    padded = np.pad(wav, WINDOW // 2, mode="reflect")[: (frames - 1) * HOP + WINDOW]
    peaks = np.abs(padded).reshape(-1, HOP).max(1)
    hops = np.lib.stride_tricks.sliding_window_view(peaks, WINDOW // HOP)
    active: NDArray[np.bool_] = hops[:, 1:3].max(1) > 4 * ACTIVE_SUM / WINDOW
    window = np.hanning(WINDOW + 1)[:-1]
    for frame in np.flatnonzero(~active & (hops.max(1) > 0)):
        samples = padded[frame * HOP : frame * HOP + WINDOW]
        active[frame] = np.abs(np.fft.rfft(samples * window)).sum() > ACTIVE_SUM
    return active


def _segments(mix: Wav, length: int, published: bool) -> list[tuple[int, int]]:
    """Starts and ends of the segments of a track; the published code loses one that ends where the track does."""
    start, end = trim(mix)
    if len(mix) <= length and not published:
        return [(start, end)]
    return [(first, first + length) for first in range(start, end - length + (not published), length)]


def _read(plan: ClipPlan, stem: str) -> Wav:
    """The clip's part of a file: `[T]`, of the same length whatever the file's rate."""
    start, seconds = plan.start / plan.file_rate, (plan.stop - plan.start) / plan.file_rate
    length = round(seconds * plan.sample_rate)
    path = plan.paths[stem]
    with AudioReader(path) as reader:
        resampler = StreamResampler(reader.info.sample_rate, plan.sample_rate, 1)
        pieces = [resampler.push(downmix(block)) for block in reader.blocks(start=start, duration=seconds)]
    pieces.append(resampler.flush())
    wav = np.concatenate(pieces, axis=1)[0]
    # The resampler rounds the length by itself, so it may be one sample off.
    if len(wav) < length - 1:
        raise InputError(f"{path}: ends before {start + seconds:.3f} s; restore the track")
    return np.pad(wav, (0, max(0, length - len(wav))))[:length].astype(np.float32)
