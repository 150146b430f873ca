"""Where the volumes of a population are kept, and what reading them for training takes.

The volumes of COHORT, one after the other and again up to `--volumes`, are kept

- in one ``volumes.npy``, as cohorts are: read by one call each, and through a memory map;
- in Zarr, a chunk a volume: not compressed, compressed, and compressed in shards of many chunks;
- in the tar files of WebDataset: as they are, and each compressed.

Zarr and WebDataset are measured where they are installed (foldnorm needs neither). Read are
`--chosen` volumes: at random (a tar file is not), and from shards of `SHARD` volumes in random
order, one volume after the other. First from a disk cache that was given up (the kernel is asked to
forget the file; a virtual machine's host may not), then from memory. Medians of `--repeats`, the
ways in turn: volumes a second, milliseconds of one core and MiB that came from the disk, a volume;
MiB and files on the disk. Ends with one line of JSON, which is also written to OUT.
"""

import argparse
import gzip
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figures import flattened, write_figures
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.arrays import MappedArray, read_array, read_row, write_array

SHARD = 100  # volumes
Volume = NDArray[np.uint8]


@dataclass(frozen=True)
class Way:
    """A way to keep volumes, which lie at ``place``.

    Attributes:
        place: file or folder.
        of_shards: reads all volumes of shards, by their numbers.
        read: reads one volume by its number; None where that cannot be.
    """

    place: Path
    of_shards: Callable[[Sequence[int]], Iterator[Volume]]
    read: Callable[[int], Volume] | None = None

    @classmethod
    def by_number(cls, place: Path, read: Callable[[int], Volume]) -> "Way":
        """Make one whose shards are volumes that lie beside each other."""

        def of_shards(shards: Sequence[int]) -> Iterator[Volume]:
            return (read(n) for shard in shards for n in range(shard * SHARD, (shard + 1) * SHARD))

        return cls(place, of_shards, read)

    def files(self) -> list[Path]:
        """List all files."""
        found = [self.place] if self.place.is_file() else self.place.rglob("*")
        return [path for path in found if path.is_file()]


def arrays(volumes: Sequence[Volume], scratch: Path) -> Iterator[tuple[str, Way]]:
    """One file, as a cohort has it; two, because the kernel does not forget what is mapped."""
    kinds: dict[str, Callable[[MappedArray, int], Volume]] = {
        "one_call": read_row,
        "memory_map": lambda array, n: np.array(array[n]),
    }
    shape = (len(volumes), *volumes[0].shape)
    for name, read in kinds.items():
        path = scratch / f"{name}.npy"
        write_array(path, volumes, shape=shape, dtype=np.dtype(np.uint8))
        yield name, Way.by_number(path, partial(read, read_array(path)))


def zarrs(volumes: Sequence[Volume], scratch: Path) -> Iterator[tuple[str, Way]]:
    """Chunks of a volume each, in a file each or in shards."""
    import zarr

    one, many = (1, *volumes[0].shape), (SHARD, *volumes[0].shape)
    kinds: dict[str, dict[str, Any]] = {
        "zarr": {"compressors": None},
        "zarr_compressed": {},
        "zarr_sharded": {"shards": many},
    }
    for name, kind in kinds.items():
        place = scratch / name
        shape = (len(volumes), *volumes[0].shape)
        stored = zarr.create_array(place, shape=shape, dtype="uint8", chunks=one, **kind)
        for begin in range(0, len(volumes), SHARD):
            stored[begin : begin + SHARD] = np.stack(volumes[begin : begin + SHARD])
        yield name, Way.by_number(place, lambda n, stored=stored: stored[n])


def tars(volumes: Sequence[Volume], scratch: Path) -> Iterator[tuple[str, Way]]:
    """Tar files, which are read from their beginning to their end."""
    import webdataset

    for name, ending in (("webdataset", "npy"), ("webdataset_compressed", "npy.gz")):
        place = scratch / name
        place.mkdir()
        pattern = f"{place}/%06d.tar"
        with webdataset.ShardWriter(pattern, SHARD, encoder=False, verbose=0) as writer:
            for n, volume in enumerate(volumes):
                writer.write({"__key__": f"{n:06d}", ending: _packed(volume, ending)})

        def of_shards(
            shards: Sequence[int], place: Path = place, ending: str = ending
        ) -> Iterator[Volume]:
            urls = [f"{place}/{shard:06d}.tar" for shard in shards]
            for sample in webdataset.WebDataset(urls, shardshuffle=False):
                yield _unpacked(sample[ending], ending)

        yield name, Way(place, of_shards)


def _packed(volume: Volume, ending: str) -> bytes:
    stream = io.BytesIO()
    np.save(stream, volume)
    held = stream.getvalue()
    return gzip.compress(held, compresslevel=6) if ending.endswith("gz") else held


def _unpacked(held: bytes, ending: str) -> Volume:
    whole = gzip.decompress(held) if ending.endswith("gz") else held
    found: Volume = np.load(io.BytesIO(whole), allow_pickle=False)
    return found


def ways_to_keep(volumes: Sequence[Volume], scratch: Path) -> dict[str, Way]:
    """Write the volumes in all ways whose package is installed."""
    found: dict[str, Way] = {}
    for write in (arrays, zarrs, tars):
        try:
            for name, way in write(volumes, scratch):
                found[name] = way
                print(f"{name}: written", flush=True)
        except ModuleNotFoundError as error:
            print(f"{error.name} is not installed: not measured", flush=True)
    return found


def forget(paths: Sequence[Path]) -> None:
    """Ask the kernel to take files out of the memory that it keeps them in."""
    for path in paths:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_from_disk() -> int:
    """Count the bytes that this process has had fetched from disks so far."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def timed(read: Callable[[], Iterable[Volume]]) -> dict[str, float]:
    """Return what a volume takes, of some that are read one after the other."""
    fetched, wall, cpu = bytes_from_disk(), time.perf_counter(), time.process_time()
    count = sum(1 for _ in read())
    return {
        "volumes_a_second": count / (time.perf_counter() - wall),
        "cpu_ms_a_volume": 1000 * (time.process_time() - cpu) / count,
        "mib_a_volume": (bytes_from_disk() - fetched) / count / 2**20,
    }


def measure(
    ways: dict[str, Way], count: int, chosen: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Read volumes in all ways, orders and states, in turn; medians."""
    rng, found = np.random.default_rng(0), dict[str, list[dict[str, float]]]()
    for _ in range(repeats):
        numbers = rng.permutation(count)[:chosen].tolist()
        shards = rng.permutation(count // SHARD)[: max(chosen // SHARD, 1)].tolist()
        for name, way in ways.items():
            orders: dict[str, Callable[[], Iterable[Volume]]]
            orders = {"in_shards": partial(way.of_shards, shards)}
            if way.read is not None:
                orders["random"] = partial(map, way.read, numbers)
            for order, read in orders.items():
                forget(way.files())
                for state in ("cold", "warm"):
                    found.setdefault(f"{name}_{order}_{state}", []).append(timed(read))
    return {
        key: {name: round(statistics.median(one[name] for one in own), 3) for name in own[0]}
        for key, own in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path, metavar="COHORT")
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    parser.add_argument("--volumes", type=int, default=2000, help="a multiple of a shard's")
    parser.add_argument("--chosen", type=int, default=300, help="volumes of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    count = arguments.volumes // SHARD * SHARD
    cohort = Cohort.open(arguments.cohort)
    held = [cohort.volumes[n % len(cohort)] for n in range(min(count, len(cohort)))]
    volumes = [held[n % len(held)] for n in range(count)]
    with tempfile.TemporaryDirectory(dir=arguments.out.parent) as name:
        ways = ways_to_keep(volumes, Path(name))
        figures: dict[str, Any] = {"volumes": count, "voxels": int(volumes[0].size)}
        for key, way in ways.items():
            sizes = [path.stat().st_blocks * 512 for path in way.files()]
            figures[key] = {"mib": round(sum(sizes) / 2**20, 1), "files": len(sizes)}
        for key, own in measure(ways, count, arguments.chosen, arguments.repeats).items():
            figures[key] = own
            print(key, own, flush=True)
    write_figures(arguments.out, flattened(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
