from tracetune.app.doctor import disk, doctor, packages


def test_a_sound_machine_has_no_problem(tmp_path):
    found = {finding.name: finding for finding in doctor(tmp_path)}
    assert {"python", "jax", "devices", "sqlite", "disk", "home"} <= set(found)
    assert not [finding for finding in found.values() if finding.status == "problem"]


def test_a_full_disk_is_a_problem_with_its_cure(tmp_path):
    space, _ = disk(tmp_path, min_free_gib=1e9)
    assert space.status == "problem"
    assert "TRACETUNE_HOME" in space.fix
    space, _ = disk(tmp_path, min_free_gib=1e-9)
    assert space.status == "ok"


def test_a_missing_package_is_a_problem_with_its_install_command():
    (missing,) = packages(["no-such-package-xyz>=2"])
    assert missing.fix == 'pip install "no-such-package-xyz>=2"'
    (old,) = packages(["numpy>=999"])
    assert old.status == "problem"
    (good,) = packages(["numpy>=2"])
    assert good.status == "ok"
