"""How many bits a file takes, before it is coded."""

import numpy as np
import pytest

from sdcodec_cli.bitstream import DomainEntry
from sdcodec_cli.engine.allocation import Extent
from sdcodec_cli.engine.stream import CodedSegment

STREAMS = ("speech", "music")


def segment(num_frames: int, *active: str) -> CodedSegment:
    codes = {name: np.zeros((12, num_frames), dtype=np.int64) for name in STREAMS}
    return CodedSegment(num_frames, codes, {name: name in active for name in STREAMS})


def entries(num_codebooks: int) -> list[DomainEntry]:
    return [DomainEntry(name=name, num_codebooks=num_codebooks, codebook_size=1024) for name in STREAMS]


def test_streams_count_where_they_are_active_and_gains_where_any_is():
    extent = Extent(seconds=6.0)
    for active in (("speech", "music"), ("speech",), ()):
        extent.add(segment(100, *active), 2.0, STREAMS)
    assert extent.bitrate(entries(12), 0.0) == pytest.approx(3 * 6.0 / 3)  # 6 kbit/s in three of six seconds each
    assert extent.bitrate(entries(6), 0.6) == pytest.approx(3 * 3.0 / 3 + 2 * 0.6 / 3)


def test_streams_that_are_not_stored_do_not_count():
    extent = Extent(seconds=2.0)
    extent.add(segment(100, "speech", "music"), 2.0, ["music"])
    assert extent.bitrate(entries(12)[1:], 0.0) == pytest.approx(6.0)


def test_channels_add_up():
    extent = Extent(seconds=2.0)
    for _ in range(2):
        extent.add(segment(100, "music"), 2.0, STREAMS)
    assert extent.bitrate(entries(12), 0.5) == pytest.approx(2 * 6.5)


def test_what_fills_up_bytes_counts():
    extent = Extent(seconds=0.02)
    extent.add(segment(1, "music"), 0.02, STREAMS)
    assert extent.bitrate(entries(5), 0.0) == pytest.approx((5 + 2) * 8 / 20)  # groups of 40 and of 10 bits
