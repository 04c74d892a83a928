"""What `import canarykit` adds to starting Python.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS, LIMIT = 21, 30.0


def started(code):
    """Milliseconds that Python takes for a piece of code."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return 1000 * (time.perf_counter() - begun)


def main():
    codes = {"pass": [], "import canarykit": [], "import numpy": []}
    for _ in range(RUNS):
        for code, times in codes.items():
            times.append(started(code))
    base = statistics.median(codes["pass"])
    print("| python -c | median | more than nothing |\n|---|---|---|")
    for code, times in codes.items():
        print(f"| {code} | {statistics.median(times):.0f} ms | {statistics.median(times) - base:.1f} ms |")
    added = statistics.median(codes["import canarykit"]) - base
    print(f"\nlimit {LIMIT:.0f} ms: {'kept' if added <= LIMIT else 'MISSED'}")
    return 0 if added <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
