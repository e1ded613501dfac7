"""Everything that can go wrong in the world, as opposed to in a call.

::

    SdcError
    ├── InputError            a file that is missing, unreadable, or not audio we can read
    ├── OutputError           a target that exists, or that cannot be written
    ├── StreamError           a .sdc file ...
    │   ├── NotAStream        ... that is not one
    │   ├── UnsupportedStream ... of a newer format, or with a feature this version lacks
    │   └── CorruptStream     ... that is damaged beyond use
    ├── ModelError            an unknown model, missing or wrong weights, a mismatch with a stream
    ├── RecipeError           a recipe that does not parse or does not make sense
    ├── DeviceError           a device that is not there
    └── MissingExtra          packages that are not installed

A wrong call (an argument outside its range) is a `ValueError`, as everywhere in Python.
Every message is one line: what it is about, what happened, what to do.
"""


class SdcError(Exception):
    """Base of all errors that a user can do something about; `sdc` prints it as one line and exits with 1."""


class InputError(SdcError):
    """The input is missing, unreadable, or not audio that can be read."""


class OutputError(SdcError):
    """The output exists already, or cannot be written."""


class StreamError(SdcError):
    """Something is wrong with a `.sdc` stream."""


class NotAStream(StreamError):
    """The bytes are not a `.sdc` stream."""


class UnsupportedStream(StreamError):
    """The stream was written by a newer version, or needs a feature that this version lacks."""


class CorruptStream(StreamError):
    """The stream is damaged so that nothing of it can be used."""


class ModelError(SdcError):
    """The model is unknown, has no weights, or is not the one a stream was made with."""


class RecipeError(SdcError):
    """A recipe cannot be parsed, or a field of it is unknown or out of range."""


class DeviceError(SdcError):
    """The requested device is not available."""


class MissingExtra(SdcError):
    """What was asked for needs packages that are not installed."""
