"""What tests in Python have in common: our programs, a cluster of the built-in model, and somebody who asks it."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 120
PATIENCE = 90


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def fetch(url, body=None, headers=None, timeout=PATIENCE):
    request = urllib.request.Request(url, headers=headers or {})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return answer.read().decode()


def eventually(condition, what, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while True:
        if result := condition():
            return result
        if time.monotonic() > end:
            raise AssertionError(f"{what() if callable(what) else what} within {seconds} s")
        time.sleep(0.25)


class Process:
    """A program, until its end() or the end of the test; its log is shown if it does not start."""

    def __init__(self, log, words, ready, **more):
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(list(map(str, words)), stdout=output, stderr=output, **more)
        for _ in range(READY_SECONDS * 10):
            if re.search(ready, log.read_text()):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.end()
        raise RuntimeError(f"{words[0]} does not start:\n{log.read_text()}")

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def write_slow_cluster(folder):
    """A file of what `up` starts without one; but who is lost stays away for long enough that others look twice."""
    path = folder / "slow.yaml"
    path.write_text(
        f"""model: {ROOT}/models/nano
nodes: [127.0.0.1]
devices: 4
tensor-parallel-size: 2
enable-expert-parallel: true
port: 0
data-parallel-rpc-port: 0
served-model-name: nano
restart: {{first-wait: 4}}
"""
    )
    return path


class Cluster(Process):
    """`cachalot up` with the file, or without one: the built-in model as 2 replicas with 2 ranks each."""

    def __init__(self, program, folder, *words, environment=None):
        self.program, self.run_folder, self.port = program, folder / "run", free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        words = [program, "up", *words, "--port", self.port, "--run-folder", self.run_folder]
        super().__init__(folder / "up.log", words, r"(?m)^ready: ", cwd=folder, env=environment)

    def run(self, *words):
        done = subprocess.run(
            [self.program, *words, "--run-folder", self.run_folder], capture_output=True, text=True, check=True
        )
        return done.stdout

    def status(self):
        return json.loads(self.run("status", "--json"))

    def servers(self):
        return [replica["url"] for replica in self.status()["state"]["replicas"]]


@contextlib.contextmanager
def load(url, num_clients=4):
    """Streams, some of them asking for what cannot be, without a pause."""
    stop = threading.Event()

    def ask(client):
        number = 0
        while not stop.is_set():
            number += 1
            prompt = f"What is {client} + {number % 7}? " + "Think of the sea. " * 8
            body = {"prompt": prompt, "max_tokens": 16, "stream": True, "temperature": 0}
            path, headers = "/v1/completions", {}
            if client == 0 and number % 4 == 0:
                body["max_tokens"] = -1
            if client == 1 and number % 4 == 0:
                path = "/v1/nowhere"
            if client == 2 and number % 4 == 0:
                headers["X-data-parallel-rank"] = "999"  # which the router refuses
            with contextlib.suppress(OSError):
                fetch(url + path, body, headers)

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(num_clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
