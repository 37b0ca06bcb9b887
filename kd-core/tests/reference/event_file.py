"""Writes event_file.json: an event file of two events, made by TensorBoard's own messages and record writer, in hexadecimal.

Run with Python 3 and tensorboard: python event_file.py
"""

import io
import json
import pathlib

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

loss = Summary.Value(tag="loss", simple_value=0.75)
hard = Summary.Value(tag="parts/hard", simple_value=-1.5)
version = Event(wall_time=1.5, file_version="brain.Event:2")
scalars = Event(wall_time=2.5, step=300, summary=Summary(value=[loss, hard]))
file = io.BytesIO()
writer = RecordWriter(file)
writer.write(version.SerializeToString())
writer.write(scalars.SerializeToString())
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps({"hex": file.getvalue().hex()}) + "\n")
