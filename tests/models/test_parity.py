"""The parity matrix: each family against transformers and PEFT in bfloat16 and float32, and the table of the docs."""

import json
import subprocess
import sys

import numpy as np
import pytest
from bench import parity

from tracetune.models.model import Model

pytestmark = pytest.mark.slow

FAST = ("logits", "LoRA")


@pytest.mark.long
@pytest.mark.parametrize("dtype", parity.DTYPES)
@pytest.mark.parametrize("case", ["qwen2_untied", "llama32", "gemma3_1b"])
def test_a_family_computes_what_transformers_and_peft_compute(case, dtype):
    failed = [cell for cell in parity.measure([case], FAST, [dtype]) if not cell.ok]
    assert not failed


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.long)])
def test_the_small_matrix_passes(dtype):
    cells = list(parity.measure(["qwen3_tied"], parity.CELLS, [dtype]))
    assert [cell.name for cell in cells] == list(parity.CELLS)
    assert all(cell.ok for cell in cells), cells


@pytest.mark.slow
@pytest.mark.parametrize("dtype", parity.DTYPES)
def test_a_wrong_switch_is_out_of_tolerance(dtype):
    """The control: queries a twentieth too large."""
    of = parity.subject("qwen3_tied", dtype)
    wrong = of.model._replace(params=_scaled(of.model, 1.05))
    cell = parity.logits_cell(of._replace(model=wrong))
    assert not cell.ok
    assert "**" in cell.text()


def _scaled(model: Model, factor: float):
    layers = dict(model.params["layers"])
    return {**model.params, "layers": layers | {"q_norm": layers["q_norm"] * np.float32(factor)}}


def test_the_docs_hold_a_row_for_each_family_and_type_within_tolerance():
    table = parity.PAGE.read_text().partition(parity.BEGIN)[2].partition(parity.END)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    assert rows[0] == ["family", "type", *parity.CELLS]
    assert [row[:2] for row in rows[2:]] == [[name, dtype] for name in parity.CASES.values() for dtype in parity.DTYPES]
    for row in rows[2:]:
        assert len(row) == len(rows[0])
        assert all(row)
        assert "**" not in "".join(row)


def test_every_case_has_its_fixtures_and_they_are_small():
    for case in parity.CASES:
        assert (parity.FIXTURES / case / "oracle.npz").is_file()
        assert (parity.FIXTURES / "parity" / case / "adapter_model.safetensors").is_file()
    files = [path for path in parity.FIXTURES.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 300_000


@pytest.mark.slow
def test_a_case_nobody_knows_is_refused():
    done = subprocess.run(
        [sys.executable, str(parity.ROOT / "bench" / "parity.py"), "gpt2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no case 'gpt2'; there are qwen2" in done.stderr


def test_a_cell_out_of_tolerance_is_told_and_fails_the_command(monkeypatch, capsys):
    cell = parity.Cell("qwen2", "float32", "logits", 1.0, parity.FLOAT32_LIMIT)
    whole = [cell._replace(name=name, value=0.0) for name in parity.CELLS[1:]]
    monkeypatch.setattr(parity, "measure", lambda _cases: iter([cell, *whole]))
    monkeypatch.setattr(sys, "argv", ["parity.py", "qwen2"])
    with pytest.raises(SystemExit) as ended:
        parity.main()
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["failed"] == ["qwen2 float32 logits"]
