"""Writes columns.parquet (pyarrow's defaults: Snappy): python3 kd-data/tests/data/columns.py"""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

table = pa.table(
    {
        "first": ['a "b', "d"],
        "second": ["c", ""],
        "id": ["q1", "q2"],
        "class": pa.array([1, 0], pa.int64()),
        "score": pa.array([2.25, -0.5], pa.float32()),
        "several": pa.array([["red", "blue"], []], pa.list_(pa.string())),
        "broken": ["x", None],
    }
)
pq.write_table(table, pathlib.Path(__file__).with_suffix(".parquet"))
