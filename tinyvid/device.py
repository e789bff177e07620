"""Devices: where arrays live and kernels run."""

from tinyvid.errors import UserError, nearest

DEVICES = ("cpu",)
PLANNED = ("cuda", "emulator")


def check_device(device: str) -> str:
    """Return the name of a device that can be used.

    Raises:
        UserError: the device does not exist, or is not built in this version.
    """
    if device in DEVICES:
        return device
    known, planned = ", ".join(map(repr, DEVICES)), " and ".join(map(repr, PLANNED))
    if device.partition(":")[0] in PLANNED:
        raise UserError(f"device {device!r} is not built in this version of tinyvid; use {known}")
    raise UserError(
        f"no device is called {device!r}; there is {known} ({planned} are not built in this "
        f"version).{nearest(device, [*DEVICES, *PLANNED])}"
    )
