"""All that is done to break ISARA, one after the other; the figures stand in docs/reliability.md.

python -m tests.faults            # a few minutes
python -m tests.faults --long     # hours: 5,000 mutations, 1,000 kills, 20,000 and more inputs, each call failing
"""

import argparse
import importlib.util
import os
import subprocess
import sys

SHORT = [
    ["mutations", "--mutations", "300"],
    ["kills", "--kills", "50"],
    ["disks", "--faults", "30"],
    ["readers", "--inputs", "5000"],
    ["stops", "--stops", "6"],
]
LONG = [
    ["mutations", "--mutations", "5000"],
    ["kills", "--kills", "1000"],
    ["kills", "--kills", "50", "--model", "embedded"],
    ["disks", "--faults", "1000"],
    ["readers", "--inputs", "100000"],
    ["stops", "--stops", "12", "--seeds", "recipes/safety/seeds.jsonl"],
]


def main() -> None:
    """Runs each part in a process of its own; exits with 1 if any found something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true")
    long = parser.parse_args().long
    parts = list(LONG if long else SHORT)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        parts.append(["disks", "--tmpfs", "50" if long else "5"])
    if long and importlib.util.find_spec("atheris"):
        parts.append(["readers", "--inputs", "20000", "--guided"])
    failed = []
    for part, *options in parts:
        print(f"== {part} {' '.join(options)}", flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.faults.{part}", *options], check=False).returncode:
            failed.append(part)
    print(f"failed: {', '.join(failed) or 'nothing'}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
