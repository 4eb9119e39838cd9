"""A second reader of hushfs volumes, by src/format/FORMAT.md: it shares no code with the first.

primitives: SEAL, padding, compression    objects: what is in the store    rows: the metadata
local: what is in a state folder          volume: from a store to rows     tree: from rows to files
"""

import pathlib
import sys

REQUIREMENTS = pathlib.Path(__file__).resolve().parent.parent / "decode-requirements.txt"

try:
    import argon2, blake3, cryptography, lz4.block, mnemonic  # noqa: E401, F401
except ImportError as error:
    print(f"{error}. Install what the decoder needs, for instance with:", file=sys.stderr)
    print(f"  python3 -m venv venv && venv/bin/pip install -r {REQUIREMENTS}", file=sys.stderr)
    print("and run it with venv/bin/python", file=sys.stderr)
    sys.exit(2)
