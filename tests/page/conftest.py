"""A server of the page with a folder, and a browser; without gradio, selenium or Chromium their tests are skipped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import tiny

REPOSITORY = Path(__file__).parents[2]
sys.path.append(str(Path(sys.prefix) / "page"))  # `make page`; last, as `calm serve` does
CALM = [sys.executable, "-P", "-c", "from calm.cli import app; app()"]
QUIET = (  # Chromium asks its maker for news wherever it is not told to leave that
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@dataclass(frozen=True)
class Server:
    """A running `calm serve FOLDER`, and where everything lies that it writes."""

    address: str
    folder: Path
    temporary: Path

    def uploads(self) -> list[Path]:
        """Files that lie there now."""
        return [path for path in self.temporary.glob("calm-page-*/**/*") if path.is_file()]


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the model that comes with calm, and three photographs."""
    pytest.importorskip("gradio", reason="gradio is not installed: make page")
    folder, temporary = tmp_path_factory.mktemp("album"), tmp_path_factory.mktemp("temporary")
    for number in range(3):
        tiny.picture(number).save(folder / f"p{number}.png")
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    command = [*CALM, "serve", str(folder), "--port", str(free_port()), "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0].rstrip("/")
        yield Server(address, folder, temporary)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert list(temporary.glob("calm-page-*")) == []  # stopped, it leaves nothing


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium whose requests are kept; downloads go to `browser.downloads`."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: make page")
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or chromium is None:
        pytest.skip("no Chromium with its chromedriver is installed")
    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.downloads = downloads
    yield opened
    opened.quit()
