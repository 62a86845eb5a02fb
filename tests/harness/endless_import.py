"""A module whose import never ends, for test_supervisor.py."""

import time

print("importing", flush=True)
time.sleep(600)
