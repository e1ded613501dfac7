"""The log of a run, read back with TensorBoard's own reader."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from audio_examples import full_disk
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import AUDIO, IMAGES, SCALARS, EventAccumulator

from sdcodec_cli.engine.train.log import PANEL, Recording, RunLog, codebook_picture, colour, read_rows
from sdcodec_cli.engine.train.log import spectrogram_picture as picture_of
from sdcodec_cli.errors import InputError

RATE = 16_000


def sine(frequency: float, seconds: float = 1.0, *, level: float = 0.0) -> torch.Tensor:
    """`[T]`, at a level in dB relative to full scale."""
    return 10 ** (level / 20) * torch.sin(2 * math.pi * frequency * torch.arange(round(seconds * RATE)) / RATE)


def opened(run: Path, step: int = 0) -> RunLog:
    return RunLog(run, step=step, sample_rate=RATE)


def shown(run: Path) -> EventAccumulator:
    """What TensorBoard shows of a run."""
    accumulator = EventAccumulator(str(run / "tensorboard"), {SCALARS: 0, IMAGES: 0, AUDIO: 0})
    return accumulator.Reload()


def curve(run: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in shown(run).Scalars(tag)]


def test_a_row_is_a_line_of_json_with_null_for_what_is_not_finite(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.row(100, {"loss": {"mel": 0.5, "snr": math.inf}, "learning_rate": math.nan, "speed": np.float32(2)})
        # Another process may read it while the run goes on.
        assert read_rows(tmp_path) == [
            {"step": 100, "loss": {"mel": 0.5, "snr": None}, "learning_rate": None, "speed": 2.0}
        ]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_group_is_a_group_of_curves(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.row(100, {"loss": {"mel": 0.5}, "learning_rate": 0.25})
        log.row(200, {"loss": {"mel": 0.25}, "learning_rate": 0.125})
    assert shown(tmp_path).Tags()["scalars"] == ["loss/mel", "training/learning_rate"]
    assert curve(tmp_path, "loss/mel") == [(100, 0.5), (200, 0.25)]


def test_a_run_killed_after_its_checkpoint_logs_no_step_twice(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        for step in (100, 200, 300):
            log.row(step, {"loss": {"mel": float(step)}})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 400, "lo')
    assert [row["step"] for row in read_rows(tmp_path)] == [100, 200, 300]
    with opened(tmp_path, step=200) as log:
        log.row(300, {"loss": {"mel": -1.0}})
    assert [(row["step"], row["loss"]["mel"]) for row in read_rows(tmp_path)] == [(100, 100), (200, 200), (300, -1)]
    assert curve(tmp_path, "loss/mel") == [(100, 100), (200, 200), (300, -1)]


def test_curves_of_a_process_that_was_killed_while_writing_are_still_shown(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.row(100, {"loss": {"mel": 1.0}})
        log.row(200, {"loss": {"mel": 2.0}})
    (events,) = (tmp_path / "tensorboard").iterdir()
    os.truncate(events, events.stat().st_size - 5)
    with opened(tmp_path, step=100) as log:
        log.row(200, {"loss": {"mel": 3.0}})
    assert curve(tmp_path, "loss/mel") == [(100, 1), (200, 3)]


@pytest.mark.parametrize("line", ['{"step": 1', "[1]", '{"loss": 1}', '{"step": null}'])
def test_a_damaged_line_names_itself(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' + line + '\n{"step": 3}\n')
    with pytest.raises(InputError, match="metrics.jsonl: line 2 is damaged; remove it"):
        opened(tmp_path, step=3)


def test_a_full_disk_is_an_error_at_once_and_leaves_whole_rows(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    with opened(tmp_path) as log:
        log.row(100, {"loss": {"mel": 1.0}})
        with full_disk(metrics.stat().st_size + 10), pytest.raises(OSError, match="File too large"):
            log.row(200, {"loss": {"mel": 2.0}})
        assert metrics.read_text().endswith("\n")
        log.row(300, {"loss": {"mel": 3.0}})
    assert [row["step"] for row in read_rows(tmp_path)] == [100, 300]


def test_a_disk_that_is_full_of_pictures_is_an_error_at_once_too(tmp_path: Path) -> None:
    threads = threading.active_count()
    with opened(tmp_path) as log:
        log.row(100, {"loss": {"mel": 1.0}})
        (events,) = (tmp_path / "tensorboard").iterdir()
        recordings = [Recording("speech_1", sine(440), sine(440))]
        with full_disk(events.stat().st_size + 10_000), pytest.raises(OSError, match="File too large"):
            log.examples(100, recordings)
        assert threading.active_count() == threads
        log.examples(200, recordings)
    # What failed is gone as a whole; the reference, which was in it, came again.
    assert [event.step for event in shown(tmp_path).Audio("speech_1/reference")] == [200]
    assert curve(tmp_path, "loss/mel") == [(100, 1)]


def test_examples_can_be_heard_and_seen_and_the_reference_only_once(tmp_path: Path) -> None:
    reference, decoded = sine(440, 0.5, level=-6), sine(441, 0.5, level=20)
    with opened(tmp_path) as log:
        for step in (100, 200):
            log.examples(step, [Recording("speech_1", reference, decoded)])
    events = shown(tmp_path)
    assert sorted(events.Tags()["audio"]) == ["speech_1/decoded", "speech_1/reference"]
    assert [event.step for event in events.Audio("speech_1/decoded")] == [100, 200]
    (heard,) = events.Audio("speech_1/reference")
    samples, rate = soundfile.read(io.BytesIO(heard.encoded_audio_string))
    assert (rate, heard.sample_rate, heard.length_frames, heard.content_type) == (RATE, RATE, RATE // 2, "audio/wav")
    np.testing.assert_allclose(samples, reference, atol=1 / 32_000)
    loud, _ = soundfile.read(io.BytesIO(events.Audio("speech_1/decoded")[0].encoded_audio_string))
    np.testing.assert_allclose(loud, decoded.clamp(-1, 1), atol=1 / 16_000)
    seen = events.Images("spectrogram/speech_1")
    assert [event.step for event in seen] == [100, 200]
    image = Image.open(io.BytesIO(seen[0].encoded_image_string))
    assert (image.format, image.size) == ("PNG", (seen[0].width, seen[0].height))


def panels(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Reference and decoded as shares of the scale of colours, rows from low to high frequencies."""
    one_number = [65536, 256, 1]
    pixels = np.asarray(picture.convert("RGB")).astype(int) @ one_number
    shades = {
        int(code): share / 223 for share, code in enumerate(colour(np.linspace(0, 1, 224)).astype(int) @ one_number)
    }
    height, width = PANEL
    x, y = 52, 58
    both = []
    for top in (y, y + height + 36):
        panel = pixels[top : top + height, x : x + width]
        both.append(np.array([[shades[int(code)] for code in row] for row in panel[::-1]]))
    return both[0], both[1]


def test_a_sine_is_a_line_at_its_frequency_and_as_much_darker_as_it_is_softer() -> None:
    reference = torch.cat([sine(2000), torch.zeros(RATE)])
    decoded = torch.cat([torch.zeros(RATE), sine(6000, level=-40)])
    above, below = panels(picture_of("a", Recording("a", reference, decoded), RATE))
    width = PANEL[1]
    first, second = slice(20, width // 2 - 20), slice(width // 2 + 20, -20)
    # Of 0 to 8 kHz in 200 rows: 2 kHz is row 50, 6 kHz row 150.
    assert set(above[:, first].argmax(0)) <= {49, 50}
    assert set(below[:, second].argmax(0)) <= {149, 150}
    # Full scale is the top of 80 dB, less what neighbouring bins in the same pixel take away.
    assert above[:, first].max(0) == pytest.approx(1, abs=3 / 80)
    assert below[:, second].max(0) == pytest.approx(0.5, abs=3 / 80)
    assert above[:, second].max() == below[:, first].max() == 0


def test_silence_short_sounds_and_a_model_that_diverged_are_drawn_dark() -> None:
    silence = torch.zeros(100)
    for decoded in (silence, silence + math.nan, silence + math.inf):
        for panel in panels(picture_of("a", Recording("a", silence, decoded), RATE)):
            assert panel.max() == 0


def test_equal_steps_of_the_colours_are_equal_steps_of_lightness() -> None:
    # CIE 1976 L* of sRGB, IEC 61966-2-1.
    srgb = colour(np.linspace(0, 1, 13)) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    steps = np.diff(lightness[1:])
    assert lightness[-1] > 95
    assert lightness[0] < 5
    np.testing.assert_allclose(steps, 93 / 12, atol=2.5)


def test_codebooks_are_lists_in_the_row_curves_and_a_picture(tmp_path: Path) -> None:
    perplexity = {"speech": [512.0, 64.0], "shared": [math.nan]}
    dead = {"speech": [3, 40], "shared": [1024]}
    with opened(tmp_path) as log:
        log.codebooks(500, perplexity, dead)
    assert read_rows(tmp_path) == [
        {"step": 500, "codebook_perplexity": {"speech": [512.0, 64.0], "shared": [None]}, "codebook_dead": dead}
    ]
    assert curve(tmp_path, "codebook_perplexity/speech_02") == [(500, 64)]
    assert curve(tmp_path, "codebook_dead/shared_01") == [(500, 1024)]
    assert len(shown(tmp_path).Images("codebooks")) == 1


def test_a_collapsed_codebook_is_dark_and_a_full_one_bright() -> None:
    pixels = codebook_picture("a", {"speech": [1.0, 1024.0]}, {"speech": [1023, 0]}).load()
    assert pixels is not None
    corners: Any = [pixels[84 + level * 58 + 2, 36] for level in range(2)]
    assert corners == [tuple(colour(np.array(share))) for share in (0.0, 1.0)]


@pytest.mark.parametrize("decoded", [torch.zeros(99), torch.zeros(1, 100), torch.zeros(0)])
def test_a_recording_is_two_wavs_of_one_length(decoded: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="speech_1: reference and decoded must be"):
        Recording("speech_1", torch.zeros(0 if not len(decoded) else 100), decoded)


def test_tensorboard_is_imported_by_a_log_and_tensorflow_never(tmp_path: Path) -> None:
    trap = tmp_path / "tensorflow" / "__init__.py"
    trap.parent.mkdir()
    trap.write_text("raise AssertionError")
    code = (
        "import json, pathlib, sys\n"
        "from sdcodec_cli.engine.train.log import RunLog\n"
        "heavy = {'tensorboard', 'PIL', 'google.protobuf'}\n"
        "before = sorted(heavy & set(sys.modules))\n"
        "RunLog(pathlib.Path('run'), step=0, sample_rate=16000).close()\n"
        "print(json.dumps([before, 'tensorboard' in sys.modules]))\n"
    )
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60)
    assert (result.stderr, json.loads(result.stdout)) == ("", [[], True])
