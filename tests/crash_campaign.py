"""Kills servers and workers with SIGKILL at random moments and checks from outside that nothing is doubled or lost.

usage: crash_campaign.py MAINSPRING_BINARY --database sqlite|postgres [--kills 200] [--seed 1] [--every 0.3]
       crash_campaign.py MAINSPRING_BINARY --database postgres --runs 2000 --every 5 --postgres-restarts 2

With SQLite one server runs DAGs; with Postgres there are two servers without a worker of their own and three workers
elsewhere. The first form kills so many times while runs are asked for over the API; the second asks for so many runs
and kills until all have ended, the database server included. Every task writes to a witness file when it starts and when it ends. Each answer of the API is
remembered. Victims are started again at once. At the end, left alone, everything must come to
rest, and then must hold:

- every scheduled instant between the first and the last has exactly one run; every acknowledged run exists;
- every run is `success` (those whose task lost its worker three times after they were cleared, as a person would), each of its tasks with exactly one accepted outcome;
- every start that the witness saw has a claim in the database, and every accepted success an end that the witness saw;
- the tasks of a run ended in the order of their dependencies.

Prints one JSON object with what was done; exit 1 on any violation.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

DAG = """dag_id: ticking
schedule: {{every: 2s}}
catchup: true
start_date: {start}
max_active_runs: 4
default_args: {{retries: 2, retry_delay: 1s}}
tasks:
{tasks}
---
dag_id: asked
max_active_runs: 64
default_args: {{retries: 2, retry_delay: 1s}}
tasks:
{tasks}
"""
WITNESS = "echo \"start $MAINSPRING_DAG_ID $MAINSPRING_RUN_ID $MAINSPRING_TASK_ID $MAINSPRING_TRY_NUMBER\" >> {file}; {work}; " \
          "echo \"end $MAINSPRING_DAG_ID $MAINSPRING_RUN_ID $MAINSPRING_TASK_ID $MAINSPRING_TRY_NUMBER\" >> {file}"
# Two diamonds, one after the other.
TASKS = [("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["b", "c"]), ("e", ["d"]),
         ("f", ["e"]), ("g", ["e"]), ("h", ["e"]), ("i", ["f", "g", "h"]), ("j", ["i"])]
REST_SECONDS_MAX = 900
# Seconds between two runs that are asked for while processes are being killed.
ASK_EVERY = 0.1


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Postgres:
    """A server of its own, on loopback, in a folder of its own."""

    def __init__(self, folder):
        self.bin = os.environ.get("MAINSPRING_TEST_PG_BIN") or sorted(
            os.path.join("/usr/lib/postgresql", v, "bin") for v in os.listdir("/usr/lib/postgresql"))[-1]
        self.data, self.port = os.path.join(folder, "pg"), free_port()
        self.user = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"] if os.getuid() == 0 else []
        os.makedirs(self.data)
        if self.user:
            os.chmod(folder, 0o755)
            shutil.chown(self.data, "nobody", "nogroup")
        self.call("initdb", "-D", self.data, "-U", "mainspring", "-A", "trust", "--no-sync")
        self.start()
        self.call("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mainspring", "mainspring")
        self.url = f"postgres://mainspring@127.0.0.1:{self.port}/mainspring"

    def call(self, program, *arguments):
        subprocess.run(self.user + [os.path.join(self.bin, program), *arguments], check=True, cwd="/",
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self):
        self.call("pg_ctl", "-D", self.data, "-w", "-l", os.path.join(self.data, "log"), "-o",
                  f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200", "start")

    def stop(self, mode="fast"):
        self.call("pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    def rows(self, sql):
        out = subprocess.run([os.path.join(self.bin, "psql"), "-At", "-F", "\t", "-c", sql, self.url],
                             capture_output=True, text=True, check=True, cwd="/").stdout
        return [line.split("\t") for line in out.splitlines()]


class House:
    """The processes under test."""

    def __init__(self, binary, database, folder, seed, servers=2, workers=3, slots=4):
        self.binary, self.folder, self.random = os.path.abspath(binary), folder, random.Random(seed)
        self.witness = os.path.join(folder, "witness")
        self.token = os.path.join(folder, "token")
        with open(self.token, "w") as f:
            f.write("campaign-" + "x" * 32 + "\n")
        os.chmod(self.token, 0o600)
        os.makedirs(os.path.join(folder, "dags"))
        self.postgres = Postgres(folder) if database == "postgres" else None
        self.commands, self.processes, self.ports = {}, {}, []
        for n in range(servers if self.postgres else 1):
            port = free_port()
            self.ports.append(port)
            home = os.path.join(folder, f"home-{n}")
            command = [self.binary, "--home", home, "--dags", os.path.join(folder, "dags"), "--slots", str(2 * slots),
                       "serve", "--listen", f"127.0.0.1:{port}", "--token-file", self.token]
            if self.postgres:
                command[1:1] = ["--database", self.postgres.url]
                command.append("--no-worker")
            self.commands[f"server-{n}"] = command
        for n in range(workers if self.postgres else 0):
            servers = [word for port in self.ports for word in ("--server", f"http://127.0.0.1:{port}")]
            self.commands[f"worker-{n}"] = [
                self.binary, "--home", os.path.join(folder, f"worker-{n}"), "--dags", os.path.join(folder, "dags"),
                "--slots", str(slots), "worker", *servers, "--token-file", self.token]

    def write_dags(self, start, work):
        script = WITNESS.format(file=self.witness, work=work)
        tasks = "\n".join(
            f"  - {{id: {name}, type: bash, command: {json.dumps(script)}, depends_on: {json.dumps(after)}}}"
            for name, after in TASKS)
        with open(os.path.join(self.folder, "dags", "campaign.yaml"), "w") as f:
            f.write(DAG.format(start=start, tasks=tasks))

    def start(self, name):
        log = open(os.path.join(self.folder, f"{name}.log"), "a")
        self.processes[name] = subprocess.Popen(self.commands[name], stdout=log, stderr=log, start_new_session=True)

    def kill(self, name):
        process = self.processes[name]
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()

    def ask(self, method, path, body=None):
        """One call to any server; None if none answers, or if the answer is lost."""
        port = self.random.choice(self.ports)
        with open(self.token) as f:
            token = f.read().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/v1{path}", method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return json.load(answer)
        except (OSError, urllib.error.URLError, ValueError):
            return None

    def rows(self, sql):
        if self.postgres:
            return self.postgres.rows(sql)
        with sqlite3.connect(f"file:{self.folder}/home-0/mainspring.db?mode=ro", uri=True, timeout=10) as db:
            return [[("" if v is None else str(v)) for v in row] for row in db.execute(sql)]


def disturb(house):
    victim = house.random.choice(sorted(house.processes))
    house.kill(victim)
    house.start(victim)


def ask_for_runs(house, count):
    """Asks until so many runs are acknowledged. A name that was asked for and not acknowledged is asked for again."""
    acknowledged = []
    while len(acknowledged) < count:
        answer = house.ask("POST", "/dags/asked/dagRuns", {"run_id": f"asked__{len(acknowledged)}"})
        if answer is not None:
            acknowledged.append(answer["run_id"])
    return acknowledged


def until_done(house, count, every, restarts):
    """Kills until all runs have ended; answers the kills."""
    kills, left = 0, list(range(restarts, 0, -1))
    while True:
        time.sleep(every)
        done = int(house.rows("SELECT count(*) FROM dag_run WHERE dag_id = 'asked' AND state IN ('success', 'failed')")[0][0])
        print(f"{kills} kills, {done} of {count} runs", file=sys.stderr)
        if done >= count:
            return kills
        disturb(house)
        kills += 1
        if left and done >= count * (restarts + 1 - left[0]) // (restarts + 1):
            print("the database server is stopped and started again", file=sys.stderr)
            house.postgres.stop("immediate")
            time.sleep(1)
            house.postgres.start()
            left.pop(0)


def campaign(house, kills, every):
    """Kills at random moments; answers the runs that were acknowledged."""
    acknowledged, refused = [], 0
    for n in range(kills):
        deadline = time.monotonic() + house.random.uniform(0.2, 1.8) * every
        while time.monotonic() < deadline:
            name = f"asked__{len(acknowledged) + refused}"
            answer = house.ask("POST", "/dags/asked/dagRuns", {"run_id": name})
            if answer is None:
                refused += 1
            else:
                acknowledged.append(answer["run_id"])
            time.sleep(ASK_EVERY)
        disturb(house)
        if n % 20 == 19:
            print(f"{n + 1} kills, {len(acknowledged)} acknowledged runs", file=sys.stderr)
    return acknowledged


def rest(house, last):
    """Waits until every run is final and the schedule is past `last` (microseconds)."""
    began = time.monotonic()
    while time.monotonic() - began < REST_SECONDS_MAX:
        time.sleep(1)
        try:
            open_runs = int(house.rows("SELECT count(*) FROM dag_run WHERE state IN ('queued', 'running')")[0][0])
            newest = house.rows("SELECT COALESCE(MAX(logical_date_us), 0) FROM dag_run WHERE run_type = 'scheduled'")[0][0]
        except (sqlite3.Error, subprocess.CalledProcessError):
            continue
        if open_runs == 0 and int(newest) >= last:
            return time.monotonic() - began
    raise SystemExit(f"nothing comes to rest: see {house.folder}")


def clear_poisoned(house):
    """Clears the runs that failed because a task lost its worker too often, as a person would; answers how many."""
    poisoned = house.rows("SELECT DISTINCT r.dag_id, r.run_id FROM dag_run AS r JOIN task_try AS t ON t.run_no = r.run_no "
                          "WHERE r.state = 'failed' AND t.outcome = 'failed' AND t.reason LIKE '%worker was lost%'")
    for dag, run in poisoned:
        while house.ask("POST", f"/dags/{dag}/dagRuns/{run}/clear", {"only_failed": True}) is None:
            time.sleep(0.2)
    return len(poisoned)


def violations(house, acknowledged, start):
    found = []
    runs = {(r[0], r[1]): r for r in house.rows("SELECT dag_id, run_id, state, run_type, logical_date_us FROM dag_run")}
    for run in acknowledged:
        if ("asked", run) not in runs:
            found.append(f"the acknowledged run {run} is lost")
    instants = sorted(int(r[4]) for r in runs.values() if r[3] == "scheduled")
    if len(set(instants)) != len(instants):
        found.append("a scheduled instant has two runs")
    expected = list(range(start, instants[-1] + 1, 2_000_000)) if instants else []
    if instants != expected:
        found.append(f"{len(instants)} scheduled runs where {len(expected)} were due: {sorted(set(expected) ^ set(instants))[:5]}")
    for (dag, run), row in runs.items():
        if row[2] != "success":
            found.append(f"{dag} {run} is {row[2]}")
    tries = house.rows("SELECT r.dag_id, r.run_id, t.task_id, t.try_number, COALESCE(t.outcome, '') FROM task_try AS t "
                       "JOIN dag_run AS r ON r.run_no = t.run_no")
    claims = collections.Counter((d, r, t) for d, r, t, _, _ in tries)
    accepted = collections.Counter((d, r, t) for d, r, t, _, outcome in tries if outcome == "success")
    for dag, run in runs:
        for task, _ in TASKS:
            if accepted[(dag, run, task)] != 1:
                found.append(f"{dag} {run} {task} has {accepted[(dag, run, task)]} accepted outcomes")
    starts, ends, last_end, first_start = collections.Counter(), collections.Counter(), {}, {}
    with open(house.witness) as f:
        for place, line in enumerate(f):
            word, dag, run, task, _ = line.split()
            (starts if word == "start" else ends)[(dag, run, task)] += 1
            if word == "end":
                last_end.setdefault((dag, run, task), place)
            else:
                first_start.setdefault((dag, run, task), place)
    for key, count in starts.items():
        if count > claims[key]:
            found.append(f"{key} started {count} times under {claims[key]} claims")
    for key in accepted:
        if ends[key] == 0:
            found.append(f"{key} was accepted, and never ended")
    for dag, run in runs:
        for task, after in TASKS:
            for before in after:
                if first_start.get((dag, run, task), 0) < last_end.get((dag, run, before), 0):
                    found.append(f"{dag} {run}: {task} started before {before} ended")
    figures = {"runs": len(runs), "acknowledged": len(acknowledged), "scheduled": len(instants), "claims": sum(claims.values()),
               "lost_attempts": sum(claims.values()) - sum(accepted.values()), "witnessed_starts": sum(starts.values())}
    return found, figures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--database", choices=["sqlite", "postgres"], required=True)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, help="ask for so many runs, and kill until they have ended")
    parser.add_argument("--postgres-restarts", type=int, default=0)
    parser.add_argument("--every", type=float, default=0.3, help="mean seconds between kills")
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="mainspring-campaign-")
    house = House(arguments.binary, arguments.database, folder, arguments.seed)
    began = time.monotonic()
    start = int(time.time()) // 2 * 2
    house.write_dags(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)), "sleep 0.05")
    try:
        for name in house.commands:
            house.start(name)
        deadline = time.monotonic() + 60
        while house.ask("GET", "/dags") is None:
            if time.monotonic() > deadline:
                raise SystemExit(f"no server answers: see {folder}")
            time.sleep(0.2)
        kills = arguments.kills
        if arguments.runs:
            acknowledged = ask_for_runs(house, arguments.runs)
            kills = until_done(house, arguments.runs, arguments.every, arguments.postgres_restarts)
        else:
            acknowledged = campaign(house, kills, arguments.every)
        last = int(time.time()) * 1_000_000
        rested = rest(house, last)
        poisoned = clear_poisoned(house)
        if poisoned:
            rest(house, last)
        found, figures = violations(house, acknowledged, start * 1_000_000)
    finally:
        for name in list(house.processes):
            house.kill(name)
        if house.postgres:
            house.postgres.stop()
    print(json.dumps({"database": arguments.database, "seed": arguments.seed, "kills": kills, **figures,
                      "seconds": round(time.monotonic() - began, 1), "seconds_to_rest": round(rested, 1), "poisoned_runs": poisoned,
                      "violations": len(found)}))
    for one in found[:20]:
        print(one, file=sys.stderr)
    if not arguments.keep and not found:
        shutil.rmtree(folder, ignore_errors=True)
    elif found:
        print(f"see {folder}", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
