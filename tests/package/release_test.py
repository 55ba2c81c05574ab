#!/usr/bin/env python3
"""release_test.py PACKAGES archive|deb|manual|completion

Reads the release in the folder PACKAGES, with nothing but this machine's own tools; those that are not installed are named.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

MOST_GLIBC = (2, 35)  # of Ubuntu 22.04: what distributions since 2022 have
MOST_LIBGCC = (11,)  # of RHEL 9
# What every distribution has, and a release may not bring: glibc's own, and what glibc itself takes of GCC.
EVERYWHERE = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2", "ld-linux-x86-64.so.2",
              "libgcc_s.so.1"}
# RDMA's user side belongs to the host's drivers; only UCX's modules for it ask for it.
RDMA = re.compile(r"lib(ibverbs|rdmacm|mlx[45]|efa|nl(-route)?-3)\.so\.")


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout


def fail(message):
    sys.exit(f"package: {message}")


def version(text):
    return tuple(int(part) for part in text.split("."))


def only(packages, pattern):
    found = list(packages.glob(pattern))
    if len(found) != 1:
        fail(f"{len(found)} files are {packages}/{pattern}")
    return found[0]


def unpack(packages, folder):
    with tarfile.open(only(packages, "cachalot-*-linux-x86_64.tar.gz")) as tar:
        tar.extractall(folder)
    return next(Path(folder).iterdir())


def elf_files(root):
    return [path for path in sorted(root.rglob("*"))
            if path.is_file() and not path.is_symlink() and path.open("rb").read(4) == b"\x7fELF"]


def check_elf(path, inside):
    """Its complaints, and the newest glibc that it asks for."""
    text = run("readelf", "--wide", "--dynamic", "--version-info", str(path))
    needs = text[text.index("Version needs"):] if "Version needs" in text else ""
    glibc = max((version(v) for v in re.findall(r"Name: GLIBC_([0-9.]+)", needs)), default=(0,))
    complaints = [f"{path} asks for GLIBC_{found}" for found in re.findall(r"Name: GLIBC_([0-9.]+)", needs)
                  if version(found) > MOST_GLIBC]
    complaints += [f"{path} asks for GCC_{found}" for found in re.findall(r"Name: GCC_([0-9.]+)", needs)
                   if version(found) > MOST_LIBGCC]
    is_rdma = re.match(r"libuct_(ib|rdmacm)", path.name)
    complaints += [f"{path} needs {name}, which is neither inside nor everywhere"
                   for name in re.findall(r"\(NEEDED\).*\[(.*)\]", text)
                   if name not in inside | EVERYWHERE and not (is_rdma and RDMA.match(name))]
    return complaints, glibc


def check_archive(packages, folder):
    root = unpack(packages, folder)
    files = elf_files(root)
    inside = {path.name for path in (root / "lib").rglob("*.so*")}
    if len(files) < 10 or "libstdc++.so.6" not in inside or inside & EVERYWHERE:
        fail(f"{len(files)} binaries, libraries {sorted(inside)}")
    results = [check_elf(path, inside) for path in files]
    if complaints := [complaint for found, _ in results for complaint in found]:
        fail("\n".join(complaints))
    needed = max(glibc for _, glibc in results)
    said = re.search(r"^needed=(.*)", (root / "bin/cachalot").read_text(), re.M).group(1)
    if version(said) != needed:
        fail(f"it says that it needs glibc {said}, and needs {needed}")
    # All that the program and its libraries call is there; functions that are bound late, too.
    if "undefined" in (bound := run("ldd", "-r", str(root / "libexec/cachalot"))):
        fail(bound)
    # The check can fail: Debian's own libstdc++ and this machine's glibc ask for more, or are not inside.
    own = Path(run("gcc", "-print-file-name=libstdc++.so.6").strip()).resolve()
    if not check_elf(own, set())[0]:
        fail(f"nothing is said of {own}")
    for path in root.rglob("*"):
        if path.is_file() and path.stat().st_mode & 0o022:
            fail(f"others may write {path}")
    print(f"{len(files)} binaries and libraries, none above GLIBC_{said}")


def check_deb(packages, folder):
    deb = only(packages, "cachalot_*_amd64.deb")
    run("dpkg-deb", "--raw-extract", str(deb), folder)
    root = Path(folder)
    control = run("dpkg-deb", "--field", str(deb))
    for line in ("Package: cachalot", "Architecture: amd64", "Depends: libc6 (>= 2.34), libgcc-s1, passwd"):
        if line not in control:
            fail(f"no {line!r} in\n{control}")
    for name in ("usr/bin/cachalot", "usr/lib/cachalot/libexec/cachalot", "usr/lib/systemd/system/cachalot.service",
                 "usr/share/man/man1/cachalot.1.gz", "usr/share/bash-completion/completions/cachalot",
                 "usr/share/zsh/vendor-completions/_cachalot", "usr/share/fish/vendor_completions.d/cachalot.fish",
                 "usr/share/cachalot/models/nano/config.json", "usr/share/doc/cachalot/copyright",
                 "usr/share/doc/cachalot/licences/debian/libucx0", "usr/share/doc/cachalot/licences/crates"):
        if not (root / name).exists():
            fail(f"{name} is not in it")
    if "/opt/" in (root / "usr/lib/systemd/system/cachalot.service").read_text():
        fail("its unit starts what lies in /opt")
    sums = (root / "DEBIAN/md5sums").read_text().splitlines()
    for line in sums:
        digest, name = line.split("  ")
        if hashlib.md5((root / name).read_bytes()).hexdigest() != digest:
            fail(f"the sum of {name} is wrong")
    num_files = sum(path.is_file() and not path.is_symlink() for path in (root / "usr").rglob("*"))
    if len(sums) != num_files:
        fail(f"{len(sums)} sums of {num_files} files")
    for script in ("postinst", "prerm", "postrm"):
        run("sh", "-n", str(root / "DEBIAN" / script))
    if not shutil.which("lintian"):
        print("lintian is not installed")
        return
    lintian = subprocess.run(["lintian", "--allow-root", "--fail-on", "error", str(deb)], capture_output=True, text=True)
    if lintian.returncode != 0:
        fail(lintian.stdout + lintian.stderr)
    warnings = [line for line in lintian.stdout.splitlines() if line.startswith("W:")]
    print(f"lintian: no error, {len(warnings)} warnings")


def check_manual(packages, folder):
    page = unpack(packages, folder) / "share/man/man1/cachalot.1"
    text = page.read_text()
    for words in (".TH CACHALOT 1", ".SS serve", ".SS bench model", r"\-\-gpu\-memory\-utilization", "VLLM_LOGGING_LEVEL"):
        if words not in text:
            fail(f"{words!r} is not on the page")
    ran = []
    if shutil.which("man"):
        # As Debian's lintian asks it: any warning of groff is one too many.
        said = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)], capture_output=True,
                              text=True, env={"LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80", "PATH": "/usr/bin:/bin"})
        if said.returncode != 0 or said.stderr:
            fail(f"man: {said.stderr}")
        ran.append("man")
    if shutil.which("mandoc"):
        said = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", str(page)], capture_output=True, text=True)
        if said.returncode != 0:
            fail(f"mandoc: {said.stdout}{said.stderr}")
        ran.append("mandoc")
    if not ran:
        print("skipped: neither man nor mandoc is installed")
        sys.exit(77)
    print(f"{' and '.join(ran)}: nothing to complain of")


# What is typed, its last word at the cursor, and what is offered for that, or begins so.
COMPLETIONS = [
    (["ser"], {"serve"}),
    (["help", "ben"], {"bench"}),
    (["bench", "mo"], {"model"}),
    (["serve", "--gpu-mem"], {"--gpu-memory-utilization"}),
    (["--log-level", "warning", "serve", "--uds"], {"--uds"}),
    (["router", "--log-for"], {"--log-format"}),
    (["--log-format", ""], {"text", "json"}),
    (["serve", "--isa", "avx"], {"avx2", "avx512"}),
    (["completion", ""], {"bash", "zsh", "fish"}),
    (["serve", "--model", "a fo"], {"a folder"}),
    (["serve", "--port", ""], set()),
    (["nothing", "--gpu-mem"], set()),
]

BASH = """source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_cachalot cachalot "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
((${#COMPREPLY[@]} == 0)) || printf '%s\\n' "${COMPREPLY[@]}" """

# With zsh's own helpers of completion replaced by ones that print what they are given.
ZSH = r"""compdef() { }
_describe() { local -a list=("${(@P)@[-1]}"); print -rl -- ${list%%:*}; }
_files() { print -rl -- $PREFIX*(N); }
_message() { }
compadd() { shift; print -rl -- "$@"; }
compset() { PREFIX=${PREFIX#*=}; }
source "$1"; shift
words=("$@") CURRENT=$# PREFIX=${@[-1]}
_cachalot"""


def bash_completes(script, words, folder):
    # As bash splits a line: '=' is a word by itself.
    out = run("bash", "--norc", "-c", BASH, "bash", str(script), "cachalot", *words, cwd=folder)
    return set(out.splitlines())


def zsh_completes(script, words, folder):
    out = run("zsh", "-f", "-c", ZSH, "zsh", str(script), "cachalot", *words, cwd=folder)
    return {word for word in out.splitlines() if word and word.startswith(words[-1].split("=")[-1])}


def fish_completes(script, words, folder):
    line = "cachalot " + " ".join(word.replace(" ", "\\ ") for word in words)
    out = run("fish", "--no-config", "-c", f"source {script}; complete --do-complete (string join '' -- $argv)", line,
              cwd=folder, env={"PATH": "/usr/bin:/bin", "HOME": folder, "LC_ALL": "C.UTF-8"})
    return {offered.split("\t")[0].rstrip("/").replace("\\ ", " ") for offered in out.splitlines()}


def check_completion(packages, folder):
    share = unpack(packages, folder) / "share"
    bash, fish = share / "bash-completion/completions/cachalot", share / "fish/vendor_completions.d/cachalot.fish"
    zsh = share / "zsh/site-functions/_cachalot"
    shells = [("bash", bash, bash_completes), ("zsh", zsh, zsh_completes), ("fish", fish, fish_completes)]
    shells = [shell for shell in shells if shutil.which(shell[0])]
    (Path(folder) / "work/a folder").mkdir(parents=True)
    for shell, script, completes in shells:
        for words, expected in COMPLETIONS:
            if (offered := completes(script, words, str(Path(folder) / "work"))) != expected:
                fail(f"{shell} offers {sorted(offered)} for {words}, not {sorted(expected)}")
        # --NAME=VALUE, which bash takes for three words.
        words = ["serve", "--isa", "=", "avx5"] if shell == "bash" else ["serve", "--isa=avx5"]
        if not (offered := completes(script, words, folder)) or not all(word.endswith("avx512") for word in offered):
            fail(f"{shell} offers {offered} for {words}")
    print(f"completion in {', '.join(name for name, _, _ in shells)}")


def main():
    packages, part = Path(sys.argv[1]), sys.argv[2]
    checks = {"archive": check_archive, "deb": check_deb, "manual": check_manual, "completion": check_completion}
    with tempfile.TemporaryDirectory() as folder:
        checks[part](packages, folder)


if __name__ == "__main__":
    main()
