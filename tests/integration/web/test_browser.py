"""A person at the page: real Chromium, a running node, from the login to the logout.

``RTNODE_SCREENSHOTS`` names a folder where the pictures of each step are kept, to be looked at.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from node.config.load import load
from node.lifecycle import JobState
from node.web.server import Served, site_of
from node.web.users import Role, Users
from tests import node_kit
from tests.conftest import program
from tests.drift_kit import drifted, record, score
from tests.node_kit import settings, until
from tests.store_kit import ct, store
from tests.web_kit import PASSWORD, QUICK, contoured_job

pytestmark = pytest.mark.slow

_DARK = "return getComputedStyle(document.body).backgroundColor"
_STATES = """
return [...document.querySelectorAll('.head .state, tbody tr:not(.why) .state')]
  .map((e) => e.textContent);
"""
_OVER = """
return document.documentElement.scrollWidth <= 390 ? [] :
  [...document.querySelectorAll('main *, header *')]
    .filter((e) => e.getBoundingClientRect().right > 391 && !e.closest('.scroll'))
    .map((e) => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 30));
"""
"""What reaches over the side of the phone."""
_PIXELS = """
const canvas = document.querySelectorAll('.viewer .pane canvas')[arguments[0]];
const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
let blue = 0, gray = 0;
for (let i = 0; i < data.length; i += 4) {
  const [r, g, b] = [data[i], data[i + 1], data[i + 2]];
  if (Math.abs(r - 86) < 40 && Math.abs(g - 180) < 40 && Math.abs(b - 233) < 40) blue += 1;
  if (r === g && g === b && r > 60) gray += 1;
}
return [blue, gray, canvas.width, canvas.height];
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium")
    for switch in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                   "--window-size=1280,900", "--disable-background-networking"):  # fmt: skip
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(program("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the address of a page beside a running node: one job done, one held."""
    data = tmp_path / "data"
    with store(data) as before:
        contoured_job(before, tmp_path)
        drifted(before)
        record(before, 30, [score(0.93, "Lung_L"), score(1.0, "Lung_R")])
        record(before, 31, [], reason="the approved set is in another frame of reference")
    monkeypatch.setenv("FAKE", json.dumps({"fail": "reject", "once": str(tmp_path / "once")}))
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(settings(data, 1) | {"web": {"listen": "127.0.0.1:0"}}))
    Users(data / "web-users.json", QUICK).put("m.tanaka", Role.OPERATOR, PASSWORD)
    with node_kit.node(data, 1) as node:
        node_kit.send(node.port, [ct(n, series="1.2.3.7") for n in (1, 2, 3)])
        until(lambda: node.store.ledger.jobs([JobState.HELD]), 60, "no job was held")
        with site_of(load(path)) as site, Served(site) as served:
            yield served


def shot(driver: webdriver.Chrome, name: str) -> None:
    if folder := os.environ.get("RTNODE_SCREENSHOTS"):
        driver.save_screenshot(str(Path(folder) / f"{name}.png"))


def wait(driver: webdriver.Chrome, condition, what: str = "") -> None:
    WebDriverWait(driver, 40).until(condition, what)


def text(driver: webdriver.Chrome) -> str:
    return str(driver.execute_script("return document.body.innerText"))


def log_in(driver: webdriver.Chrome, address: str) -> None:
    driver.get(f"{address}/jobs")
    driver.find_element(By.NAME, "name").send_keys("m.tanaka")
    driver.find_element(By.NAME, "password").send_keys(PASSWORD, Keys.ENTER)
    wait(driver, lambda d: d.find_elements(By.ID, "logout"), "the login did not succeed")


def test_a_person_logs_in_looks_at_contours_retries_a_held_job_and_logs_out(
    chromium: webdriver.Chrome, address: str
) -> None:
    driver = chromium
    log_in(driver, address)
    assert "/jobs" in driver.current_url  # the page that was asked for before the login
    shot(driver, "1-worklist")
    # At one go: the list follows by itself and may be replaced between two looks.
    assert driver.execute_script(_STATES) == ["HELD", "COMPLETED"]

    # Open the finished job by the keyboard alone, and look at its contours.
    ActionChains(driver).send_keys("j").send_keys("j").send_keys(Keys.ENTER).perform()
    wait(driver, lambda d: d.find_elements(By.CSS_SELECTOR, ".viewer.ready"), "no viewer")
    wait(driver, lambda d: d.execute_script(_PIXELS, 0)[0] > 50, "no contour was drawn")
    assert driver.execute_script(_PIXELS, 0)[1] > 500  # and the image below it
    shot(driver, "2-contours")
    assert "CANARY NAME" in text(driver)

    # In the coronal plane the cylinder is 80 mm wide and 48 mm high: the aspect ratio is true.
    box = driver.execute_script("""
      const c = document.querySelectorAll('.viewer .pane canvas')[1];
      const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
      let left = 1e9, right = 0, top = 1e9, bottom = 0;
      for (let y = 0; y < c.height; y++) for (let x = 0; x < c.width; x++) {
        const i = 4 * (y * c.width + x);
        const near = [86, 180, 233].every((v, k) => Math.abs(d[i + k] - v) < 40);
        if (near) {
          left = Math.min(left, x); right = Math.max(right, x);
          top = Math.min(top, y); bottom = Math.max(bottom, y);
        }
      }
      return [right - left, bottom - top];
    """)
    assert np.isclose(box[0] / box[1], 80 / 48, rtol=0.06)

    # Scroll by the keyboard; hide the structure; nothing is drawn of it.
    pane = driver.find_element(By.CSS_SELECTOR, ".viewer .pane.large")
    before = pane.find_element(By.CSS_SELECTOR, ".caption").text
    driver.execute_script("arguments[0].focus()", pane)
    pane.send_keys(Keys.ARROW_UP)
    wait(driver, lambda d: pane.find_element(By.CSS_SELECTOR, ".caption").text != before)
    driver.find_element(By.CSS_SELECTOR, ".list-of input[type=checkbox]").click()
    wait(driver, lambda d: d.execute_script(_PIXELS, 0)[0] == 0, "the contour is still there")

    # The held job: why, what to do, retry; the page follows by itself.
    driver.get(f"{address}/jobs/2")
    assert "Why it is held" in text(driver)
    assert "What to do" in text(driver)
    shot(driver, "3-held")
    driver.find_element(By.ID, "retry").click()
    wait(driver, lambda d: "Released." in text(d))
    wait(driver, lambda d: d.execute_script(_STATES)[:1] == ["COMPLETED"], "it did not complete")
    assert "m.tanaka" in text(driver)
    shot(driver, "4-retried")

    # How approved contours agree: reached from the menu, one chart an organ, drift is told.
    driver.find_element(By.LINK_TEXT, "Drift").click()
    wait(driver, lambda d: d.find_elements(By.CSS_SELECTOR, ".spc svg .outside"), "no chart")
    assert len(driver.find_elements(By.CSS_SELECTOR, ".spc svg")) == 3
    assert "worse than the limits" in text(driver)
    assert "another frame of reference" in text(driver)
    shot(driver, "7-drift")
    driver.find_element(By.PARTIAL_LINK_TEXT, "HD95").click()
    wait(driver, lambda d: "measure=hd95_mm" in d.current_url)
    driver.get(f"{address}/drift?language=ja")
    assert "管理限界" in text(driver)
    shot(driver, "8-drift-japanese")

    driver.get(f"{address}/?language=ja")
    assert "概要" in text(driver)
    shot(driver, "5-japanese")
    driver.get(f"{address}/?language=en")
    light = driver.execute_script(_DARK)
    driver.find_element(By.CSS_SELECTOR, "[data-theme-switch]").click()
    assert driver.execute_script(_DARK) != light
    shot(driver, "6-dark")
    driver.find_element(By.CSS_SELECTOR, "[data-theme-switch]").click()

    driver.find_element(By.ID, "logout").click()
    wait(driver, lambda d: d.find_elements(By.NAME, "password"), "not logged out")
    driver.get(f"{address}/jobs/1")
    assert "/login" in driver.current_url
    # The content security policy allowed everything that our pages do, and nothing failed.
    failed = [
        line["message"]
        for line in driver.get_log("browser")
        if line["level"] in {"SEVERE", "ERROR"} or "Security" in line["message"]
    ]
    assert failed == []


def test_nothing_runs_over_the_side_of_a_phone(chromium: webdriver.Chrome, address: str) -> None:
    driver = chromium
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True},
    )
    try:
        log_in(driver, address)
        for number, page in enumerate(("/", "/jobs", "/studies", "/jobs/1", "/jobs/2", "/people",
                                       "/drift", "/drift?language=ja")):  # fmt: skip
            driver.get(address + page)
            if page == "/jobs/1":
                wait(driver, lambda d: d.find_elements(By.CSS_SELECTOR, ".viewer.ready"))
            shot(driver, f"phone-{number}")
            wide = driver.execute_script(_OVER)
            assert wide == [], page
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.delete_all_cookies()
