"""Time and memory of `mmnas init` on tables of many rows and number columns.

OMP_NUM_THREADS=1 python benchmarks/init_rows.py --rows 100000 1000000 --columns 20
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--columns", type=int, default=20)
    options = parser.parse_args()
    print("| rows | columns | s | peak MB |\n|-|-|-|-|")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "table.csv"
            draw = np.random.default_rng(rows)
            columns = {f"n{i}": draw.normal(size=rows).round(5) for i in range(options.columns)}
            label = pa.array(np.array(["a", "b", "c"])[draw.integers(0, 3, rows)])
            csv.write_csv(pa.table({**columns, "label": label}), table)
            command = [sys.executable, "-m", "lightning_mmnas", "init", str(table), "--output", f"{folder}/configs"]
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)  # of this child alone
            seconds = time.perf_counter() - start
            if status:
                raise SystemExit(f"mmnas init ended with {os.waitstatus_to_exitcode(status)}")
        peak = usage.ru_maxrss / 1024
        print(f"| {rows:,} | {options.columns} | {seconds:.1f} | {peak:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
