"""The machine, its versions and its free memory, as they stand in a report."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("hippodrome", "torch", "numba", "numpy", "lightning")


def device_for(wanted: str) -> torch.device:
    """The device behind a word: "auto" takes a GPU where there is one.

    Raises:
        ValueError: a word that names no device, or a device that this machine does not have.
    """
    if wanted == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(found)
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ValueError(f"a device is auto, cpu, cuda, cuda:1 or mps; got {wanted!r}") from None
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(device.type, False) or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ValueError(f"this machine has no device {wanted!r}; take cpu, or auto for the best there is")
    return device


def facts(device: torch.device) -> dict[str, str]:
    """Processor, cores, threads in use, memory, accelerator and system."""
    total = _memory("MemTotal")
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count() or "?"),
        "threads": str(torch.get_num_threads()),
        "memory": f"{total / (1 << 30):.1f} GiB" if total else "",
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "device": str(device),
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
    }


def versions() -> dict[str, str]:
    """Versions of what computed the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on the device; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return _memory("MemAvailable") if device.type == "cpu" else None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory(field: str) -> int | None:
    info = Path("/proc/meminfo")
    if not info.is_file():
        return None
    for line in info.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None
