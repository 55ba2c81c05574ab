"""Programs in a folder of their own, that write a word into a file by a tool of theirs."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import scene

TASK = "Write the word sesame into hello.txt"
AGAIN = "Say the word again"
SECONDS = 120


class Program(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cachalot_client_")
        self.addCleanup(folder.cleanup)
        self.home, self.work = Path(folder.name, "home"), Path(folder.name, "work")
        self.home.mkdir()
        self.work.mkdir()
        self.model = scene.model_of(scene.TOOLS_URL)
        if scene.ask(scene.TOOLS_URL + "/models")["data"][0]["max_model_len"] < 100_000:
            self.skipTest("the model is too small for its prompts")

    def run_program(self, name, *arguments, **environment):
        own = {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / "config"), "PWD": str(self.work)}
        environment = os.environ | own | environment
        done = subprocess.run(
            [Path(os.environ["CLIENTS_BIN"], name), *arguments], cwd=self.work, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout)
        print(done.stdout)
        return done.stdout

    def check_file(self):
        self.assertEqual((self.work / "hello.txt").read_text(), "sesame")
