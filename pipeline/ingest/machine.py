"""Which machine this is."""

from pathlib import Path

from pipeline.domain.errors import ConfigurationFault

MACHINE_ID_PATH = Path("/etc/machine-id")


def machine_id(path: Path = MACHINE_ID_PATH) -> str:
    """
    The machine's id, as systemd keeps it.

    Raises:
        ConfigurationFault: The file is missing or empty.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigurationFault(f"{path} cannot be read ({error}): make it with systemd-machine-id-setup") from error
    if not text:
        raise ConfigurationFault(f"{path} is empty: make it with systemd-machine-id-setup")
    return text
