"""The one module that knows NVML: it reads NVIDIA devices through nvidia-ml-py and returns plain values.

Owns: opening and closing the driver library, turning its errors into None ("not supported"), a fault (a device in
trouble) or `NoDriverError` (no driver at all), and the XID events. Does not own: what a fault means for a lease, or when to
sample. Called through `device_selection.open_device_set`. No NVML exception leaves this module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from ctypes import byref, c_uint
from typing import Any

from agents.devices import (
    DEVICES_PER_NODE_MAX,
    FATAL_XIDS,
    Device,
    DeviceFault,
    DeviceSample,
    FaultCode,
    MigProfile,
    MigTable,
    NoDriverError,
    NoDriverReason,
    SystemInfo,
    UnknownDeviceError,
    model_of,
)

try:
    import pynvml
except ImportError:  # the `agent` extra is not installed; open() says so
    pynvml = None

# XID events taken from the driver's queue per sample; the rest waits for the next one.
XIDS_PER_SAMPLE_MAX = 64
# Placements of one MIG profile; the driver knows at most one per memory cell.
PLACEMENTS_MAX = 32

_MIB = 1024 * 1024
_PERMILLE_PER_PERCENT = 10
_XID_WAIT_MS = 0


class _UnreadableError(Exception):
    """The device is in trouble: the fault to report."""

    def __init__(self, fault: DeviceFault) -> None:
        super().__init__(fault)
        self.fault = fault


class NvmlDeviceSet:
    """`DeviceSet` over a loaded NVIDIA driver. `model_names` maps product names to GPU models where `model_of` is too coarse."""

    def __init__(self, *, model_names: Mapping[str, str] | None = None) -> None:
        """Open the driver. Raises `NoDriverError` with the reason when there is none, or when it knows no device."""
        self._model_names = dict(model_names or {})
        self._is_open = False
        self._last_xids: dict[str, int] = {}
        self._fatal_xids: dict[str, int] = {}
        _initialise()
        self._is_open = True
        self._handles = _handles_by_uuid()
        if not self._handles:
            self.close()
            raise NoDriverError(NoDriverReason.NO_DEVICES, "the driver answers but reports no readable device")
        self._known: dict[str, Device] = {}
        self.inventory()
        self._xid_events = _watch_xids(self._handles)

    @property
    def is_simulated(self) -> bool:
        """Always false."""
        return False

    def system(self) -> SystemInfo:
        """Return the versions of the driver, of NVML and of CUDA."""
        cuda = _read(pynvml.nvmlSystemGetCudaDriverVersion)
        return SystemInfo(
            driver_version=_text(_read(pynvml.nvmlSystemGetDriverVersion)),
            nvml_version=_text(_read(pynvml.nvmlSystemGetNVMLVersion)),
            cuda_version=None if cuda is None else f"{int(cuda) // 1000}.{int(cuda) % 1000 // 10}",
            is_simulated=False,
        )

    def inventory(self) -> tuple[Device, ...]:
        """Return the devices in index order. One that died after opening is told as it last was, and is faulty in `sample`."""
        for device_uuid, handle in self._handles.items():
            with contextlib.suppress(_UnreadableError):
                self._known[device_uuid] = self._device(device_uuid, handle)
        return tuple(sorted(self._known.values(), key=lambda device: device.index))

    def sample(self, now_ms: int) -> tuple[DeviceSample, ...]:
        """Read every device that was there at opening; one that cannot be read yields a sample with its fault."""
        self._take_xids()
        return tuple(self._sample_one(device_uuid, handle, now_ms) for device_uuid, handle in self._handles.items())

    def process_ids(self, device_uuid: str) -> tuple[int, ...] | None:
        """Return the compute and graphics processes on the device; None when it is in trouble or does not say."""
        if device_uuid not in self._handles:
            raise UnknownDeviceError(device_uuid)
        try:
            return _process_ids(self._handles[device_uuid])
        except _UnreadableError:
            return None

    def feed(
        self, device_uuids: Sequence[str], *, lease_id: str, cpu_time_ms: int, memory_bytes: int, process_ids: tuple[int, ...], now_ms: int
    ) -> None:
        """Do nothing: real devices measure themselves."""

    def forget(self, lease_id: str) -> None:
        """Do nothing: real devices remember no lease."""

    def close(self) -> None:
        """Release the driver library once."""
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def _device(self, device_uuid: str, handle: Any) -> Device:
        name = _text(_read(pynvml.nvmlDeviceGetName, handle)) or "unknown"
        memory = _read(pynvml.nvmlDeviceGetMemoryInfo, handle)
        pci = _read(pynvml.nvmlDeviceGetPciInfo_v3, handle)
        mig_mode = _read(pynvml.nvmlDeviceGetMigMode, handle)
        minor = _number(_read(pynvml.nvmlDeviceGetMinorNumber, handle))
        return Device(
            uuid=device_uuid,
            index=int(_read(pynvml.nvmlDeviceGetIndex, handle) or 0),
            name=name,
            model=self._model_names.get(name) or model_of(name),
            memory_bytes=0 if memory is None else int(memory.total),
            serial=_text(_read(pynvml.nvmlDeviceGetSerial, handle)),
            pci_bus_id=None if pci is None else _text(pci.busId),
            node_path=None if minor is None else f"/dev/nvidia{minor}",
            mig=None if mig_mode is None else _mig_table(handle),
            is_mig_enabled=mig_mode is not None and int(mig_mode[0]) == pynvml.NVML_DEVICE_MIG_ENABLE,
            is_simulated=False,
        )

    def _sample_one(self, device_uuid: str, handle: Any, now_ms: int) -> DeviceSample:
        last_xid = self._last_xids.get(device_uuid)
        try:
            utilisation = _read(pynvml.nvmlDeviceGetUtilizationRates, handle)
            memory = _read(pynvml.nvmlDeviceGetMemoryInfo, handle)
            uncorrected = _ecc(handle, is_corrected=False)
            return DeviceSample(
                uuid=device_uuid,
                at_ms=now_ms,
                utilisation_permille=None if utilisation is None else int(utilisation.gpu) * _PERMILLE_PER_PERCENT,
                memory_used_bytes=None if memory is None else int(memory.used),
                power_milliwatt=_number(_read(pynvml.nvmlDeviceGetPowerUsage, handle)),
                energy_millijoule=_number(_read(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)),
                temperature_celsius=_number(_read(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)),
                process_ids=_process_ids(handle),
                ecc_corrected=_ecc(handle, is_corrected=True),
                ecc_uncorrected=uncorrected,
                last_xid=last_xid,
                fault=self._remembered_fault(device_uuid, uncorrected),
            )
        except _UnreadableError as trouble:
            return DeviceSample(uuid=device_uuid, at_ms=now_ms, last_xid=last_xid, fault=trouble.fault)

    def _remembered_fault(self, device_uuid: str, uncorrected: int | None) -> DeviceFault | None:
        # A fatal XID is an event and is told once; the device stays condemned until the driver is opened anew.
        if device_uuid in self._fatal_xids:
            return DeviceFault(FaultCode.XID, self._fatal_xids[device_uuid])
        if uncorrected:
            return DeviceFault(FaultCode.ECC, uncorrected)
        return None

    def _take_xids(self) -> None:
        if self._xid_events is None:
            return
        for _ in range(XIDS_PER_SAMPLE_MAX):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._xid_events, _XID_WAIT_MS)
                device_uuid = str(pynvml.nvmlDeviceGetUUID(event.device))
            except pynvml.NVMLError:  # a time-out is the normal end; anything else shows in the readings themselves
                return
            xid = int(event.eventData)
            self._last_xids[device_uuid] = xid
            if xid in FATAL_XIDS:
                self._fatal_xids.setdefault(device_uuid, xid)


def _initialise() -> None:
    if pynvml is None:
        raise NoDriverError(
            NoDriverReason.BINDINGS_MISSING, "nvidia-ml-py is not installed; install the distribution with its `agent` extra"
        )
    reasons = {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: NoDriverReason.LIBRARY_MISSING,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: NoDriverReason.DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: NoDriverReason.VERSION_MISMATCH,
    }
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoDriverError(reasons.get(error.value, NoDriverReason.FAILED), str(error)) from error


def _handles_by_uuid() -> dict[str, Any]:
    """Return the handle of every readable device, in index order. One that is lost already at the start has no UUID to go by."""
    handles: dict[str, Any] = {}
    try:
        count = int(_read(pynvml.nvmlDeviceGetCount) or 0)
    except _UnreadableError:
        return handles
    for index in range(min(count, DEVICES_PER_NODE_MAX)):
        with contextlib.suppress(_UnreadableError):
            handle = _read(pynvml.nvmlDeviceGetHandleByIndex, index)
            device_uuid = None if handle is None else _text(_read(pynvml.nvmlDeviceGetUUID, handle))
            if device_uuid is not None:
                handles[device_uuid] = handle
    return handles


def _read(reading: Callable[..., Any], *arguments: Any) -> Any:
    """Take one reading: its value, or None when it is not offered here. Raises `_UnreadableError` for a device in trouble."""
    try:
        return reading(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _not_offered():
            return None
        code = {
            pynvml.NVML_ERROR_GPU_IS_LOST: FaultCode.LOST,
            pynvml.NVML_ERROR_RESET_REQUIRED: FaultCode.RESET_REQUIRED,
        }.get(error.value, FaultCode.UNREADABLE)
        raise _UnreadableError(DeviceFault(code, int(error.value))) from error
    except UnicodeDecodeError:  # a corrupt name or serial number is no name or serial number
        return None


def _not_offered() -> frozenset[int]:
    return frozenset(
        {
            pynvml.NVML_ERROR_NOT_SUPPORTED,
            pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            pynvml.NVML_ERROR_NO_PERMISSION,
            pynvml.NVML_ERROR_NO_DATA,
            pynvml.NVML_ERROR_NOT_FOUND,
            pynvml.NVML_ERROR_INVALID_ARGUMENT,
            pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        }
    )


def _process_ids(handle: Any) -> tuple[int, ...] | None:
    compute = _read(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    if compute is None:
        return None
    graphics = _read(pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, handle) or []
    return tuple(sorted({int(process.pid) for process in (*compute, *graphics)}))


def _ecc(handle: Any, *, is_corrected: bool) -> int | None:
    kind = pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED if is_corrected else pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    return _number(_read(pynvml.nvmlDeviceGetTotalEccErrors, handle, kind, pynvml.NVML_VOLATILE_ECC))


def _mig_table(handle: Any) -> MigTable | None:
    """Return what the driver allows to cut, or None when it does not tell (old driver, no permission)."""
    profiles = [profile for number in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT) for profile in _mig_profile(handle, number)]
    if not profiles:
        return None
    return MigTable(memory_slices=max(profile.memory_slices for profile in profiles), profiles=tuple(profiles))


def _mig_profile(handle: Any, number: int) -> Iterator[MigProfile]:
    info = _read(pynvml.nvmlDeviceGetGpuInstanceProfileInfo, handle, number, 2)
    if info is None:
        return
    placements = (pynvml.c_nvmlGpuInstancePlacement_t * PLACEMENTS_MAX)()
    count = c_uint(PLACEMENTS_MAX)
    if _read(pynvml.nvmlDeviceGetGpuInstancePossiblePlacements, handle, info.id, placements, byref(count)) is None or count.value == 0:
        return
    used = placements[: min(count.value, PLACEMENTS_MAX)]
    yield MigProfile(
        name=(_text(info.name) or f"profile-{number}").removeprefix("MIG "),
        compute_slices=int(info.sliceCount),
        memory_slices=int(used[0].size),
        memory_bytes=int(info.memorySizeMB) * _MIB,
        instances_max=int(info.instanceCount),
        start_cells=tuple(sorted(int(placement.start) for placement in used)),
    )


def _watch_xids(handles: Mapping[str, Any]) -> Any:
    """Subscribe to XID events; None where the driver offers none (they need no polling, but some virtual devices lack them)."""
    try:
        events = pynvml.nvmlEventSetCreate()
    except pynvml.NVMLError:
        return None
    for handle in handles.values():
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
    return events


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
