"""Makes tests/data/timetable/croniter.txt: what croniter (PyPI) says when cron texts fire.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install croniter==7.0.0 tzdata==2025.2
    /tmp/venv/bin/python tests/fixtures_croniter.py

tzdata 2025.2 is the zone database 2025b, the one inside the chrono-tz that Cargo.lock names.

One line for each chain of fires: cron text, zone, first fire (seconds since 1970), then the seconds to each next
fire in units of the line's own pace (60 for five fields, 1 for six), with `d*n` for n times the same.

Where croniter means something else than Mainspring, on purpose:
1. It moves a time that does not exist to the end of the gap; ours moves by the gap, or drops it. Such fires are left
   out here (they are recognised by a wall clock that the text does not match), and ours is asked with `gap: skip`.
2. It fires twice at a time that occurs twice. Ours is asked with `overlap: both`.
3. `#` and `W` together with the other day field: it wants both, ours wants either. Such texts are not made.
4. `a-a` is the whole field to it; `b-a` runs round the end of the field. Ours takes the first as `a` and refuses the
   second. Such texts are not made, nor day fields that are restricted to everything (`*/1`, `0-6`).
5. `31W` is the last weekday to it in a month that has no 31st; ours does not fire in such a month. No such texts.
6. Where a clock goes back by more than the time between two fires it may pass over one (Antarctica/Casey, three
   hours). Those lines are here, and the test names them.
"""

import random
import zoneinfo
from datetime import datetime, timedelta, timezone
from pathlib import Path

zoneinfo.reset_tzpath(to=[])
from croniter import croniter  # noqa: E402

UTC = timezone.utc
ZONES = """Europe/Berlin Europe/London Europe/Dublin America/New_York America/St_Johns America/Sao_Paulo
America/Santiago America/Asuncion America/Havana America/Scoresbysund America/Nuuk Africa/Casablanca Africa/Cairo
Asia/Tehran Asia/Amman Asia/Gaza Asia/Beirut Asia/Kolkata Asia/Kathmandu Australia/Lord_Howe Australia/Sydney
Antarctica/Troll Antarctica/Casey Pacific/Auckland Pacific/Chatham Pacific/Apia Pacific/Easter Pacific/Norfolk
Atlantic/Azores Europe/Istanbul Europe/Moscow Asia/Pyongyang Pacific/Kiritimati Pacific/Kwajalein""".split()
FIXED = ["30 2 * * *", "0,15,45 0-3 * * *", "0 0 * * *", "30 1 * * SUN", "59 23 * * *", "10 1,2,3 L * *"]
BEATS = ["*/15 * * * *", "30 * * * *", "0 */2 * * *", "*/20 * * * 0,6"]


def field(rng, low, high, star):
    def span():
        a = rng.randint(low, high - 1)
        return a, rng.randint(a + 1, high)

    kind = rng.random()
    if kind < star:
        return "*"
    if kind < star + 0.12:
        return f"*/{rng.randint(2, max(2, (high - low) // 2))}"
    if kind < star + 0.24:
        return "{}-{}".format(*span())
    if kind < star + 0.3:
        return "{}-{}/{}".format(*span(), rng.randint(2, 5))
    if kind < star + 0.45:
        return ",".join(str(n) for n in sorted(rng.sample(range(low, high + 1), rng.randint(2, 4))))
    return str(rng.randint(low, high))


def days(rng):
    kind = rng.random()
    if kind < 0.06:
        return rng.choice(["L", "15W", "1W", "28W", "16W"]), "*"
    if kind < 0.14:
        return "*", rng.choice(["FRI#2", "1#5", "0#1", "L5", "L0", "TUE#3"])
    day, weekday = field(rng, 1, 31, 0.4), field(rng, 0, 6, 0.5)
    if weekday == "0-6":
        weekday = "1-5"
    if rng.random() < 0.2:
        weekday = rng.choice(["MON-FRI", "SUN", "7", "SAT,SUN", "5-7"])
    return day, weekday


def text(rng, seconds):
    day, weekday = days(rng)
    month = rng.choice(["JAN-MAR", "feb", "6,12"]) if rng.random() < 0.1 else field(rng, 1, 12, 0.7)
    fields = [field(rng, 0, 59, 0.2), field(rng, 0, 23, 0.3), day, month, weekday]
    return " ".join(([field(rng, 0, 59, 0.1)] if seconds else []) + fields)


def matches(text, local):
    return croniter.match(text, local.replace(tzinfo=None), second_at_beginning=True)


def chain(text, zone, start, count, until=None):
    """Fires after `start`, without those that croniter moved out of a gap."""
    here = start.astimezone(zone)
    fires = croniter(text, here, ret_type=datetime, second_at_beginning=True)
    found = []
    for _ in range(4 * count):
        at = fires.get_next()
        if until and at > until:
            break
        if zone is UTC or matches(text, at):
            found.append(int(at.timestamp()))
        if len(found) == count:
            break
    return found


def line(text, zone, fires):
    pace = 1 if len(text.split()) == 6 else 60
    steps = [(b - a) // pace for a, b in zip(fires, fires[1:])]
    assert all(step > 0 for step in steps), (text, zone, fires)
    packed, at = [], 0
    while at < len(steps):
        same = 1
        while at + same < len(steps) and steps[at + same] == steps[at]:
            same += 1
        packed.append(f"{steps[at]}*{same}" if same > 1 else str(steps[at]))
        at += same
    ours = text.replace("L5", "5L").replace("L0", "0L")
    return f"{ours}\t{zone}\t{fires[0]}\t{' '.join(packed)}"


def transitions(zone, years):
    """Instants at which the zone's offset changes."""
    at, end = datetime(years[0], 1, 1, tzinfo=UTC), datetime(years[1], 1, 1, tzinfo=UTC)
    offset = lambda t: t.astimezone(zone).utcoffset()  # noqa: E731
    while at < end:
        step = at + timedelta(days=1)
        if offset(at) != offset(step):
            low, high = at, step
            while high - low > timedelta(minutes=1):
                middle = low + (high - low) / 2
                low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
            yield high.replace(second=0, microsecond=0)
        at = step


def main():
    rng = random.Random(20261125)
    lines, triples = [], 0
    for n in range(900):
        expression = text(rng, seconds=n % 3 == 2)
        start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=rng.randint(0, 4 * 365 * 1440))
        try:
            fires = chain(expression, UTC, start, 50)
        except ValueError:  # 31 February and its kin
            continue
        lines.append(line(expression, "UTC", fires))
        triples += len(fires) - 1
    for name in ZONES:
        zone = zoneinfo.ZoneInfo(name)
        changes = list(transitions(zone, (1990, 2037)))
        for change in rng.sample(changes, min(6, len(changes))):
            for expression in FIXED + BEATS:
                start = change - timedelta(hours=30)
                fires = chain(expression, zone, start, 60, change + timedelta(hours=40))
                if len(fires) > 1:
                    lines.append(line(expression, name, fires))
                    triples += len(fires) - 1
    into = Path(__file__).parent / "data" / "timetable" / "croniter.txt"
    into.parent.mkdir(parents=True, exist_ok=True)
    into.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} chains, {triples} fires after another, {into.stat().st_size} bytes")


if __name__ == "__main__":
    main()
