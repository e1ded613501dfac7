"""Coding a few frames at a time, by models that do not look ahead: what comes out up to a time does not depend on what
comes in later, and comes out as soon as its frames are complete.

`stream_encoder` and `stream_decoder` wait for blocks of 8 s. Here each run of frames is computed with all that it
depends on before it, over again, so the shorter a run is, the more work there is for a second of audio.

Legend: T samples, F frames, N streams, K codebooks, S stems.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..audio import Wav
from ..runtime import CascadeModel, CodecModel
from ..runtime.model import Codes


def checked_causal(model: CodecModel | CascadeModel, frames: int) -> CodecModel:
    """The model, or a `ValueError` if it looks ahead or `frames` is not the length of a run."""
    if not isinstance(model, CodecModel) or not model.causal:
        raise ValueError(f"{model.name} looks ahead, so it codes in blocks; take a model with model.causal")
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}")
    return model


class FrameEncoder:
    """Turns one mono signal into codes as it arrives; see `Codec.frame_encoder`.

    Args:
        model: one that does not look ahead
        frames: of a run
    """

    def __init__(self, model: CodecModel, frames: int) -> None:
        self._model, self._run = model, frames * model.hop_length
        self._context = model.analysis_context * model.hop_length
        self._held = np.zeros(0, dtype=np.float32)
        self._done = 0  # samples at the head of what is held that were coded

    def push(self, wav: Wav) -> Codes:
        """Take samples `[T]` at the model's rate and level, give out codes of runs that are complete, `[N, K, F]`."""
        self._held = np.concatenate([self._held, np.asarray(wav, dtype=np.float32)])
        found = []
        while len(self._held) - self._done >= self._run:
            found.append(self._codes(self._held[: self._done + self._run]))
            self._done += self._run
            drop = max(0, self._done - self._context)
            self._held, self._done = self._held[drop:], self._done - drop
        nothing = np.zeros((len(self._model.streams), self._model.num_codebooks, 0), dtype=np.int64)
        return np.concatenate([nothing, *found], axis=-1)

    def finish(self) -> Codes:
        """Give out the rest, as if silence followed."""
        rest = len(self._held) - self._done
        hop = self._model.hop_length
        found = self.push(np.zeros(self._run - rest, dtype=np.float32)) if rest else self.push(self._held[:0])
        return found[..., : -(-rest // hop)]

    def _codes(self, wav: Wav) -> Codes:
        latent = self._model.analyse(wav).latent
        return self._model.quantize(latent[:, self._done // self._model.hop_length :])


class FrameDecoder:
    """Turns codes of one mono signal into stems as they arrive; see `Codec.frame_decoder`.

    Args:
        model: one that does not look ahead
        stems: names, or `mix`
    """

    def __init__(self, model: CodecModel, stems: Sequence[str]) -> None:
        self._model = model
        everything = range(len(model.streams))
        self._picked = [[index for index in everything if stem in ("mix", model.streams[index].stem)] for stem in stems]
        self._past = np.zeros((len(model.streams), model.num_codebooks, 0), dtype=np.int64)

    def push(self, codes: Codes) -> Wav:
        """Take codes of frames `[N, K, F]`, -1 for what is missing, give out their audio `[S, T]`."""
        if not codes.shape[-1]:
            return np.zeros((len(self._picked), 0), dtype=np.float32)
        known = np.concatenate([self._past, codes], axis=-1)
        wavs = self._model.synthesize(known, self._picked)
        context = self._model.synthesis_context
        wav = wavs[:, self._past.shape[-1] * self._model.hop_length :]
        self._past = known[..., max(0, known.shape[-1] - context) :]
        return wav
