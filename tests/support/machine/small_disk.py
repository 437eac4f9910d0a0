"""Disks to fill and to cut off: small file systems, mounted for a test."""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.needs import lacking

# _IOR('X', 125, __u32) with EXT4_GOING_FLAGS_NOLOGFLUSH, see fs/ext4/ioctl.c: as if power was lost.
_SHUTDOWN, _LOSE_WHAT_IS_NOT_SYNCED = 0x8004587D, 2


def _mount(*arguments: str) -> str | None:
    """Mount; what went wrong, if something did."""
    if os.geteuid() != 0:
        return "root"
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else None


def mount_memory(path: Path, size: str) -> str | None:
    """Mount a tmpfs of that size over a directory; what went wrong, if something did."""
    return _mount("-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(path))


@contextlib.contextmanager
def small_disk(path: Path, size: str = "4m") -> Iterator[Path]:
    """A tmpfs of that size at a new directory. Skips where it can't be mounted."""
    path.mkdir()
    if trouble := mount_memory(path, size):
        lacking(trouble)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def make_read_only(disk: Path) -> None:
    """Nothing can be written to a mounted disk any more, by nobody."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def fill(path: Path) -> Path:
    """Leave no byte free; the file to remove for space."""
    ballast = path / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))
    return ballast


class RealDisk:
    """An ext4 file system in a file, whose power can be cut.

    Args:
        directory: holds the file and the mount points.
    """

    def __init__(self, directory: Path) -> None:
        mkfs = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
        if mkfs is None:
            lacking("mkfs.ext4")
        self._directory = directory
        self._life = 0
        with self._image.open("wb") as file:
            file.truncate(160 << 20)
        subprocess.run([mkfs, "-q", self._image], check=True)
        self._mount()

    @property
    def path(self) -> Path:
        """Where it is mounted; another place in each life."""
        return self._directory / f"disk-{self._life}"

    @property
    def _image(self) -> Path:
        return self._directory / f"image-{self._life}"

    def _mount(self) -> None:
        self.path.mkdir()
        if _mount("-o", "loop", str(self._image), str(self.path)):
            pytest.skip("a file system in a file can't be mounted here")

    def cut_power(self) -> None:
        """What was not synced is lost; every later access fails."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _LOSE_WHAT_IS_NOT_SYNCED))
        finally:
            os.close(fd)

    def switch_on(self) -> None:
        """The disk after a cut, as a new one: its memory may live on in somebody's mount namespace."""
        self.unmount()
        image = self._image
        self._life += 1
        subprocess.run(["cp", "--sparse=always", image, self._image], check=True)
        image.unlink()
        self._mount()

    def unmount(self) -> None:
        """Switch it off."""
        subprocess.run(["umount", self.path], check=True)
