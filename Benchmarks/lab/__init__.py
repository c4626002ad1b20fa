"""Parts of Benchmarks/run. Standard library only."""
