"""Devices: where arrays live and kernels run."""

from tinyvid.errors import UserError

DEVICES = ("cpu",)
PLANNED = ("cuda", "emulator")


def check_device(device: str) -> str:
    """Return the name of a device that can be used.

    Raises:
        UserError: the device does not exist, or is not built in this version.
    """
    if device in DEVICES:
        return device
    if device.partition(":")[0] in PLANNED:
        raise UserError(f"device {device!r} is not built in this version of tinyvid; use 'cpu'")
    raise UserError(f"no device is called {device!r}; there is 'cpu'")
