"""Data sets, partitions over clients, and partitions made by other programs."""
