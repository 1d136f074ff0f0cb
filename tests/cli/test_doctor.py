"""fedktl doctor: what it looks at, and what it calls a fault."""

import json
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch

from stages import doctor
from stages.artifacts.store import Store
from tests.helpers.cli import run

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def findings(store, code=0):
    return {
        finding["what"]: finding for finding in json.loads(run(store, "doctor", "--json", code=code).stdout)["findings"]
    }


def test_a_machine_on_which_all_is_well(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy")
    monkeypatch.setenv("OMP_NUM_THREADS", "1\x1b[31m")
    found = findings(tmp_path / "store")
    assert found["torch"]["found"].startswith(torch.__version__)
    assert "the loss falls" in found["steps on cpu"]["found"] and ("gpu" in found) != torch.cuda.is_available()
    assert found["https_proxy"]["found"] == "set" and "\x1b" not in found["OMP_NUM_THREADS"]["found"]
    assert not any(finding["fault"] for finding in found.values())
    assert not (tmp_path / "store").exists()  # it only looks


def test_sources_that_are_not_installed_are_no_fault_of_the_program(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: metadata.distribution("nothing-of-this-name").version)
    assert doctor.own_version() == "not installed, runs from its sources"
    assert run(tmp_path, "--version").stdout == "fedktl not installed, runs from its sources\n"


def test_every_extra_is_told_of_with_how_to_get_it():
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras) - {"test", "dev"}
    assert "pip install 'fedktl[timm]'" in doctor._extra("timm", "nothing-of-this-name", "networks").found


def test_faults_end_with_code_2(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    answer = run(tmp_path / "store", "doctor", code=2)
    assert "FAULT" in answer.stdout and "Something here would fail: store." in answer.stderr


def test_a_file_in_the_place_of_the_store_is_a_fault(tmp_path):
    (tmp_path / "store").write_text("")
    assert findings(tmp_path / "store", code=2)["store"]["fault"]


def test_a_device_that_computes_nothing_useful_is_a_fault(monkeypatch):
    monkeypatch.setattr(doctor, "_losses", lambda name: (1.0, float("nan")))
    assert doctor.self_test("cpu").fault
    assert doctor.self_test("cpu").what == "steps on cpu"


def test_a_pair_that_does_not_match_is_a_fault(monkeypatch):
    import torchvision

    def broken(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    (finding,) = doctor._torch()
    assert finding.fault and "as a pair" in finding.found


@pytest.mark.gpu
def test_a_gpu_computes():
    found = {finding.what: finding for finding in doctor.examine(Store(Path("artifacts")))}
    assert not found["steps on cuda:0"].fault
