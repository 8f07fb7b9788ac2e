"""A model's archive is the tar that any tool reads, byte for byte the same, and never passes damaged weights on."""

import io
import json
import tarfile

import pytest
from tests.make_runs import finished_run

from tracetune.app.model_archive import BLOCK, archive
from tracetune.app.registry import model_folder, promote
from tracetune.core.errors import Corrupt, NotFound


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 7])
def test_the_archive_is_a_tar_of_the_size_it_says(home, size):
    model = promote(
        finished_run(home, weights=bytes(range(256)) * 8 if not size else b"x" * size).run_id, "tutor", home
    )
    found = archive(model.model_id, home)
    data = b"".join(found.chunks)
    assert len(data) == found.num_bytes
    assert found.name == "tutor-v1.tar"
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
        content = {name: tar.extractfile(name).read() for name in names}
    folder = model_folder(model, home)
    assert {name.removeprefix("tutor-v1/") for name in names} == {"model.json", *(p.name for p in folder.iterdir())}
    assert content["tutor-v1/model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert json.loads(content["tutor-v1/model.json"])["content_hash"] == model.content_hash
    assert b"".join(archive(model.model_id, home).chunks) == data


def test_no_tool_would_add_or_leave_out_a_byte(home):
    model = promote(finished_run(home).run_id, "x" * 128, home)
    data = b"".join(archive(model.model_id, home).chunks)
    theirs = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as tar,
        tarfile.open(fileobj=theirs, mode="w", format=tarfile.GNU_FORMAT) as copy,
    ):
        for member in tar.getmembers():
            copy.addfile(member, tar.extractfile(member))
    assert theirs.getvalue() == data


def test_damaged_weights_end_the_stream_short(home):
    model = promote(finished_run(home).run_id, "tutor", home)
    weights = model_folder(model, home) / "model.safetensors"
    weights.write_bytes(b"Weights")
    found = archive(model.model_id, home)
    sent: list[bytes] = []
    with pytest.raises(Corrupt, match="recorded sha256"):
        sent.extend(found.chunks)
    assert sum(map(len, sent)) < found.num_bytes
    weights.write_bytes(b"longer weights")
    with pytest.raises(Corrupt, match="another size"):
        archive(model.model_id, home)
    weights.write_bytes(b"weights")
    assert b"".join(archive(model.model_id, home).chunks)


def test_an_id_that_is_not_there_is_said_so(home):
    with pytest.raises(NotFound, match="Model nothing"):
        archive("nothing", home)
