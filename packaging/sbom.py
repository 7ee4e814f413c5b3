"""Writes the SBOM of the shipped programs: cargo-cyclonedx's, merged, without what changes from run to run.

    packaging/sbom.py OUT    reads callbox_bin.cdx.json beside Cargo.toml, and callbox-lab_bin.cdx.json beside its own
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys

LAB = pathlib.Path("crates/callbox-lab")


def read(folder, name):
    found = sorted(folder.glob(name + "*_bin.cdx.json"))
    if not found:
        sys.exit("packaging/sbom.py: cargo-cyclonedx wrote no %s_bin.cdx.json in %s" % (name, folder))
    bom = json.loads(found[0].read_text())
    if not bom.get("components"):
        sys.exit("packaging/sbom.py: the SBOM of %s lists no component" % name)
    return bom


def merge(bom, other):
    """Adds to `bom` the other program, and those of its crates that `bom` does not list."""
    components = {each["bom-ref"]: each for each in bom["components"]}
    # The lab is made of the box, which is what the whole describes.
    components[bom["metadata"]["component"]["bom-ref"]] = None
    for each in [other["metadata"]["component"], *other["components"]]:
        components.setdefault(each["bom-ref"], each)
    bom["components"] = sorted((each for each in components.values() if each), key=lambda each: each["bom-ref"])
    needs = {}
    for each in bom.get("dependencies", []) + other.get("dependencies", []):
        needs.setdefault(each["ref"], set()).update(each.get("dependsOn", []))
    bom["dependencies"] = [{"ref": ref, "dependsOn": sorted(on)} if on else {"ref": ref} for ref, on in sorted(needs.items())]


def check(bom):
    """What cargo links into the programs is in the SBOM, each crate with its version."""
    listed = {(each["name"], each["version"]) for each in [bom["metadata"]["component"], *bom["components"]]}
    command = "cargo tree --locked --edges normal --prefix none --format {p} --package callbox --package callbox-lab"
    tree = subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout
    linked = {(name, version.lstrip("v")) for name, version, *_ in map(str.split, filter(None, tree.splitlines()))}
    if linked - listed:
        sys.exit("packaging/sbom.py: the SBOM leaves out %s" % sorted(linked - listed))


def main(out):
    bom = read(pathlib.Path("."), "callbox")
    merge(bom, read(LAB, "callbox-lab"))
    check(bom)
    bom.pop("serialNumber", None)
    made = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    bom["metadata"]["timestamp"] = made.strftime("%Y-%m-%dT%H:%M:%SZ")
    here = os.getcwd()
    text = json.dumps(bom, indent=1, sort_keys=True).replace(here, "")
    pathlib.Path(out).write_text(text + "\n")


main(sys.argv[1])
