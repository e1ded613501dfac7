"""MP3 in memory, for pages: every browser decodes it, also those without licensed codecs.

C channels, T samples.
"""

from __future__ import annotations

import io

import numpy as np

from .wav import Wav

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""In Hz."""

MP3_FRAME = 1152
"""Samples of the longest frame."""

QUALITY = 2
"""Of the variable bitrate, as LAME's -V: some 80 kbit/s for a channel at 32 kHz, and 26 dB of SNR for music."""

_LAMBDA = 118  # FFmpeg's unit of quality


def mp3_rate(sample_rate: int) -> int:
    """The rate that MP3 has for audio at another: the same, else the next higher one, else the highest."""
    return next((rate for rate in MP3_RATES if rate >= sample_rate), MP3_RATES[-1])


def encode_mp3(wav: Wav, sample_rate: int) -> bytes:
    """Frames of MP3 alone, of a wav `[C, T]` of one or two channels.

    Nothing says how many samples an encoder put in front and behind, so that no decoder takes some of them away and
    another does not: what comes out begins late by a delay that is the same for all audio, 1105 samples in FFmpeg.
    """
    import av

    layout = ("mono", "stereo")[len(wav) - 1]
    encoded = io.BytesIO()
    with av.open(encoded, "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        options = {"flags": "+qscale", "global_quality": str(QUALITY * _LAMBDA)}
        stream = container.add_stream("libmp3lame", rate=sample_rate, options=options)
        stream.layout, stream.format = layout, "fltp"
        stream.codec_context.open()
        length = stream.codec_context.frame_size
        for begin in range(0, wav.shape[1], length):
            part = np.ascontiguousarray(wav[:, begin : begin + length], dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = sample_rate, begin
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return encoded.getvalue()
