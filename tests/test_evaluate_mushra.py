from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcodec_cli.audio import Wav
from sdcodec_cli.engine.evaluate.mushra import check_listening_test, low_anchor, read_mushra, write_mushra
from sdcodec_cli.engine.evaluate.report import Example
from sdcodec_cli.errors import InputError, OutputError

from browser import SPACE, Browser, needs_chromium

RATE = 16000
SYSTEMS = {"reference", "anchor", "secret-one", "secret-two"}


def noise(seed: int, seconds: float = 1.5) -> Wav:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def example(number: int) -> Example:
    reference = noise(number)
    estimates = {"secret-one": reference * np.float32(0.5), "secret-two": noise(number + 100)}
    return Example(f"{number:04d}-0.0", "separation", "music", RATE, reference, noise(number + 200), estimates)


def answers(path: Path, listener: str, trials: list[dict[str, float]], **changes: Any) -> Path:
    content = {
        "format": "sdc-mushra-1",
        "test": "0123456789abcdef",
        "title": "Title",
        "listener": listener,
        "seed": 1,
        "trials": [{"clip": str(index), "ratings": ratings} for index, ratings in enumerate(trials)],
    }
    path.write_text(json.dumps({**content, **changes}))
    return path


@pytest.mark.parametrize("rate", [16000, 24000, 44100, 48000])
def test_the_anchor_is_the_low_pass_of_the_recommendation(rate: int) -> None:
    impulse = np.zeros(rate, np.float32)
    impulse[rate // 2] = 1
    response = low_anchor(impulse, rate)
    # Linear phase without delay: symmetric around where the impulse was.
    around = response[rate // 2 - 200 : rate // 2 + 201]
    np.testing.assert_allclose(around, around[::-1], atol=1e-7)
    level = 20 * np.log10(np.abs(np.fft.rfft(response)) + 1e-12)  # a bin per Hz
    assert abs(level[:3501]).max() <= 0.1
    assert level[4000:].max() <= -25
    assert level[4500:].max() <= -50


def test_an_anchor_may_be_of_a_sound_shorter_than_its_filter() -> None:
    assert low_anchor(np.ones(10, np.float32), RATE).shape == (10,)


@pytest.mark.parametrize("rate", [6000, 8000])
def test_a_low_sample_rate_leaves_nothing_for_an_anchor(rate: int) -> None:
    with pytest.raises(InputError, match="needs a sample rate above 8000 Hz"):
        check_listening_test([], rate)


def test_a_test_without_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one example"):
        write_mushra(tmp_path / "new", examples=[])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["reference", "anchor"])
def test_a_system_cannot_take_the_name_of_the_reference_or_the_anchor(tmp_path: Path, name: str) -> None:
    wav = noise(1)
    with pytest.raises(InputError, match=f"cannot be called {name}"):
        write_mushra(tmp_path, examples=[Example("c", "separation", "mix", RATE, wav, wav, {name: wav})])


def test_an_existing_test_is_left_untouched(tmp_path: Path) -> None:
    (tmp_path / "mushra.html").write_text("mine")
    with pytest.raises(OutputError, match=r"mushra\.html exists"):
        write_mushra(tmp_path, examples=[example(1)])
    assert (tmp_path / "mushra.html").read_text() == "mine"
    write_mushra(tmp_path, examples=[example(1)], overwrite=True)
    assert (tmp_path / "mushra.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_means_and_intervals_are_those_of_student(tmp_path: Path) -> None:
    paths = [
        answers(tmp_path / f"{listener}.json", listener, [{"reference": 100, "ours": rating, "anchor": 20}])
        for listener, rating in (("a", 60), ("b", 70), ("c", 80))
    ]
    summary = read_mushra(paths)
    assert [row.system for row in summary.systems] == ["reference", "ours", "anchor"]
    ours = summary.systems[1]
    assert (ours.mean, ours.median, ours.num_ratings) == (70, 70, 3)
    # 4.302653 is the 97.5 % point of Student's t with two degrees of freedom (any table), 10 the standard deviation.
    assert ours.confidence == pytest.approx(4.302653 * 10 / 3**0.5, rel=1e-6)
    assert summary.listeners == ("a", "b", "c")
    assert summary.excluded == ()


def test_one_rating_has_no_interval(tmp_path: Path) -> None:
    (row,) = read_mushra([answers(tmp_path / "a.json", "a", [{"reference": 95}])]).systems
    assert (row.mean, row.confidence, row.num_ratings) == (95, None, 1)


def test_listeners_who_miss_the_hidden_reference_are_left_out(tmp_path: Path) -> None:
    def listener(name: str, missed: int) -> Path:
        ratings = [{"reference": 89.0 if trial < missed else 90.0, "ours": 50.0} for trial in range(20)]
        return answers(tmp_path / f"{name}.json", name, ratings)

    summary = read_mushra([listener("three of twenty", 3), listener("four of twenty", 4)])
    assert summary.listeners == ("three of twenty",)
    assert summary.excluded == ("four of twenty",)
    assert {row.num_ratings for row in summary.systems} == {20}
    assert read_mushra([listener("all", 20)]).systems == ()


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        '{"format": "other"}',
        '{"format": "sdc-mushra-1"}',
        '{"format":"sdc-mushra-1","test":"","title":"","listener":"","seed":1,"trials":[{"ratings":{"ours":5}}]}',
        '{"format":"sdc-mushra-1","test":"","title":"","listener":"","seed":1,"trials":[{"ratings":{"reference":101}}]}',
        '{"format":"sdc-mushra-1","test":"","title":"","listener":"","seed":1,"trials":[{"ratings":{"reference":"nine"}}]}',
        '{"format":"sdc-mushra-1","test":"","title":"","listener":"","seed":[],"trials":[]}',
    ],
)
def test_a_file_that_is_not_answers_names_itself(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=r"a\.json: does not hold answers"):
        read_mushra([tmp_path / "a.json"])


def test_answers_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    first = answers(tmp_path / "a.json", "a", [{"reference": 100}])
    with pytest.raises(InputError, match=r"b\.json: is of another test"):
        read_mushra([first, answers(tmp_path / "b.json", "b", [{"reference": 100}], test="other")])
    with pytest.raises(InputError, match=r"c\.json: holds answers that another file has too"):
        read_mushra([first, answers(tmp_path / "c.json", "a", [{"reference": 100}])])
    with pytest.raises(InputError, match="cannot be read"):
        read_mushra([tmp_path / "missing.json"])
    with pytest.raises(ValueError, match="no answers"):
        read_mushra([])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


NEXT = "[data-do=next]"


def begin(browser: Browser, page: Path, listener: str) -> None:
    browser.open(page)
    browser.run("document.querySelector('#listener').value = arguments[0]", listener)
    browser.click("#begin button")
    browser.wait_for("!document.querySelector('#trial').hidden")


def hear(browser: Browser, *keys: str) -> None:
    for key in keys:
        before = browser.run("return document.querySelector('#left').textContent")
        browser.press(key)
        browser.wait_for(f"document.querySelector('#left').textContent !== {json.dumps(before)}")


def rate(browser: Browser, *ratings: int) -> None:
    browser.run(
        "document.querySelectorAll('#stimuli input').forEach((slider, index) => {"
        "slider.value = arguments[0][index]; slider.dispatchEvent(new Event('input')); });",
        list(ratings),
    )


@needs_chromium
def test_a_listener_goes_through_the_test_and_the_answers_can_be_read(tmp_path: Path, browser: Browser) -> None:
    page = write_mushra(tmp_path, title="Test & <b>", examples=[example(1), example(2), example(3)])
    begin(browser, page, "Zoë / 7")
    orders = []
    for trial in range(3):
        assert browser.run("return document.querySelector('#which').textContent") == f"Trial {trial + 1} of 3"
        # Nothing that is seen or read aloud gives a system away.
        shown = browser.run("return document.querySelector('main').innerHTML.replace(/<pre>.*/s, '')")
        assert not [name for name in SYSTEMS - {"reference"} if name in shown]
        rate(browser, 100, 80, 40, 0)
        assert not browser.run(f"return !document.querySelector('{NEXT}').disabled")
        hear(browser, "1", "2", "3", "4")
        browser.wait_for(f"!document.querySelector('{NEXT}').disabled")
        browser.press("4", "\ue013")  # the arrow up rates what is heard
        browser.click(NEXT)
    browser.wait_for("!document.querySelector('#done').hidden")
    browser.wait_for(lambda: list(browser.downloads.glob("mushra-Zoë-7-*.json")))
    (file,) = browser.downloads.glob("mushra-Zoë-7-*.json")
    saved = json.loads(file.read_text(encoding="utf-8"))
    assert (saved["format"], saved["listener"], saved["title"]) == ("sdc-mushra-1", "Zoë / 7", "Test & <b>")
    assert "Chrom" in saved["user_agent"]
    assert saved["started"] < saved["finished"]
    assert sorted(trial["clip"] for trial in saved["trials"]) == ["0001-0.0", "0002-0.0", "0003-0.0"]
    for trial in saved["trials"]:
        assert set(trial["order"]) == set(trial["ratings"]) == SYSTEMS
        assert [trial["ratings"][system] for system in trial["order"]] == [100, 80, 40, 1]
        assert 1.5 < trial["seconds"] < 60
        assert (trial["task"], trial["stem"]) == ("separation", "music")
        orders.append(trial["order"])
    summary = read_mushra([file])
    assert (*summary.listeners, *summary.excluded) == ("Zoë / 7",)
    assert browser.complaints() == []


@needs_chromium
def test_nobody_goes_on_without_a_hundred(tmp_path: Path, browser: Browser) -> None:
    begin(browser, write_mushra(tmp_path, title="gate", examples=[example(1)]), "a")
    hear(browser, "1", "2", "3", "4")
    rate(browser, 99, 80, 40, 20)
    assert browser.run(f"return document.querySelector('{NEXT}').disabled")
    rate(browser, 99, 100, 40, 20)
    assert not browser.run(f"return document.querySelector('{NEXT}').disabled")
    assert browser.run(f"return document.querySelector('{NEXT}').textContent") == "Finish"


@needs_chromium
def test_a_test_that_was_closed_goes_on_where_it_was(tmp_path: Path, browser: Browser) -> None:
    page = write_mushra(tmp_path, title="again", examples=[example(1), example(2)])
    begin(browser, page, "b")
    hear(browser, "1", "2", "3", "4")
    rate(browser, 100, 80, 40, 0)
    browser.click(NEXT)
    rate(browser, 10, 20, 30, 40)
    browser.open(page)
    assert "b, you are at trial 2 of 2" in browser.run("return document.querySelector('#resume').textContent")
    browser.click("[data-do=continue]")
    assert browser.run("return [...document.querySelectorAll('output')].map((e) => e.textContent)") == [
        *("10", "20", "30", "40")
    ]
    assert browser.run("return document.querySelector('#left').textContent").startswith(
        "Listen to all versions: 4 left"
    )


@needs_chromium
def test_listeners_get_different_orders(tmp_path: Path, browser: Browser) -> None:
    page = write_mushra(tmp_path, title="orders", examples=[example(number) for number in range(6)])
    kept = []
    for _ in range(3):
        begin(browser, page, "c")
        state = browser.run("return JSON.stringify(JSON.parse(localStorage['sdc-mushra-' + test.test]).trials)")
        kept.append(state)
        numbers = [trial["number"] for trial in json.loads(state)]
        assert sorted(numbers) == list(range(6))
        browser.run("localStorage.clear(); memory.save = () => {};")
    assert len(set(kept)) == 3


@needs_chromium
def test_every_order_of_stimuli_is_as_likely(tmp_path: Path, browser: Browser) -> None:
    browser.open(write_mushra(tmp_path, title="even", examples=[example(1)]))
    places = browser.run(
        "const places = [0, 0, 0, 0]; for (let seed = 0; seed < 4000; seed++)"
        "places[shuffled(['a', 'b', 'c', 'd'], seed * 1000003).indexOf('a')]++; return places;"
    )
    # Binomial, n = 4000, p = 1/4: mean 1000, standard deviation 27.
    assert all(abs(count - 1000) < 4 * 27 for count in places)


@needs_chromium
@pytest.mark.parametrize("width", [360, 390, 1400])
def test_nothing_sticks_out_at_any_width(tmp_path: Path, browser: Browser, width: int) -> None:
    page = write_mushra(tmp_path, title="x" * 200, examples=[example(1)])
    browser.open(page)
    browser.picture(tmp_path / "a.png", width=width, height=800)
    begin(browser, page, "d" * 80)
    browser.press("2", SPACE)
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    browser.run("localStorage.clear(); memory.save = () => {};")
    assert browser.complaints() == []
