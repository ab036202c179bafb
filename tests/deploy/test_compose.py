"""docker-compose.yml: a misspelt key, a missing file, a setting the program refuses fail here, without Docker."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from pipeline.bootstrap import STAGES
from pipeline.runtime.settings import Settings, foreign_variables
from tests.deploy.files import DEPLOY, compose, own_services, services
from tests.tidy.source import ROOT

STAGE_SERVICES = {*STAGES, "watch"}
PINNED = re.compile(r"[a-z/]+:v?[0-9]+\.[0-9]+\.[0-9]+[a-z0-9.-]*@sha256:[0-9a-f]{64}")
PLACEHOLDER = re.compile(r"\$\{([A-Z_]+):\?[^}]+\}")
# What is no setting of ours: libpq reads the one, Python's tempfile the other.
NOT_OURS = {"PGPASSWORD", "TMPDIR"}


def _sources(name: str) -> list[str]:
    return [volume.split(":")[0] for volume in services()[name].get("volumes", [])]


def test_the_file_has_the_form_of_a_compose_file() -> None:
    """Only keys that mean something, each with a value of its kind."""
    schema = json.loads((Path(__file__).parent / "compose.schema.json").read_text(encoding="utf-8"))

    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(compose())


def test_a_misspelt_key_is_found() -> None:
    """The schema refuses what Docker would refuse, or silently ignore in an older form."""
    schema = json.loads((Path(__file__).parent / "compose.schema.json").read_text(encoding="utf-8"))
    broken = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    broken["services"]["kafka"]["heathcheck"] = broken["services"]["kafka"].pop("healthcheck")

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(broken)


def test_every_stage_is_there_and_little_else() -> None:
    """Each stage and the watch run as a service, with at most five services beside them."""
    assert services().keys() >= STAGE_SERVICES
    assert len(services().keys() - STAGE_SERVICES) <= 5
    for name in STAGES:
        assert services()[name]["command"] == ["run", name]
    assert services()["watch"]["command"] == ["watch"]


def test_foreign_images_are_pinned_by_version_and_digest() -> None:
    """What runs tomorrow is what ran today."""
    for name, service in services().items():
        if name not in own_services():
            assert PINNED.fullmatch(service["image"]), service["image"]


def test_our_image_is_of_this_version() -> None:
    """An image of another release is not started by mistake."""
    from pipeline import __version__

    assert {service["image"] for service in own_services().values()} == {f"rackmeter:{__version__}"}


def test_nobody_is_root() -> None:
    """Every container has a user of its own, without capabilities; ours cannot write to their image."""
    for name, service in services().items():
        user = service["user"].partition(":")[0]
        assert user not in ("0", "root"), name
    assert all(service["read_only"] for service in own_services().values())


def test_everything_that_goes_on_is_looked_after() -> None:
    """A service that runs for ever has a healthcheck and is started again; one that ends has neither."""
    for name, service in services().items():
        ends = service["restart"] == "no"
        assert service["healthcheck"].get("disable", False) == ends, name


def test_no_port_is_open_to_the_world() -> None:
    """Broker, database, Prometheus and Grafana are reached from this machine only; the stages from no machine."""
    for name, service in services().items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port}"
    assert not any("ports" in service for service in own_services().values())


def test_mounted_files_exist_and_are_read_only() -> None:
    """A file that is not there would be made as a folder by Docker."""
    for name in services():
        for volume in services()[name].get("volumes", []):
            if volume.startswith("."):
                source, _, mode = volume.split(":")
                assert (ROOT / source).exists(), f"{name}: {source}"
                assert mode == "ro", f"{name}: {volume}"


def test_named_volumes_are_declared_and_used() -> None:
    """A misspelt volume would be a new, empty one."""
    used = {source for name in services() for source in _sources(name) if not source.startswith((".", "/"))}

    assert used == set(compose()["volumes"])


def test_who_is_waited_for_exists_and_can_be_waited_for() -> None:
    """Healthy is asked of what has a healthcheck, completed of what ends."""
    for name, service in services().items():
        for other, wanted in service.get("depends_on", {}).items():
            ends = services()[other]["restart"] == "no"
            assert wanted["condition"] == ("service_completed_successfully" if ends else "service_healthy"), name


@pytest.mark.parametrize("name", own_services())
def test_the_settings_of_a_service_are_those_of_the_program(name: str) -> None:
    """Each can be read, and none is misspelt."""
    environment = {key: PLACEHOLDER.sub("x", value) for key, value in services()[name]["environment"].items()}
    settings = Settings.from_environment(environment)

    assert foreign_variables(environment) == []
    assert {key for key in environment if not key.startswith("RACKMETER_")} - {
        "KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL",
    } == NOT_OURS  # fmt: skip
    mounted = {volume.split(":")[1] for volume in services()[name]["volumes"]}
    assert {str(path) for path in (settings.archive_dir, settings.documents_dir, settings.state_dir)} <= mounted
    assert settings.metrics_host == "0.0.0.0"


def test_the_healthcheck_asks_the_port_that_is_served() -> None:
    """A healthcheck of another port would never be well."""
    for name, service in own_services().items():
        if service["restart"] != "no":
            port = service["environment"]["RACKMETER_METRICS_PORT"]
            assert f"http://127.0.0.1:{port}/healthz" in service["healthcheck"]["test"][-1], name


def test_no_secret_is_in_the_file() -> None:
    """Passwords are placeholders that must be filled, each explained in the example."""
    example = (DEPLOY / "compose.env.example").read_text(encoding="utf-8")
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for service in services().values():
        for key, value in service.get("environment", {}).items():
            if "PASSWORD" in key or "SECRET" in key:
                assert PLACEHOLDER.fullmatch(value), key
    placeholders = set(PLACEHOLDER.findall(text))

    assert placeholders == set(re.findall(r"^([A-Z_]+)=$", example, re.MULTILINE))
    assert not re.search(r"://[^/\s]*:[^/\s]*@", text)
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_only_migrations_have_the_owners_password() -> None:
    """A stage cannot change the books, also not by mistake: it does not know how to log in as who could."""
    holders = {
        name
        for name, service in services().items()
        if any("RACKMETER_OWNER_PASSWORD" in str(value) for value in service.get("environment", {}).values())
    }

    assert holders == {"prepare", "timescaledb"}
