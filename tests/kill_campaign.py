"""Kills the CDNOW run with SIGKILL at random moments; the same command must then always end in success with the same table.

usage: kill_campaign.py MAINSPRING_BINARY [KILLS=50] [SEED=1]

A run that ended before its moment came does not count. Every second one begins with an empty home, the
others with the home that the one before left. After each kill the same command for the same logical date runs to its end; then the warehouse table and the datasets are
compared with those of a run that nobody disturbed. Prints one JSON object; exit 1 on any difference.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

BINARY = os.path.abspath(sys.argv[1])
KILLS = int(sys.argv[2]) if len(sys.argv) > 2 else 50
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 1
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
READER = [os.environ.get("MAINSPRING_TEST_PYTHON", sys.executable), os.path.join(ROOT, "tests", "independent_reader.py")]
CUSTOMERS = 23570


def command(home):
    return [BINARY, "--home", home, "--output", "json", "run", os.path.join(ROOT, "dags", "customer_segments.yaml"),
            "--logical-date", "2026-01-01T00:00:00Z"]


def start(home):
    return subprocess.Popen(command(home), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def table(home):
    """The content of the warehouse table, as a hash, and its figures."""
    with sqlite3.connect(os.path.join(home, "warehouse.db")) as db:
        names = [row[1] for row in db.execute("PRAGMA table_info(customer_segments)")]
        rows = db.execute(f"SELECT * FROM customer_segments ORDER BY {names.index('customer_id') + 1}").fetchall()
        staging = db.execute("SELECT count(*) FROM sqlite_master WHERE name LIKE 'stg_%'").fetchone()[0]
    distinct = len({row[names.index("customer_id")] for row in rows})
    assert len(rows) == distinct == CUSTOMERS, f"{len(rows)} rows, {distinct} customers"
    return hashlib.sha256(repr(rows).encode()).hexdigest(), staging


def datasets(home):
    """What an independent reader sees of the datasets."""
    figures = {}
    for name, query in {
        "raw.orders": "SELECT count(*) AS n, sum(dollar_value) AS s FROM t",
        "features.rfm": "SELECT count(*) AS n, count(DISTINCT customer_id) AS s FROM t",
        "segments.customers": "SELECT count(*) AS n, count(DISTINCT customer_id) AS s FROM t",
    }.items():
        out = subprocess.run(READER + [os.path.join(home, "lake", name), query], capture_output=True, text=True, check=True)
        figures[name] = json.loads(out.stdout)
    return figures


def main():
    chance = random.Random(SEED)
    work = tempfile.mkdtemp(prefix="mainspring-kill-")
    reference = os.path.join(work, "reference")
    began = time.monotonic()
    done = subprocess.run(command(reference), cwd=ROOT, capture_output=True, text=True)
    span = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    wanted, _ = table(reference)
    wanted_sets = datasets(reference)
    home = os.path.join(work, "home")
    killed, ended_before, problems, staging_left = 0, 0, [], 0
    while killed < KILLS and ended_before <= 10 * KILLS:
        number = killed + ended_before
        if number % 2 == 0:
            shutil.rmtree(home, ignore_errors=True)
        process = start(home)
        at = chance.uniform(0, span)
        try:
            process.communicate(timeout=at)
            ended_before += 1
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
        again = subprocess.run(command(home), cwd=ROOT, capture_output=True, text=True)
        try:
            assert again.returncode == 0, f"exit {again.returncode}: {again.stderr[-2000:]} {again.stdout[-2000:]}"
            assert json.loads(again.stdout)["state"] == "success"
            found, staging = table(home)
            staging_left = max(staging_left, staging)
            assert found == wanted, "the warehouse table differs"
            assert datasets(home) == wanted_sets, f"{datasets(home)} != {wanted_sets}"
        except AssertionError as error:
            problems.append({"kill": number, "after_s": round(at, 3), "problem": str(error)})
    print(json.dumps({"kills": killed, "ended_before_the_kill": ended_before, "undisturbed_s": round(span, 2),
                      "staging_tables_left_max": staging_left, "problems": problems}, indent=1))
    shutil.rmtree(work, ignore_errors=True)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
