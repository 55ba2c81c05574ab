#!/usr/bin/env python3
"""image_test.py IMAGE.tar

Holds a container's image against the rules of OCI's image-spec, and where skopeo and umoci are installed against these: copied,
unpacked, and the program in it run from its root file system by the image's own words (as root).
"""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

MEDIA = "application/vnd.oci.image."
RFC3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"


def check(holds, message):
    if not holds:
        sys.exit(f"image: {message}")


def blob_of(layout, descriptor, media_type):
    """The bytes that a descriptor names (descriptor.md): digest, size and type hold."""
    check(descriptor["mediaType"] == MEDIA + media_type, f"{descriptor} is no {media_type}")
    algorithm, _, encoded = descriptor["digest"].partition(":")
    check(algorithm == "sha256" and re.fullmatch("[a-f0-9]{64}", encoded), f"digest {descriptor['digest']}")
    data = (layout / "blobs/sha256" / encoded).read_bytes()
    check(len(data) == descriptor["size"], f"{encoded} has {len(data)} bytes, its descriptor says {descriptor['size']}")
    check(hashlib.sha256(data).hexdigest() == encoded, f"the digest of {encoded} is wrong")
    return data


def check_layer(data, diff_id):
    plain = gzip.decompress(data)
    check("sha256:" + hashlib.sha256(plain).hexdigest() == diff_id, f"the layer's diff_id is not {diff_id}")
    names = set()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        for member in tar:
            path = Path(member.name)
            check(not path.is_absolute() and ".." not in path.parts, f"the layer has {member.name}")
            check(member.name not in names, f"the layer has {member.name} twice")
            check(member.isfile() or member.isdir() or member.issym() or member.islnk(), f"{member.name}: {member.type}")
            names.add(member.name)
    return names


def check_layout(layout):
    check(json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}, "oci-layout")
    index = json.loads((layout / "index.json").read_text())
    check(index["schemaVersion"] == 2 and len(index["manifests"]) == 1, f"index {index}")
    top = index["manifests"][0]
    check(top["platform"] == {"architecture": "amd64", "os": "linux"}, f"platform {top['platform']}")
    check(re.fullmatch(r"[A-Za-z0-9]+([-._:@+/][A-Za-z0-9]+)*", top["annotations"]["org.opencontainers.image.ref.name"]), "name")
    manifest = json.loads(blob_of(layout, top, "manifest.v1+json"))
    check(manifest["schemaVersion"] == 2 and manifest["mediaType"] == top["mediaType"], f"manifest {manifest}")
    config = json.loads(blob_of(layout, manifest["config"], "config.v1+json"))
    check(config["architecture"] == "amd64" and config["os"] == "linux", "config's platform")
    check(re.fullmatch(RFC3339, config["created"]), f"created {config['created']}")
    check(config["rootfs"]["type"] == "layers", "rootfs")
    diff_ids = config["rootfs"]["diff_ids"]
    check(len(diff_ids) == len(manifest["layers"]) == len(config["history"]), "layers, diff_ids and history differ in number")
    check(all(re.fullmatch(r"\d+(/(tcp|udp))?", port) for port in config["config"]["ExposedPorts"]), "ports")
    check(all("=" in variable for variable in config["config"]["Env"]), "variables")
    layers = [check_layer(blob_of(layout, layer, "layer.v1.tar+gzip"), diff_id)
              for layer, diff_id in zip(manifest["layers"], diff_ids)]
    check("opt/cachalot/libexec/cachalot" in layers[1] and "usr/bin/env" in layers[0], "its files are not there")
    named = {path.name for path in (layout / "blobs/sha256").iterdir()}
    used = {d["digest"].removeprefix("sha256:") for d in [top, manifest["config"], *manifest["layers"]]}
    check(named == used, f"blobs that nothing names: {named - used}")
    return top["annotations"]["org.opencontainers.image.ref.name"], config["config"]


def check_with_tools(image, layout, folder, name, settings):
    missing = [tool for tool in ("skopeo", "umoci") if not shutil.which(tool)]
    if missing or os.geteuid() != 0:
        print(f"not tried: {' and '.join(missing) or 'umoci, which takes root'}")
        return
    copied = folder / "copied"
    subprocess.run(["skopeo", "--insecure-policy", "copy", "--quiet", f"oci-archive:{image}:{name}", f"oci:{copied}:{name}"],
                   check=True)
    inspected = json.loads(subprocess.check_output(["skopeo", "inspect", f"oci:{copied}:{name}"]))
    check(len(inspected["Layers"]) == 2 and inspected["Architecture"] == "amd64", f"skopeo sees {inspected}")
    # The form of Docker before 25, in the same file.
    subprocess.run(["skopeo", "--insecure-policy", "copy", "--quiet", f"docker-archive:{image}", f"dir:{folder / 'docker'}"], check=True)
    bundle = folder / "bundle"
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:{name}", str(bundle)], check=True, stdout=subprocess.DEVNULL)
    process = json.loads((bundle / "config.json").read_text())["process"]
    check(process["args"] == ["cachalot", "up"] and process["cwd"] == "/var/lib/cachalot", f"umoci sees {process}")
    # With a /proc, as every container has one: by it the loader finds the program's folder.
    version = subprocess.check_output(["unshare", "--mount", "--pid", "--fork", "sh", "-c",
                                       'mount -t proc proc "$1/proc" && exec chroot "$@"', "sh", str(bundle / "rootfs"),
                                       "/usr/bin/env", "-i", *settings["Env"], *settings["Entrypoint"], "--version"], text=True)
    check(version == f"cachalot {name}\n", f"the program in it says {version!r}")
    print("skopeo copies it, umoci unpacks it, and the program in it runs")


def main():
    image = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(dir=image.parent) as name:
        folder = Path(name)
        layout = folder / "layout"
        with tarfile.open(image) as tar:
            tar.extractall(layout)
        version, settings = check_layout(layout)
        print(f"image: a layout by OCI's rules, cachalot {version}")
        check_with_tools(image, layout, folder, version, settings)


if __name__ == "__main__":
    main()
