"""Open WebUI, in a browser: what is typed, clicked and seen."""

import os
import shutil
import socket
import subprocess
import time
import unittest
import urllib.request
from pathlib import Path

import program
import scene

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
START_SECONDS = 400  # three minutes on two busy cores
SECONDS = 120


@unittest.skipUnless(CHROMIUM, "no chromium")
class OpenWebUi(program.Program):
    def setUp(self):
        super().setUp()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        settings = {
            "HOME": str(self.home), "DATA_DIR": str(self.home / "data"), "WEBUI_AUTH": "False", "OFFLINE_MODE": "True",
            "OPENAI_API_BASE_URL": scene.TOOLS_URL, "OPENAI_API_KEY": scene.KEY, "ENABLE_OLLAMA_API": "False",
            "RAG_EMBEDDING_ENGINE": "openai", "HF_HUB_OFFLINE": "1", "ENABLE_VERSION_UPDATE_CHECK": "False",
        }  # fmt: skip
        self.log = (self.home / "log").open("w+")
        self.addCleanup(self.log.close)
        process = subprocess.Popen(
            [Path(os.environ["CLIENTS_BIN"], "open-webui"), "serve", "--host", "127.0.0.1", "--port", str(port)],
            cwd=self.work, env=os.environ | settings, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.wait_until_ready(process)

    def wait_until_ready(self, process):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and process.poll() is None:
            try:
                urllib.request.urlopen(self.url + "/health", timeout=5)
                return
            except OSError:
                time.sleep(0.5)
        self.log.seek(0)
        self.fail("Open WebUI does not start: " + self.log.read()[-3000:])

    def test_a_chat_with_a_tool(self):
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.set_default_timeout(SECONDS * 1000)
            page.goto(self.url)
            page.get_by_text("Okay, Let's Go!").click()
            for question, answer in (
                # By a tool of its own, whose result the answer waits for.
                ("Tell me: what does your clock say?", "The clock has told me the time."),
                (program.AGAIN, "The word is sesame."),
            ):
                page.locator("#chat-input").fill(question)
                page.keyboard.press("Enter")
                try:
                    page.get_by_text(answer).first.wait_for()
                except Exception:
                    print(page.locator("body").inner_text())
                    raise
            seen = page.locator("#messages-container").inner_text()
            browser.close()
        print(seen)
        self.assertNotIn("think>", seen)
        self.assertNotIn("<｜", seen)


if __name__ == "__main__":
    unittest.main(verbosity=2)
