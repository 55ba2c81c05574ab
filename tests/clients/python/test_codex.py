"""Codex, with the settings of docs/api.md."""

import unittest

import program
import scene

SETTINGS = """
model = "{model}"
model_provider = "cachalot"
model_context_window = 131072
[model_providers.cachalot]
name = "cachalot"
base_url = "{url}"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
"""


class Codex(program.Program):
    def codex(self, *arguments):
        words = ["exec", *arguments, "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        return self.run_program("codex", *words, CODEX_HOME=str(self.home))

    def test_a_task(self):
        (self.home / "config.toml").write_text(SETTINGS.format(model=self.model, url=scene.TOOLS_URL))
        self.assertIn("The word is in hello.txt.", self.codex(program.TASK))
        self.check_file()
        self.assertIn("The word is sesame.", self.codex("resume", "--last", program.AGAIN))


if __name__ == "__main__":
    unittest.main(verbosity=2)
