"""mini-swe-agent, by LiteLLM."""

import unittest

import program
import scene


class MiniSweAgent(program.Program):
    def test_a_task(self):
        self.run_program(
            "mini", "--model", f"hosted_vllm/{self.model}", "--task", program.TASK, "--yolo", "--exit-immediately",
            "--config", "mini.yaml", "--config", f"model.model_kwargs.api_base={scene.TOOLS_URL}",
            "--config", f"model.model_kwargs.api_key={scene.KEY}", "--output", str(self.home / "run.json"),
            MSWEA_CONFIGURED="1", MSWEA_COST_TRACKING="ignore_errors", MSWEA_GLOBAL_CONFIG_DIR=str(self.home),
        )  # fmt: skip
        self.check_file()


if __name__ == "__main__":
    unittest.main(verbosity=2)
