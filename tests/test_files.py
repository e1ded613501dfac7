"""Which outputs a command writes, and what it refuses before any model is loaded."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from sdcodec_cli.engine.files import Plan
from sdcodec_cli.engine.inputs import AUDIO_SUFFIXES, find_inputs
from sdcodec_cli.engine.plans import plan_compress, plan_decode, plan_separate
from sdcodec_cli.errors import InputError, NotAStream, OutputError

from bitstream_examples import small_example


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def streams(*names: str) -> None:
    for name in names:
        Path(name).write_bytes(small_example().data)


def compress(*inputs: str, output: str | None = None, overwrite: bool = False) -> Plan:
    return plan_compress(inputs, output, overwrite=overwrite)


def decode(*inputs: str, output: str | None = None, stems: tuple[str, ...] = ("mix",), overwrite: bool = False) -> Plan:
    return plan_decode(inputs, output, stems, overwrite=overwrite)


def separate(*inputs: str, output: str | None = None, stems: tuple[str, ...] = ("speech", "music")) -> Plan:
    return plan_separate(inputs, output, stems, overwrite=False)


def outputs(plan: Plan) -> list[str]:
    assert plan.failures == ()
    return [target for job in plan.jobs for target in job.targets.values()]


def failure(plan: Plan) -> str:
    assert plan.jobs == ()
    (error,) = plan.failures
    assert isinstance(error, InputError | OutputError | NotAStream)
    assert "\n" not in str(error)
    return str(error)


# Names


def test_the_output_lies_beside_the_input_with_another_suffix() -> None:
    touch("a.wav", "b/c.d.FLAC", "e", "f.2024")
    assert outputs(compress("a.wav", "b/c.d.FLAC", "e", "f.2024")) == ["a.sdc", "b/c.d.sdc", "e.sdc", "f.2024.sdc"]


def test_a_decoded_file_does_not_aim_at_the_original() -> None:
    streams("a.sdc", "b.SDC", "c")
    assert outputs(decode("a.sdc", "b.SDC", "c")) == ["a.decoded.wav", "b.decoded.wav", "c.decoded.wav"]


def test_a_stem_is_named_in_the_output() -> None:
    streams("a.sdc")
    assert outputs(decode("a.sdc", stems=("speech", "mix", "speech"))) == ["a.speech.wav", "a.decoded.wav"]
    assert outputs(decode("a.sdc", stems=("all",))) == ["a.speech.wav", "a.sfx.wav"]
    touch("a.wav")
    assert outputs(separate("a.wav")) == ["a.speech.wav", "a.music.wav"]


def test_one_output_can_be_named() -> None:
    touch("a.wav")
    streams("a.sdc")
    assert outputs(compress("a.wav", output="x.sdc")) == ["x.sdc"]
    assert outputs(compress("a.wav", output="/dev/null")) == ["/dev/null"]
    assert outputs(decode("a.sdc", output="x.flac", stems=("sfx",))) == ["x.flac"]
    assert outputs(separate("a.wav", output="x.flac", stems=("sfx",))) == ["x.flac"]


@pytest.mark.parametrize("output", ["out", "new/"])
def test_a_folder_as_output_takes_the_usual_names(output: str) -> None:
    Path("out").mkdir()
    touch("b/a.wav", "b/c.wav")
    streams("a.sdc")
    out = output.rstrip("/")
    assert outputs(compress("b/a.wav", "b/c.wav", output=output)) == [f"{out}/a.sdc", f"{out}/c.sdc"]
    assert outputs(decode("a.sdc", output=output, stems=("all",))) == [f"{out}/a.speech.wav", f"{out}/a.sfx.wav"]
    assert not Path("new").exists()


def test_separated_stems_go_to_a_folder_even_without_a_slash() -> None:
    touch("a.wav")
    assert outputs(separate("a.wav", output="stems")) == ["stems/a.speech.wav", "stems/a.music.wav"]
    assert outputs(separate("a.wav", output="stems", stems=("sfx",))) == ["stems/a.sfx.wav"]


def test_several_stems_do_not_go_to_what_is_called_like_a_file() -> None:
    touch("a.wav")
    with pytest.raises(ValueError, match=r"-o out.wav: one file cannot hold several stems; name a folder"):
        separate("a.wav", output="out.wav")


def test_what_was_made_of_the_files_beside_it_is_left_out_of_a_folder_unless_it_is_named() -> None:
    touch("in/a.wav", "in/a.speech.wav", "in/b.decoded.wav", "in/c.speech.wav")
    streams("in/b.sdc")
    plan = plan_separate(["in"], None, ["music"], overwrite=False, domains=("speech", "music"))
    assert outputs(plan) == ["in/a.music.wav", "in/c.speech.music.wav"]
    assert plan.notes == (
        "in: left out what sdc made of others there, 2 in all, such as a.speech.wav; name a file to take it along",
    )
    named = plan_compress(["in/a.speech.wav"], None, overwrite=False, domains=("speech", "music"))
    assert (outputs(named), named.notes) == (["in/a.speech.sdc"], ())


def test_a_recorders_capital_letters_do_not_hide_what_was_made_of_its_files() -> None:
    touch("in/A.WAV", "in/A.speech.wav")
    plan = plan_compress(["in"], None, overwrite=False, domains=("speech",))
    assert outputs(plan) == ["in/A.sdc"]


def test_a_folder_that_cannot_be_looked_into_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("in/a.wav", "in/locked/b.wav")
    scandir = os.scandir

    def refuse(path: str) -> object:  # permissions do not keep root out
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    plan = compress("in")
    assert [job.source for job in plan.jobs] == ["in/a.wav"]
    assert [str(error) for error in plan.failures] == [
        "in/locked: cannot be read: Permission denied; check its permissions"
    ]
    assert failure(compress("in/locked")) == "in/locked: cannot be read: Permission denied; check its permissions"


def test_folders_are_created_when_the_work_begins() -> None:
    touch("a.wav")
    (job,) = compress("a.wav", output="new/deep/").jobs
    with job.folders():
        assert Path("new/deep").is_dir()
    assert not Path("new").exists()
    touch("new/deep")
    message = r"new/deep: cannot be created: File exists; choose another with -o"
    with pytest.raises(OutputError, match=message), job.folders():
        pass


def test_folders_that_nothing_came_into_are_taken_away_again() -> None:
    touch("a.wav")
    Path("old").mkdir()
    (job,) = compress("a.wav", output="old/new/deep/").jobs
    with pytest.raises(KeyboardInterrupt), job.folders():
        raise KeyboardInterrupt
    assert list(Path("old").iterdir()) == []
    with contextlib.suppress(KeyboardInterrupt), job.folders():
        touch("old/new/deep/kept")
        raise KeyboardInterrupt
    assert Path("old/new/deep/kept").exists()


def test_standard_input_goes_to_standard_output() -> None:
    assert outputs(compress("-")) == ["-"]
    assert outputs(decode("-")) == ["-"]
    assert outputs(compress("-", output="x.sdc")) == ["x.sdc"]
    assert outputs(decode("-", output="out/", stems=("speech", "mix"))) == [
        "out/stdin.speech.wav",
        "out/stdin.decoded.wav",
    ]


# Folders


def test_a_folder_is_searched_in_order_without_hidden_and_other_files() -> None:
    touch("in/b.wav", "in/A.flac", "in/c/z.mp3", "in/c/._z.mp3", "in/.git/x.wav", "in/notes.txt", "in/b.sdc")
    assert find_inputs(["in"], AUDIO_SUFFIXES)[0] == ["in/A.flac", "in/b.wav", "in/c/z.mp3"]


def test_a_searched_folder_keeps_its_shape_in_the_output() -> None:
    touch("in/a.wav", "in/c/a.wav")
    assert outputs(compress("in", output="out/")) == ["out/a.sdc", "out/c/a.sdc"]
    assert outputs(compress("in")) == ["in/a.sdc", "in/c/a.sdc"]


def test_a_folder_without_anything_to_do_says_so() -> None:
    touch("in/notes.txt")
    assert failure(compress("in")) == "in: no audio files in this folder; name a file"
    assert failure(decode("in")) == "in: no .sdc files in this folder; name a file"


def test_a_file_that_is_named_twice_is_done_once() -> None:
    touch("in/a.wav")
    Path("in/link.wav").symlink_to("a.wav")
    assert outputs(compress("in/a.wav", "in", "./in/a.wav")) == ["in/a.sdc"]


# Refusals


def test_a_missing_input_fails_and_the_others_go_on() -> None:
    touch("a.wav", "b.wav")
    plan = compress("a.wav", "none.wav", "b.wav")
    assert [job.source for job in plan.jobs] == ["a.wav", "b.wav"]
    assert [str(error) for error in plan.failures] == ["none.wav: no such file; check the name"]


def test_an_existing_output_fails_unless_overwriting() -> None:
    touch("a.wav", "a.sdc")
    assert failure(compress("a.wav")) == "a.sdc exists; pass --force to overwrite it"
    assert outputs(compress("a.wav", overwrite=True)) == ["a.sdc"]


def test_a_pipe_needs_a_named_output() -> None:
    os.mkfifo("pipe")
    assert failure(compress("pipe")) == "pipe: is a pipe or a device; name the output with -o"
    assert outputs(compress("pipe", output="x.sdc")) == ["x.sdc"]
    assert outputs(decode("pipe", output="x.wav")) == ["x.wav"]


def test_a_stem_that_exists_fails_the_whole_input() -> None:
    streams("a.sdc")
    touch("a.sfx.wav")
    assert failure(decode("a.sdc", stems=("all",))) == "a.sfx.wav exists; pass --force to overwrite it"


def test_an_output_that_is_an_input_is_refused_even_with_force() -> None:
    touch("a.sdc", "b.wav", "a.wav")
    Path("link.sdc").symlink_to("a.sdc")
    assert failure(compress("a.sdc", output="a.sdc", overwrite=True)).startswith("a.sdc: is an input; choose another")
    assert failure(compress("a.sdc", output="link.sdc", overwrite=True)).startswith("link.sdc: is an input")


def test_two_inputs_with_the_same_output_are_not_mixed_up() -> None:
    touch("a.wav", "a.flac")
    plan = compress("a.wav", "a.flac", overwrite=True)
    assert [job.source for job in plan.jobs] == ["a.wav"]
    assert [str(error) for error in plan.failures] == [
        "a.flac: would write a.sdc, as a.wav does; give it another name, or its own output with -o"
    ]


def test_two_stems_are_not_written_through_links_to_one_file() -> None:
    touch("a.wav")
    for stem in ("speech", "music"):
        Path(f"a.{stem}.wav").symlink_to("one.wav")
    plan = plan_separate(["a.wav"], None, ("speech", "music"), overwrite=True)
    assert failure(plan) == "a.music.wav: is the same file as a.speech.wav; remove the link"


def test_outputs_that_cannot_be_written_are_refused() -> None:
    touch("a.wav", "file", "x.d/a")
    streams("b.sdc")
    assert failure(compress("a.wav", output="none/a.sdc")) == "none/a.sdc: there is no folder none; create it first"
    assert failure(separate("a.wav", output="file")) == "file: is a file, not a folder; choose another with -o"
    assert failure(separate("a.wav", output="file/deep/")) == "file: is a file, not a folder; choose another with -o"
    assert failure(decode("b.sdc", output="b")) == (
        "b: cannot write a file without suffix; use one of .wav, .flac, .ogg, .opus, .mp3, .m4a, or, for a film, .m4v, "
        ".mkv, .mov, .mp4, .webm"
    )
    assert failure(compress("a.wav", output="b.mp3")) == "b.mp3: would hold a .sdc stream; name it b.sdc"


def test_a_folder_that_is_not_writable_is_refused() -> None:
    touch("in/a.wav")
    Path("in").chmod(0o500)
    if os.access("in", os.W_OK):
        pytest.skip("root may write everywhere")
    try:
        assert failure(compress("in/a.wav")) == "in/a.sdc: the folder in is not writable; choose another with -o"
        assert failure(compress("in/a.wav", output="in/new/")).startswith("in/new/a.sdc: the folder in is not writable")
    finally:
        Path("in").chmod(0o700)


def test_a_terminal_is_neither_read_from_nor_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("a.wav")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert failure(compress("a.wav", output="-")).startswith("stdout: refusing to write binary data to the terminal; ")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with pytest.raises(ValueError, match="refusing to read from the terminal; pipe something in, or name a file"):
        compress("-", output="x.sdc")


def test_what_is_not_a_stream_fails_before_anything_is_decoded() -> None:
    touch("a.sdc")
    assert failure(decode("a.sdc")).startswith("a.sdc: ")


def test_a_stem_that_the_file_does_not_have_is_refused_by_name() -> None:
    streams("a.sdc")
    assert failure(decode("a.sdc", stems=("music",))) == "a.sdc: has no music; choose from speech, sfx, mix, all"
    plan = plan_decode(["a.sdc"], None, ["mix"], ["all"], overwrite=False)
    assert failure(plan) == "a.sdc: has no all; choose from speech, sfx, mix"


def wrong(plan: object, *inputs: str, **how: object) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        plan(*inputs, **how)  # type: ignore[operator]
    return str(caught.value)


def test_arguments_that_contradict_each_other_are_a_wrong_call() -> None:
    touch("a.wav", "b.wav", "in/a.wav", "in/b.wav")
    streams("a.sdc")
    one = "one file cannot hold several outputs; name a folder, such as -o out/"
    stdout = one.replace("one file", "standard output")
    assert wrong(compress, "a.wav", "b.wav", output="x.sdc") == f"-o x.sdc: {one}"
    assert wrong(compress, "a.wav", "none.wav", output="x.sdc") == f"-o x.sdc: {one}"
    assert wrong(compress, "in", output="x.sdc") == f"-o x.sdc: {one}"
    assert wrong(compress, "a.wav", "b.wav", output="-") == f"-o -: {stdout}"
    assert wrong(decode, "a.sdc", stems=("all",), output="x.wav") == f"-o x.wav: {one}"
    assert wrong(separate, "a.wav", output="-") == f"-o -: {stdout}"
    assert wrong(compress, "-", "-") == "standard input can be read only once; name - once"
    assert wrong(decode, "-", stems=("speech", "mix")) == (
        "standard output cannot hold several stems; name a folder, such as -o out/"
    )
    assert wrong(decode, "-", stems=("all",), output="out/").startswith("what a pipe holds is not known in advance")


def test_a_film_and_its_sound_do_not_go_to_one_output() -> None:
    touch("in/film.mp4", "in/film.wav")
    plan = compress("in")
    assert [job.source for job in plan.jobs] == ["in/film.mp4"]
    assert [str(error) for error in plan.failures] == [
        "in/film.wav: would write in/film.sdc, as in/film.mp4 does; give it another name, or its own output with -o"
    ]


def test_what_looks_like_audio_and_is_not_read_is_counted() -> None:
    touch("in/a.m4a", "in/b.webm", "in/c.rm", "in/d/E.MID", "in/notes.txt", "in/cover.jpg")
    plan = compress("in")
    assert outputs(plan) == ["in/a.sdc", "in/b.sdc"]
    assert plan.notes == (
        "in: left out what sdc does not read there, 2 in all, such as c.rm; name a file to try it, or convert it first",
    )
    streams("in/a.sdc")
    assert decode("in").notes == ()


def test_an_output_whose_name_is_too_long_is_refused_before_any_work_with_all_its_brothers() -> None:
    name = "a" * 245  # a.sfx.wav would do, a.speech.wav would not
    touch(f"{name}.wav")
    expected = f"{name}.speech.wav: its name has 256 bytes, more than the 255 that file systems take; choose"
    assert failure(separate(f"{name}.wav", stems=("sfx", "speech"))).startswith(expected)
    assert expected in failure(separate(f"{name}.wav", output="new/", stems=("sfx", "speech")))
    assert "its name has 300 bytes" in failure(compress(f"{name}.wav", output=f"{'n' * 300}/"))
