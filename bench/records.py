"""What a line costs on its way into a file: on the event loop, and in the thread that writes it.

Beside it stands a plain buffered write of the same lines in the same run: the ratio to that is what can be compared
between machines. CPU time, the best of the rounds; the file is compared with what was put before a time counts. With
`--write` the result is also kept under bench/results/.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from hot_path import machine

from edgekeeper.records import Records
from edgekeeper.rotation import Rotate

RESULTS = Path(__file__).parent / "results" / "records.json"
LINES = [b'{"n":%06d,"pad":"%s"}\n' % (number, b"x" * 579) for number in range(20_000)]  # 600 bytes each
CHUNK = 500


async def plain(path: Path) -> None:
    """Lines one by one into a buffered file, on the loop: what one would do without thinking of it."""
    with path.open("ab", buffering=1 << 20) as file:
        for line in LINES:
            file.write(line)


async def put_one(path: Path) -> None:
    """As a decision log does it: a line with each decision, dropped if it does not fit; other work between."""
    records = Records(str(path), rotate=Rotate(), max_bytes=1 << 26)
    for number, line in enumerate(LINES):
        assert records.put([line])
        if number % CHUNK == 0:
            await asyncio.sleep(0)
    await records.flush()
    assert await records.close() == 0


async def put_chunks(path: Path) -> None:
    """Many lines at once."""
    records = Records(str(path), rotate=Rotate(), max_bytes=1 << 26)
    for start in range(0, len(LINES), CHUNK):
        assert records.put(LINES[start : start + CHUNK])
        await asyncio.sleep(0)
    await records.flush()
    assert await records.close() == 0


async def write_chunks(path: Path) -> None:
    """As an access-log sink does it: chunks, each in the file before the next one is taken from its queue."""
    records = Records(str(path), rotate=Rotate())
    for start in range(0, len(LINES), CHUNK):
        await records.write(LINES[start : start + CHUNK])
    await records.flush()
    assert await records.close() == 0


@dataclass
class Variant:
    """A way into the file, and the least CPU time of a line so far, in microseconds."""

    name: str
    run: Callable[[Path], Awaitable[None]]
    loop_us: float = float("inf")
    thread_us: float = float("inf")

    async def round(self, directory: Path) -> None:
        """Write all lines once."""
        path = directory / "records.ndjson"
        loop, process = time.thread_time(), time.process_time()
        await self.run(path)
        loop, process = time.thread_time() - loop, time.process_time() - process
        assert path.read_bytes() == b"".join(LINES), self.name
        path.unlink()
        self.loop_us = min(self.loop_us, loop / len(LINES) * 1e6)
        self.thread_us = min(self.thread_us, (process - loop) / len(LINES) * 1e6)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="keep the result under bench/results/")
    options = parser.parse_args()
    baseline = Variant("a plain buffered write, on the loop", plain)
    variants = [
        baseline,
        Variant("put, line by line, and flush", put_one),
        Variant(f"put, {CHUNK} lines at once, and flush", put_chunks),
        Variant(f"write, {CHUNK} lines at once, and flush", write_chunks),
    ]
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(options.rounds):
            for variant in variants:
                asyncio.run(variant.round(Path(directory)))
    rows = [
        {
            "what": v.name,
            "loop_us": round(v.loop_us, 2),
            "thread_us": round(max(v.thread_us, 0.0), 2),
            "loop_ratio": round(v.loop_us / baseline.loop_us, 2),
            "whole_ratio": round((v.loop_us + max(v.thread_us, 0.0)) / baseline.loop_us, 2),
        }
        for v in variants
    ]
    for row in rows:
        print(
            f"{row['what']:38} {row['loop_us']:6} us on the loop, {row['thread_us']:6} us in the thread:"
            f" {row['loop_ratio']:5} and {row['whole_ratio']:5} times the plain write"
        )
    if options.write:
        command = f"python bench/{Path(sys.argv[0]).name} --rounds {options.rounds}"
        RESULTS.write_text(
            json.dumps({"command": command, "machine": machine(), "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
