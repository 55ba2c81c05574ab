"""NVIDIA's aiperf: a few requests of its own making."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import scene

NANO = Path(__file__).resolve().parents[3] / "models/nano"
SECONDS = 240
NUM_REQUESTS, NUM_TOKENS = 12, 16


class AiPerf(unittest.TestCase):
    def test_a_few_requests(self):
        for kind in ("chat", "completions"):
            with self.subTest(kind), tempfile.TemporaryDirectory(prefix="cachalot_client_") as folder:
                subprocess.run(
                    [Path(os.environ["CLIENTS_BIN"], "aiperf"), "profile", "--model", scene.model_of(scene.NANO_URL),
                     "--url", scene.root(scene.NANO_URL), "--api-key", scene.KEY, "--endpoint-type", kind, "--streaming",
                     "--tokenizer", str(NANO), "--request-count", str(NUM_REQUESTS), "--concurrency", "4",
                     "--synthetic-input-tokens-mean", "64", "--output-tokens-mean", str(NUM_TOKENS),
                     "--extra-inputs", "ignore_eos:true", "--output-artifact-dir", folder, "--ui-type", "none"],
                    check=True, timeout=SECONDS, cwd=folder,
                )  # fmt: skip
                [summary] = Path(folder).rglob("profile_export_aiperf.json")
                results = json.loads(summary.read_text())
                self.assertEqual(results["request_count"]["avg"], NUM_REQUESTS)
                self.assertGreater(results["time_to_first_token"]["avg"], 0)
                self.assertAlmostEqual(results["output_sequence_length"]["avg"], NUM_TOKENS, delta=4)


if __name__ == "__main__":
    unittest.main(verbosity=2)
