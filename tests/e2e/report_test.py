# SPDX-License-Identifier: Apache-2.0
"""The HTML report in a real, headless Chromium: it draws, answers to mouse and
keys, asks the network for nothing, and does a bounded amount of work per hover.

LIMPID_SCREENSHOTS=DIR keeps pictures of what was seen."""
import os
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from conftest import BUILD, ROOT

LIMPID = BUILD / "bin" / "limpid"
TEXT = "A gorgeous, witty, seductive movie."

# Counts what is drawn on canvases, and how long frames take.
COUNTERS = """
window.drawn = 0;
const proto = CanvasRenderingContext2D.prototype;
for (const name of ["fillRect", "strokeRect", "drawImage", "putImageData",
                    "fillText", "stroke", "fill", "clearRect"]) {
  const original = proto[name];
  proto[name] = function (...args) {
    ++window.drawn;
    return original.apply(this, args);
  };
}
"""


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path="/usr/bin/chromium",
                                         args=["--no-sandbox"])
        yield one
        one.close()


class Page:
    """A report that is open, with every error and request that it made."""

    def __init__(self, browser, path, scheme="light", width=1100):
        self.errors, self.requests = [], []
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.add_init_script(COUNTERS)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text)
                     if message.type in ("error", "warning") else None)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def text(self, selector):
        return self.page.text_content(selector)

    def screenshot(self, name):
        folder = os.environ.get("LIMPID_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f"{folder}/{name}.png", full_page=True)

    def hover_cell(self, row, column, rows, columns):
        self.page.evaluate("document.getElementById('map').scrollIntoView()")
        box = self.page.locator("#map").bounding_box()
        self.page.mouse.move(box["x"] + box["width"] * (column + 0.5) / columns,
                             box["y"] + box["height"] * (row + 0.5) / rows)

    def close(self):
        self.context.close()
        assert self.errors == []
        outside = [url for url in self.requests
                   if not url.startswith(("file:", "data:"))]
        assert outside == []


def limpid(server, *arguments):
    subprocess.run([LIMPID, "--server", server.address, *arguments], check=True,
                   stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def reports(server, tmp_path_factory):
    """Reports of one explanation with matrices of every channel, of three
    methods, of two models, and of a picture."""
    folder = tmp_path_factory.mktemp("reports")
    text = ["--text", TEXT, "--target", "contrast:1,2"]
    limpid(server, "explain", "--model", "sentiment-mamba", *text,
           "--attention", "matrix", "--channels", "all", "--faithfulness",
           "--html", str(folder / "matrix.html"))
    limpid(server, "explain", "--model", "sentiment-mamba", *text, "--html",
           str(folder / "rows.html"))
    limpid(server, "compare", "--model", "sentiment-mamba", *text, "--method",
           "raw-attention,integrated-gradients,occlusion", "--faithfulness",
           "--html", str(folder / "methods.html"))
    limpid(server, "compare", "--model", "sentiment-mamba,sentiment-rwkv4",
           *text, "--html", str(folder / "models.html"))
    picture = sorted(p for p in (ROOT / "models/shapes-vim/samples").glob("*.png")
                     if "mask" not in p.name)[0]
    limpid(server, "explain", "--model", "shapes-vim", "--image", str(picture),
           "--html", str(folder / "picture.html"))
    return folder


def test_matrices_answer_to_mouse_and_slider(browser, reports):
    report = Page(browser, reports / "matrix.html")
    page = report.page
    assert page.locator("canvas").count() == 1
    tokens = page.locator(".token").count()
    report.hover_cell(tokens - 1, 0, tokens, tokens)
    assert f"row {tokens - 1} " in report.text("#status")
    assert "layer 0" in report.text("#status")
    before = page.locator("#map").screenshot()
    page.evaluate("""() => { const slider = document.getElementById("layer");
                     slider.value = 1;
                     slider.dispatchEvent(new Event("input")); }""")
    assert report.text("#layer-value").startswith("1 (reconstruction error")
    assert page.locator("#map").screenshot() != before
    report.screenshot("matrix-light")
    report.close()


def test_reductions_over_channels_are_offered(browser, reports):
    report = Page(browser, reports / "matrix.html")
    names = report.page.locator("#reduction option").all_text_contents()
    assert names == ["mean-abs", "mean", "max", "min", "l2"]
    mean_abs = report.page.locator("#map").screenshot()
    report.page.select_option("#reduction", label="min")
    assert report.page.locator("#map").screenshot() != mean_abs
    report.close()


def test_rows_colour_the_tokens(browser, reports):
    report = Page(browser, reports / "matrix.html")
    page = report.page
    tokens = page.locator(".token").count()
    colors = """() => [...document.querySelectorAll(".token")]
        .map((token) => token.style.background)"""
    attribution = page.evaluate(colors)
    report.hover_cell(3, 0, tokens, tokens)
    page.mouse.down()
    page.mouse.up()
    assert report.text("#heading").startswith("Layer 0, row 3")
    row = page.evaluate(colors)
    assert row != attribution
    # Everything after the row's own position is beyond the diagonal.
    assert len(set(row[4:])) == 1
    page.keyboard.press("Escape")
    assert page.evaluate(colors) == attribution
    report.close()


def test_keys_do_what_the_page_says(browser, reports):
    report = Page(browser, reports / "matrix.html", scheme="dark")
    page = report.page
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    report.screenshot("matrix-dark")
    page.keyboard.press("t")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark, light) == ("rgb(22, 24, 28)", "rgb(255, 255, 255)")
    page.keyboard.press("]")
    assert report.text("#layer-value").startswith("1 ")
    page.keyboard.press("[")
    assert report.text("#layer-value").startswith("0 ")
    page.keyboard.press("r")
    assert page.input_value("#reduction") == "1"
    page.focus("#map")
    page.keyboard.press("ArrowDown")  # shows the cell where it starts
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert "row 1 " in report.text("#status")
    assert "column 1 " in report.text("#status")
    page.keyboard.press("Enter")
    assert report.text("#heading").startswith("Layer 0, row 1")
    report.close()


def test_explanations_are_put_side_by_side(browser, reports):
    report = Page(browser, reports / "methods.html")
    page = report.page
    page.select_option("#view", label="Explanations side by side")
    tokens = page.locator(".token").count()
    report.hover_cell(0, 2, 3, tokens)
    status = report.text("#status")
    for method in ("raw-attention", "integrated-gradients", "occlusion"):
        assert method in status
    assert page.locator("#charts polyline").count() == 6
    report.screenshot("methods")
    facts = report.text("#facts")
    page.keyboard.press("m")
    assert report.text("#facts") != facts
    for word in ("cost", "time", "reconstruction error", "<|good|>"):
        assert word in report.text("#facts") + report.text("#candidates")
    report.close()


def test_models_are_compared(browser, reports):
    report = Page(browser, reports / "models.html")
    report.page.select_option("#view", label="Explanations side by side")
    report.hover_cell(0, 1, 2, report.page.locator(".token").count())
    assert "sentiment-mamba" in report.text("#status")
    assert "sentiment-rwkv4" in report.text("#status")
    report.close()


def test_maps_lie_over_the_picture(browser, reports):
    report = Page(browser, reports / "picture.html")
    page = report.page
    assert page.input_value("#view") == "patches"
    covered = page.locator("#map").screenshot()
    page.evaluate("""() => { const slider = document.getElementById("opacity");
                     slider.value = 0;
                     slider.dispatchEvent(new Event("input")); }""")
    assert page.locator("#map").screenshot() != covered
    report.hover_cell(1, 2, 8, 8)
    assert "patch in row 1, column 2: " in report.text("#status")
    report.screenshot("picture")
    report.close()


@pytest.mark.parametrize("width", [360, 1100])
def test_nothing_is_wider_than_the_window(browser, reports, width):
    for name in ("matrix", "rows", "methods", "picture"):
        report = Page(browser, reports / f"{name}.html", width=width)
        assert report.page.evaluate(
            "document.documentElement.scrollWidth") <= width, name
        report.screenshot(f"{name}-{width}")
        report.close()


def test_two_thousand_tokens_stay_light(browser, server, tmp_path):
    """Asserts structure; times are printed as figures, for they depend on the
    machine."""
    path = tmp_path / "long.html"
    ids = [str(3 + (7 * i) % 500) for i in range(2000)]
    limpid(server, "--deadline", "120s", "explain", "--model",
           "sentiment-mamba", "--tokens", ",".join(ids), "--attention",
           "matrix", "--html", str(path))
    report = Page(browser, path)
    page = report.page
    paint = page.evaluate("""() => new Promise((resolve) => {
        const seen = performance.getEntriesByName("first-contentful-paint");
        if (seen.length) return resolve(seen[0].startTime);
        new PerformanceObserver((list) => {
          for (const entry of list.getEntriesByName("first-contentful-paint")) {
            resolve(entry.startTime);
          }
        }).observe({type: "paint", buffered: true}); })""")
    assert page.locator(".token").count() == 2000
    assert page.locator("canvas").count() == 1
    elements = page.evaluate("document.getElementsByTagName('*').length")
    assert elements < 2300  # a node per token, none per cell

    page.evaluate("window.drawn = 0")
    report.hover_cell(300, 200, 1000, 1000)
    assert report.text("#status") != ""
    assert 0 < page.evaluate("window.drawn") <= 8
    hover = page.evaluate("""() => {
        const map = document.getElementById("map");
        const box = map.getBoundingClientRect(), times = [];
        for (let i = 1; i <= 100; ++i) {
          const begin = performance.now();
          map.dispatchEvent(new MouseEvent("mousemove", {
              clientX: box.left + i * box.width / 101,
              clientY: box.top + i * box.height / 101}));
          times.push(performance.now() - begin);
        }
        return times.sort((a, b) => a - b)[94]; }""")
    report.screenshot("long")
    print(f"figure: report of 2,000 tokens, {path.stat().st_size / 1e6:.1f} MB, "
          f"{elements} elements: first paint {paint:.0f} ms, p95 of a hover "
          f"{hover:.1f} ms")
    report.close()
