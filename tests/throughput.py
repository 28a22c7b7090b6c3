"""Tasks per second and idle cost of a server, measured from outside.

usage: throughput.py MAINSPRING_BINARY [--workers 2] [--chains 100] [--length 50] [--runs 1] [--database sqlite|postgres]
       throughput.py MAINSPRING_BINARY --idle 100 [--seconds 60]

The first form starts a server (with Postgres: without a worker of its own, and so many workers elsewhere), runs a DAG of
independent chains of no-op tasks, and prints tasks per second from the run's first claim to its last end. The second
serves so many scheduled DAGs that do not fire meanwhile and prints memory and processor time of the idle server.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from crash_campaign import House  # noqa: E402


def until(what, question, seconds=300):
    deadline = time.monotonic() + seconds
    while not question():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not come")
        time.sleep(0.1)


def start(house):
    for name in house.commands:
        house.start(name)
    until("a server's answer", lambda: house.ask("GET", "/dags") is not None)


def chains(house, arguments):
    ids = [(c, n) for c in range(arguments.chains) for n in range(arguments.length)]
    lines = [f"  - {{id: t{c}_{n}, type: noop" + (f", depends_on: [t{c}_{n - 1}]}}" if n else "}") for c, n in ids]
    text = "dag_id: asked\nmax_active_tasks: 100000\nmax_active_runs: 1000\ntasks:\n" + "\n".join(lines) + "\n"
    with open(os.path.join(house.folder, "dags", "chains.yaml"), "w") as f:
        f.write(text)
    start(house)
    if house.postgres:
        until("the workers", lambda: len(house.rows("SELECT 1 FROM worker_session WHERE NOT local")) == arguments.workers)
    until("the DAG", lambda: house.rows("SELECT 1 FROM dag WHERE dag_id = 'asked'"))
    for n in range(arguments.runs):
        until("an acknowledgement", lambda: house.ask("POST", "/dags/asked/dagRuns", {"run_id": f"asked__{n}"}))
    until("the end", lambda: not house.rows("SELECT 1 FROM dag_run WHERE state IN ('queued', 'running')"), 600)
    first, last, count = house.rows(
        "SELECT MIN(started_at_us), MAX(ended_at_us), COUNT(*) FROM task_instance WHERE state = 'success'")[0]
    seconds = (int(last) - int(first)) / 1e6
    return {"tasks": int(count), "runs": arguments.runs, "workers": arguments.workers if house.postgres else 0,
            "seconds": round(seconds, 3), "tasks_per_second": round(int(count) / seconds)}


def usage(process):
    with open(f"/proc/{process.pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    with open(f"/proc/{process.pid}/status") as f:
        rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))
    return ticks / os.sysconf("SC_CLK_TCK"), rss / 1024


def idle(house, arguments):
    with open(os.path.join(house.folder, "dags", "idle.yaml"), "w") as f:
        for n in range(arguments.idle):
            f.write(f"---\ndag_id: idle_{n}\nschedule: '0 0 1 1 *'\ntasks:\n  - {{id: a, type: noop}}\n"
                    "  - {id: b, type: noop, depends_on: [a]}\n")
    start(house)
    until("the DAGs", lambda: len(house.rows("SELECT 1 FROM dag")) == arguments.idle)
    time.sleep(5)
    process = house.processes["server-0"]
    before, _ = usage(process)
    time.sleep(arguments.seconds)
    after, rss = usage(process)
    return {"dags": arguments.idle, "seconds": arguments.seconds, "rss_mib": round(rss, 1),
            "cpu_percent": round((after - before) / arguments.seconds * 100, 3)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--chains", type=int, default=100)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--idle", type=int)
    parser.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="mainspring-throughput-")
    house = House(arguments.binary, arguments.database, folder, 1,
                  servers=arguments.servers, workers=arguments.workers, slots=arguments.slots)
    try:
        figures = idle(house, arguments) if arguments.idle else chains(house, arguments)
    finally:
        for name in list(house.processes):
            house.kill(name)
        if house.postgres:
            house.postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"database": arguments.database, **figures}))


if __name__ == "__main__":
    main()
