"""Writes the SBOM of the shipped program: cargo-cyclonedx's, without what changes from run to run.

    packaging/sbom.py OUT    reads callbox_bin.cdx.json beside Cargo.toml
"""

import datetime
import json
import os
import pathlib
import sys


def main(out):
    found = sorted(pathlib.Path(".").glob("callbox*_bin.cdx.json"))
    if not found:
        sys.exit("packaging/sbom.py: cargo-cyclonedx wrote no callbox_bin.cdx.json")
    bom = json.loads(found[0].read_text())
    bom.pop("serialNumber", None)
    made = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    bom["metadata"]["timestamp"] = made.strftime("%Y-%m-%dT%H:%M:%SZ")
    here = os.getcwd()
    text = json.dumps(bom, indent=1, sort_keys=True).replace(here, "")
    if not bom.get("components"):
        sys.exit("packaging/sbom.py: the SBOM lists no component")
    pathlib.Path(out).write_text(text + "\n")


main(sys.argv[1])
