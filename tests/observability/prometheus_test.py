#!/usr/bin/env python3
"""prometheus_test.py --bin build/release/bin [--folder build/prometheus_test] [unittest's arguments]

deploy/prometheus and deploy/grafana as they stand, but for addresses and windows, over a real Prometheus that scrapes the
built-in cluster under load: every query of a panel, a rule and an alert gives data, and alerts fire when a rank is killed.
Exit status 77 where Debian's `prometheus` is not installed.
"""

import argparse
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from running import Cluster, Process, eventually, fetch, free_port, load, write_slow_cluster  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
RULES = ROOT / "deploy/prometheus/cachalot-rules.yml"
CONFIG = ROOT / "deploy/prometheus/prometheus.yml"
WINDOW = "12s"  # for the rules' 5 minutes
VARIABLES = {"$__rate_interval": WINDOW, "$job": ".*", "$instance": ".*"}

options = None  # of the command line


def rules():
    """(name, expression, whether it is an alert) of each; the file's own form is promtool's to check."""
    found = re.findall(r"- (record|alert): (\S+)\n +expr: (>\n(?: {10}.*\n)+|.*\n)", RULES.read_text())
    return [(name, " ".join(text.removeprefix(">").split()), kind == "alert") for kind, name, text in found]


def figures_of(expression):
    """What an alert compares: its parts without the bounds."""
    return [re.sub(r" [<>] [0-9.]+$", "", part) for part in re.split(r" and on \(\w+\) ", expression)]


def shorter(text):
    """Minutes become seconds, so that a test sees them pass."""
    text = re.sub(r"\[15m\]", "[60s]", re.sub(r"\[5m\]", f"[{WINDOW}]", text))
    return re.sub(r"for: \w+", "for: 1s", text)


class Files(unittest.TestCase):
    def test_promtool_takes_the_rules_and_the_configuration(self):
        for words in (["check", "rules", RULES], ["check", "config", CONFIG]):
            done = subprocess.run(["promtool", *words], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertGreaterEqual(len(rules()), 20)

    def test_panels_lie_beside_one_another(self):
        taken = set()
        for panel in dashboard()["panels"]:
            place = panel["gridPos"]
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            taken |= cells


def dashboard():
    return json.loads((ROOT / "deploy/grafana/cachalot-cluster.json").read_text())


class UnderLoad(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = options.folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        cls.cluster = Cluster(options.bin / "cachalot", folder, write_slow_cluster(folder))
        cls.addClassCleanup(cls.cluster.end)
        targets = iter([[url.removeprefix("http://") for url in urls]
                        for urls in (cls.cluster.servers(), [cls.cluster.url])])  # fmt: skip
        config = re.sub(r"_interval: \w+", "_interval: 1s", CONFIG.read_text())
        config = re.sub(r"targets: \[.*\]", lambda _: f"targets: {json.dumps(next(targets))}", config)
        (folder / "prometheus.yml").write_text(config)
        (folder / "cachalot-rules.yml").write_text(shorter(RULES.read_text()))
        port = free_port()
        cls.prometheus = f"http://127.0.0.1:{port}"
        words = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                 f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
        server = Process(folder / "prometheus.log", words, "Server is ready", cwd=folder)
        cls.addClassCleanup(server.end)
        cls.enterClassContext(load(cls.cluster.url))

    def query(self, expression):
        """The finite values that it gives now."""
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        answer = json.loads(fetch(f"{self.prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
        self.assertEqual(answer["status"], "success", expression)
        values = [float(series["value"][1]) for series in answer["data"]["result"]]
        return [value for value in values if math.isfinite(value)]

    def wait_for_data(self, expressions):
        missing = dict(expressions)

        def all_have_data():
            for name, expression in list(missing.items()):
                if self.query(expression):
                    del missing[name]
            return not missing

        eventually(all_have_data, lambda: f"no data for {json.dumps(missing, indent=1)}")

    def test_1_every_query_gives_data(self):
        panels = {
            f"{panel['title']} {target['refId']}": target["expr"]
            for panel in dashboard()["panels"]
            for target in panel.get("targets", [])
        }
        self.assertGreaterEqual(len(panels), 50)
        # The annotation marks what this test does not do yet.
        for annotation in dashboard()["annotations"]["list"]:
            self.query(annotation["expr"])
        self.wait_for_data(panels)
        # What is 0 where there is nothing would be so with a name that nobody tells, too.
        names = {name for expression in panels.values() if "vector(0)" in expression
                 for name in re.findall(r"\b(?:cachalot|vllm):\w+", expression)}  # fmt: skip
        self.assertGreater(len(names), 0)
        self.wait_for_data({name: name for name in names})
        self.wait_for_data({name: name for name, _, is_alert in rules() if not is_alert})
        self.wait_for_data(
            {f"{name} {at}": shorter(figure) for name, expression, is_alert in rules() if is_alert
             for at, figure in enumerate(figures_of(expression))}
        )  # fmt: skip

    def test_2_alerts_fire_when_a_rank_is_killed(self):
        firing = set()

        def fires(wanted):
            alerts = json.loads(fetch(f"{self.prometheus}/api/v1/alerts"))["data"]["alerts"]
            firing.update(alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing")
            return wanted <= firing

        fires(set())
        down = {"CachalotServerDown", "CachalotReplicaOut", "CachalotHealed"}
        self.assertFalse(down & firing, firing)
        rank = self.cluster.status()["loads"][1]["ranks"][1]
        os.kill(rank["pid"], signal.SIGKILL)
        eventually(lambda: fires({"CachalotHealed"}), lambda: f"{firing} fire, but not CachalotHealed")
        self.assertTrue(firing & {"CachalotServerDown", "CachalotReplicaOut"}, firing)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "prometheus_test")
    options, rest = parser.parse_known_args()
    options.bin, options.folder = options.bin.resolve(), options.folder.resolve()
    if not all(map(shutil.which, ("prometheus", "promtool"))):
        print("skipped: no prometheus; scripts/install_packages.sh prometheus installs Debian's")
        sys.exit(77)
    unittest.main(argv=[sys.argv[0], *rest])
