"""Sound alone in MPEG-4 files, `.m4a`: AAC or ALAC, exactly as long as it came and no later.

C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from numpy.typing import NDArray

from .coders import Coder

if TYPE_CHECKING:
    from av import AudioStream

    from .output import Sink

_BRAND = "M4A "

_NAMES = {"tracknumber": "track"}
"""FFmpeg's names of tags where they are others than ours."""


class M4aError(Exception):
    """FFmpeg refuses what it is given, or cannot write it."""


class M4aFile:
    """A file that is written as a `soundfile.SoundFile` is.

    An AAC encoder puts samples in front, and fills its last frame up. The edit list leaves out both, to the sample; so
    does the length of the last packet, where players know only that.

    Args:
        sink: where it goes; it has to seek
        coder: how sound is coded
        sample_rate: in Hz, one that the coder takes
        layout: of channels, FFmpeg's name
        bitrate: in bits per second, of all channels; 0 for what is lossless
        tags: by the names of `writer.TAGS`

    Raises:
        M4aError: FFmpeg takes no such sound
    """

    def __init__(
        self, sink: Sink, coder: Coder, sample_rate: int, layout: str, bitrate: int, tags: Mapping[str, str]
    ) -> None:
        import av

        self._coder, self._rate, self._layout = coder, sample_rate, layout
        self._position = 0
        # The edit list counts in the movie's time scale, of which FFmpeg's usual one is milliseconds.
        options = {"brand": _BRAND, "movie_timescale": str(sample_rate)}
        self._container = av.open(cast(Any, sink), "w", format="mp4", options=options)
        self._closed = False

        def begin() -> None:
            self._stream = cast("AudioStream", self._container.add_stream(coder.encoder, rate=sample_rate))
            self._stream.layout = layout
            if bitrate:
                self._stream.bit_rate = bitrate
            self._container.metadata.update({_NAMES.get(name, name): text for name, text in tags.items()})
            self._container.start_encoding()

        self._guard(begin)

    def write(self, block: NDArray[Any]) -> None:
        """Append samples `[T, C]`, floats or of 16 bits as the coder takes them."""
        frame = self._coder.frame(block, self._rate, self._layout, self._position)
        self._position += len(block)
        self._guard(lambda: self._container.mux(self._stream.encode(frame)))

    def close(self) -> None:
        """Write the rest and the end; once is enough."""
        if self._closed:
            return
        self._closed = True

        def end() -> None:
            if self._position:
                self._container.mux(self._stream.encode(None))
            self._container.close()

        self._guard(end)

    @staticmethod
    def _guard(call: Callable[[], object]) -> None:
        import av

        try:
            call()
        except (av.error.FFmpegError, ValueError) as error:
            raise M4aError(getattr(error, "strerror", None) or str(error)) from error
