"""One pack of runs as one compiled program: its loop, its layout over devices, its records and its end."""
