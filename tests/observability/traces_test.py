#!/usr/bin/env python3
"""traces_test.py --bin build/release/bin [--folder build/traces_test] [unittest's arguments]

Traces of requests through the router, as an OTLP receiver gets them: one that reads OpenTelemetry's own protobuf types
(from PyPI, once; without them exit status 77) behind a small HTTP server. And the logs in JSON, the access log and
`cachalot report` of the same cluster.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import unittest
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from running import Cluster, eventually, fetch  # noqa: E402

HERE = Path(__file__).resolve().parent
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
KEY, FIELD_KEY, GROUP_SECRET = "sesame-open-the-door", "honeycomb-key-9", "s3cret-of-the-group"

options = None  # of the command line


def install():
    """The protobuf types, once; goes on as the environment's Python."""
    python = options.folder / "venv/bin/python"
    if Path(sys.prefix) == options.folder / "venv":
        return
    if not (options.folder / "installed").exists():
        for words in ([sys.executable, "-m", "venv", options.folder / "venv"],
                      [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r",
                       HERE / "requirements.txt"]):  # fmt: skip
            done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode != 0:
                print(f"skipped: {done.stdout.strip()[-300:]}")
                sys.exit(77)
        (options.folder / "installed").touch()
    os.execv(python, [python, "-B", *sys.argv])


class Receiver:
    """An OTLP receiver over HTTP, which keeps the spans; `status` is what it answers."""

    def __init__(self):
        from google.protobuf import json_format
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        spans, receiver = [], self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/json"
                assert self.headers["x-api-key"] == FIELD_KEY
                if receiver.status == 200:
                    # Ids are read from the text: protobuf's own JSON would have them in base64.
                    request = json_format.Parse(body, trace_service_pb2.ExportTraceServiceRequest())
                    ids = [(span["traceId"], span["spanId"], span.get("parentSpanId", ""))
                           for of_resource in json.loads(body)["resourceSpans"]
                           for scope in of_resource["scopeSpans"] for span in scope["spans"]]  # fmt: skip
                    for of_resource in request.resource_spans:
                        resource = {a.key: value_of(a.value) for a in of_resource.resource.attributes}
                        for scope in of_resource.scope_spans:
                            for span in scope.spans:
                                spans.append((resource, ids.pop(0), span))
                self.send_response(receiver.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.status, self.spans = 200, spans
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of_trace(self, trace):
        return [
            {"resource": resource, "id": ids[1], "parent": ids[2], "name": span.name, "kind": span.kind,
             "begin": span.start_time_unix_nano, "end": span.end_time_unix_nano, "status": span.status.code,
             "attributes": {a.key: value_of(a.value) for a in span.attributes}}
            for resource, ids, span in self.spans if ids[0] == trace
        ]  # fmt: skip


def value_of(value):
    return getattr(value, value.WhichOneof("value"))


class Observed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.receiver = Receiver()
        cls.addClassCleanup(cls.receiver.server.shutdown)
        folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        (folder / "group-secret").write_text(GROUP_SECRET + "\n")
        (folder / "group-secret").chmod(0o600)
        model = HERE.parent.parent / "models/nano"
        (folder / "small.yaml").write_text(
            f"""model: {model}
nodes: [127.0.0.1]
devices: 2
port: 0
data-parallel-rpc-port: 0
served-model-name: nano
serve:
  api-key: [{KEY}]
  group-secret-file: group-secret
  enable-log-requests: true
  otlp-traces-endpoint: {cls.receiver.url}
router:
  api-key:
    - {KEY}
  enable-log-requests: true
  otlp-traces-endpoint: {cls.receiver.url}/v1/traces
"""
        )
        environment = os.environ | {"OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={FIELD_KEY}"}
        cls.cluster = Cluster(
            options.bin / "cachalot", folder, "--log-format", "json", "small.yaml", environment=environment
        )
        cls.addClassCleanup(cls.cluster.end)
        cls.folder, cls.environment = folder, environment

    def ask(self, headers=None, **body):
        body = {"prompt": "What is 1 + 2?", "max_tokens": 12, "model": "nano", "ignore_eos": True} | body
        headers = {"Authorization": f"Bearer {KEY}"} | (headers or {})
        return fetch(self.cluster.url + "/v1/completions", body, headers)

    def spans(self, trace, count):
        eventually(lambda: len(self.receiver.of_trace(trace)) >= count, lambda: self.receiver.of_trace(trace), 30)
        spans = self.receiver.of_trace(trace)
        self.assertEqual(len(spans), count, [span["name"] for span in spans])
        return spans

    def test_1_a_request_is_one_trace_from_its_client_to_decode(self):
        self.ask({"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "req-7"}, temperature=0.5)
        spans = self.spans(TRACE, 6)
        span = {each["name"]: each for each in spans}
        self.assertEqual(set(span), {"router", "replica", "llm_request", "queue", "prefill", "decode"})
        # Each is a part of the one before it, and lies within it.
        self.assertEqual(span["router"]["parent"], PARENT)
        for part, whole in (("replica", "router"), ("llm_request", "replica"), ("queue", "llm_request"),
                            ("prefill", "llm_request"), ("decode", "llm_request")):  # fmt: skip
            self.assertEqual(span[part]["parent"], span[whole]["id"], part)
            slack = 2_000_000  # two processes, one clock each time set against the other
            self.assertGreaterEqual(span[part]["begin"] + slack, span[whole]["begin"], part)
            self.assertLessEqual(span[part]["end"], span[whole]["end"] + slack, part)
        for before, after in (("queue", "prefill"), ("prefill", "decode")):
            self.assertLess(abs(span[before]["end"] - span[after]["begin"]), 10_000)
        self.assertEqual([span[name]["kind"] for name in ("router", "replica", "llm_request", "queue")], [2, 3, 2, 1])
        self.assertEqual(span["router"]["resource"]["service.name"], "cachalot-router")
        self.assertEqual(span["decode"]["resource"]["service.name"], "cachalot-server")
        self.assertIn(span["decode"]["resource"]["cachalot.replica"], (0, 1))
        told = span["llm_request"]["attributes"]
        self.assertEqual(told["gen_ai.request.id"], "req-7")
        self.assertEqual(told["gen_ai.response.model"], "nano")
        self.assertEqual(told["gen_ai.usage.completion_tokens"], 12)
        self.assertEqual(told["gen_ai.request.max_tokens"], 12)
        self.assertEqual(told["gen_ai.request.temperature"], 0.5)
        self.assertEqual((told["gen_ai.request.n"], told["gen_ai.usage.num_sequences"]), (1, 1))
        self.assertGreater(told["gen_ai.usage.prompt_tokens"], 3)
        decode = told["gen_ai.latency.time_in_model_decode"]
        self.assertAlmostEqual(decode, (span["decode"]["end"] - span["decode"]["begin"]) * 1e-9, places=5)
        parts = told["gen_ai.latency.time_in_queue"] + told["gen_ai.latency.time_in_model_prefill"]
        self.assertAlmostEqual(parts, told["gen_ai.latency.time_to_first_token"], places=5)
        self.assertLess(parts + decode, told["gen_ai.latency.e2e"] + 1e-3)
        self.assertEqual(span["router"]["attributes"]["http.response.status_code"], 200)

    def test_2_what_the_client_does_not_record_is_not_sent_and_refusals_are(self):
        unrecorded, refused = "a" * 32, "b" * 32
        self.ask({"traceparent": f"00-{unrecorded}-{PARENT}-00"})
        with self.assertRaises(urllib.error.HTTPError):
            self.ask({"traceparent": f"00-{refused}-{PARENT}-01"}, max_tokens=-1)
        spans = {each["name"]: each for each in self.spans(refused, 3)}
        self.assertEqual(spans["llm_request"]["status"], 2)
        self.assertEqual(spans["router"]["attributes"]["http.response.status_code"], 400)
        self.assertEqual(self.receiver.of_trace(unrecorded), [])

    def test_3_a_receiver_that_is_away_costs_requests_nothing_and_loses_no_span(self):
        away = "c" * 32
        self.receiver.status = 503
        for _ in range(3):
            self.ask({"traceparent": f"00-{away}-{PARENT}-01"})
        self.assertEqual(self.receiver.of_trace(away), [])
        self.receiver.status = 200
        self.spans(away, 18)
        metrics = "".join(fetch(url + "/metrics") for url in self.cluster.servers())
        sent = re.findall(r'cachalot:trace_spans_total\{state="sent"\} (\d+)', metrics)
        self.assertGreater(sum(map(int, sent)), 12)

    def test_4_logs_are_objects_with_one_line_for_each_request(self):
        self.ask({"X-Request-Id": "in-the-log"})
        with self.assertRaises(urllib.error.HTTPError):
            fetch(self.cluster.url + "/v1/nowhere", headers={"Authorization": f"Bearer {KEY}"})

        def read_logs():
            return {path.name: path.read_text() for path in (self.folder / "logs").glob("*.log")}

        def is_written():  # behind the answer
            text = "".join(read_logs().values())
            return text.count("in-the-log") >= 2 and "/v1/nowhere" in text and text.endswith("\n")

        eventually(is_written, "the lines of both requests")
        logs = {name: text.splitlines() for name, text in read_logs().items()}
        self.assertEqual(len(logs), 3, logs.keys())
        lines = {name: [json.loads(line) for line in text] for name, text in logs.items()}
        for line in sum(lines.values(), []):
            self.assertRegex(line["time"], r"^20\d\d-\d\d-\d\dT[\d:]{8}\.\d{3}Z$")
            self.assertIn(line["level"], ("info", "warning", "error"))
        served = {
            name: [line["message"] for line in of_process if line.get("request_id") == "in-the-log"]
            for name, of_process in lines.items()
        }
        self.assertEqual(sorted(map(len, served.values())), [0, 1, 1])
        server = next(messages[0] for name, messages in served.items() if messages and "router" not in name)
        self.assertRegex(server, r"^127.0.0.1:\d+ POST '/v1/completions' 200, \d+ bytes in [\d.]+ s; \d+ prompt tokens "
                         r"\(\d+ cached\), 12 generated in 1 choices, begun after [\d.]+ s, first token after [\d.]+ s$")  # fmt: skip
        router = next(messages[0] for name, messages in served.items() if "router" in name)
        self.assertRegex(router, r"POST '/v1/completions' 200, \d+ bytes in [\d.]+ s; from http://127.0.0.1:\d+$")
        self.assertTrue(any("'/v1/nowhere' 404" in line["message"] for line in sum(lines.values(), [])))
        self.assertFalse(any("/metrics" in line["message"] for line in sum(lines.values(), [])))

    def test_5_a_report_has_what_is_needed_and_no_secrets(self):
        archive = self.folder / "report.tar.gz"
        done = subprocess.run(
            [options.bin / "cachalot", "report", "--output", archive, "--run-folder", self.cluster.run_folder],
            capture_output=True, text=True, env=self.environment | {"MY_TOKEN": "token-of-mine"},
        )  # fmt: skip
        self.assertEqual(done.stdout.strip(), str(archive), done.stderr)
        self.assertEqual(archive.stat().st_mode & 0o077, 0)
        with tarfile.open(archive) as files:
            texts = {
                member.name.removeprefix("report/"): files.extractfile(member).read().decode()
                for member in files.getmembers() if member.isfile()
            }  # fmt: skip
        for name in ("README.txt", "version.txt", "cluster.yaml", "status.txt", "status.json", "missing.txt",
                     "machine/lscpu.txt", "machine/meminfo.txt", "machine/limits.txt", "replica-0/log.txt",
                     "replica-1/metrics.txt", "replica-0/state.txt", "router/replicas.txt", "router/log.txt"):  # fmt: skip
            self.assertIn(name, texts, texts.get("missing.txt"))
        self.assertIn("vllm:generation_tokens_total", texts["replica-1/metrics.txt"])
        self.assertIn("OTEL_EXPORTER_OTLP_HEADERS", texts["machine/environment.txt"])
        self.assertIn("group-secret-file: group-secret", texts["cluster.yaml"])
        for secret in (KEY, FIELD_KEY, GROUP_SECRET, "token-of-mine"):
            for name, text in texts.items():
                self.assertNotIn(secret, text, name)

    def test_6_status_watches(self):
        words = [options.bin / "cachalot", "status", "--watch", "--interval", "1", "--run-folder",
                 self.cluster.run_folder]  # fmt: skip
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as plain:
            text = ""
            while text.count("cluster small") < 2:
                line = plain.stdout.readline()
                self.assertTrue(line, f"it ended behind {text}")
                text += line
            plain.send_signal(signal.SIGINT)
            text += plain.stdout.read()
        self.assertEqual(plain.returncode, 0)
        self.assertRegex(text, r"prompts [\d.]+ tokens/s, answers [\d.]+ tokens/s")
        self.assertNotIn("\x1b", text)
        shown, ended = on_terminal(words, rows=6, columns=40, until=lambda shown: shown.count("\x1b[H") >= 2)
        self.assertEqual(ended, 0)
        self.assertTrue(shown.startswith("\x1b[?1049h\x1b[?25l"), repr(shown[:40]))
        self.assertTrue(shown.endswith("\x1b[?25h\x1b[?1049l"), repr(shown[-40:]))
        page = shown.split("\x1b[H")[1].split("\x1b[J")[0].split("\r\n")
        self.assertEqual(len(page), 6)
        for line in page:
            self.assertLessEqual(len(line.removesuffix("\x1b[K")), 40)
        self.assertRegex(page[-1], "more lines")

    def test_7_a_takeover_is_a_span_of_the_same_trace(self):
        over = "d" * 32
        server = self.cluster.status()["loads"][0]["ranks"][0]["pid"]
        # One that is stopped holds its connections, and answers nothing; replicas that are equal take turns.
        os.kill(server, signal.SIGSTOP)
        try:
            for _ in range(2):
                self.ask({"traceparent": f"00-{over}-{PARENT}-01"})
        finally:
            os.kill(server, signal.SIGCONT)

        def names():
            return {span["name"] for span in self.receiver.of_trace(over)}

        eventually(lambda: "takeover" in names(), lambda: f"only {names()}")
        spans = self.receiver.of_trace(over)
        router = {span["id"] for span in spans if span["name"] == "router"}
        failed = [span for span in spans if span["name"] == "replica" and span["status"] == 2]
        self.assertTrue(failed)
        for span in spans:
            if span["name"] in ("replica", "takeover"):
                self.assertIn(span["parent"], router)


def on_terminal(words, rows, columns, until):
    """What a program writes to a terminal of that size until Ctrl-C, and its status."""
    import fcntl
    import pty
    import struct
    import termios

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(words, stdin=its, stdout=its, start_new_session=True,
                               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))  # fmt: skip
    os.close(its)
    shown = ""
    while not until(shown):
        shown += os.read(ours, 65536).decode()
    os.write(ours, b"\x03")
    with contextlib.suppress(OSError):  # the terminal's end
        while piece := os.read(ours, 65536):
            shown += piece.decode()
    os.close(ours)
    return shown, process.wait(30)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "traces_test")
    options, rest = parser.parse_known_args()
    options.bin, options.folder = options.bin.resolve(), options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    install()
    unittest.main(argv=[sys.argv[0], *rest])
