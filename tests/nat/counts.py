"""What two routers counted of one call: counts.py BOX WANTED REPORT REPORT. WANTED is `direct`, or protocol and port of the
first side's way to the relay."""

import json
import re
import sys

box, wanted, *files = sys.argv[1:]
reports = [json.load(open(file)) for file in files]
slots = [re.search(r"198\.18\.0\.(\d+)", report["probe"]) for report in reports]


def came_from(report, is_wanted):
    return sum(p["in"] for p in report["packets"] if is_wanted(p["protocol"], p["remote"]))


def is_of(slot):
    ips = [f"198.18.{n}.{slot}" for n in (0, 1)] + [f"[2001:2::{prefix}{int(slot):x}]" for prefix in ("", "1:")]
    return lambda _, remote: remote.rsplit(":", 1)[0] in ips


direct = [came_from(report, is_of(slots[1 - side][1])) if slots[1 - side] else 0 for side, report in enumerate(reports)]
by_box = [came_from(report, lambda _, remote: remote.startswith(f"{box}:")) for report in reports]
print(f"directly {direct[0]} and {direct[1]} packets, from the box {by_box[0]} and {by_box[1]}")
if wanted == "direct":
    assert min(direct) > 100, "too little came directly"
else:
    protocol, port = wanted.split(":")
    assert direct == [0, 0], "a packet came directly"
    ways = [protocol, f"{box}:{port}"]
    first = came_from(reports[0], lambda p, remote: p == protocol and remote.startswith(f"{box}:"))
    by_port = came_from(reports[0], lambda p, remote: [p, remote] == ways)
    assert min(by_box) > 100 and first > 100 and by_port > 0, f"too little came by {wanted}"
    if protocol == "tcp":
        udp = came_from(reports[0], lambda p, _: p == "udp")
        assert udp == 0 and by_port > 100, f"{udp} packets came over UDP"
