"""report.html as a reader meets it: in a real Chromium, without a network."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evalkit.evaluation import Evaluation
from evalkit.scoring.method import Method

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    pytest.skip("chromium and chromedriver are not on PATH", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--window-size=1280,900",
)  # fmt: skip
# Each would set window.planted if any of it ran, and leave its element or comment unclosed.
PLANTED = (
    "</script><script>window.planted=1</script>",
    "<img src=x onerror=window.planted=1>",
    "<!--<script>",
    "\u2028\u2029';window.planted=1//",
    '"><svg onload=window.planted=1>',
    "{{ 7 * 7 }}{% raw %}",
    "javascript:window.planted=1",
    "</title></style></textarea><script>window.planted=1</script>",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser):
    """Open a report; at the end nothing may have been logged or fetched."""

    def opened(folder, *, width=1280, height=900, dark=False):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get((folder / "report.html").as_uri())
        browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
        return browser

    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    yield opened
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert requests
    assert not [url for url in requests if not re.match(r"data:|file://.*/report\.html$", url)]


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """Thirty classes, of which two are mistaken for each other, with pictures of these."""
    folder = tmp_path_factory.mktemp("animals")
    names = [f"animal {number:02}" for number in range(28)] + ["lynx", "bobcat"]
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(30), [40] + [20] * 29)
    prediction = label.copy()
    prediction[label == 28] = np.where(np.arange(20) < 8, 29, 28)
    prediction[rng.choice(500, 40, replace=False)] = 3
    (folder / "images").mkdir()
    for number in range(580, 600):
        Image.new("RGB", (90, 60), (10 * number % 256, 90, 40)).save(
            folder / "images" / f"{number}.jpg"
        )
    confidence = rng.uniform(0.4, 1, 620)
    right = label == prediction
    frame = pd.DataFrame(
        {
            "path": [f"{number}.jpg" for number in range(620)],
            "label": pd.Categorical.from_codes(label, names),
            "prediction": pd.Categorical.from_codes(prediction, names),
            "confidence": confidence,
            "label_probability": np.where(right, confidence, (1 - confidence) / 2),
            "a_column_with_a_rather_long_name": np.where(label < 15, "day", "night" * 20),
        }
    )
    run = {
        "warnings": ["classes were taken in the order of the folders"],
        "unreadable": [{"path": "lynx/broken.jpg", "reason": "the file is empty"}],
        "checkpoint": {"path": "best.pth", "matched_fraction": 1.0, "missing": []},
        "environment": {"torch": "2.15.0"},
    }
    evaluation = Evaluation.from_predictions(
        frame,
        classes=names,
        run=run,
        images=folder / "images",
        group_by=["a_column_with_a_rather_long_name"],
    )
    evaluation.save(folder)
    return folder


def texts(browser, selector):
    return [node.text for node in browser.find_elements(By.CSS_SELECTOR, selector)]


def classes_shown(browser):
    return texts(browser, "#class-table tbody .name")


def scores_shown(browser, label="F1"):
    cells = texts(browser, f'#class-table td[data-label="{label}"]')
    return [float(cell.split()[-1]) for cell in cells]


def button(browser, text):
    xpath = f"//button[normalize-space()='{text}']"
    return browser.find_element(By.XPATH, xpath)


def matrix_of(browser):
    return browser.find_element(By.CSS_SELECTOR, ".plot canvas[tabindex]")


def test_warnings_come_before_the_numbers(page, animals):
    browser = page(animals)

    warnings = browser.find_element(By.CSS_SELECTOR, ".warnings li")
    numbers = browser.find_element(By.ID, "numbers")

    assert warnings.text == "classes were taken in the order of the folders"
    assert warnings.location["y"] < numbers.location["y"]
    assert "lynx/broken.jpg\nthe file is empty" in browser.find_element(By.ID, "unreadable").text
    assert "best.pth" in browser.find_element(By.ID, "origin").text


def test_the_table_is_sorted_by_a_click_and_by_the_keyboard(page, animals):
    browser = page(animals)
    assert classes_shown(browser)[0] in {"lynx", "animal 03"}

    button(browser, "Class").click()
    ascending = classes_shown(browser)
    button(browser, "Class").send_keys(Keys.ENTER)

    assert ascending == sorted(ascending)
    assert classes_shown(browser) == ascending[::-1]
    head = browser.find_element(By.CSS_SELECTOR, "#class-table th")
    assert head.get_attribute("aria-sort") == "descending"


def test_scores_are_sorted_by_the_upper_end_of_their_interval(page, animals):
    browser = page(animals)

    button(browser, "Recall").click()

    shown = scores_shown(browser, "Recall")
    assert shown == sorted(shown)


def test_searching_leaves_what_was_searched_for(page, animals):
    browser = page(animals)
    search = browser.find_element(By.CSS_SELECTOR, "#class-table input")

    search.send_keys("CAT")
    found = classes_shown(browser)
    search.send_keys("zzz")

    assert found == ["bobcat"]
    assert classes_shown(browser) == []
    assert "No class has this" in browser.find_element(By.CSS_SELECTOR, "#class-table .none").text


def test_hovering_tells_counts_and_shares(page, animals):
    browser = page(animals)
    matrix = matrix_of(browser)
    browser.execute_script("arguments[0].scrollIntoView()", browser.find_element(By.ID, "matrix"))

    ActionChains(browser).move_to_element_with_offset(
        matrix, matrix.size["width"] // 2 - 4, matrix.size["height"] // 2 - 4
    ).perform()

    tooltip = browser.find_element(By.ID, "tooltip").text
    assert tooltip.startswith("bobcat recognised\n20 samples\n100.0 % of the true class\n")


def test_clicking_a_cell_shows_its_samples(page, animals):
    browser = page(animals)
    matrix = matrix_of(browser)
    browser.execute_script("arguments[0].scrollIntoView()", browser.find_element(By.ID, "matrix"))

    # The last column, the last row but one: lynx taken for bobcat.
    down = matrix.size["height"] // 2 - 4 - (matrix.size["height"] - 90) // 30
    ActionChains(browser).move_to_element_with_offset(
        matrix, matrix.size["width"] // 2 - 4, down
    ).click().perform()

    panel = browser.find_element(By.ID, "cell-panel")
    assert panel.text.startswith("lynx → bobcat\n8 samples, 40.0 % of the true class")
    assert len(panel.find_elements(By.CSS_SELECTOR, ".card")) == 8
    pictures = panel.find_elements(By.CSS_SELECTOR, "img")
    assert len(pictures) == 8
    assert all(picture.get_property("naturalWidth") == 90 for picture in pictures)


def test_a_confused_pair_leads_to_its_cell(page, animals):
    browser = page(animals)

    links = browser.find_elements(By.CSS_SELECTOR, "#pair-list .link")
    assert links[0].text == "lynx → bobcat"
    links[0].send_keys(Keys.ENTER)

    assert browser.find_element(By.CSS_SELECTOR, "#cell-panel h3").text == "lynx → bobcat"


def test_the_matrix_is_walked_and_zoomed_by_keys(page, animals):
    browser = page(animals)
    matrix = matrix_of(browser)
    before = matrix.screenshot_as_png

    matrix.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    title = browser.find_element(By.CSS_SELECTOR, "#cell-panel h3").text
    matrix.send_keys("+", "+")
    zoomed = matrix.screenshot_as_png
    matrix.send_keys("0", Keys.ENTER)

    assert title == "animal 01 recognised"
    assert "zoomed" not in browser.find_element(By.CSS_SELECTOR, ".plot").get_attribute("class")
    assert zoomed != before
    assert browser.switch_to.active_element.get_attribute("id") == "cell-panel"


def test_the_reliability_diagram_tells_the_bin_that_is_pointed_at(page, animals):
    browser = page(animals)
    diagram = browser.find_element(By.CSS_SELECTOR, "#charts .chart svg")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", diagram)

    dots = diagram.find_elements(By.CSS_SELECTOR, "circle.right")
    ActionChains(browser).move_to_element(dots[3]).perform()

    caption = browser.find_element(By.CSS_SELECTOR, "#charts figcaption").text
    assert "15 bins of about equally many samples" in caption
    assert re.search(r"on average 0\.\d{3} \(ECE, interval 0\.\d{3} to 0\.\d{3}\)", caption)
    assert len(dots) == 15
    tooltip = browser.find_element(By.ID, "tooltip").text
    assert re.match(r"confidence 0\.\d{3} to 0\.\d{3}: 4[0-3] samples\nmean confidence", tooltip)
    assert "pointed" in dots[3].get_attribute("class")


@pytest.mark.parametrize("choice", ["Share of true", "Share of predicted", "By similarity"])
def test_choices_draw_the_matrix_anew(page, animals, choice):
    browser = page(animals)
    cells = browser.find_element(By.CSS_SELECTOR, ".plot canvas")
    before = browser.execute_script("return arguments[0].toDataURL()", cells)

    button(browser, choice).click()

    assert button(browser, choice).get_attribute("aria-pressed") == "true"
    assert browser.execute_script("return arguments[0].toDataURL()", cells) != before


def test_the_theme_follows_the_system_and_the_button(page, animals):
    background = "return getComputedStyle(document.documentElement).backgroundColor"
    browser = page(animals, dark=True)
    dark = browser.execute_script(background)

    browser.find_element(By.ID, "theme").click()
    light = browser.execute_script(background)
    browser.refresh()

    assert dark != light
    assert browser.execute_script(background) == light  # it is remembered
    browser.execute_script("localStorage.clear()")


def test_paper_gets_the_matrix_in_light_colours_and_nothing_that_wipes_it_off(page, animals):
    """A canvas that is cleared in "beforeprint" is cleared on the paper, with all below it."""
    browser = page(animals, dark=True)
    cells, marks = browser.find_elements(By.CSS_SELECTOR, ".plot canvas")
    middle = (
        "const [cells, width] = [arguments[0], arguments[0].width];"
        "const one = document.createElement('canvas').getContext('2d');"
        "one.drawImage(cells, width - 2, 3 * width / 4, 1, 1, 0, 0, 1, 1);"
        "return [...one.getImageData(0, 0, 1, 1).data]"
    )
    dark = browser.execute_script(middle, cells)

    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    light = browser.execute_script(middle, cells)
    shown = (cells.is_displayed(), marks.is_displayed())
    size = cells.size
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_script("dispatchEvent(new Event('afterprint'))")

    assert shown == (True, False)
    assert sum(dark[:3]) < 150
    assert sum(light[:3]) > 600
    assert abs(size["width"] - size["height"]) <= 1
    assert marks.is_displayed()


@pytest.mark.parametrize("width", [360, 420, 768, 1024])
def test_nothing_is_wider_than_the_screen(page, animals, width):
    browser = page(animals, width=width, height=740)

    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    assert len(classes_shown(browser)) == 30


def test_every_control_has_a_name_and_every_id_is_unique(page, animals):
    browser = page(animals)

    nameless = browser.execute_script(
        "return [...document.querySelectorAll('button, input, select, a, canvas[tabindex]')]"
        ".filter(n => !(n.textContent.trim() || n.getAttribute('aria-label') || n.labels?.length))"
        ".map(n => n.outerHTML)"
    )
    ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map(n => n.id)")
    added = browser.execute_script(
        "const frame = document.createElement('iframe'); document.body.append(frame);"
        "const plain = new Set(Object.getOwnPropertyNames(frame.contentWindow)); frame.remove();"
        "return Object.getOwnPropertyNames(window).filter(n => !plain.has(n) && !/^\\d+$/.test(n)"
        " && !n.startsWith('cdc_') && !n.startsWith('ret_'))"
    )

    assert nameless == []
    assert len(ids) == len(set(ids))
    assert added == []


@pytest.mark.parametrize("policy", ["with the page's policy", "by escaping alone"])
def test_planted_scripts_never_run(page, browser, tmp_path, policy):
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": policy == "by escaping alone"})
    names = list(PLANTED)
    frame = pd.DataFrame(
        {
            "path": PLANTED,
            "label": names,
            "prediction": [*names[1:], names[0]],
            "confidence": 0.9,
            "label_probability": 0.05,
            PLANTED[0]: 1,
        }
    )
    everything = {text: text for text in PLANTED}
    run = {
        "warnings": names,
        "unreadable": [{"path": text, "reason": text} for text in PLANTED],
        "checkpoint": {"path": PLANTED[-1], "missing": names, **everything},
        "model": everything,
        "transform": everything,
        "precision_flags": everything,
        "environment": everything,
        "throughput": everything,
    }
    frame["<b onclick=window.planted=1>"] = PLANTED
    result = Evaluation.from_predictions(
        frame, classes=names, run=run, images=tmp_path, group_by=[PLANTED[0], frame.columns[-1]]
    )
    result.summary["command"] = PLANTED[0]
    result.save(tmp_path)

    page(tmp_path)
    for link in browser.find_elements(By.CSS_SELECTOR, "#pair-list .link, #class-table .link"):
        browser.execute_script("arguments[0].click()", link)
    matrix = matrix_of(browser)
    browser.execute_script("arguments[0].scrollIntoView()", matrix)
    ActionChains(browser).move_to_element(matrix).perform()

    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})
    assert browser.execute_script("return window.planted") is None
    assert texts(browser, ".warnings li")[1] == PLANTED[1]
    assert f"{PLANTED[0]} = 1" in texts(browser, "#slices td.full")
    assert set(classes_shown(browser)) >= {PLANTED[0], PLANTED[1]}
    assert len(browser.find_elements(By.CSS_SELECTOR, "body > script")) == 2
    assert browser.find_element(By.TAG_NAME, "footer").is_displayed()


@pytest.mark.parametrize("case", ["one class", "nothing but right", "empty name", "counts only"])
def test_the_smallest_reports_are_whole(page, tmp_path, case):
    names = {"one class": ["a"], "empty name": ["", "b"]}.get(case, ["a", "b"])
    prediction = [names[-1]] * 2 if case == "empty name" else [names[0], names[-1]]
    frame = pd.DataFrame({"label": [names[0], names[-1]], "prediction": prediction})
    frame.to_csv(tmp_path / "t.csv", index=False)
    if case == "counts only":
        result = Evaluation.from_table(tmp_path / "t.csv")
    else:
        result = Evaluation.from_predictions(frame, classes=names)
    result.save(tmp_path)

    browser = page(tmp_path)

    assert len(classes_shown(browser)) == len(names)


def test_a_thousand_classes_and_a_million_samples_open_in_two_seconds(page, tmp_path):
    rng = np.random.default_rng(0)
    names = [f"n{number:08} class of things" for number in range(1_000)]
    label = rng.integers(0, 1_000, 1_000_000)
    prediction = np.where(rng.random(1_000_000) < 0.8, label, rng.integers(0, 1_000, 1_000_000))
    confidence = rng.uniform(0.2, 1, 1_000_000)
    frame = pd.DataFrame(
        {
            "path": [f"{names[code]}/ILSVRC2012_val_{n:08}.JPEG" for n, code in enumerate(label)],
            "label": pd.Categorical.from_codes(label, names),
            "prediction": pd.Categorical.from_codes(prediction, names),
            "confidence": confidence,
            "label_probability": np.where(label == prediction, confidence, 0.01),
        }
    )
    Evaluation.from_predictions(frame, classes=names).save(tmp_path)

    browser = page(tmp_path)
    opened_ms = browser.execute_script(
        "return performance.getEntriesByType('navigation')[0].loadEventEnd"
    )

    assert (tmp_path / "report.html").stat().st_size < 12_000_000
    assert opened_ms < 2_000
    assert len(browser.find_elements(By.CSS_SELECTOR, "#class-table tbody tr")) == 50


def test_twenty_thousand_classes_are_shown_in_part(page, tmp_path):
    rng = np.random.default_rng(0)
    names = [f"species {number:06}" for number in range(20_000)]
    label = rng.integers(0, 20_000, 60_000)
    prediction = np.where(rng.random(60_000) < 0.9, label, rng.integers(0, 20_000, 60_000))
    label[:50], prediction[:50] = 19_999, 7  # what is confused most
    frame = pd.DataFrame(
        {
            "label": pd.Categorical.from_codes(label, names),
            "prediction": pd.Categorical.from_codes(prediction, names),
            "confidence": rng.uniform(0.2, 1, 60_000),
        }
    )
    few = Method(replicates=100)
    Evaluation.from_predictions(frame, classes=names, method=few).save(tmp_path)

    browser = page(tmp_path)
    link = browser.find_element(By.CSS_SELECTOR, "#pair-list .link")
    link.send_keys(Keys.ENTER)

    assert (tmp_path / "report.html").stat().st_size < 3_000_000
    assert link.text == "species 019999 → species 000007"
    panel = browser.find_element(By.ID, "cell-panel").text
    assert panel.startswith("species 019999 → species 000007\n50 samples, ")
    notes = texts(browser, ".note")
    assert sum(note.startswith("Shown are 2,000 of 20,000 classes") for note in notes) == 2
    button(browser, "By similarity").click()
