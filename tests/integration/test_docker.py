"""The image and its companions, as far as they can be checked without Docker."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from lexmax.__main__ import _parser

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
DOCKER = Path(__file__).parents[2] / "docker"


@pytest.fixture(scope="module")
def instructions():
    """Instructions of the Dockerfile, lines joined, without comments."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def parsed(command):
    return _parser().parse_args(command)


def values(instructions, name):
    return [rest for instruction, rest in instructions if instruction == name]


def test_every_stage_stands_on_one_image_of_an_exact_version(instructions):
    (default,) = [rest for rest in values(instructions, "ARG") if rest.startswith("PYTHON=")]
    assert re.fullmatch(r"PYTHON=python:3\.\d+\.\d+-slim-\w+", default)
    assert [rest.split()[0] for rest in values(instructions, "FROM")] == ["${PYTHON}"] * 2


def test_the_image_runs_as_a_user_without_rights_and_tells_its_health(instructions):
    last = max(number for number, (name, _) in enumerate(instructions) if name == "FROM")
    final = instructions[last:]
    assert values(final, "USER") == ["lexmax"]
    assert not any("pip" in rest or "apt" in rest for rest in values(final, "RUN"))
    (health,) = values(final, "HEALTHCHECK")
    program = json.loads(health[health.index("[") :])
    assert "/readyz" in program[-1]
    compile(program[-1], "health", "exec")
    assert not values(instructions, "ADD")
    for run in values(instructions, "RUN"):
        assert "pip install" not in run or ("--no-cache-dir" in run and "--constraint" in run)


def test_kernels_are_compiled_into_what_a_new_volume_begins_with(instructions):
    (kinds,) = [rest for rest in values(instructions, "ARG") if rest.startswith("WARM=")]
    (run,) = [rest for rest in values(instructions, "RUN") if "lexmax warm" in rest]
    (where,) = re.findall(r"NUMBA_CACHE_DIR=(\S+) /opt", run)
    assert f"NUMBA_CACHE_DIR={where}" in " ".join(values(instructions, "ENV"))
    for kind in kinds.removeprefix("WARM=").strip('"').split():
        parsed(["warm", "--field", kind])


def test_the_commands_of_the_image_and_of_compose_parse(instructions, compose):
    (entry,), (command,) = values(instructions, "ENTRYPOINT"), values(instructions, "CMD")
    assert json.loads(entry) == ["lexmax"]
    assert parsed(json.loads(command)).host == "0.0.0.0"  # noqa: S104
    for name in ("index", "server"):
        parsed(compose["services"][name]["command"])
    text = (DOCKER / "compose.yaml").read_text()
    for typed in re.findall(r"run --rm (?:--no-deps )?index ((?:keys|info|build) [^>\n]*)", text):
        parsed(typed.split())


def test_containers_are_bounded_and_without_rights(compose):
    for name, service in compose["services"].items():
        assert service["mem_limit"], name
        assert ":latest" not in service["image"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    for name in ("index", "server"):
        service = compose["services"][name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert "--keys" in compose["services"]["server"]["command"]
    grace = parsed(compose["services"]["server"]["command"]).grace_s or 20
    assert int(compose["services"]["server"]["stop_grace_period"].removesuffix("s")) > grace + 6


def test_prometheus_asks_the_server_with_a_key(compose):
    (job,) = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert job["static_configs"] == [{"targets": ["server:8000"]}]
    mounted = [each.split(":")[1] for each in compose["services"]["prometheus"]["volumes"]]
    assert job["authorization"]["credentials_file"] in mounted


def test_the_script_that_pins_is_sound_shell():
    assert subprocess.run(["sh", "-n", str(DOCKER / "pin.sh")], check=False).returncode == 0
