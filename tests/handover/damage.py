"""Stands in for a program whose snapshot was damaged on its way: flips a bit, then runs the program.

    damage.py PROGRAM ARGUMENT…
"""

import os
import sys

number, process = os.environ["CALLBOX_HANDOVER"].split(":")
source = int(number)
length = os.fstat(source).st_size
data = bytearray(os.pread(source, length, 0))
data[length // 3] ^= 1
copy = os.memfd_create("damaged", 0)
os.write(copy, data)
os.dup2(copy, source, inheritable=True)
os.close(copy)
os.execv(sys.argv[1], sys.argv[1:])
