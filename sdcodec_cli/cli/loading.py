"""Models that streams name, or the command line, loaded once."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ModelError
from .console import source_name
from .options import Device, Runtime, say_runtime

if TYPE_CHECKING:
    from ..bitstream import Header
    from ..engine.batch import Say
    from ..engine.codec import Codec


@dataclass(frozen=True, kw_only=True)
class Models:
    """Loads each model once in a process; other processes are given one that has not loaded anything."""

    model: str | None
    """That is used for everything; by default that of each stream."""
    for_audio: str | None = None
    """Used for audio then; None for the default one."""
    runtime: Runtime
    device: Device
    threads: int | None

    def codec_for(self, say: Say, source: str, header: Header | None) -> Codec:
        """The model for a stream with this header, or for audio, for which there is none."""
        if header is None:
            found = self._load(self.model or self.for_audio)
        elif self.model:
            found = self._load(self.model, made_with=header.weights_sha256)
        else:
            found = self._named(say, source, header)
        say_runtime(say, found, self.runtime)
        return found

    @functools.cached_property
    def _load(self) -> Callable[..., Codec]:
        from ..engine.codec import open_codec

        return functools.cache(
            functools.partial(open_codec, runtime=self.runtime, device=self.device, threads=self.threads)
        )

    def _named(self, say: Say, source: str, header: Header) -> Codec:
        """The model that a file names, or else that of as many of its stages as there is one for."""
        try:
            return self._load(header.model, made_with=header.weights_sha256)
        except ModelError as error:
            for lower in header.by_lower_models:
                with contextlib.suppress(ModelError):
                    found = self._load(lower.model, made_with=lower.weights_sha256)
                    if found.weights_sha256 == lower.weights_sha256:
                        say(
                            f"{source_name(source)}: was made with {header.model}, which cannot be used ({error}); "
                            f"decoded up to {lower.sample_rate / 2:g} Hz, with {found.name}"
                        )
                        return found
            raise ModelError(
                f"{source_name(source)}: was made with {header.model}, which cannot be used ({error}); name the folder "
                "of that model with --model DIR"
            ) from error
