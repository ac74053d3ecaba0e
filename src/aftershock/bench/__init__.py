"""What a model can do: benchmarks whose every number has its n, k, seed, interval and hashes, and can be repeated."""
