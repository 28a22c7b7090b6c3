"""Reads one Delta table with DuckDB, which shares no code with the writer, and prints figures as JSON.

usage: independent_reader.py TABLE_FOLDER [SQL over the table `t`]
"""

import glob
import json
import os
import sys

import duckdb
import duckdb_extension_delta

folder = os.path.dirname(duckdb_extension_delta.__file__)
(extension,) = glob.glob(os.path.join(folder, "extensions", "*", "delta.duckdb_extension"))
connection = duckdb.connect()
connection.execute(f"LOAD '{extension}'")
connection.execute("CREATE VIEW t AS SELECT * FROM delta_scan(?)".replace("?", "'" + sys.argv[1].replace("'", "''") + "'"))
query = sys.argv[2] if len(sys.argv) > 2 else "SELECT count(*) AS rows FROM t"
cursor = connection.execute(query)
names = [column[0] for column in cursor.description]
print(json.dumps([dict(zip(names, row)) for row in cursor.fetchall()], default=str))
