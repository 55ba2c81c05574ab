#!/usr/bin/env python3
"""pictures.py URL [--out docs]

The pictures of docs/page.md, of a server or router that runs at URL: both views, light and dark, as WebP. Wants Chromium
and Playwright (those that test_page.py has installed do).
"""

import argparse
import base64
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

QUESTION = "Which one is larger? 3.8 or 3.11"
TO_WEBP = """async (png) => {
  const picture = await createImageBitmap(await (await fetch(png)).blob());
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext("2d").drawImage(picture, 0, 0);
  const bytes = new Uint8Array(await (await canvas.convertToBlob({type: "image/webp", quality: 0.86})).arrayBuffer());
  return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ""));
}"""


def chat(page, url):
    page.goto(url + "/#chat")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Probabilities of each token").check()
    page.get_by_label("Temperature").fill("0.8")
    page.get_by_role("button", name="Done").click()
    for question in (QUESTION, "What is 4789 + 365?"):
        page.get_by_label("Message", exact=True).fill(question)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Send").wait_for()
    page.locator(".thought summary").first.click()
    page.get_by_role("button", name="Probabilities").last.click()
    page.mouse.move(0, 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent.parent / "docs")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        blank = browser.new_page()
        for scheme, ending in (("light", ""), ("dark", "-dark")):
            for view in ("cluster", "chat"):
                context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
                page = context.new_page()
                page.set_default_timeout(60_000)
                page.goto(options.url)
                page.locator(".rank").first.wait_for()
                if view == "chat":
                    chat(page, options.url)
                page.wait_for_timeout(2500)
                png = base64.b64encode(page.screenshot(full_page=view == "cluster")).decode()
                webp = base64.b64decode(blank.evaluate(TO_WEBP, "data:image/png;base64," + png))
                name = options.out / f"page-{view}{ending}.webp"
                name.write_bytes(webp)
                print(f"{name} {len(webp)}")
                context.close()
        browser.close()


if __name__ == "__main__":
    main()
