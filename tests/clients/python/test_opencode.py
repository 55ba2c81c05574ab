"""opencode, with a provider of its own."""

import json
import unittest

import program
import scene


class OpenCode(program.Program):
    def test_a_task(self):
        model = {"name": self.model, "tool_call": True, "limit": {"context": 131072, "output": 8192}}
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "name": "cachalot",
            "options": {"baseURL": scene.TOOLS_URL, "apiKey": scene.KEY},
            "models": {self.model: model},
        }
        name = f"cachalot/{self.model}"
        settings = {
            "provider": {"cachalot": provider},
            "model": name,
            "small_model": name,
            "autoupdate": False,
            "share": "disabled",
        }
        (self.work / "opencode.json").write_text(json.dumps(settings))
        self.assertIn("The word is in hello.txt.", self.run_program("opencode", "run", program.TASK))
        self.check_file()
        self.assertIn("The word is sesame.", self.run_program("opencode", "run", "--continue", program.AGAIN))


if __name__ == "__main__":
    unittest.main(verbosity=2)
