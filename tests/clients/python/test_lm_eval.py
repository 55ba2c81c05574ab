"""EleutherAI's lm-eval, over tasks that stand here: generation by chats, likelihoods by completions."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import scene

NANO = Path(__file__).resolve().parents[3] / "models/nano"
SECONDS = 240
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]

GENERATION = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "What is {{{{a}}}} + {{{{b}}}}?"
doc_to_target: "{{{{sum}}}}"
generation_kwargs: {{until: ["\\n\\n\\n"], max_gen_toks: 300, temperature: 0}}
filter_list:
  - name: last_number
    filter: [{{function: regex, regex_pattern: "(\\\\d+)", group_select: -1}}, {{function: take_first}}]
metric_list: [{{metric: exact_match}}]
"""

LIKELIHOOD = """
task: days
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "The day after {{{{day}}}} is"
doc_to_choice: [Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday]
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""


class LmEval(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cachalot_client_")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def evaluate(self, task, source, rows, model, url, *arguments):
        data = self.folder / f"{task}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (self.folder / f"{task}.yaml").write_text(source.format(data=data))
        subprocess.run(
            [Path(os.environ["CLIENTS_BIN"], "lm-eval"), "run", "--model", model, "--tasks", task,
             "--include_path", self.folder, "--output_path", self.folder / "out", *arguments,
             "--model_args", f"model={scene.model_of(scene.NANO_URL)},base_url={url},num_concurrent=4,"
             f"max_retries=1,tokenizer={NANO},tokenizer_backend=huggingface,max_length=4096"],
            check=True, timeout=SECONDS, env=os.environ | {"HF_HOME": str(self.folder), "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        [results] = (self.folder / "out").rglob("results*.json")
        return json.loads(results.read_text())["results"][task]

    def test_generation_by_chats(self):
        rows = [{"a": a, "b": b, "sum": str(a + b)} for a, b in ((12, 30), (7, 8), (125, 250), (99, 1), (40, 2), (5, 5))]
        url = scene.NANO_URL + "/chat/completions"
        results = self.evaluate("sums", GENERATION, rows, "local-chat-completions", url, "--apply_chat_template")
        self.assertGreater(results["exact_match,last_number"], 0.8)

    def likelihood(self, context, continuation):
        """By completions of one's own. lm-eval sends ids, without a begin of the sequence."""
        model = scene.model_of(scene.NANO_URL)
        fields = {"model": model, "add_special_tokens": False, "max_tokens": 1, "echo": True, "logprobs": 1}
        choice = scene.ask(scene.NANO_URL + "/completions", {"prompt": context + continuation} | fields)["choices"][0]
        logprobs = choice["logprobs"]
        of_continuation = [
            logprob
            for offset, logprob in zip(logprobs["text_offset"], logprobs["token_logprobs"])
            if len(context) <= offset < len(context + continuation)
        ]
        return sum(of_continuation)

    def test_likelihoods_by_completions(self):
        rows = [{"day": day, "answer": 0} for day in DAYS]
        self.evaluate(
            "days", LIKELIHOOD, rows, "local-completions", scene.NANO_URL + "/completions", "--batch_size", "4",
            "--log_samples",
        )  # fmt: skip
        [samples] = (self.folder / "out").rglob("samples*.jsonl")
        samples = [json.loads(line) for line in samples.read_text().splitlines()]
        self.assertEqual(len(samples), len(DAYS))
        for sample in samples[:3]:
            measured = [float(response[0][0]) for response in sample["resps"]]
            context = f"The day after {sample['doc']['day']} is"
            for day, value in zip(DAYS, measured, strict=True):
                self.assertAlmostEqual(value, self.likelihood(context, " " + day), delta=1e-3)


if __name__ == "__main__":
    unittest.main(verbosity=2)
