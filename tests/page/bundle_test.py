#!/usr/bin/env python3
"""bundle_test.py [--folder build/page_bundle]

Builds the page anew from its sources and its lock file, and compares the bytes with what the repository has. Without
npm, or where it reaches nothing, exit status 77.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WEB = ROOT / "src/page/web"


def run(words, folder):
    return subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/page_bundle")
    folder = parser.parse_args().folder.resolve()
    if not shutil.which("npm"):
        print("skipped: no npm")
        return 77
    folder.mkdir(parents=True, exist_ok=True)
    for old in ("src", "dist"):
        shutil.rmtree(folder / old, ignore_errors=True)
    shutil.copytree(WEB, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("dist", "node_modules"))
    lock = (folder / "package-lock.json").read_text()
    mark = folder / "installed.json"
    if not mark.exists() or mark.read_text() != lock:
        installed = run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"], folder)
        if installed.returncode != 0:
            print(f"skipped: npm ci: {installed.stdout.strip()[-500:]}")
            return 77
        mark.write_text(lock)
    built = run(["npm", "run", "build", "--silent"], folder)
    if built.returncode != 0:
        print(built.stdout)
        return 1
    names = {path.name for path in (folder / "dist").iterdir()} | {path.name for path in (WEB / "dist").iterdir()}
    other = [name for name in sorted(names)
             if not all((place / name).exists() for place in (folder / "dist", WEB / "dist"))
             or (folder / "dist" / name).read_bytes() != (WEB / "dist" / name).read_bytes()]  # fmt: skip
    if other:
        print(f"src/page/web/dist is not what its sources make: {', '.join(other)} (docs/page.md says how it is built)")
        return 1
    print(f"{len(names)} files, as they are in the repository")
    return 0


if __name__ == "__main__":
    sys.exit(main())
