"""Writes an OCI image layout as a tar archive: one layer with callbox and the libraries it loads.

    packaging/oci.py BINARY VERSION ARCH OUT.tar

No base image is pulled. The layer holds the binary, the shared libraries that `ldd` names, the
certificate authorities of this machine and a user. `skopeo copy oci-archive:OUT.tar …` and
`podman load -i OUT.tar` read it.
"""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile

EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
USER = 65532
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def entry(tar, name, data=b"", mode=0o644, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime, info.size = kind, mode, EPOCH, len(data)
    tar.addfile(info, io.BytesIO(data))


def archive(files, folders=()):
    """A tar archive of {name: (data, mode)}, parents first."""
    names = set(folders)
    for name in files:
        parts = name.split("/")[:-1]
        names.update("/".join(parts[: n + 1]) for n in range(len(parts)))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(names):
            entry(tar, name, mode=0o755, kind=tarfile.DIRTYPE)
        for name in sorted(files):
            entry(tar, name, *files[name])
    return out.getvalue()


def read(path):
    with open(path, "rb") as file:
        return file.read()


def libraries(binary):
    """The paths under which the loader finds the binary's libraries, itself included."""
    listed = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout
    return sorted(set(re.findall(r"(?:=> |^\s*)(/\S+)", listed, re.M)))


def main(binary, version, arch, out):
    files = {"usr/bin/callbox": (read(binary), 0o755)}
    for path in libraries(binary):
        files[path.lstrip("/")] = (read(path), 0o755)
    if os.path.exists(CERTIFICATES):
        files[CERTIFICATES.lstrip("/")] = (read(CERTIFICATES), 0o644)
    files["etc/passwd"] = (b"callbox:x:%d:%d:callbox:/:/sbin/nologin\n" % (USER, USER), 0o644)
    files["etc/group"] = (b"callbox:x:%d:\n" % USER, 0o644)
    files["etc/nsswitch.conf"] = (b"hosts: files dns\n", 0o644)
    layer = archive(files, ["tmp"])
    packed = gzip.compress(layer, 9, mtime=0)

    blobs = {}

    def blob(data, media):
        digest = hashlib.sha256(data).hexdigest()
        blobs["blobs/sha256/" + digest] = (data, 0o644)
        return {"mediaType": media, "digest": "sha256:" + digest, "size": len(data)}

    def document(value, media):
        return blob(json.dumps(value, sort_keys=True, separators=(",", ":")).encode(), media)

    config = document(
        {
            "architecture": arch,
            "os": "linux",
            "config": {
                "User": "%d:%d" % (USER, USER),
                "Entrypoint": ["/usr/bin/callbox"],
                "StopSignal": "SIGTERM",
                "Labels": {"org.opencontainers.image.version": version},
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        },
        "application/vnd.oci.image.config.v1+json",
    )
    manifest = document(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [blob(packed, "application/vnd.oci.image.layer.v1.tar+gzip")],
        },
        "application/vnd.oci.image.manifest.v1+json",
    )
    manifest["annotations"] = {"org.opencontainers.image.ref.name": version}
    manifest["platform"] = {"architecture": arch, "os": "linux"}
    index = {"schemaVersion": 2, "manifests": [manifest]}
    blobs["index.json"] = (json.dumps(index, sort_keys=True).encode(), 0o644)
    blobs["oci-layout"] = (b'{"imageLayoutVersion":"1.0.0"}', 0o644)
    with open(out, "wb") as file:
        file.write(archive(blobs))


main(*sys.argv[1:])
