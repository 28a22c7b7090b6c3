#!/usr/bin/env bash
# The test command of the project: installs what the tests need, then runs them all.
# Needs Rust, gcc, Python 3 and a network with the package registries; starts servers on loopback only, and stops them.
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${MAINSPRING_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/mainspring}"
mkdir -p "$cache"
# Build output where `cargo run` has left some, or else outside the checkout, so that a fresh clone does not build
# the world again.
if [ -z "${CARGO_TARGET_DIR:-}" ] && [ ! -d target/debug/deps ]; then
    export CARGO_TARGET_DIR="$cache/target"
fi
export INSTA_UPDATE=no

say() { printf '\n== %s\n' "$*"; }

say "Postgres"
pg_bin="$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1 || true)"
if [ -z "$pg_bin" ] && command -v initdb >/dev/null; then
    pg_bin="$(dirname "$(command -v initdb)")"
fi
if [ -z "$pg_bin" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null
    pg_bin="$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)"
fi
if [ -z "$pg_bin" ]; then
    echo "error: no Postgres server was found, and it can only be installed as root with apt-get" >&2
    echo "hint: install postgresql (15 or newer), or set MAINSPRING_TEST_PG_BIN to the folder of initdb" >&2
    exit 2
fi
export MAINSPRING_TEST_PG_BIN="${MAINSPRING_TEST_PG_BIN:-$pg_bin}"
"$MAINSPRING_TEST_PG_BIN/postgres" --version

say "the mail server of the tests and the independent reader of Delta tables (Python)"
venv="$cache/python"
if ! "$venv/bin/python" -c 'import aiosmtpd, duckdb, duckdb_extension_delta' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/requirements.txt
fi
export MAINSPRING_TEST_PYTHON="$venv/bin/python"

say "cargo test"
cargo test --quiet "$@"
