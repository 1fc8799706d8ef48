"""The page in a real Chromium: it shows, plays, filters, compares, and takes no text for markup."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browsing import Visit, chromium, serve, visit
from playwright.sync_api import Browser, expect
from report_outputs import FPS, HOSTILE, write_many, write_night

from wanray.report import Scope, write_page, write_report
from wanray.storage import Store

Night = tuple[str, dict[str, str]]

SHOWN = "[...document.querySelectorAll('.card img')]"
PIXEL = """async (video) => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext('2d');
  context.drawImage(video, 0, 0);
  return [...context.getImageData(32, 24, 1, 1).data];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(night: tuple[Path, dict[str, str]]) -> Iterator[Night]:
    """The URL of the run's page on a server, and its keys by name."""
    folder, keys = night
    write_report(Store.open(str(folder)), "night")
    with serve(folder) as url:
        yield f"{url}/runs/night/report.html", keys


@pytest.fixture
def artefacts(tmp_path: Path) -> Callable[[str], Path]:
    """artefacts(name) -> where to keep a picture or figures of this page."""
    folder = Path(os.environ.get("WANRAY_ARTEFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder.joinpath


def play(seen: Visit, key: str) -> None:
    seen.page.locator(f".card[data-key='{key}'] .poster").click()


def red_at(seen: Visit, at_s: float) -> int:
    """Seek the open clip to a time; the red of its middle pixel."""
    video = seen.page.locator("#clip video")
    video.evaluate("(video) => video.pause()")
    seek = """(video, at_s) => new Promise((done) => {
      video.addEventListener('seeked', () => requestAnimationFrame(() => done()), {once: true});
      video.currentTime = at_s;
    })"""
    video.evaluate(seek, at_s)
    return video.evaluate(PIXEL)[0]


def wait_for_posters(seen: Visit) -> None:
    """Of those that are in sight: others are not asked for yet."""
    is_hidden = "image.offsetParent === null || image.getBoundingClientRect().top > innerHeight"
    seen.wait_for(f"{SHOWN}.every((image) => {is_hidden} || (image.complete && image.naturalWidth > 0))")


@pytest.mark.parametrize("kind", ["http", "file"])
def test_posters_load_and_a_video_plays_and_seeks(
    browser: Browser, site: Night, night: Night, kind: str
) -> None:
    url = site[0] if kind == "http" else f"file://{night[0]}/runs/night/report.html"
    with visit(browser, url) as seen:
        wait_for_posters(seen)
        assert seen.run(f"{SHOWN}.length") == 11
        play(seen, site[1]["boat-0"])
        video = seen.page.locator("#clip video")
        seen.wait_for("document.querySelector('#clip video').currentTime > 0.2")
        assert video.evaluate("(video) => video.duration") == pytest.approx(2.5, abs=0.05)
        if kind == "http":  # pictures of files may not be read back
            early, late = red_at(seen, 0.25), red_at(seen, 2.05)
            assert early == pytest.approx(250 - 10 * int(0.25 * FPS), abs=15)
            assert late == pytest.approx(250 - 10 * int(2.05 * FPS), abs=15)
        else:
            video.evaluate("(video) => { video.pause(); video.currentTime = 2; }")
            assert video.evaluate("(video) => video.currentTime") == 2


def test_every_format_is_shown(browser: Browser, site: Night) -> None:
    with visit(browser, site[0]) as seen:
        for name in ("webm", "gif", "webp", "still"):
            play(seen, site[1][name])
            loaded = "#clip video" if name == "webm" else "#clip .medium img"
            ready = "(item) => item.readyState >= 2 || item.naturalWidth === 64"
            seen.wait_for(f"({ready})(document.querySelector({json.dumps(loaded)}))")
            seen.page.keyboard.press("Escape")
        play(seen, site[1]["png"])
        frame = seen.page.locator("#clip .medium img")
        seen.wait_for("document.querySelector('#clip .medium img').src.endsWith('000005.png')")
        seen.page.get_by_role("slider", name="Frame").fill("24")
        assert str(frame.get_attribute("src")).endswith("/000024.png")
        seen.page.keyboard.press("Escape")
        play(seen, site[1]["h265"])  # whether it plays, the system decides; it is shown in any case
        is_there = "item.readyState >= 1 || item.naturalWidth"
        seen.wait_for(f"[...document.querySelectorAll('#clip video, #clip img')].some((item) => {is_there})")
        expect(seen.page.get_by_role("link", name="Open the file.").first).to_have_attribute(
            "href", re.compile(r"\.mp4$")
        )


def test_search_filters_sort_and_the_link_that_shares_them(browser: Browser, site: Night) -> None:
    url, keys = site
    boats = {keys[f"boat-{seed}"] for seed in range(3)}
    with visit(browser, url) as seen:
        page = seen.page
        page.get_by_role("searchbox").fill("BOAT dawn")
        assert set(seen.cards) == boats
        page.get_by_role("searchbox").fill("seen from above")
        assert seen.cards == [keys["wide"]], "an extended prompt is found too"
        page.get_by_role("searchbox").fill(keys["gif"][:20])
        assert seen.cards == [keys["gif"]]
        page.get_by_role("searchbox").fill("")
        page.get_by_label("Tag", exact=True).select_option("take=1")
        assert seen.cards == [keys["boat-1"]]
        page.get_by_label("Tag", exact=True).select_option("")
        page.get_by_label("Size").select_option("96x48")
        assert seen.cards == [keys["wide"]]
        page.get_by_label("Size").select_option("")
        page.get_by_label("Status").select_option("failed")
        assert set(seen.cards) == {keys[name] for name in ("nan-0", "nan-1", "nan-2", "died", "bad")}
        page.get_by_label("Status").select_option("committed")
        page.get_by_label("Order").select_option("oldest")
        assert seen.cards[:3] == [keys[f"boat-{seed}"] for seed in range(3)]
        page.get_by_label("with other seeds").check()
        assert set(seen.cards) == boats
        shared = page.url
        assert "status=committed" in shared
    with visit(browser, shared) as seen:
        assert seen.cards == [keys[f"boat-{seed}"] for seed in range(3)]
        expect(seen.page.get_by_label("Order")).to_have_value("oldest")
        seen.page.locator(".chip", has_text="take=2").click()
        assert seen.cards == [keys["boat-2"]]
        seen.page.get_by_role("searchbox").fill("nothing like it")
        expect(seen.page.locator("#cards")).to_have_text("Nothing is like that: take a filter away.")


def test_seeds_of_a_prompt_play_in_step(
    browser: Browser, site: Night, artefacts: Callable[[str], Path]
) -> None:
    times = "[...document.querySelectorAll('#compare video')].map((video) => video.currentTime)"
    with visit(browser, f"{site[0]}#q=boat+at+dawn") as seen:
        seen.page.get_by_role("button", name="Compare 3 seeds").first.click()
        assert seen.page.locator("#compare figcaption").all_text_contents() == [
            f"seed {n} boat-{n}" for n in range(3)
        ]
        seen.wait_for(f"{times}.every((at_s) => at_s > 0.3)")
        at_s = seen.run(times)
        assert max(at_s) - min(at_s) < 0.25
        seen.page.screenshot(path=artefacts("compare.png"))
        seen.page.get_by_role("slider", name="Time in seconds").fill("1.5")
        assert seen.run(times) == [1.5] * 3
        assert seen.run("[...document.querySelectorAll('#compare video')].every((video) => video.paused)")
        seen.page.keyboard.press("Escape")
        expect(seen.page.locator("#compare video")).to_have_count(0)


def test_failures_are_grouped_and_lead_to_their_requests(browser: Browser, site: Night) -> None:
    with visit(browser, site[0]) as seen:
        page = seen.page
        page.get_by_role("tab", name="Failures (5)").click()
        first = page.locator(".group").first
        expect(first).to_contain_text("3 x model error at denoise")
        assert page.locator(".group").count() == 3
        first.locator(".chip").first.click()
        expect(page.locator("#clip")).to_contain_text("values, got NaN")
        expect(page.locator("#clip code")).to_contain_text("--only")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Show them among the clips").click()
        assert len(seen.cards) == 5


def test_the_keyboard_does_all(browser: Browser, site: Night) -> None:
    with visit(browser, f"{site[0]}#q=boat+at+dawn&sort=oldest") as seen:
        page = seen.page
        page.get_by_role("tab", name="Clips").focus()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name="Failures")).to_be_focused()
        expect(page.locator("#view-failures")).to_be_visible()
        page.keyboard.press("ArrowLeft")
        page.get_by_role("checkbox").focus()
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Play boat-0")).to_be_focused()
        page.keyboard.press("Enter")
        title = page.locator("#clip h2")
        expect(title).to_have_text("boat-0")
        page.keyboard.press("ArrowRight")
        expect(title).to_have_text("boat-1")
        seen.wait_for("document.querySelector('#clip video').readyState >= 2")
        page.keyboard.press(".")
        paused = "document.querySelector('#clip video').paused"
        assert seen.run(paused)
        page.keyboard.press("Escape")
        expect(page.locator("#clip")).to_be_hidden()
        expect(page.get_by_role("button", name="Play boat-0")).to_be_focused()


def test_a_link_to_a_clip_opens_it(browser: Browser, site: Night) -> None:
    key = site[1]["wide"]
    with visit(browser, f"{site[0]}#clip={key}") as seen:
        expect(seen.page.locator("#clip")).to_contain_text("A wide boat, seen from above")
        expect(seen.page.locator("#clip code")).to_contain_text(f"--only {key} output.url=reproduced")


def test_texts_of_others_stay_texts(browser: Browser, site: Night) -> None:
    with visit(browser, site[0]) as seen:
        card = seen.page.locator(f".card[data-key='{site[1]['hostile']}']")
        assert card.locator(".text").text_content() == HOSTILE
        play(seen, site[1]["hostile"])
        assert seen.page.locator("#clip .prompt").first.text_content() == HOSTILE
        assert seen.page.locator("#clip .note").first.text_content() == HOSTILE
        seen.page.keyboard.press("Escape")
        seen.page.get_by_role("tab", name="Failures").click()
        assert (
            seen.page.locator(".group .error", has_text="its worker died").text_content()
            == f"its worker died {HOSTILE}"
        )
        assert seen.run("window.hacked") is None
        assert seen.run("document.querySelectorAll('img[src=\"x\"], script').length") == 2, (
            "its own two scripts"
        )


def test_the_policy_stops_foreign_scripts(browser: Browser, site: Night) -> None:
    inject = """() => {
      const script = document.createElement('script');
      script.textContent = 'window.hacked = 1';
      document.body.append(script);
      new Image().src = 'http://example.com/x.png';
    }"""
    with visit(browser, site[0]) as seen:
        seen.run(inject)
        seen.page.wait_for_timeout(200)
        assert seen.run("window.hacked") is None
        assert len(seen.errors) == 2
        assert all("Content Security Policy" in error for error in seen.errors)
        seen.errors.clear()


def test_the_run_is_drawn(browser: Browser, site: Night) -> None:
    colours = """() => {
      const canvas = document.querySelector('canvas');
      const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      const seen = new Set();
      for (let at = 0; at < pixels.length; at += 4) seen.add(pixels.slice(at, at + 3).join());
      return [...seen];
    }"""
    with visit(browser, f"{site[0]}#tab=run", color_scheme="light") as seen:
        assert {"31,111,139", "180,35,50"} <= set(seen.run(colours)), "work that was done, and that failed"
        view = seen.page.locator("#view-run")
        for text in (
            "clips per minute",
            "time since the start (",
            "Work of each in denoise",
            "whole, with waiting",
        ):
            expect(view).to_contain_text(text)
        assert seen.run("document.querySelectorAll('#view-run svg .bar').length") > 10


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_nothing_sticks_out(
    browser: Browser, site: Night, artefacts: Callable[[str], Path], look: str
) -> None:
    context: Any = {"color_scheme": "dark" if look == "dark" else "light"}
    size: Any = {"width": 390, "height": 844} if look == "phone" else {"width": 1280, "height": 900}
    for tab in ("clips", "failures", "run"):
        with visit(browser, f"{site[0]}#tab={tab}", viewport=size, **context) as seen:
            wait_for_posters(seen)
            assert seen.run("document.documentElement.scrollWidth") <= size["width"]
            seen.page.screenshot(path=artefacts(f"{look}-{tab}.png"), full_page=True)
    with visit(browser, f"{site[0]}#clip={site[1]['boat-1']}", viewport=size, **context) as seen:
        seen.wait_for("document.querySelector('#clip video').readyState >= 2")
        assert seen.run("document.querySelector('#clip').scrollWidth <= innerWidth")
        seen.page.screenshot(path=artefacts(f"{look}-clip.png"))


@pytest.mark.slow
def test_ten_thousand_clips_stay_usable(
    browser: Browser, tmp_path: Path, artefacts: Callable[[str], Path]
) -> None:
    write_many(tmp_path / "out", 10_000)
    start_s = time.monotonic()
    page = Path(write_report(Store.open(str(tmp_path / "out")), "many"))
    figures = {"write_s": time.monotonic() - start_s, "page_mb": page.stat().st_size / 1e6}
    search = """(text) => {
      const field = document.querySelector('input[type=search]');
      const start = performance.now();
      field.value = text;
      field.dispatchEvent(new Event('input'));
      document.body.getBoundingClientRect();
      return performance.now() - start;
    }"""
    with visit(browser, f"file://{page}") as seen:
        figures["first_paint_ms"] = seen.run(
            "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        )
        assert len(seen.cards) == 24
        figures["search_ms"] = max(seen.run(search, text) for text in ("g", "gl", "glacier", "take 4321", ""))
        start_s = time.monotonic()
        seen.page.get_by_role("button", name="Last page").first.click()
        figures["turn_page_ms"] = 1000 * (time.monotonic() - start_s)
        assert seen.page.locator(".pager").first.text_content() == "FirstPrevious417 of 417NextLast"
        assert len(seen.cards) == 10_000 % 24
        seen.page.get_by_label("Order").select_option("prompt")
        assert seen.run("document.querySelectorAll('*').length") < 1500
        seen.page.get_by_role("tab", name="Run").click()
        expect(seen.page.locator("#view-run")).to_contain_text("10,000 pieces of work are too many")
        seen.page.screenshot(path=artefacts("many-run.png"), full_page=True)
    artefacts("many.json").write_text(json.dumps(figures, indent=1))
    assert figures["search_ms"] < 1000


def test_presigned_links_play_from_a_bucket(browser: Browser, s3_url: str, tmp_path: Path) -> None:
    store = Store.open(s3_url)
    keys = write_night(store)
    page = write_page(store, "night", Scope(), to=tmp_path / "page.html", presign_s=3600)
    host = urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc
    with visit(browser, f"file://{page.uri}", hosts=(host,)) as seen:
        wait_for_posters(seen)
        play(seen, keys["boat-1"])
        video = seen.page.locator("#clip video")
        assert "X-Amz-Expires=3600" in str(video.get_attribute("src"))
        seen.wait_for("document.querySelector('#clip video').currentTime > 0.2")
        video.evaluate("(video) => { video.pause(); video.currentTime = 2; }")
        seen.wait_for("!document.querySelector('#clip video').seeking")
        assert video.evaluate("(video) => video.currentTime") == 2
        seen.page.keyboard.press("Escape")
        play(seen, keys["png"])
        expect(seen.page.locator("#clip .medium")).to_contain_text(f"25 frames: clips/{keys['png'][:2]}")
