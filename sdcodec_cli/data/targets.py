"""What a teacher says of clean speech, frame by frame: asked once per corpus, kept in a file, looked up for every crop.

Legend: T samples, R rows, F frames, H numbers that a teacher says of a frame.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..audio import Wav
from ..errors import InputError, MissingExtra, OutputError
from ..recipe import SemanticFields
from .manifest import Manifest
from .parallel import exclusive, in_processes
from .pool import Clips, FileClips, Pool, clip_length, stamp

Rows = NDArray[np.float16]

STEP = 320
"""Samples from row to row, at the 16 kHz that teachers hear: 50 rows/s."""

PIECE, CONTEXT = 1500, 100
"""Rows that a teacher is asked for at once, and rows of audio that it hears around them: 30 s and 2 s."""

MEAN_ROWS = 20_000
"""Rows, spread over all, of which the mean is taken."""

SPREAD = np.exp(-0.5 * np.arange(-3, 4) ** 2)
"""How far what hama says of a row holds for rows around it: a Gaussian, its standard deviation a row."""

SURE = 0.1
"""Probability of any phoneme, added up over those rows, below which nothing is said of a row."""

CENTRES = {"hama": 0.0, "hubert": 200.0, "folder": STEP / 2}
"""Sample in the middle of what the first row of a teacher is about."""


class Targets:
    """What a teacher says of all clips of a domain, in a file that all processes share; pickled as its name.

    Args:
        path: of the rows of all clips, one after the other, `[R, H]`
        centre: see `CENTRES`
        hop_length: of the codec, in samples
        centred: whether the mean of all rows is to be taken out
    """

    def __init__(self, path: Path, centre: float, hop_length: int, centred: bool) -> None:
        self.path, self.centre, self.hop_length, self.centred = path, centre, hop_length, centred
        try:
            self.rows: Rows = np.load(path, mmap_mode="r")
            self.ends: NDArray[np.int64] = np.load(_ends_of(path))
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: is damaged or incomplete; remove it and start again") from error
        few = self.rows[:: max(1, len(self.rows) // MEAN_ROWS)].astype(np.float32)
        self.mean: NDArray[np.float32] = few.sum(axis=0) / max(1, len(few)) * centred
        """What is taken out, `[H]`: a codebook that knows nothing would say the mean, and cosines to it are no loss."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Targets, (self.path, self.centre, self.hop_length, self.centred)

    @property
    def width(self) -> int:
        """H."""
        return int(self.rows.shape[1])

    def num_frames(self, length: int) -> int:
        """Of a crop of so many samples."""
        return -(-length // self.hop_length)

    def nothing(self, length: int) -> Rows:
        """What is said of a crop without speech, `[F, H]`."""
        return np.zeros((self.num_frames(length), self.width), dtype=np.float16)

    def at(self, clip: int, start: int, stretch: float, count: int) -> Rows:
        """What there is to say of a crop, `[count, H]`, between rows in proportion; zeros beyond the ends of the clip.

        Args:
            clip: its number
            start: where the crop begins, in samples; below 0 if silence was put before the clip
            stretch: samples of the clip in one of the crop, other than 1 where speed was changed
            count: frames of the crop
        """
        first = int(self.ends[clip - 1]) if clip else 0
        rows = self.rows[first : int(self.ends[clip])]
        where = (start + (np.arange(count) + 0.5) * self.hop_length * stretch - self.centre) / STEP
        inside = (where >= -0.5) & (where <= len(rows) - 0.5)
        where = where.clip(0, len(rows) - 1)
        below = np.floor(where).astype(np.int64)
        share = (where - below)[:, None]
        found = rows[below] * (1 - share) + rows[np.minimum(below + 1, len(rows) - 1)] * share
        return np.asarray((found - self.mean) * inside[:, None], dtype=np.float16)


def with_targets(
    pool: Pool,
    manifest: Manifest,
    fields: SemanticFields,
    *,
    domain: str,
    split: str | None,
    min_sample_rate: int,
    hop_length: int,
    folder: Path,
    jobs: int,
    report: Callable[[str], None] = lambda message: None,
) -> Pool:
    """A pool with what a teacher says of the clips of one domain; what is there from another run is not asked again.

    Args:
        pool: opened with the same manifest, split and rates
        fields: who the teacher is
        folder: for the file, of 68 MB (hama) or 276 MB (HuBERT) per hour of speech
        jobs: processes that ask
        report: takes a line when the teacher is about to be asked, and when it was

    Raises:
        InputError: files of the corpus cannot be decoded, or lack an array in the teacher's folder
        MissingExtra: the teacher's package is not installed
        OutputError: the folder cannot be written
    """
    files, clips = FileClips(manifest, domain, split, pool.sample_rate, min_sample_rate), pool.clips[domain]
    if len(files.ends) != len(clips.ends):
        raise InputError(f"{manifest.path}: some files of {domain} cannot be decoded; remove them, and scan again")
    arrays = None
    if fields.teacher == "folder":
        root = manifest.root / fields.folder
        arrays = [
            (root / file.relative_to(manifest.root)).with_suffix(".npy")
            for file in map(files.file, range(len(files.ends)))
        ]
    ask = _Ask(fields, clips, arrays)
    target = folder / f"{domain}-{fields.teacher}-{fields.target_width}-{stamp(files, manifest, pool.sample_rate)}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / f".{target.stem}.lock"):
            if not target.exists() or fields.teacher == "folder":  # arrays may be others by now, and are quickly read
                _collect(ask, target, jobs, report)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written: {error.strerror}; free some space, or choose another folder"
        ) from error
    targets = Targets(target, CENTRES[fields.teacher], hop_length, centred=not fields.says_probabilities)
    return dataclasses.replace(pool, targets={domain: targets})


def _collect(ask: _Ask, target: Path, jobs: int, report: Callable[[str], None]) -> None:
    """Ask about every clip, and put all answers into one file."""
    parts = target.with_suffix(".parts")
    parts.mkdir(exist_ok=True)
    count, began = len(ask.clips.ends), time.monotonic()
    names = [parts / f"{clip}.npy" for clip in range(count)]
    missing = [clip for clip in range(count) if not names[clip].exists()]
    report(f"{target}: asking {ask.fields.teacher} about {len(missing)} clips")
    # An interrupted run goes on with the clips that are missing.
    for clip, rows in in_processes(ask, missing, jobs if ask.arrays is None else 1):
        with tempfile.NamedTemporaryFile(dir=parts, suffix=".partial", delete=False) as file:
            np.save(file, rows)
        Path(file.name).replace(names[clip])
    answers = [np.load(name, mmap_mode="r") for name in names]
    with open(_ends_of(target), "wb") as ends:
        np.save(ends, np.cumsum([len(rows) for rows in answers], dtype=np.int64))
    shape = (sum(len(rows) for rows in answers), answers[0].shape[1])
    partial = target.with_suffix(".partial")
    with open(partial, "wb") as whole:
        descr = np.dtype(np.float16).str
        np.lib.format.write_array_header_1_0(whole, {"descr": descr, "fortran_order": False, "shape": shape})
        for rows in answers:
            whole.write(rows.tobytes())
    partial.replace(target)
    for left in parts.iterdir():
        left.unlink()
    parts.rmdir()
    report(f"{target}: done in {time.monotonic() - began:.0f} s")


@dataclass(frozen=True)
class _Ask:
    """What a teacher says of a clip, as a function that processes can be given."""

    fields: SemanticFields
    clips: Clips
    arrays: list[Path] | None
    """Where a folder has its arrays, a path for each clip."""

    def __call__(self, clip: int) -> tuple[int, Rows]:
        """The number of the clip and `[R, H]`."""
        length = clip_length(self.clips, clip)
        count = -(-length // STEP)
        if self.arrays is not None:
            return clip, _stored(self.arrays[clip], self.fields.width, count)
        teacher = _teacher(self.fields.teacher)
        pieces = []
        for first in range(0, count, PIECE):
            last = min(first + PIECE, count)
            begin, end = max(0, first - CONTEXT), min(count, last + CONTEXT)
            start = begin * STEP
            said = teacher(self.clips.read(clip, start, min(end * STEP, length) - start))
            # Some say nothing of the last samples.
            said = np.pad(said, ((0, max(0, end - begin - len(said))), (0, 0)), mode="edge")
            pieces.append(said[first - begin : last - begin])
        return clip, np.concatenate(pieces).astype(np.float16)


def _stored(path: Path, width: int, count: int) -> Rows:
    """An array of a folder, its rows spread evenly over the clip, as `[count, H]`."""
    try:
        rows = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read; semantic.folder needs an array for every file of speech") from error
    if rows.ndim != 2 or not len(rows) or rows.shape[1] != width or not np.isfinite(rows).all():
        raise InputError(f"{path}: has shape {list(rows.shape)}; it must be [frames, {width}], of finite numbers")
    where = ((np.arange(count) + 0.5) * len(rows) / count - 0.5).clip(0, len(rows) - 1)
    below = np.floor(where).astype(np.int64)
    share = (where - below)[:, None]
    return np.asarray(rows[below] * (1 - share) + rows[np.minimum(below + 1, len(rows) - 1)] * share, dtype=np.float16)


@functools.lru_cache(maxsize=1)
def _teacher(name: str) -> Callable[[Wav], NDArray[np.float32]]:
    """A network that says something of every `STEP` samples at 16 kHz: `[T]` to `[R, H]`."""
    try:
        return _hama() if name == "hama" else _hubert()
    except (ImportError, OSError) as error:  # of a wheel that does not fit torch, too
        package = {"hama": "hama", "hubert": "torchaudio"}[name]
        raise MissingExtra(
            f"semantic.teacher {name}: cannot be asked ({error}); install the package {package}, or do without: "
            "--set semantic.teacher=none --set training.semantic_weight=0"
        ) from error


def _hama() -> Callable[[Wav], NDArray[np.float32]]:
    """Probabilities of phonemes, where there is one nearby.

    The network was taught by CTC, so it names a phoneme in one row or two and says in most that there is none, or that
    a word ends; what it makes of phonemes there is of no use. So each row has what is said of it and around it.
    """
    from hama.asr import ASRModel

    model = ASRModel()
    no_phonemes = [model.blank_id, list(model.decoder_tokens).index("<wb>")]

    def say(wav: Wav) -> NDArray[np.float32]:
        given = {"waveform": np.clip(wav, -1, 1)[None], "waveform_lengths": np.array([len(wav)])}
        (said,) = model.session.run(["log_probs"], given)
        phonemes = np.exp(np.delete(said[0], no_phonemes, axis=1).astype(np.float64))
        reach = len(SPREAD) // 2
        padded = np.pad(phonemes, ((reach, reach), (0, 0)))
        near = np.tensordot(sliding_window_view(padded, len(SPREAD), axis=0), SPREAD, axes=1)
        total = near.sum(axis=1, keepdims=True)
        return np.asarray(np.where(total > SURE, near / np.maximum(total, SURE), 0), dtype=np.float32)

    return say


def _hubert() -> Callable[[Wav], NDArray[np.float32]]:
    """Layer 9 of HuBERT base, as in the paper; torchaudio downloads its weights."""
    import torch
    import torchaudio

    model = torchaudio.pipelines.HUBERT_BASE.get_model().eval()

    def say(wav: Wav) -> NDArray[np.float32]:
        with torch.inference_mode():
            layers, _ = model.extract_features(torch.from_numpy(wav)[None], num_layers=9)
        return np.asarray(layers[-1][0].numpy(), dtype=np.float32)

    return say


def _ends_of(target: Path) -> Path:
    return target.with_suffix(".ends.npy")
