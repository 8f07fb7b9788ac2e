from pathlib import Path

from tracetune.app.doctor import doctor


def by_name(home: Path) -> dict:
    return {finding.name: finding for finding in doctor(home)}


def test_a_sound_machine_has_no_problem(tmp_path):
    found = by_name(tmp_path)
    assert {"python", "jax", "devices", "sqlite", "disk", "home"} <= set(found)
    assert not [finding for finding in found.values() if finding.status == "problem"]


def test_a_full_disk_is_a_problem_with_its_cure(tmp_path, monkeypatch):
    monkeypatch.setattr("tracetune.app.doctor.MIN_FREE_GIB", 1e9)
    disk = by_name(tmp_path)["disk"]
    assert disk.status == "problem"
    assert "TRACETUNE_HOME" in disk.fix


def test_a_missing_package_is_a_problem_with_its_install_command(tmp_path, monkeypatch):
    monkeypatch.setattr("tracetune.app.doctor.requires", lambda _: ["no-such-package-xyz>=2"])
    assert by_name(tmp_path)["no-such-package-xyz"].fix == 'pip install "no-such-package-xyz>=2"'
