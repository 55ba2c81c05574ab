#!/usr/bin/env python3
"""Drives the server with the programs that people use, unchanged, in pinned versions.

  run.py --bin build/release/bin [--folder build/clients] [SUITE...]    starts servers of its own; all suites
  run.py --url http://host:8000/v1 [--api-key KEY] [SUITE...]           a server that runs already
  run.py --list

Each suite asks the models that it fits (--model: only this one): the built-in model, and one that answers by a script
(scripted_server.cc; two replicas of it behind a router), which takes long prompts. With --router two replicas of the
built-in model stand behind a router, too. A server with TLS and keys of several clients is for the suite of these.
What a suite needs is installed below --folder, once. Where that fails (no network, no npm) it is skipped, and the
reason said; exit status 77 where all are.
"""

import argparse
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NANO = ROOT / "models/nano"
KEY = "sesame"
READY_SECONDS = 120
HURRIED_REQUESTS_PER_MINUTE = 10  # one in six seconds
UV = "uv==0.13.9"  # where packages' needs are to be left out
SUITE_SECONDS = 700

BOTH, BUILT_IN, SCRIPTED = ("built-in", "scripted"), ("built-in",), ("scripted",)
# Name: (where it is installed, its packages whose versions are told, its tests, the models that it asks).
SUITES = {
    "openai": ("official", ["openai"], "test_openai.py", BOTH),
    "anthropic": ("official", ["anthropic"], "test_anthropic.py", BOTH),
    "keys-and-tls": ("official", ["openai", "anthropic"], "test_keys_and_tls.py", BUILT_IN),
    "langchain": ("frameworks", ["langchain", "langchain-openai", "langgraph"], "test_langchain.py", BOTH),
    "litellm": ("frameworks", ["litellm"], "test_litellm.py", BOTH),
    "instructor": ("frameworks", ["instructor"], "test_instructor.py", BOTH),
    "pydantic-ai": ("frameworks", ["pydantic-ai-slim"], "test_pydantic_ai.py", BOTH),
    "openai-agents": ("frameworks", ["openai-agents"], "test_openai_agents.py", BOTH),
    "mini-swe-agent": ("frameworks", ["mini-swe-agent"], "test_mini_swe_agent.py", SCRIPTED),
    "lm-eval": ("measuring", ["lm-eval"], "test_lm_eval.py", BUILT_IN),
    "structured-outputs": ("schemas", ["jsonschema"], "test_structured_outputs.py", BUILT_IN),
    "aiperf": ("measuring", ["aiperf"], "test_aiperf.py", BUILT_IN),
    "openai-js": ("javascript", ["openai"], "openai.test.mjs", BOTH),
    "keys-and-tls-js": ("javascript", ["openai"], "keys_and_tls.test.mjs", BUILT_IN),
    "ai-sdk": ("javascript", ["ai", "@ai-sdk/openai-compatible"], "ai_sdk.test.mjs", BOTH),
    "codex": ("programs", ["@openai/codex"], "test_codex.py", SCRIPTED),
    "claude-code": ("programs", ["@anthropic-ai/claude-code"], "test_claude_code.py", SCRIPTED),
    "opencode": ("programs", ["opencode-ai"], "test_opencode.py", SCRIPTED),
    "open-webui": ("open_webui", ["open-webui"], "test_open_webui.py", SCRIPTED),
}


class Skipped(Exception):
    pass


def run_quietly(words, **options):
    """Its output is worth reading only if it fails."""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    except FileNotFoundError as error:
        raise Skipped(f"no {error.filename}") from error
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines()
        reasons = [line for line in lines if "error" in line.lower()][:2] or lines[-1:]
        raise Skipped(f"{' '.join(map(str, words[:2]))}: {'; '.join(reasons)}")


def install_once(folder, wanted, install):
    """`wanted` is the text of the pinned versions; what was installed by another is installed anew."""
    mark = folder / "installed.txt"
    if mark.exists() and mark.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    install()
    mark.write_text(wanted)


class Installed:
    """A place where packages of one kind are: a virtual environment, or a folder of node's."""

    def __init__(self, name, parent):
        self.folder = parent / name
        self.python = HERE / f"python/{name}.txt"
        if self.python.exists():
            install_once(self.folder, self.python.read_text(), self.install_python)
        else:
            self.node = HERE / name
            install_once(self.folder, (self.node / "package-lock.json").read_text(), self.install_node)

    def install_python(self):
        run_quietly([sys.executable, "-m", "venv", self.folder])
        install = [self.folder / "bin/pip", "install", "--disable-pip-version-check", "-q"]
        left_out = HERE / f"python/{self.folder.name}.without.txt"
        if left_out.exists():
            run_quietly([*install, UV])
            install = [self.folder / "bin/uv", "pip", "install", "--python", self.folder / "bin/python", "-q",
                       "--override", left_out]  # fmt: skip
        run_quietly([*install, "-r", self.python])

    def install_node(self):
        for name in ("package.json", "package-lock.json"):
            shutil.copy(self.node / name, self.folder)
        run_quietly(["npm", "install", "--prefer-offline", "--no-audit", "--no-fund"], cwd=self.folder)

    def version(self, package):
        if (self.folder / "node_modules").exists():
            return json.loads((self.folder / "node_modules" / package / "package.json").read_text())["version"]
        script = f"import importlib.metadata as m; print(m.version({package!r}))"
        return subprocess.check_output([self.folder / "bin/python", "-c", script], text=True).strip()

    def command(self, test):
        if test.endswith(".mjs"):  # stands where its imports are found
            for path in (HERE / "javascript").glob("*.mjs"):
                shutil.copy(path, self.folder)
            return ["node", "--test", "--test-timeout=120000", test], self.folder
        python = self.folder / "bin/python"
        return [python if python.exists() else sys.executable, "-B", HERE / "python" / test], HERE / "python"


class Servers(contextlib.ExitStack):
    """Started when the first suite asks for them."""

    def __init__(self, options):
        super().__init__()
        self.logs = options.folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.environment = {"OPENAI_API_KEY": options.api_key or KEY, "CLIENTS_FOLDER": str(options.folder)}

    def for_suite(self, name, model):
        """The environment that tells a suite's tests whom to ask."""
        environment = self.environment | {"NANO_URL": self.built_in}
        environment["TOOLS_URL"] = self.scripted if model == "scripted" else self.built_in
        return environment | (self.guarded if name.startswith("keys-and-tls") else {})

    @functools.cached_property
    def built_in(self):
        if self.options.url:
            return self.options.url.rstrip("/").removesuffix("/v1") + "/v1"
        if not self.options.router:
            return self.serve("nano", "--api-key", KEY)
        return self.route("nano_router", self.replicas) + "/v1"

    @functools.cached_property
    def replicas(self):
        return [self.serve(f"nano{number}", "--api-key", KEY).removesuffix("/v1") for number in range(2)]

    @functools.cached_property
    def scripted(self):
        script = (NANO, HERE / "chat_template.jinja", HERE / "script.json", "0", KEY)
        replicas = [self.start(f"scripted{number}", "scripted_server", *script) for number in range(2)]
        return self.route("router", [url.removesuffix("/v1") for url in replicas]) + "/v1"

    @functools.cached_property
    def guarded(self):
        """With TLS, by an authority that nobody knows, and a key for each client."""
        if self.options.url:
            raise Skipped("it wants a server of its own")
        folder = self.options.folder / "guarded"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", "2"]  # fmt: skip
        run_quietly([*make, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=clients"], cwd=folder)
        run_quietly([*make, "-keyout", "node.key", "-out", "node.pem", "-subj", "/CN=node", "-CA", "ca.pem", "-CAkey",
                     "ca.key", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"],
                    cwd=folder)  # fmt: skip
        keys = folder / "keys.yaml"
        keys.touch(mode=0o600)
        hurried = [f"- {{name: {name}, key: sk-{name}, requests-per-minute: {HURRIED_REQUESTS_PER_MINUTE}}}"
                   for name in ("hurried_openai", "hurried_anthropic", "hurried_javascript")]  # fmt: skip
        keys.write_text("\n".join(["- {name: patient, key: sk-patient}", *hurried, ""]))
        flags = ["--ssl-certfile", folder / "node.pem", "--ssl-keyfile", folder / "node.key", "--api-key-file", keys]
        if self.options.router:
            url = self.route("guarded", self.replicas, "--server-api-key", KEY, *flags)
        else:
            url = self.serve("guarded", *flags).removesuffix("/v1")
        return {"GUARDED_URL": url + "/v1", "GUARDED_CA": str(folder / "ca.pem"),
                "NODE_EXTRA_CA_CERTS": str(folder / "ca.pem")}  # fmt: skip

    def serve(self, name, *flags):
        # Greedy unless a client says otherwise: a sample of so small a model is now and then wrong.
        return self.start(name, "cachalot", "serve", "--model", NANO, "--host", "127.0.0.1", "--port", "0",
                          "--override-generation-config", '{"temperature": 0}', *flags)  # fmt: skip

    def route(self, name, replicas, *flags):
        return self.start(name, "cachalot", "router", "--server-urls", *replicas, "--host", "127.0.0.1", "--port", "0",
                          *flags)  # fmt: skip

    def start(self, name, program, *arguments):
        log = self.logs / f"{name}.log"
        with log.open("w") as output:
            process = subprocess.Popen([self.options.bin / program, *arguments], stdout=output, stderr=output)
        self.callback(self.end, process)
        for _ in range(READY_SECONDS * 10):
            if found := re.search(r"(?:ready:|routing) (https?://[^\s,]+)", log.read_text()):
                return found.group(1)
            if process.poll() is not None:
                break
            time.sleep(0.1)
        sys.exit(f"{program} does not start:\n{log.read_text()}")

    @staticmethod
    def end(process):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def clean_environment():
    """The programs' own settings would decide what they do."""
    return {name: value for name, value in os.environ.items()
            if not re.match(r"OPENAI_|ANTHROPIC_|CLAUDE|CODEX_|OPENCODE", name)}  # fmt: skip


def models_of(name, options):
    return ["given"] if options.url else [model for model in SUITES[name][3] if options.model in (None, model)]


def run_suite(name, model, options, servers):
    place, packages, test, _ = SUITES[name]
    installed = Installed(place, options.folder)
    versions = ", ".join(f"{package} {installed.version(package)}" for package in packages)
    words, folder = installed.command(test)
    environment = clean_environment() | servers.for_suite(name, model)
    environment["CLIENTS_BIN"] = str(installed.folder / "node_modules/.bin")
    if (installed.folder / "bin").exists():
        environment["CLIENTS_BIN"] = str(installed.folder / "bin")
    log = options.folder / "logs" / f"suite-{name}-{model}.log"
    with log.open("w") as output:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=output, stderr=output,
                                   stdin=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        try:
            status = process.wait(SUITE_SECONDS)
        except subprocess.TimeoutExpired:
            status = "it takes too long"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what the tests have left behind
    text = log.read_text(errors="replace")
    if status != 0:
        print(text)
    return status == 0, versions, summary(text)


def summary(text):
    """Of unittest's or node's last lines."""
    if found := re.search(r"^Ran (\d+) tests?.*\n\n(.*)$", text, re.M):
        reasons = re.findall(r"\.\.\. skipped (.*)$", text, re.M)
        return f"{found.group(1)} tests, {found.group(2)}" + "".join(f"; {reason}" for reason in reasons)
    counts = dict(re.findall(r"^(?:#|ℹ) (tests|fail|skipped) (\d+)$", text, re.M))
    return f"{counts.get('tests', 0)} tests, {counts.get('fail', '?')} failures, {counts.get('skipped', 0)} skipped"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/clients")
    parser.add_argument("--url")
    parser.add_argument("--api-key")
    parser.add_argument("--model", choices=BOTH)
    parser.add_argument("--router", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("suites", nargs="*", metavar="SUITE")
    options = parser.parse_args()
    if options.list:
        print("\n".join(SUITES))
        return 0
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    if not (options.bin or options.url):
        parser.error("give --bin or --url")
    options.folder = options.folder.resolve()
    options.bin = options.bin and options.bin.resolve()

    results = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of the servers' end
    with Servers(options) as servers:
        for name in options.suites or SUITES:
            for model in models_of(name, options):
                print(f"{name}, {model} ...", file=sys.stderr, flush=True)
                try:
                    passed, versions, what = run_suite(name, model, options, servers)
                    results.append((name, model, "passed" if passed else "FAILED", f"{what} ({versions})"))
                except Skipped as why:
                    results.append((name, model, "skipped", str(why)))
    for name, model, result, what in results:
        print(f"{name:18} {model:8} {result:8} {what}")
    outcomes = {result for _, _, result, _ in results}
    return 1 if "FAILED" in outcomes else 77 if outcomes <= {"skipped"} else 0


if __name__ == "__main__":
    sys.exit(main())
