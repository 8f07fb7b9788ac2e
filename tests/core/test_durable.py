import resource
import signal

import pytest

from tracetune.core.durable import publish_folder, write_durably
from tracetune.core.errors import Conflict, StorageError


@pytest.fixture
def full_disk():
    """No file may grow past 64 KiB, as on a disk with no space left."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_refused_write_leaves_the_old_file_and_no_litter(tmp_path, full_disk):
    path = tmp_path / "report.md"
    write_durably(path, b"old")
    with pytest.raises(StorageError, match=r"report.md: cannot be written"):
        write_durably(path, b"x" * 128 * 1024)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fits_replaces_the_file(tmp_path, full_disk):
    path = tmp_path / "report.md"
    write_durably(path, b"old")
    write_durably(path, b"x" * 1024)
    assert path.read_bytes() == b"x" * 1024


def interrupt_publishing(folder):
    with publish_folder(folder) as partial:
        (partial / "weights").write_bytes(b"half")
        raise KeyError("interrupted")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "step-000001"
    with pytest.raises(KeyError):
        interrupt_publishing(folder)
    assert list(tmp_path.iterdir()) == []
    with publish_folder(folder) as partial:
        (partial / "weights").write_bytes(b"whole")
        assert not folder.exists()
    assert (folder / "weights").read_bytes() == b"whole"


def test_a_folder_that_stands_is_not_overwritten_unless_asked(tmp_path):
    folder = tmp_path / "dataset"
    with publish_folder(folder) as partial:
        (partial / "rows").write_bytes(b"first")
    with pytest.raises(Conflict, match="already exists"), publish_folder(folder):
        pass
    assert (folder / "rows").read_bytes() == b"first"
    with publish_folder(folder, replace=True) as partial:
        (partial / "rows").write_bytes(b"second")
    assert (folder / "rows").read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [folder]
