"""How good a model is on DnR-style mixtures, next to the mixture itself and to Opus.

Rows, as in Table II of "Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228: the mix and each stem
through the codec, and each stem separated from the mix.

Legend: N domains, T samples.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...data.dnr import Track, read_track
from ...errors import SdcError
from ..codec import SEGMENT_FRAMES, Codec, Codes
from ..separate import mask_mixture
from ..train.losses import heard_frames
from .metrics import si_sdr

SILENT = 1e-8
"""Mean square below which a stem has no SI-SDR."""


@dataclass(frozen=True)
class Score:
    """One cell of the table."""

    task: str
    """`resynthesis`, `separation` (straight from the decoder), `masked separation`."""
    system: str
    """A model's name, `mixture` (unprocessed), or `opus`."""
    stem: str
    si_sdr: float | None
    """Mean in dB; None if no clip had this stem."""
    si_sdr_std: float | None
    si_sdr_improvement: float | None
    """Mean over the mixture's, in dB; separation only."""
    bitrate: float | None
    """Mean of what was really written for it, in kbit/s."""
    num_clips: int


@dataclass(frozen=True)
class ActivityScore:
    """How well the segments in which a domain is heard were found."""

    signal: str
    """`mix`, or `stem`: every stem by itself."""
    domain: str
    precision: float | None
    """Share of the segments found that have the domain; None if none was found."""
    recall: float | None
    """Share of the segments with the domain that were found; None if there are none."""
    num_segments: int
    """How many were looked at."""


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation came to."""

    model: str
    num_tracks: int
    seconds: float
    scores: tuple[Score, ...]
    activity: tuple[ActivityScore, ...]
    """Of the mixtures and of the single stems, a row for each domain."""
    failures: tuple[str, ...]
    """Tracks that were skipped, with the reason."""
    notes: tuple[str, ...]


class _Table:
    def __init__(self) -> None:
        self.cells: dict[tuple[str, str, str], list[tuple[float, float | None, float | None]]] = {}

    def add(
        self,
        task: str,
        system: str,
        stem: str,
        estimate: Tensor,
        reference: Tensor,
        *,
        mix: Tensor | None = None,
        bitrate: float | None = None,
    ) -> None:
        if float(reference.square().mean()) < SILENT:
            return
        score = float(si_sdr(estimate, reference))
        gain = None if mix is None else score - float(si_sdr(mix, reference))
        self.cells.setdefault((task, system, stem), []).append((score, gain, bitrate))

    def scores(self) -> tuple[Score, ...]:
        rows = []
        for (task, system, stem), values in self.cells.items():
            scores = np.array([score for score, _, _ in values])
            gains = [gain for _, gain, _ in values if gain is not None]
            rates = [rate for _, _, rate in values if rate is not None]
            rows.append(
                Score(
                    task=task,
                    system=system,
                    stem=stem,
                    si_sdr=float(scores.mean()),
                    si_sdr_std=float(scores.std()),
                    si_sdr_improvement=sum(gains) / len(gains) if gains else None,
                    bitrate=sum(rates) / len(rates) if rates else None,
                    num_clips=len(values),
                )
            )
        return tuple(rows)


def evaluate(
    codec: Codec,
    tracks: Sequence[Path],
    *,
    opus: bool = True,
    progress: Callable[[float, float | None], None] | None = None,
) -> EvalResult:
    """Score a model on tracks of the DnR layout.

    Mixtures are coded as `sdc compress` codes them. Single stems go through their own domain's quantizer, as in the
    paper. Opus codes the mixtures at the bitrate that the model took for them, and single stems at one domain's.

    Args:
        codec: the model
        tracks: folders with `mix.wav` and a file per domain
        opus: whether to compare with Opus (needs `opusenc` and `opusdec`)
        progress: called after every track
    """
    table, failures, notes, seconds = _Table(), [], [], 0.0
    found = _Activity(codec)
    if opus and not (shutil.which("opusenc") and shutil.which("opusdec")):
        opus = False
        notes.append("opus is left out: opusenc and opusdec are not installed (Debian: apt-get install opus-tools)")
    for number, folder in enumerate(tracks):
        try:
            track = read_track(folder, codec.domains, codec.sample_rate)
        except SdcError as error:
            failures.append(str(error))
            continue
        _score_mixture(table, codec, track, found, opus=opus)
        _score_stems(table, codec, track, found, opus=opus)
        seconds += len(track.mix) / codec.sample_rate
        if progress:
            progress(number + 1, len(tracks))
    return EvalResult(
        model=codec.name,
        num_tracks=len(tracks) - len(failures),
        seconds=seconds,
        scores=table.scores(),
        activity=found.scores(),
        failures=tuple(failures),
        notes=tuple(notes),
    )


class _Activity:
    """Counts segments by what was found and what is there."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._counts = {(signal, domain): [0, 0, 0, 0] for signal in ("mix", "stem") for domain in codec.domains}

    def add(self, signal: str, codes: Codes, stems: Mapping[str, NDArray[np.float32]]) -> None:
        """Compare what `codes` have of one signal with the stems that it is made of."""
        gain = 10 ** (float(codes.gain_db[0]) / 20)
        stacked = torch.stack([torch.from_numpy(stems[domain]) for domain in self._codec.domains]) * gain
        heard = heard_frames(stacked[None], self._codec.hop_length)[0]
        for index, domain in enumerate(self._codec.domains):
            counts = self._counts[signal, domain]
            for start in range(0, heard.shape[-1], SEGMENT_FRAMES):
                there = bool(heard[index, start : start + SEGMENT_FRAMES].any())
                counts[2 * there + bool(codes.active[domain][0, start])] += 1

    def scores(self) -> tuple[ActivityScore, ...]:
        """Precision and recall of every domain."""
        rows = []
        for (signal, domain), (rejected, false, missed, right) in self._counts.items():
            rows.append(
                ActivityScore(
                    signal=signal,
                    domain=domain,
                    precision=right / (right + false) if right + false else None,
                    recall=right / (right + missed) if right + missed else None,
                    num_segments=rejected + false + missed + right,
                )
            )
        return tuple(rows)


def _score_mixture(table: _Table, codec: Codec, track: Track, found: _Activity, *, opus: bool) -> None:
    mix = torch.from_numpy(track.mix)
    codes = codec.encode(mix)
    found.add("mix", codes, track.stems)
    share = sum(float(active.float().mean()) for active in codes.active.values())
    rate = codec.recipe.bitrate * share
    table.add("resynthesis", codec.name, "mix", codec.decode(codes), mix, bitrate=rate)
    if opus:
        coded, real = _opus(track.mix, codec.sample_rate, rate)
        table.add("resynthesis", "opus", "mix", coded, mix, bitrate=real)
    stems = torch.stack([codec.decode(codes, stem=domain) for domain in codec.domains])
    masked = mask_mixture(mix[None], stems)[:, 0]
    for index, domain in enumerate(codec.domains):
        reference = torch.from_numpy(track.stems[domain])
        table.add("separation", "mixture", domain, mix, reference, mix=mix)
        table.add("separation", codec.name, domain, stems[index], reference, mix=mix)
        table.add("masked separation", codec.name, domain, masked[index], reference, mix=mix)


def _score_stems(table: _Table, codec: Codec, track: Track, found: _Activity, *, opus: bool) -> None:
    for domain in codec.domains:
        reference = torch.from_numpy(track.stems[domain])
        silent = np.zeros_like(track.mix)
        alone = {name: track.stems[name] if name == domain else silent for name in codec.domains}
        found.add("stem", codec.encode(reference), alone)
        everywhere = codec.encode(reference, detect=False)
        rate = codec.recipe.bitrate
        table.add("resynthesis", codec.name, domain, codec.decode(everywhere, stem=domain), reference, bitrate=rate)
        if opus:
            coded, real = _opus(track.stems[domain], codec.sample_rate, rate)
            table.add("resynthesis", "opus", domain, coded, reference, bitrate=real)


def _opus(wav: NDArray[np.float32], sample_rate: int, bitrate: float) -> tuple[Tensor, float]:
    """A signal through Opus, and the bitrate it took in kbit/s; 6 kbit/s is the least that Opus goes to."""
    with tempfile.TemporaryDirectory() as folder:
        original, coded, back = (str(Path(folder) / name) for name in ("in.wav", "coded.opus", "out.wav"))
        soundfile.write(original, wav, sample_rate, subtype="PCM_16")
        rate = f"{max(6.0, bitrate):.3f}"
        for command in (
            ["opusenc", "--quiet", "--vbr", "--bitrate", rate, original, coded],
            ["opusdec", "--quiet", "--rate", str(sample_rate), coded, back],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SdcError(f"{command[0]}: failed: {done.stderr.strip().splitlines()[-1:]}; leave Opus out")
        decoded, _ = soundfile.read(back, dtype="float32")
        size = Path(coded).stat().st_size
    aligned = np.zeros_like(wav)
    count = min(len(wav), len(decoded))
    aligned[:count] = decoded[:count]
    return torch.from_numpy(aligned), size * 8 / 1000 / (len(wav) / sample_rate)
