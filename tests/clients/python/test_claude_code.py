"""Claude Code, with the settings of docs/api.md."""

import unittest

import program
import scene


class ClaudeCode(program.Program):
    def claude(self, *arguments):
        return self.run_program(
            "claude", "--model", self.model, "--allowedTools", "Bash", "-p", *arguments,
            ANTHROPIC_BASE_URL=scene.root(scene.TOOLS_URL), ANTHROPIC_API_KEY=scene.KEY,
            CLAUDE_CONFIG_DIR=str(self.home), CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        )  # fmt: skip

    def test_a_task(self):
        self.assertIn("The word is in hello.txt.", self.claude(program.TASK))
        self.check_file()
        self.assertIn("The word is sesame.", self.claude("--continue", program.AGAIN))


if __name__ == "__main__":
    unittest.main(verbosity=2)
