"""The page in headless Chromium: pictures in, a training that is watched, canceled and resumed, its result taken away; and axe-core.

Screenshots of every page, light and dark, are left in the folder that TADPOLE_SCREENSHOTS names, for people to look at.
"""
from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from tests.service.test_serve import Served
from tests.service.training.small_pictures import write_picture

ROOT = Path(__file__).resolve().parents[2]
BASE = "runwayml/stable-diffusion-v1-5"
DEADLINE_SECONDS = 240.0
FIRST_PICTURE_SECONDS = 540.0  # the service lets a package take 300 s to start, and then it draws
FLAGS = ("--headless=new", "--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-dev-shm-usage", "--window-size=1280,1000")
SERIOUS = ("serious", "critical")
PHONE = 390  # pixels


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "data").mkdir()
    (folder / "data" / "models.toml").write_text(f'[models."{BASE}"]\npath = {json.dumps(str(ROOT / "assets" / "base"))}\n', encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TADPOLE_COG_PYTHON", os.environ["COG_PYTHON"])
        served = Served(folder)
        yield served
        served.close()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    browser.set_script_timeout(DEADLINE_SECONDS)  # axe-core looks at long forms for more than the 30 s of WebDriver where the machine is slow
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def axe() -> str:
    return Path(os.environ["AXE_CORE"]).read_text(encoding="utf-8")


@pytest.fixture
def page(chromium: webdriver.Chrome, served: Served) -> Iterator[webdriver.Chrome]:
    """Signed in. Afterwards: nothing was refused by the policy, and no script has failed."""
    chromium.delete_all_cookies()
    chromium.get(f"{served.url}/login")
    chromium.delete_all_cookies()
    chromium.get(f"{served.url}/login")
    chromium.find_element(By.ID, "key").send_keys(served.keys()[0], Keys.ENTER)
    until(lambda: chromium.current_url.endswith("/trainings"))
    chromium.get_log("browser")
    yield chromium
    told = [entry["message"] for entry in chromium.get_log("browser") if entry["level"] == "SEVERE" and "status of 4" not in entry["message"]]
    assert told == []


def until(ask: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def present(page: webdriver.Chrome, selector: str) -> list[WebElement]:
    return page.find_elements(By.CSS_SELECTOR, selector)


def write(page: webdriver.Chrome, name: str, text: str) -> None:
    field = page.find_element(By.NAME, name)
    field.clear()
    field.send_keys(text)


def set_scheme(page: webdriver.Chrome, scheme: str) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})


def look_at(page: webdriver.Chrome, axe: str, name: str) -> None:
    """No serious finding of axe-core, light and dark, in a wide and in a narrow window, which nothing juts out of; a picture of each."""
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", PHONE)):
        set_scheme(page, scheme)
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False})
        until_laid_out(page, width)
        photograph(page, f"{name}-{scheme}" if width != PHONE else f"{name}-narrow")
        assert page.execute_script("return document.documentElement.scrollWidth") <= width, f"{name} is wider than {width} pixels"
        page.execute_script(axe)
        found = page.execute_async_script("const done = arguments[arguments.length - 1]; axe.run(document).then(done)")
        serious = [
            f"{one['id']}: {node['target']} {node['failureSummary']}"
            for one in found["violations"] if one["impact"] in SERIOUS for node in one["nodes"]
        ]  # fmt: skip
        assert serious == [], f"{name}, {scheme}"
    set_scheme(page, "light")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def until_laid_out(page: webdriver.Chrome, width: int) -> None:
    """The window has its new width, and what follows from it has been drawn."""
    until(lambda: page.execute_script("return window.innerWidth") == width)
    page.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))")


def photograph(page: webdriver.Chrome, name: str) -> None:
    shots = os.environ.get("TADPOLE_SCREENSHOTS")
    if not shots:
        return
    Path(shots).mkdir(parents=True, exist_ok=True)
    page.execute_script("window.scrollTo(0, 0)")
    size = page.execute_script("return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    whole = {"captureBeyondViewport": True, "clip": {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}}
    shot = page.execute_cdp_cmd("Page.captureScreenshot", whole)["data"]
    (Path(shots) / f"{name}.png").write_bytes(base64.b64decode(shot))


def begin(page: webdriver.Chrome, served: Served, pictures: Path, name: str, steps: int) -> str:
    """Pictures dropped, the form filled in, the training started; its id."""
    for number in range(1, 6):
        write_picture(pictures / f"{number}.png", number)
    page.get(f"{served.url}/trainings/new")
    page.find_element(By.ID, "files").send_keys("\n".join(str(path) for path in sorted(pictures.iterdir())))
    until(lambda: len(present(page, ".picture img")) == 5)
    photograph(page, "pictures")
    page.find_element(By.CSS_SELECTOR, ".preset[value=trial]").click()
    until(lambda: present(page, ".picture img") and present(page, "#f-method option[value=lora]:checked"))
    for field, text in {"name": name, "instance_prompt": "a sks frog", "resolution": "64", "max_train_steps": str(steps)}.items():
        write(page, field, text)
    page.find_element(By.CSS_SELECTOR, "button.large").click()
    until(lambda: present(page, ".stages"))
    return page.current_url.rpartition("/")[2]


def state(page: webdriver.Chrome) -> str:
    return page.execute_script("return document.querySelector('#status .badge').textContent")


def figure(page: webdriver.Chrome, name: str) -> str:
    return page.execute_script("return [...document.querySelectorAll('#figures dt')].find((one) => one.textContent === arguments[0])"
                               ".nextElementSibling.textContent", name)  # fmt: skip


def until_it_goes_on(page: webdriver.Chrome) -> None:
    """And what can be pressed stays: it is replaced with the state, which comes before the figures and after the losses."""
    until(lambda: state(page) == "Training")
    until_steps_change(page)


def until_steps_change(page: webdriver.Chrome) -> None:
    steps = figure(page, "Steps")
    until(lambda: figure(page, "Steps") != steps)


def points(page: webdriver.Chrome) -> int:
    return page.execute_script("return window.__chart ? window.__chart.data[0].length : 0")


@pytest.mark.timeout(1200)
def test_from_pictures_to_a_result(page: webdriver.Chrome, served: Served, axe: str, tmp_path: Path) -> None:
    job_id = begin(page, served, tmp_path, "chromium/frog", steps=20)
    until(lambda: points(page) > 0)
    photograph(page, "live")
    until(lambda: state(page) == "Succeeded")
    until(lambda: points(page) == 20)
    until(lambda: present(page, "#files a"))  # parts come one after the other, and this is the last of these
    assert len(present(page, "#samples img")) == 2  # in the middle and at the end
    assert present(page, "#log span") and len(present(page, ".stages .done")) == 4
    page.execute_script("document.getElementById('log-axis').click(); document.getElementById('rate-axis').click()")
    assert page.execute_script("return window.__chart.data[2].filter((value) => value > 0).length") == 20
    page.find_element(By.CSS_SELECTOR, ".sample").click()
    until(lambda: page.execute_script("return document.getElementById('viewer').open"))
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    until(lambda: not page.execute_script("return document.getElementById('viewer').open"))
    link = page.find_element(By.CSS_SELECTOR, "#files a").get_attribute("href")
    cookies = {cookie["name"]: cookie["value"] for cookie in page.get_cookies()}
    taken = httpx.get(str(link), cookies=cookies, follow_redirects=True, timeout=60)
    assert taken.status_code == 200 and taken.content[:2] == b"PK"
    look_at(page, axe, "training")
    page.get(f"{served.url}/trainings/new?like={job_id}")
    look_at(page, axe, "clone")
    try_the_model(page, served, axe)


def try_the_model(page: webdriver.Chrome, served: Served, axe: str) -> None:
    """The newest: found in the list, asked for a small picture, which is shown."""
    page.get(f"{served.url}/models")
    assert present(page, ".models img")
    page.find_element(By.CSS_SELECTOR, ".models a").click()
    until(lambda: present(page, "#try"))
    for name, text in {"prompt": "a sks frog", "num_inference_steps": "2"}.items():
        field = page.find_element(By.CSS_SELECTOR, f"[data-input={name}]")
        field.clear()
        field.send_keys(text)
    for side in ("width", "height"):
        Select(page.find_element(By.CSS_SELECTOR, f"[data-input={side}]")).select_by_visible_text("128")
    page.find_element(By.ID, "try-run").click()
    until(lambda: present(page, "#try-pictures img") or present(page, "#try-mistake:not([hidden])"), FIRST_PICTURE_SECONDS)
    assert page.find_element(By.ID, "try-mistake").text == ""
    assert until(lambda: page.execute_script("return document.querySelector('#try-pictures img').naturalWidth")) == 128
    look_at(page, axe, "model")


def test_cancel_and_resume(page: webdriver.Chrome, served: Served, tmp_path: Path) -> None:
    job_id = begin(page, served, tmp_path, "stopped-frog", steps=100_000)
    until(lambda: points(page) > 3)
    until_it_goes_on(page)
    cancel = page.find_element(By.ID, "cancel")
    page.execute_script("arguments[0].focus()", cancel)
    until_steps_change(page)
    assert page.switch_to.active_element == cancel  # it is still the same: what goes on each second has not replaced it
    photograph(page, "running")
    cancel.click()
    page.switch_to.alert.accept()
    until(lambda: state(page) in ("Canceling", "Canceled"))
    until(lambda: state(page) == "Canceled")
    before = points(page)
    until(lambda: present(page, "#resume"))
    page.find_element(By.ID, "resume").click()
    until(lambda: not page.current_url.endswith(job_id) and present(page, ".stages"))
    until(lambda: points(page) > before)
    until_it_goes_on(page)
    page.find_element(By.ID, "cancel").click()
    page.switch_to.alert.accept()
    until(lambda: state(page) == "Canceled")


@pytest.mark.parametrize("address", ["/login", "/trainings", "/trainings?show=failed", "/trainings/new", "/models", "/queue", "/keys", "/trainings/none"])
def test_pages_can_be_read_by_all(address: str, page: webdriver.Chrome, served: Served, axe: str) -> None:
    if address == "/login":
        page.delete_all_cookies()
    page.get(f"{served.url}{address}")
    look_at(page, axe, address.strip("/").replace("/", "-").replace("?", "-").replace("=", "-"))


def test_everything_can_be_reached_by_the_keyboard(page: webdriver.Chrome, served: Served) -> None:
    page.get(f"{served.url}/trainings/new")
    reached = set()
    for _ in range(100):
        ActionChains(page).send_keys(Keys.TAB).perform()
        focused = page.switch_to.active_element
        if focused.tag_name == "body":  # behind the last one
            break
        reached.add(focused.get_attribute("id") or focused.text)
        outline = page.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", focused.get_attribute("outerHTML")[:200]
    assert {"Skip to the content", "Trainings", "files", "f-name", "f-instance-prompt"} <= reached


def test_the_request_is_shown_without_leaving(page: webdriver.Chrome, served: Served, axe: str) -> None:
    page.get(f"{served.url}/trainings/new")
    for field, text in {"name": "frog", "instance_prompt": "a sks frog", "class_prompt": "a frog"}.items():
        write(page, field, text)
    page.find_element(By.CSS_SELECTOR, "[hx-post='/trainings/new/request']").click()
    until(lambda: present(page, "#request-toml"))
    assert "max_train_steps = 1000" in page.find_element(By.ID, "request-toml").text
    look_at(page, axe, "requests")


def test_nothing_moves_without_scripts_but_all_is_there(page: webdriver.Chrome, served: Served, tmp_path: Path) -> None:
    job_id = begin(page, served, tmp_path, "still-frog", steps=3)
    until(lambda: state(page) == "Succeeded")
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.get(f"{served.url}/trainings")
        page.get(page.find_element(By.ID, f"job-{job_id}").get_attribute("href"))
        assert present(page, ".stages") and present(page, "#log span") and present(page, "details table tr")
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
