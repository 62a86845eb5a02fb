"""Studies of the benchmark itself, by many runs of fixed variants of the stock train.py.

`bpbench portability` asks whether calibrated budgets make devices comparable, `bpbench sweep` whether the stock script
is worth beating. Both write one line for each run to a file, go on where they were stopped, and build their page from
such files alone.
"""
