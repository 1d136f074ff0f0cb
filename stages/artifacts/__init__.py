"""Versioned, immutable Zarr artifacts. FORMAT.md beside this file specifies the format."""
