"""One thread for each test and what it starts: models are tiny, and two threads on busy cores wait for each other."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
