"""Which domain and split a file belongs to, from where it lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdcodec_cli.data.corpora import find_audio
from sdcodec_cli.errors import InputError

DOMAINS = ("speech", "music", "sfx")


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path, domains: tuple[str, ...] = DOMAINS) -> dict[str, str]:
    files = list(find_audio(root, domains))
    assert len({file.path for file in files}) == len(files)
    return {file.path: f"{file.domain} {file.split}" for file in files}


def test_folders_named_like_the_domains_are_train_at_any_depth_and_in_any_format(tmp_path):
    make(tmp_path, "speech/a.wav", "music/deep/er/b.FLAC", "sfx/c.opus", "sfx/notes.txt", "other/d.wav", "e.wav")
    assert found(tmp_path) == {
        "speech/a.wav": "speech train",
        "music/deep/er/b.FLAC": "music train",
        "sfx/c.opus": "sfx train",
    }


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        *[(name, "train") for name in ("train", "tr")],
        *[(name, "valid") for name in ("valid", "val", "cv")],
        *[(name, "test") for name in ("test", "tt")],
    ],
)
def test_splits_are_folders_around_the_domains_under_all_their_names(tmp_path, folder, split):
    make(tmp_path, *(f"{folder}/{domain}/a.wav" for domain in DOMAINS))
    assert set(found(tmp_path).values()) == {f"{domain} {split}" for domain in DOMAINS}


def test_splits_are_folders_directly_inside_a_domain_but_not_deeper_and_not_languages(tmp_path):
    make(tmp_path, "speech/valid/a.wav", "speech/tr/b.wav", "music/x/test/c.wav", "sfx/test/valid/d.wav")
    assert found(tmp_path) == {
        "speech/valid/a.wav": "speech valid",
        "speech/tr/b.wav": "speech train",
        "music/x/test/c.wav": "music train",
        "sfx/test/valid/d.wav": "sfx test",
    }


def test_corpora_that_lie_side_by_side_are_told_apart(tmp_path):
    make(
        tmp_path,
        "dns/datasets_fullband/clean_fullband/read_speech/book.wav",
        "dns/datasets_fullband/noise_fullband/fan.wav",
        "dns/datasets_fullband/impulse_responses/room.wav",
        "dns/datasets_fullband/dev_testset/noisy.wav",
        "dns5/Track1_Headset/mnt/dnsv5/clean/french_speech/un.wav",
        "jamendo/raw_30s/07/1007.mp3",
        "jamendo/raw_30s/07/readme.wav",
        "jamendo/raw_30s/100/1100.mp3",
        "musan/speech/librivox/s.wav",
        "musan/music/fma/m.wav",
        "musan/noise/free-sound/n.wav",
        "wham/wham_noise/tr/1.wav",
        "wham/wham_noise/cv/2.wav",
        "wham/wham_noise/tt/3.wav",
        *(f"dnr_v2/tt/1002/{name}" for name in ("mix.wav", "speech.wav", "music.wav", "sfx.wav", "annots.csv")),
        "recordings/noise/alone.wav",
    )
    assert found(tmp_path) == {
        "dns/datasets_fullband/clean_fullband/read_speech/book.wav": "speech train",
        "dns/datasets_fullband/noise_fullband/fan.wav": "sfx train",
        "dns5/Track1_Headset/mnt/dnsv5/clean/french_speech/un.wav": "speech train",
        "jamendo/raw_30s/07/1007.mp3": "music train",
        "musan/speech/librivox/s.wav": "speech train",
        "musan/music/fma/m.wav": "music train",
        "musan/noise/free-sound/n.wav": "sfx train",
        "wham/wham_noise/tr/1.wav": "sfx train",
        "wham/wham_noise/cv/2.wav": "sfx valid",
        "wham/wham_noise/tt/3.wav": "sfx test",
        "dnr_v2/tt/1002/speech.wav": "speech test",
        "dnr_v2/tt/1002/music.wav": "music test",
        "dnr_v2/tt/1002/sfx.wav": "sfx test",
    }


def test_a_corpus_is_known_by_its_folder_whatever_lies_around_it(tmp_path):
    make(tmp_path, "speech/noise_fullband/a.wav", "speech/s.wav", "music/m.wav", "sfx/wham_noise/cv/b.wav")
    files = found(tmp_path)
    assert files["speech/noise_fullband/a.wav"] == "sfx train"
    assert files["sfx/wham_noise/cv/b.wav"] == "sfx valid"


def test_the_root_may_be_a_corpus_itself(tmp_path):
    make(tmp_path / "wham_noise", "tr/1.wav", "tt/2.wav")
    assert found(tmp_path / "wham_noise", ("sfx",)) == {"tr/1.wav": "sfx train", "tt/2.wav": "sfx test"}
    make(tmp_path / "00", "speech/a.wav", "music/b.wav", "noise/c.wav")
    assert found(tmp_path / "00")["noise/c.wav"] == "sfx train"


def test_only_the_domains_asked_for_are_found(tmp_path):
    make(tmp_path, "audio/a.wav", "speech/b.wav", "clean_fullband/c.wav", "00/d.mp3", "noise_fullband/e.wav")
    assert found(tmp_path, ("audio",)) == {"audio/a.wav": "audio train"}


def test_hidden_files_and_folders_are_left_out(tmp_path):
    make(tmp_path, "speech/.a.wav", ".git/speech/b.wav", "speech/.trash/c.wav", "speech/d.wav")
    assert list(found(tmp_path, ("speech",))) == ["speech/d.wav"]


def test_links_are_followed_and_loops_and_second_ways_are_not(tmp_path):
    make(tmp_path, "elsewhere/reader/a.wav", "root/loop/x.txt", "store/b.wav")
    root = tmp_path / "root"
    (root / "speech").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "reader" / "back").symlink_to(tmp_path / "elsewhere")
    (root / "loop" / "root").symlink_to(root)
    (root / "again").mkdir()
    (root / "again" / "speech").symlink_to(tmp_path / "elsewhere")
    (root / "music").mkdir()
    (root / "music" / "b.wav").symlink_to(tmp_path / "store" / "b.wav")
    (root / "music" / "gone.wav").symlink_to(tmp_path / "nothing.wav")
    assert list(found(root, ("speech", "music"))) == ["again/speech/reader/a.wav", "music/b.wav"]


def test_what_is_found_nowhere_is_named_along_with_what_is_understood(tmp_path):
    make(tmp_path, "speech/a.wav", "effects/b.wav")
    with pytest.raises(InputError, match=r"no audio files of music, sfx; understood are .*MUSAN"):
        found(tmp_path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        found(tmp_path / "missing")


def test_sizes_and_times_come_along(tmp_path):
    make(tmp_path, "speech/a.wav")
    (tmp_path / "speech" / "a.wav").write_bytes(b"12345")
    (file,) = find_audio(tmp_path, ("speech",))
    assert (file.size, file.mtime_ns) == (5, (tmp_path / "speech" / "a.wav").stat().st_mtime_ns)
