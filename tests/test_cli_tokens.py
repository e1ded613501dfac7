"""`sdc tokens`, and what all commands that work on many inputs have in common."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from sdcodec_cli.cli.console import Console
from sdcodec_cli.data.tokens import read_tokens

from bitstream_examples import example_header, long_example, random_codes, small_example, write_example
from cli_examples import Engine, errors, install, sdc


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("SDC_DEVICE", "SDC_RUNTIME", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    Path("talk.sdc").write_bytes(small_example().data)
    return tmp_path


def names() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def test_a_file_becomes_tokens_beside_it_with_one_line_about_it() -> None:
    result = sdc("tokens", "talk.sdc")
    assert (result.exit_code, result.stdout) == (0, "")
    size = Path("talk.npz").stat().st_size / 1000
    assert result.stderr == (f"talk.npz: 0.2 s, 10 frames at 50 Hz, codebooks: speech 3, sfx 2; {size:.0f} kB\n")


def test_the_name_of_the_output_or_an_option_say_the_format_and_the_direction() -> None:
    for name in ("a.npz", "a.safetensors", "a.parquet", "a.jsonl"):
        assert sdc("tokens", "talk.sdc", "-o", name).exit_code == 0
        assert sdc("tokens", name, "-o", f"{name}.sdc").exit_code == 0
        assert Path(f"{name}.sdc").read_bytes() == small_example().data
    assert sdc("tokens", "talk.sdc", "--format", "jsonl").exit_code == 0
    assert sdc("tokens", "talk.jsonl", "--format", "sdc", "--force").stderr.startswith("talk.sdc: 0.2 s, 10 frames")


def test_a_folder_keeps_its_shape_there_and_back() -> None:
    Path("in/deep").mkdir(parents=True)
    for name in ("in/a.sdc", "in/deep/b.sdc"):
        Path(name).write_bytes(long_example().data)
    soundfile.write("in/a.wav", np.zeros(100), 8000)
    result = sdc("tokens", "in", "-o", "out/", "--format", "safetensors")
    assert result.stderr.splitlines()[0] == (
        "in: left out audio whose .sdc file lies beside it, 1 in all, such as a.wav; name a file to take it along"
    )
    assert result.stderr.splitlines()[-1].startswith("2 inputs: 2 done; ")
    assert sdc("tokens", "out", "-o", "back/", "--format", "sdc").exit_code == 0
    for name in ("a.sdc", "deep/b.sdc"):
        assert (Path("back") / name).read_bytes() == long_example().data


def test_standard_input_and_output() -> None:
    result = sdc("tokens", "-", "-o", "-", "--format", "jsonl", stdin=small_example().data)
    assert json.loads(result.stdout)["header"]["model"] == "toy"
    assert result.stderr.startswith("stdout: ")


def test_domains_and_codebooks_can_be_chosen() -> None:
    (line,) = sdc("tokens", "talk.sdc", "--domains", "speech", "--codebooks", "2", "--json", "-q").stdout.splitlines()
    assert json.loads(line)["streams"] == {"speech": 2}
    assert read_tokens("talk.npz")[0].streams["speech"].codes.shape == (2, 10)


def test_layers_are_of_speech_and_of_models_that_tell_them_apart() -> None:
    result = sdc("tokens", "talk.sdc", "--layers", "semantic", "--model", "sdcodec-16k-mini")
    assert result.exit_code == 1
    (line,) = errors(result)
    assert line.startswith(
        "talk.sdc: codes of sdcodec-16k-mini are not told apart into semantic and acoustic ones; models whose"
    )
    result = sdc("tokens", "talk.sdc", "--layers", "acoustic", "--domains", "speech")
    assert result.exit_code == 2
    assert "--layers acoustic and --domains speech do not go together" in result.stderr
    assert sdc("tokens", "talk.npz", "--format", "sdc", "--layers", "semantic").exit_code == 2


def test_features_need_the_model_that_made_the_codes_and_are_in_no_sdc_file() -> None:
    result = sdc("tokens", "talk.sdc", "--features", "--model", "sdcodec-16k-mini")
    assert result.exit_code == 1
    assert errors(result)[0].startswith("talk.sdc: was made with other weights of toy than are here")
    assert names() == ["talk.sdc"]
    result = sdc("tokens", "talk.npz", "--format", "sdc", "--features")
    assert result.exit_code == 2
    assert "--features: a .sdc file holds codes alone; leave the option out" in result.stderr


def test_damage_is_told_and_what_is_left_is_written() -> None:
    data = bytearray(small_example().data)
    data[small_example().starts[1] - 1] ^= 1
    Path("talk.sdc").write_bytes(data)
    result = sdc("tokens", "talk.sdc")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1].startswith("sdc: talk.sdc: sfx is damaged in segment 0")
    assert Path("talk.npz").exists()


def test_audio_is_coded_by_the_model_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    install(engine, monkeypatch)
    soundfile.write("a.wav", np.zeros(1600), 16_000)
    assert sdc("tokens", "a.wav", "--model", "sdcodec-16k-mini", "--effort", "0", "--track", "2").exit_code == 0
    assert (engine.loaded, engine.efforts) == ([("sdcodec-16k-mini", "auto")], [0])
    assert engine.calls[0]["track"] == 2
    assert read_tokens("a.npz")[0].header.model == "toy"  # what the stand-in writes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["talk.sdc", "-o", "a.npz", "--format", "jsonl"], "--format jsonl and -o a.npz do not go together"),
        (["a.npz", "-o", "a.sdc", "--domains", "sfx"], "--domains sfx: a .sdc file is made of all that the tokens"),
        (["a.npz", "-o", "a.sdc", "--codebooks", "2"], "--codebooks 2: a .sdc file is made of all that the tokens"),
        (["talk.sdc", "--skip-existing", "--force"], "--skip-existing keeps what --force would replace; leave one of"),
        (["talk.sdc", "--shard", "4/3"], "--shard '4/3' is not auto, or i/n with i from 1 to n, such as 3/16"),
        (["talk.sdc", "--shard", "auto"], "--shard auto: this runs neither under torchrun nor in a SLURM array"),
        (["talk.sdc", "-", "--jobs", "2"], "--jobs 2: standard input and output cannot be shared by processes"),
    ],
)
def test_a_wrong_command_line_exits_with_2(arguments: list[str], expected: str) -> None:
    (line,) = errors(sdc("tokens", *arguments), exit_code=2)
    assert line.startswith(expected)


@pytest.mark.parametrize("option", [["--domains", ""], ["--codebooks", "0"], ["--format", "csv"], ["--jobs", "-1"]])
def test_values_out_of_range_exit_with_2_and_a_line_that_names_the_option(option: list[str]) -> None:
    (line,) = errors(sdc("tokens", "talk.sdc", *option), exit_code=2)
    assert line.startswith(f"tokens: {option[0]}: ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a.npz"], "a.npz: holds tokens already; --format sdc makes a .sdc file of it"),
        (["talk.sdc", "-o", "new.sdc"], "talk.sdc: is no file of tokens, whose names end in .jsonl, .npz, .parquet"),
        (["talk.sdc", "-o", "a.txt"], "a.txt: would hold npz; name it a.npz"),
        (["empty"], "empty: no audio or .sdc files in this folder; name a file"),
        (["empty", "--format", "sdc"], "empty: no files of tokens in this folder; name a file"),
        (["a.npz", "-o", "new.sdc"], "a.npz: is no npz file of tokens (it is no zip archive); write it again"),
    ],
)
def test_an_input_or_output_of_no_use_is_one_line(arguments: list[str], expected: str) -> None:
    Path("empty").mkdir()
    Path("a.npz").write_bytes(b"nothing")
    (line,) = errors(sdc("tokens", *arguments))
    assert line.startswith(expected)


def test_a_parquet_file_without_pyarrow_names_the_extra_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (line,) = errors(sdc("tokens", "talk.sdc", "-o", "a.parquet"))
    assert line.startswith("a Parquet file of tokens: needs pyarrow; pip install 'sdcodec-cli[train]'")


# --- what all such commands have in common


def test_a_summary_ends_several_inputs_and_what_is_there_is_left_out() -> None:
    for number in range(3):
        Path(f"{number}.sdc").write_bytes(small_example().data)
    Path("0.npz").touch()
    result = sdc("tokens", "0.sdc", "1.sdc", "2.sdc", "none.sdc", "--skip-existing")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("4 inputs: 2 done, 1 there already, 1 failed; ")
    assert Path("0.npz").stat().st_size == 0
    result = sdc("tokens", "0.sdc", "--skip-existing")
    assert (result.exit_code, result.stderr[:27]) == (0, "1 input: 1 there already; 0")
    assert sdc("tokens", "0.sdc", "--skip-existing", "-q").stderr == ""


def test_shards_do_all_of_it_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        Path(f"{number}.sdc").write_bytes(small_example().data)
    assert sdc("tokens", ".", "-o", "out/", "--shard", "1/2").exit_code == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["0.npz", "2.npz"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert sdc("tokens", ".", "-o", "out/", "--shard", "auto").exit_code == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["0.npz", "1.npz", "2.npz", "talk.npz"]
    nothing = sdc("tokens", "talk.sdc", "-o", "out/", "--shard", "2/2")
    assert (nothing.exit_code, nothing.stderr) == (0, "there is nothing to do in this part of the inputs\n")


@pytest.mark.slow
def test_processes_do_what_one_does() -> None:
    header = example_header()
    for seed in range(4):
        data = write_example(header, [random_codes(header, 7, seed=seed)], [7], samples=100).data
        Path(f"{seed}.sdc").write_bytes(data)
    Path("bad.sdc").write_bytes(b"hello")
    outputs = []
    for jobs in ("1", "2"):
        result = sdc("tokens", ".", "-o", "out/", "--format", "jsonl", "--jobs", jobs, "--json", "--force")
        assert result.exit_code == 1
        lines = [line for line in result.stderr.splitlines() if "inputs" not in line]
        outputs.append(
            (sorted(lines), sorted(result.stdout.splitlines()), [Path(name).read_bytes() for name in names()])
        )
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    "command", ["compress a.wav", "decode a.sdc", "separate a.wav", "extend a.wav", "tokens a.sdc"]
)
def test_what_a_command_does_with_an_input_can_go_to_another_process(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[Any] = []
    monkeypatch.setattr(Console, "work", lambda self, work, jobs, **more: works.append((work, more["processes"])))
    install(Engine(), monkeypatch)
    name, source = command.split()
    for other in ("a", "b"):
        soundfile.write(f"{other}.wav", np.zeros(1600), 16_000)
        Path(f"{other}.sdc").write_bytes(small_example().data)
    assert sdc(name, source, f"b{source[1:]}", "-o", "out/", "--jobs", "2").exit_code == 0
    ((work, processes),) = works
    assert processes == 2
    assert pickle.loads(pickle.dumps(work)) == work
    assert not {"codec", "_prepared"} & set(vars(work))  # nothing that is loaded goes along
