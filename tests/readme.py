"""Runs every command of the README: the lines that begin with `$ ` in its `console` blocks, in order, each must exit 0.

The test command itself is left out: whoever runs this has run it already.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
SKIPPED = ("tests/run.sh",)


def stop_server(home):
    """Asks the server that a command left running to end, and waits for it: its home is about to go."""
    try:
        with open(os.path.join(home, "server.json"), encoding="utf-8") as file:
            pid = json.load(file)["pid"]
    except FileNotFoundError:
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.1)


def main():
    text = open(os.path.join(ROOT, "README.md"), encoding="utf-8").read()
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.S | re.M)
    commands = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    commands = [c for c in commands if not any(word in c for word in SKIPPED)]
    assert len(commands) >= 5, "the README's commands were not found"
    with tempfile.TemporaryDirectory(prefix="mainspring-readme-") as home:
        environment = dict(os.environ, MAINSPRING_HOME=os.path.join(home, "home"),
                           PATH=os.path.join(TARGET, "debug") + os.pathsep + os.environ["PATH"])
        for command in commands:
            print(f"$ {command}", flush=True)
            done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment)
            if done.returncode != 0:
                sys.exit(f"error: the README's command `{command}` ended with exit code {done.returncode}")
        stop_server(environment["MAINSPRING_HOME"])
    print(f"{len(commands)} commands of the README ran")


if __name__ == "__main__":
    main()
