"""Answers to random schemas, each looked at by an independent validator: structured_outputs.py, on a small scale."""

import argparse
import unittest

import scene
import structured_outputs

OPTIONS = argparse.Namespace(count=50, seed=7, max_tokens=800, thought=64, concurrency=8)


class StructuredOutputs(unittest.TestCase):
    def test_answers_are_of_their_schemas(self):
        outcomes = structured_outputs.run(structured_outputs.Server(scene.NANO_URL, scene.KEY), OPTIONS)
        for outcome in outcomes:
            self.assertEqual(outcome.faults, [], f"{outcome.schema}\n{outcome.text!r}")
        ended = sum(outcome.finish == "stop" for outcome in outcomes)
        self.assertGreaterEqual(ended, 40, "answers that ended by themselves")


if __name__ == "__main__":
    unittest.main(verbosity=2)
