"""The suites by name: one file a benchmark."""
