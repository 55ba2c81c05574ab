#!/usr/bin/env python3
"""test_page.py --bin build/release/bin [--folder build/page_test] [unittest's arguments]

The page in Chromium, as people use it: what is clicked, typed and seen. In front of the built-in cluster, whose rank is
killed meanwhile, and in front of a replica that answers by a script. Playwright comes from PyPI and axe-core from npm,
once; without them, or without Chromium, exit status 77.
"""

import argparse
import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from running import Process, free_port, write_slow_cluster  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PLAYWRIGHT = "playwright==1.65.2"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEY = "sesame-open-the-door"
SECONDS = 90
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
QUESTION = "Which one is larger? 3.8 or 3.11"

options = None  # of the command line


def run_quietly(words, **more):
    done = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if done.returncode != 0:
        print(f"skipped: {' '.join(map(str, words[:3]))}: {done.stdout.strip()[-300:]}")
        sys.exit(77)


def install():
    """Playwright and axe-core, once; goes on as the environment's Python."""
    if not CHROMIUM:
        print("skipped: no chromium")
        sys.exit(77)
    python = options.folder / "bin/python"
    if not (options.folder / "axe/node_modules/axe-core").exists():
        if not shutil.which("npm"):
            print("skipped: no npm")
            sys.exit(77)
        web = ROOT / "src/page/web"
        axe = options.folder / "axe"
        axe.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(web / name, axe)
        run_quietly(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"], cwd=axe)
    if Path(sys.prefix) != options.folder:
        if not (options.folder / "installed").exists():
            run_quietly([sys.executable, "-m", "venv", options.folder])
            run_quietly([python, "-m", "pip", "install", "--disable-pip-version-check", "-q", PLAYWRIGHT])
            (options.folder / "installed").touch()
        os.execv(python, [python, "-B", *sys.argv])


def start(name, arguments, ready):
    return Process(options.folder / f"{name}.log", [options.bin / "cachalot", *arguments], ready, cwd=ROOT)


class PageTest(unittest.TestCase):
    """A browser; each test has a context of its own, and ends with nothing having been said on the console."""

    @classmethod
    def setUpClass(cls):
        from playwright.sync_api import sync_playwright

        cls.playwright = cls.enterClassContext(sync_playwright())
        cls.browser = cls.playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        cls.addClassCleanup(cls.browser.close)

    def open(self, path="/", viewport=DESKTOP, **more):
        context = self.browser.new_context(viewport=viewport, **more)
        self.addCleanup(context.close)
        context.set_default_timeout(SECONDS * 1000)
        page = context.new_page()
        self.complaints = []
        self.asked = set()
        page.on("console", lambda line: line.type in ("error", "warning") and self.complaints.append(line.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.add(request.url))
        page.goto(self.url + path)
        self.addCleanup(self.check_quiet)
        self.page = page
        return page

    def check_quiet(self):
        # Chromium itself says so where a key is refused or a connection lost.
        expected = r"Failed to load resource: (the server responded with a status of (401|50\d)|net::ERR)|ERR_"
        self.assertEqual([text for text in self.complaints if not re.search(expected, text)], [])
        for url in self.asked:
            self.assertTrue(url.startswith(self.url + "/"), url)

    def wait_for(self, condition):
        end = time.monotonic() + SECONDS
        while not condition():
            self.assertLess(time.monotonic(), end, "it does not come true")
            self.page.wait_for_timeout(100)

    def ask(self, text):
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.keyboard.press("Enter")

    def last_answer(self):
        return self.page.locator(".message.assistant").last

    def wait_for_end(self):
        self.page.get_by_role("button", name="Send").wait_for()

    def set(self, **fields):
        self.page.get_by_role("button", name="Settings").click()
        for name, value in fields.items():
            field = self.page.get_by_label(name.replace("_", " "))
            field.check() if value is True else field.fill(value)
        self.page.get_by_role("button", name="Done").click()

    def check_accessible(self, what):
        source = (options.folder / "axe/node_modules/axe-core/axe.min.js").read_text()
        # The policy of the page forbids to add a script; the debugger may run one all the same.
        session = self.page.context.new_cdp_session(self.page)
        session.send("Runtime.evaluate", {"expression": source})
        found = self.page.evaluate(
            "async () => (await axe.run(document, {resultTypes: ['violations']})).violations.map("
            "({id, impact, nodes}) => ({id, impact, nodes: nodes.map(node => node.html).slice(0, 3)}))"
        )
        serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
        self.assertEqual(serious, [], f"{what}: {json.dumps(serious, indent=1)}")
        return found

    def check_fits(self):
        width, shown = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        self.assertLessEqual(width, shown)


class BuiltInCluster(PageTest):
    """`cachalot up`: two replicas with two ranks each, and the router."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.port = free_port()
        cls.url = f"http://127.0.0.1:{cls.port}"
        words = ["up", write_slow_cluster(Path(folder)), "--port", cls.port, "--run-folder", folder]
        cluster = start("up", words, r"(?m)^ready: ")
        cls.addClassCleanup(cluster.end)

    def state(self):
        """The first state that /cluster/events tells."""
        with urllib.request.urlopen(self.url + "/cluster/events", timeout=SECONDS) as answer:
            event = ""
            for line in answer:
                if line.startswith(b"event: "):
                    event = line[7:].strip()
                elif line.startswith(b"data: ") and event == b"state":
                    return json.loads(line[6:])

    def test_the_map_shows_who_is_there(self):
        page = self.open()
        self.wait_for(lambda: page.locator(".rank[data-phase=ready]").count() == 4)
        self.assertEqual(page.get_by_role("status").first.inner_text(), "2 of 2 replicas up")
        self.assertEqual(page.locator(".panel tbody tr").count(), 2)
        page.locator("dd[data-curve=generation]", has_text=re.compile(r"\d")).wait_for()
        self.assertRegex(page.locator("#experts + p").inner_text(), r"^\d+ experts a layer, each held once$")
        self.assertIn("replica 1 takes requests", page.locator(".events").inner_text())
        self.check_fits()

    def test_a_rank_that_is_killed_is_seen_and_comes_back(self):
        page = self.open()
        self.wait_for(lambda: page.locator(".rank[data-phase=ready]").count() == 4)
        os.kill(next(rank["pid"] for rank in self.state()["replicas"][1]["ranks"] if rank["rank"] == 3), signal.SIGKILL)
        page.locator(".rank[data-rank='3'][data-phase=lost]").wait_for()
        page.locator(".events .lost", has_text="replica 1 with ranks 2, 3 is lost").wait_for()
        self.wait_for(lambda: page.locator(".rank[data-phase=ready]").count() == 4)
        page.locator(".events .back", has_text="replica 1 is back").wait_for()
        page.get_by_text("2 of 2 replicas up").wait_for()

    def test_phone(self):
        page = self.open(viewport=PHONE, has_touch=True, is_mobile=True)
        self.wait_for(lambda: page.locator(".rank[data-phase=ready]").count() == 4)
        self.check_fits()
        page.get_by_role("link", name="Chat").tap()
        page.get_by_role("button", name=QUESTION).tap()
        page.get_by_text("3.8 is larger than 3.11.").wait_for()
        self.wait_for_end()
        self.check_fits()
        page.get_by_role("button", name="Conversations").tap()
        page.get_by_role("button", name="New conversation").tap()
        page.locator(".welcome").wait_for()

    def test_a_chat_with_the_model(self):
        page = self.open("/#chat")
        page.get_by_role("button", name=QUESTION).wait_for()
        self.set(Temperature="0", Probabilities_of_each_token=True)
        self.ask(QUESTION)
        page.get_by_text("3.8 is larger than 3.11.").wait_for()
        self.wait_for_end()
        self.assertRegex(page.locator(".facts").inner_text(), r"\d+ tokens · [\d,.]+ tokens/s · first after ")
        # The thought is folded away.
        self.assertEqual(page.locator(".thought .markdown").count(), 0)
        page.locator(".thought summary").click()
        self.assertIn("3.8", page.locator(".thought .markdown").inner_text())
        page.get_by_role("button", name="Probabilities").click()
        tokens = page.locator(".token")
        self.assertGreater(tokens.count(), 10)
        tokens.first.click()
        page.keyboard.press("ArrowRight")
        page.locator("caption", has_text="Token 2 of").wait_for()
        self.assertGreater(page.locator(".alternatives tr").count(), 5)
        self.check_accessible("chat with probabilities")

    def test_nothing_serious_is_found_by_axe(self):
        for scheme in ("light", "dark"):
            for viewport in (DESKTOP, PHONE):
                for path in ("/", "/#chat"):
                    page = self.open(path, viewport, color_scheme=scheme)
                    page.locator(".rank, .welcome button").first.wait_for()
                    time.sleep(1.5)  # until the curves are drawn
                    self.check_accessible(f"{path} {scheme} {viewport['width']}")
                    page.context.close()

    def test_a_server_shows_itself(self):
        url = self.state()["replicas"][0]["url"]
        router, self.url = self.url, url
        try:
            page = self.open()
            self.wait_for(lambda: page.locator(".rank[data-phase=ready]").count() == 2)
            page.get_by_role("heading", name="Server").wait_for()
            page.get_by_role("link", name="Chat").click()
            self.ask(QUESTION)
            page.get_by_text("3.8 is larger than 3.11.").wait_for()
            self.check_quiet()
        finally:
            self.url = router
            self.asked = set()


class RouterThatGoes(PageTest):
    def test_the_page_says_so_and_finds_its_way_back(self):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        words = ["router", "--server-urls", f"http://127.0.0.1:{free_port()}", "--host", "127.0.0.1", "--port", port]
        router = start("going", words, r"routing http")
        self.addCleanup(router.end)
        page = self.open()
        page.get_by_text("0 of 1 replicas up").wait_for()
        began = time.monotonic()
        router.end()
        self.assertLess(time.monotonic() - began, 10)  # who watches holds up nobody's end
        page.get_by_text("The connection is lost.").wait_for()
        again = start("again", words, r"routing http")
        self.addCleanup(again.end)
        page.get_by_text("0 of 1 replicas up").wait_for()
        self.assertEqual(page.get_by_text("The connection is lost.").count(), 0)


class ScriptedChat(PageTest):
    """A router that asks for a key, in front of a replica that says what no model would."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        from scripted_replica import ScriptedReplica

        cls.replica = ScriptedReplica()
        cls.addClassCleanup(cls.replica.close)
        port = free_port()
        cls.url = f"http://127.0.0.1:{port}"
        router = start("router", ["router", "--server-urls", cls.replica.url, "--host", "127.0.0.1", "--port", port,
                                    "--api-key", KEY, "--server-api-key", "inner"], r"routing http")  # fmt: skip
        cls.addClassCleanup(router.end)

    def enter(self, path="/#chat", **more):
        page = self.open(path, **more)
        page.get_by_label("Key", exact=True).fill(KEY)
        page.get_by_role("button", name="Use it").click()
        page.locator(".welcome button, .rank").first.wait_for()
        return page

    def test_the_key(self):
        for path in ("/", "/page/app.js", "/page/style.css"):
            request = urllib.request.Request(self.url + path, headers={"Accept-Encoding": "gzip"})
            with urllib.request.urlopen(request) as answer:
                self.assertNotIn(KEY.encode(), gzip.decompress(answer.read()))
        with self.assertRaises(urllib.request.HTTPError) as refused:
            urllib.request.urlopen(self.url + "/cluster/events")
        self.assertEqual(refused.exception.code, 401)
        refused.exception.close()
        page = self.open()
        page.get_by_label("Key", exact=True).fill("wrong")
        page.get_by_role("button", name="Use it").click()
        page.get_by_text("The server does not take this key.").wait_for()
        self.assertEqual(page.locator(".rank").count(), 0)
        self.check_accessible("the key's dialog")
        page.get_by_label("Key", exact=True).fill(KEY)
        page.get_by_role("button", name="Use it").click()
        page.locator(".rank").wait_for()
        self.assertEqual(page.evaluate("[sessionStorage['cachalot.key'], localStorage['cachalot.key'] ?? null]"), [KEY, None])
        page.get_by_role("button", name="API key").click()
        page.get_by_label("Keep it in this browser").check()
        page.get_by_role("button", name="Use it").click()
        self.assertEqual(page.evaluate("localStorage['cachalot.key']"), KEY)
        other = page.context.new_page()
        other.goto(self.url)
        other.locator(".rank").wait_for()

    def test_stop(self):
        page = self.enter()
        for stop in (lambda: page.get_by_role("button", name="Stop").click(), lambda: page.keyboard.press("Escape")):
            broken = self.replica.server.num_broken
            self.ask("slowly, please")
            page.locator(".message.assistant", has_text="word word word").last.wait_for()
            page.get_by_role("button", name="Stop").wait_for()
            page.get_by_label("Message", exact=True).focus()
            stop()
            page.get_by_text("Stopped.").last.wait_for()
            self.wait_for_end()
            self.wait_for(lambda: self.replica.server.num_broken > broken)  # and the server hears of it
        self.assertEqual(page.get_by_text("Stopped.").count(), 2)

    def test_edit_and_retry(self):
        page = self.enter()
        self.ask("first")
        page.get_by_text("You have asked 1 times, last: first").wait_for()
        self.wait_for_end()
        self.ask("second")
        page.get_by_text("You have asked 2 times, last: second").wait_for()
        self.wait_for_end()
        num_requests = len(self.replica.server.requests)
        page.get_by_role("button", name="Retry").last.click()
        self.wait_for(lambda: len(self.replica.server.requests) > num_requests)
        self.assertEqual(self.replica.server.requests[-1]["messages"][-1]["content"], "second")
        self.assertEqual(len(self.replica.server.requests[-1]["messages"]), 3)
        self.wait_for_end()
        page.locator(".message.user").first.hover()
        page.get_by_role("button", name="Edit").first.click()
        page.get_by_label("Your message").fill("another first")
        page.get_by_role("button", name="Ask again").click()
        page.get_by_text("You have asked 1 times, last: another first").wait_for()
        self.assertEqual(page.locator(".message").count(), 2)

    def test_conversations_are_kept(self):
        page = self.enter()
        self.ask("about whales")
        page.get_by_text("last: about whales").wait_for()
        self.wait_for_end()
        page.get_by_role("button", name="New conversation").click()
        self.ask("about squids")
        page.get_by_text("You have asked 1 times, last: about squids").wait_for()
        self.wait_for_end()
        page.reload()
        list = page.get_by_role("navigation", name="Conversations")
        list.get_by_text("about whales").click()
        page.get_by_text("You have asked 1 times, last: about whales").wait_for()
        list.get_by_text("about whales").hover()
        page.get_by_role("button", name="Delete about whales").click()
        page.locator(".welcome").wait_for()
        self.assertEqual(list.get_by_text("about whales").count(), 0)
        self.assertEqual(list.get_by_text("about squids").count(), 1)

    def test_tools(self):
        page = self.enter()
        self.set(calculate=True, Your_own_tools='[{"name": "get_weather", "parameters": {"type": "object"}}]')
        self.ask("What is 6 times 7?")
        page.get_by_text("It is 42.").wait_for()
        self.wait_for_end()
        self.assertIn("6 * 7", page.locator(".call").inner_text())
        self.assertEqual(page.locator(".call-result code").inner_text(), "42")
        sent = self.replica.server.requests[-1]
        self.assertEqual([tool["function"]["name"] for tool in sent["tools"]], ["calculate", "get_weather"])
        self.assertEqual(sent["messages"][-2]["tool_calls"][0]["function"]["name"], "calculate")
        self.ask("And the weather?")
        page.get_by_label("What does this tool say?").fill("rain")
        self.check_accessible("a tool's form")
        page.get_by_role("button", name="Give the result").click()
        page.get_by_text("It rains.").wait_for()

    def test_settings_reach_the_server(self):
        page = self.enter()
        self.set(Temperature="0.25", Most_tokens="77", Seed="5", What_the_model_is_told_first="Be brief.")
        self.ask("hello")
        page.get_by_text("last: hello").wait_for()
        sent = self.replica.server.requests[-1]
        self.assertEqual([sent["temperature"], sent["max_tokens"], sent["seed"]], [0.25, 77, 5])
        self.assertNotIn("top_p", sent)
        self.assertEqual(sent["messages"][0], {"role": "system", "content": "Be brief."})
        self.wait_for_end()

    def test_markdown(self):
        page = self.enter()
        self.ask("markdown")
        self.wait_for_end()
        answer = self.last_answer()
        answer.get_by_role("heading", name="A heading").wait_for()
        self.assertEqual(answer.locator("li").count(), 2)
        self.assertEqual(answer.locator("table td").last.inner_text(), "1")
        self.assertEqual(answer.locator(".hljs-keyword").first.inner_text(), "def")
        self.assertEqual(answer.locator("math").count(), 2)
        self.assertEqual(answer.locator("math[display=block] mfrac").count(), 1)
        self.assertIn("prices of $5 and $7", answer.inner_text())
        self.assertIn("return 42  # always", answer.locator("pre").inner_text())

    def test_what_is_hostile_does_no_harm(self):
        page = self.enter()
        self.set(Probabilities_of_each_token=True)
        self.ask("hostile <b>question</b> <img src=x onerror=window.hurt=1>")
        page.get_by_text("That was all.").wait_for()
        self.wait_for_end()
        left = "list => list.scrollHeight - list.scrollTop - list.clientHeight"
        self.wait_for(lambda: page.locator(".messages").evaluate(left) < 5)  # one who is at the end stays there
        page.locator(".thought summary").click()
        answer = self.last_answer()
        self.assertEqual(answer.locator("script, img, svg:not(.icon), iframe, style, .markdown form, .markdown details").count(), 0)
        targets = answer.locator("a[href]").evaluate_all("links => links.map(link => link.href)")
        for target in targets:
            self.assertRegex(target, r"^https?://")
        self.assertIn("https://example.org/", targets)
        for link in answer.locator(".markdown a").all():
            self.assertIn("noopener", link.get_attribute("rel"))
        for attribute in ("onerror", "onload", "ontoggle", "style"):
            self.assertEqual(answer.locator(f".markdown [{attribute}]").count(), 0)
        page.get_by_role("button", name="Probabilities").click()
        page.locator(".token").first.wait_for()
        page.get_by_role("link", name="Cluster").click()
        page.locator(".rank").wait_for()
        self.assertIn("<img src=x", page.locator(".node h3").inner_text())
        time.sleep(2.5)
        self.assertIsNone(page.evaluate("globalThis.hurt ?? null"))
        self.assertEqual(page.locator("main img").count(), 0)

    def test_keyboard(self):
        page = self.enter("/")
        page.keyboard.press("Tab")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Tab")
        order = []
        for _ in range(5):
            order.append(page.evaluate("document.activeElement.textContent || document.activeElement.ariaLabel"))
            page.keyboard.press("Tab")
        self.assertEqual(order[:4], ["To the content", "Cluster", "Chat", "API key"])
        page.get_by_role("link", name="Chat").focus()
        page.keyboard.press("Enter")
        page.get_by_label("Message", exact=True).wait_for()
        page.keyboard.type("typed")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("on two lines")
        page.keyboard.press("Enter")
        page.get_by_text("last: typed").wait_for()
        self.assertEqual(self.replica.server.requests[-1]["messages"][-1]["content"], "typed\non two lines")

    def test_whoever_wants_no_motion_sees_none(self):
        page = self.enter(reduced_motion="reduce")
        self.ask("slowly, please")
        page.get_by_role("button", name="Stop").wait_for()
        self.assertEqual(page.evaluate("document.getAnimations().length"), 0)
        page.get_by_role("button", name="Stop").click()
        self.wait_for_end()

    def test_colours(self):
        page = self.enter("/", color_scheme="dark")
        back = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")
        dark = back()
        page.get_by_role("button", name="Colours: as the system has them").click()
        light = back()
        self.assertNotEqual(dark, light)
        page.reload()
        page.locator(".rank").wait_for()
        self.assertEqual(back(), light)


def main():
    global options
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/page_test")
    options, rest = parser.parse_known_args()
    options.bin = options.bin.resolve()
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    install()
    sys.path.insert(0, str(HERE))
    with contextlib.suppress(KeyboardInterrupt):
        unittest.main(argv=[sys.argv[0], *rest], verbosity=2)


if __name__ == "__main__":
    main()
