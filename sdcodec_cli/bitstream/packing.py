"""Codes of a fixed number of bits, packed without gaps: lowest bit first, zeros up to a whole byte at the end."""

# N codes, in the order in which they are stored

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# numpy is loaded with the first codes: names of models are found, and completed in the shell, without it.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CODE_BITS = 16
"""The widest code that can be packed."""


def packed_bytes(num_codes: int, bits: int) -> int:
    """Bytes that `num_codes` codes of `bits` bits take."""
    return (num_codes * bits + 7) // 8


def pack(codes: NDArray[np.integer[Any]], bits: int) -> bytes:
    """Pack the non-negative codes of an array, in C order; each must be below `2 ** bits`, `bits` at most 16.

    >>> import numpy as np
    >>> pack(np.array([1, 2, 3]), bits=10).hex()
    '01083000'
    """
    import numpy as np

    as_bytes = np.ascontiguousarray(codes, dtype="<u2").view(np.uint8)
    columns = np.unpackbits(as_bytes.reshape(-1, 2), axis=1, bitorder="little")
    return np.packbits(columns[:, :bits], bitorder="little").tobytes()


def unpack(data: bytes, num_codes: int, bits: int) -> NDArray[np.int64]:
    """Codes `[N]` from what `pack` returned.

    Raises `ValueError` where `data` has another length than `num_codes` codes take, or the padding is not zero.
    """
    import numpy as np

    if len(data) != packed_bytes(num_codes, bits):
        raise ValueError(f"{num_codes} codes of {bits} bits do not take {len(data)} bytes")
    stored = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if stored[num_codes * bits :].any():
        raise ValueError("the padding is not zero")
    columns = np.zeros((num_codes, CODE_BITS), np.uint8)
    columns[:, :bits] = stored[: num_codes * bits].reshape(num_codes, bits)
    return np.packbits(columns, bitorder="little").view("<u2").astype(np.int64)
