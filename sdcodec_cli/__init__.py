"""SD-Codec as a tool: audio in, separately decodable speech, music and effects streams out.

The names below are the public Python API. They are imported on first use, so that `import sdcodec_cli`
(and with it `sdc --help`) does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .engine.background import enhance, exchange_background
    from .engine.codec import Codec, load_codec
    from .engine.coded import SpeechResult
    from .engine.codes import Codes
    from .engine.compress import CompressResult, compress
    from .engine.decode import DecodeResult, decode
    from .engine.edit import EditResult, cut, join, strip
    from .engine.extend import ExtendResult, extend
    from .engine.inspect import FileReport, inspect
    from .engine.separate import SeparateResult, separate
    from .engine.separator import Separator, load_system
    from .engine.voice import convert_voice
    from .errors import SdcError

_HOME = {
    "Codec": "engine.codec",
    "Codes": "engine.codes",
    "load_codec": "engine.codec",
    "CompressResult": "engine.compress",
    "compress": "engine.compress",
    "DecodeResult": "engine.decode",
    "decode": "engine.decode",
    "EditResult": "engine.edit",
    "cut": "engine.edit",
    "join": "engine.edit",
    "strip": "engine.edit",
    "ExtendResult": "engine.extend",
    "extend": "engine.extend",
    "FileReport": "engine.inspect",
    "inspect": "engine.inspect",
    "SeparateResult": "engine.separate",
    "separate": "engine.separate",
    "Separator": "engine.separator",
    "load_system": "engine.separator",
    "SpeechResult": "engine.coded",
    "enhance": "engine.background",
    "exchange_background": "engine.background",
    "convert_voice": "engine.voice",
    "SdcError": "errors",
}

__all__ = [
    "Codec",
    "Codes",
    "CompressResult",
    "DecodeResult",
    "EditResult",
    "ExtendResult",
    "FileReport",
    "SdcError",
    "SeparateResult",
    "Separator",
    "SpeechResult",
    "__version__",
    "compress",
    "convert_voice",
    "cut",
    "decode",
    "enhance",
    "exchange_background",
    "extend",
    "inspect",
    "join",
    "load_codec",
    "load_system",
    "separate",
    "strip",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
