#!/usr/bin/env python3
"""make_image.py --base ROOT --release FOLDER --version VERSION --out FILE.tar

A container's image without a container engine: an OCI image layout (image-spec 1.0) in a tar file, which `podman load`,
`docker load`, `skopeo copy oci-archive:...` and `ctr images import` take. Two layers: the root file system ROOT (as root, who
may read all of it), and the unpacked release in /opt/cachalot. The bytes depend on what is put in alone; no file is newer than
SOURCE_DATE_EPOCH.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
import time
from pathlib import Path

EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
MEDIA = "application/vnd.oci.image."
# Of a root file system: a container gets its own.
EMPTY_FOLDERS = {"dev", "proc", "sys", "run", "tmp"}


class Hashed:
    """A file that is written, with the digest and the size of what went in."""

    def __init__(self, file):
        self.file, self.hash, self.size = file, hashlib.sha256(), 0

    def write(self, data):
        self.hash.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self):
        self.file.flush()

    @property
    def digest(self):
        return "sha256:" + self.hash.hexdigest()


class Layout:
    def __init__(self, folder):
        self.folder = folder
        self.blobs = folder / "blobs/sha256"
        self.blobs.mkdir(parents=True)

    def place(self, path, hashed, media_type):
        path.rename(self.blobs / hashed.hash.hexdigest())
        return {"mediaType": MEDIA + media_type, "digest": hashed.digest, "size": hashed.size}

    def add_json(self, value, media_type):
        data = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
        path = self.folder / "json"
        with open(path, "wb") as file:
            hashed = Hashed(file)
            hashed.write(data)
        return self.place(path, hashed, media_type)

    def add_layer(self, fill):
        """The descriptor of the layer that `fill` writes into a tar file, and the digest of that without gzip."""
        path = self.folder / "layer"
        with open(path, "wb") as file:
            packed = Hashed(file)
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=packed, mtime=0) as zipped:
                plain = Hashed(zipped)
                with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                    fill(tar)
        return self.place(path, packed, "layer.v1.tar+gzip"), plain.digest


def settle(member):
    member.mtime = min(int(member.mtime), EPOCH)
    member.uname = member.gname = ""
    return member


def add_tree(tar, folder, prefix="", owned_by_root=False, empty=frozenset()):
    """All below the folder, in the order of names."""

    def visit(path, name):
        member = settle(tar.gettarinfo(path, name))
        if owned_by_root:
            member.uid = member.gid = 0
        if member.isreg():
            with open(path, "rb") as file:
                tar.addfile(member, file)
        else:
            tar.addfile(member)
        if member.isdir() and name not in empty:
            for child in sorted(os.listdir(path)):
                visit(path / child, f"{name}/{child}")

    for child in sorted(os.listdir(folder)):
        visit(folder / child, prefix + child)


def add_made(tar, name, kind, **fields):
    member = tarfile.TarInfo(name)
    member.type, member.mtime = kind, EPOCH
    member.mode = 0o777 if kind == tarfile.SYMTYPE else 0o755
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member)


def fill_release(tar, release):
    for folder in ("opt", "opt/cachalot"):
        add_made(tar, folder, tarfile.DIRTYPE)
    add_tree(tar, release, "opt/cachalot/", owned_by_root=True)
    add_made(tar, "usr/local/bin/cachalot", tarfile.SYMTYPE, linkname="/opt/cachalot/bin/cachalot")
    add_made(tar, "var/lib/cachalot", tarfile.DIRTYPE)


def make_layout(folder, base, release, version):
    layout = Layout(folder)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))
    layers = [layout.add_layer(lambda tar: add_tree(tar, base, empty=EMPTY_FOLDERS)),
              layout.add_layer(lambda tar: fill_release(tar, release))]
    config = layout.add_json({
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {
            "Entrypoint": ["cachalot"],
            "Cmd": ["up"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/var/lib/cachalot",
            "ExposedPorts": {f"{port}/tcp": {} for port in (8002, 7555, 7556, 29550)},
            "StopSignal": "SIGTERM",
            "Labels": {"org.opencontainers.image.title": "cachalot",
                       "org.opencontainers.image.version": version,
                       "org.opencontainers.image.licenses": "Apache-2.0"},
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
        "history": [{"created": created, "created_by": "debootstrap --variant=minbase bookworm"},
                    {"created": created, "created_by": "package.sh --image"}],
    }, "config.v1+json")
    manifest = layout.add_json({"schemaVersion": 2, "mediaType": MEDIA + "manifest.v1+json", "config": config,
                                "layers": [layer for layer, _ in layers]}, "manifest.v1+json")
    manifest["platform"] = {"architecture": "amd64", "os": "linux"}
    manifest["annotations"] = {"org.opencontainers.image.ref.name": version,
                               "io.containerd.image.name": f"docker.io/library/cachalot:{version}"}
    blob = lambda descriptor: "blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps(
        {"schemaVersion": 2, "mediaType": MEDIA + "index.v1+json", "manifests": [manifest]}))
    # What a Docker older than 25 reads in place of the index.
    (folder / "manifest.json").write_text(json.dumps(
        [{"Config": blob(config), "RepoTags": [f"cachalot:{version}"], "Layers": [blob(layer) for layer, _ in layers]}]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--base", "--release", "--out"):
        parser.add_argument(flag, required=True, type=Path)
    parser.add_argument("--version", required=True)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent) as folder:
        layout = Path(folder)
        make_layout(layout, args.base, args.release, args.version)
        part = args.out.with_suffix(".part")
        with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
            for path in sorted(layout.rglob("*")):
                member = settle(tar.gettarinfo(path, str(path.relative_to(layout))))
                member.uid, member.gid, member.mtime, member.mode = 0, 0, EPOCH, 0o755 if path.is_dir() else 0o644
                with open(path, "rb") if path.is_file() else io.BytesIO() as file:
                    tar.addfile(member, file)
        part.rename(args.out)
    print(f"{args.out}: {args.out.stat().st_size >> 20} MiB, an OCI image of cachalot {args.version}")


if __name__ == "__main__":
    main()
