"""Time and memory of `mmnas init` on tables of many rows: numbers; or three modalities of each row, or with pictures.

OMP_NUM_THREADS=1 python benchmarks/init_rows.py --rows 100000 1000000 --columns 20
OMP_NUM_THREADS=1 python benchmarks/init_rows.py --rows 100000 --modalities
OMP_NUM_THREADS=1 python benchmarks/init_rows.py --rows 100000 --columns 4 --pictures
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
import pyarrow.parquet as parquet
from PIL import Image

TEXT = "the owl of a river sings near old walls and flies at dawn with two young herons again"
WORDS = np.array(TEXT.split(" "))
EMBEDDED = 128
"""Numbers of an embedding."""


def write_numbers(folder: Path, rows: int, columns: int) -> Path:
    """A CSV file of numbers and a label."""
    draw = np.random.default_rng(rows)
    content = {f"n{i}": draw.normal(size=rows).round(5) for i in range(columns)}
    csv.write_csv(pa.table({**content, "label": labels(draw, rows)}), folder / "table.csv")
    return folder / "table.csv"


def write_modalities(folder: Path, rows: int, columns: int) -> Path:
    """A Parquet file of numbers, a text and an embedding in each row, and a label."""
    draw = np.random.default_rng(rows)
    content = {f"n{i}": draw.normal(size=rows) for i in range(columns)}
    texts = [" ".join(words) for words in WORDS[draw.integers(0, len(WORDS), (rows, 12))]]
    vectors = draw.normal(size=rows * EMBEDDED).astype(np.float32)
    embedded = pa.FixedSizeListArray.from_arrays(pa.array(vectors), EMBEDDED)
    table = pa.table({**content, "text": texts, "embedding": embedded, "label": labels(draw, rows)})
    parquet.write_table(table, folder / "table.parquet")
    return folder / "table.parquet"


def write_pictures(folder: Path, rows: int, columns: int) -> Path:
    """A CSV file of numbers, a text and the name of a small PNG file in each row, and a label."""
    draw = np.random.default_rng(rows)
    names = [f"pictures/{row % 100:02}/{row}.png" for row in range(rows)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / name, compress_level=1)
    texts = [" ".join(words) for words in WORDS[draw.integers(0, len(WORDS), (rows, 12))]]
    content = {f"n{i}": draw.normal(size=rows).round(5) for i in range(columns)}
    table = pa.table({"picture": names, "text": texts, **content, "label": labels(draw, rows)})
    csv.write_csv(table, folder / "table.csv")
    return folder / "table.csv"


def labels(draw: np.random.Generator, rows: int) -> pa.Array:
    """One of three classes for each row."""
    return pa.array(np.array(["a", "b", "c"])[draw.integers(0, 3, rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--columns", type=int, default=20, help="of numbers")
    parser.add_argument("--modalities", action="store_true", help="a text and an embedding beside the numbers")
    parser.add_argument("--pictures", action="store_true", help="a text and a picture file beside the numbers")
    options = parser.parse_args()
    write = write_modalities if options.modalities else write_pictures if options.pictures else write_numbers
    print("| rows | columns | s | peak MB |\n|-|-|-|-|")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            table = write(Path(folder), rows, options.columns)
            command = [sys.executable, "-m", "lightning_mmnas", "init", str(table), "--output", f"{folder}/configs"]
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)  # of this child alone
            seconds = time.perf_counter() - start
            if status:
                raise SystemExit(f"mmnas init ended with {os.waitstatus_to_exitcode(status)}")
        peak = usage.ru_maxrss / 1024
        columns = options.columns + 2 * (options.modalities or options.pictures)
        print(f"| {rows:,} | {columns} | {seconds:.1f} | {peak:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
