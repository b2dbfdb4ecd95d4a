"""The report in a real browser: no errors, no requests, tables sort, the numbers equal DuckDB's, and it prints."""

from __future__ import annotations

import os
import shutil

import pytest

from featray.report.page import ReportSettings, write_report

_CHROMIUM = os.environ.get("FEATRAY_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
_PLAYWRIGHT = pytest.importorskip(
    "playwright.sync_api", reason="opens the report in Chromium; pip install 'featray[browser]' to run it"
)
pytestmark = pytest.mark.skipif(
    _CHROMIUM is None, reason="opens the report in Chromium, which is not here; install it or set FEATRAY_CHROMIUM"
)


@pytest.fixture(scope="module")
def opened(two, tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "report.html"
    write_report(two.output, str(path), ReportSettings())
    complaints: list[str] = []
    with _PLAYWRIGHT.sync_playwright() as playwright:
        # Chromium's sandbox refuses to run as root, as containers do.
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("requestfailed", lambda request: complaints.append(request.url))
        tab.on("request", lambda r: r.url.startswith(("data:", path.as_uri())) or complaints.append(r.url))
        tab.goto(path.as_uri())
        yield tab
        browser.close()
    assert complaints == []


def _column(tab, table: str, number: int) -> list[str]:
    return tab.eval_on_selector_all(f"#{table} tbody tr", f"rows => rows.map(r => r.cells[{number}].textContent)")


def test_numbers_are_duckdbs(two, opened):
    (row,) = two.rows("SELECT count(*) AS n, avg(AU12) AS au12 FROM faces")
    assert opened.inner_text("#n-faces").split("\n")[0] == f"{row['n']:,}"
    shown = dict(zip(_column(opened, "features", 0), _column(opened, "features", 2), strict=True))
    assert shown["AU12"] == f"{row['au12']:.3f}"


def test_tables_sort_on_click_and_back(opened):
    head = opened.locator("#features thead th").nth(2)
    head.locator("button").click()
    largest = [float(text.replace(",", "")) for text in _column(opened, "features", 2)]
    assert largest == sorted(largest, reverse=True) and len(largest) > 30
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").press("Enter")
    assert [float(text.replace(",", "")) for text in _column(opened, "features", 2)] == sorted(largest)


def test_plots_and_pictures_are_seen(opened):
    heights = "all => all.map(s => s.getBoundingClientRect().height)"
    sizes = opened.eval_on_selector_all("section:not(#happened) figure svg", heights)
    assert len(sizes) == 8 and min(sizes) > 100
    strips = opened.eval_on_selector_all("#happened figure svg", heights)
    assert len(strips) == 1 and strips[0] > 30, "one video has a face"
    wide = "all => all.every(r => r.getBoundingClientRect().width >= 1)"
    assert opened.eval_on_selector_all("#happened rect", wide)
    assert opened.eval_on_selector_all(".moments img", "all => all.every(i => i.naturalWidth === 208)")


def test_a_narrow_window_does_not_scroll_sideways(opened):
    opened.set_viewport_size({"width": 420, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 420
    opened.set_viewport_size({"width": 1280, "height": 800})


def test_it_prints(opened, tmp_path):
    pdf = opened.pdf(format="A4")
    assert pdf.startswith(b"%PDF-") and 3 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type/Page/") <= 14
