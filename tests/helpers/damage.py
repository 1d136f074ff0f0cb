"""Files changed as an accident or an attacker changes them."""

import hashlib
import json
from pathlib import Path


def flip(path, position, bit=0):
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1 << bit
    path.write_bytes(raw)


def forge(path, **attributes):
    """Change root attributes as someone would who knows how to seal."""
    root = path / "zarr.json"
    document = json.loads(root.read_bytes())
    document["attributes"] |= {**attributes, "seal": ""}
    text = json.dumps(document, indent=1, sort_keys=True).encode()
    document["attributes"]["seal"] = hashlib.sha256(text).hexdigest()
    root.write_text(json.dumps(document, indent=1, sort_keys=True))


def edited(folder: Path, file: str, **changes) -> None:
    """Changes entries of a JSON file."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
