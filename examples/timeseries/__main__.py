"""``python -m examples.timeseries series.csv``: write the example's data, and one.csv, a series to explain."""

import sys
from pathlib import Path

from examples.timeseries.data import write_example

path = Path(sys.argv[1] if len(sys.argv) > 1 else "series.csv")
write_example(path)
header, *rows = (line.split(",") for line in path.read_text(encoding="utf-8").splitlines())
one = [header, *(row for row in rows if row[0] == rows[0][0])]
path.with_name("one.csv").write_text("".join(",".join([row[0], *row[3:]]) + "\n" for row in one), encoding="utf-8")
