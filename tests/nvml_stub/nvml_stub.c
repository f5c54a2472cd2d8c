/* A stand-in for libnvidia-ml.so.1, for tests without a GPU.
 *
 * It offers the part of the NVML ABI that the agent uses. All it tells comes from a memory-mapped state file, named by
 * TERRACE_NVML_STUB_STATE, so that a test changes utilisation, processes and faults while the library is loaded. The
 * layout below is mirrored by state.py. Compile with -DPARTIAL_DRIVER for a driver that lacks some functions.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEVICES = 8, PROCESSES = 16 };
enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10 };
enum { NO_UTILISATION = 1, NO_ENERGY = 2, NO_ECC = 4, NO_MIG = 8, NO_PROCESSES = 16, NO_SERIAL = 32, NO_GRAPHICS = 64 };

struct device {
    char uuid[96], name[96], serial[32], bus_id[32];
    uint64_t memory_total, memory_used, energy_millijoule, ecc_corrected, ecc_uncorrected;
    uint32_t utilisation_percent, power_milliwatt, temperature_celsius, is_mig_enabled;
    uint32_t not_supported; /* a sum of the NO_ bits: these readings answer "not supported" */
    uint32_t error;         /* unless 0, what every call on the device returns */
    uint32_t pending_xid;   /* unless 0, told once as an event */
    uint32_t compute_count, graphics_count;
    uint32_t compute[PROCESSES], graphics[PROCESSES];
};

struct state {
    uint32_t init_error, device_count;
    char driver_version[80];
    struct device devices[DEVICES];
};

/* The shapes that cross the ABI. */
struct memory { unsigned long long total, free, used; };
struct utilisation { unsigned int gpu, memory; };
struct process { unsigned int pid; unsigned long long used_memory; unsigned int gpu_instance, compute_instance; };
struct pci { char legacy_bus_id[16]; unsigned int domain, bus, device, device_id, subsystem_id; char bus_id[32]; };
struct event { struct device *device; unsigned long long type, data; unsigned int gpu_instance, compute_instance; };
struct placement { unsigned int start, size; };
struct profile {
    unsigned int version, id, is_p2p, slices, instances, multiprocessors, copy, decoders, encoders, jpeg, ofa;
    unsigned long long memory_mib;
    char name[96];
};

static struct state *state;

#define ENTER(device) do { if ((device)->error) return (int)(device)->error; } while (0)
#define UNLESS(device, bit) do { ENTER(device); if ((device)->not_supported & (bit)) return NOT_SUPPORTED; } while (0)

static int copy(char *target, unsigned int size, const char *text) {
    if (strlen(text) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(target, text);
    return OK;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    const char *path = getenv("TERRACE_NVML_STUB_STATE");
    int file = path ? open(path, O_RDWR) : -1;
    struct stat about;
    if (file < 0) return DRIVER_NOT_LOADED;
    if (fstat(file, &about) || about.st_size != (off_t)sizeof(struct state)) {
        close(file);
        return INVALID_ARGUMENT; /* the layout of state.py has drifted from this file */
    }
    if (state) munmap(state, sizeof *state);
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return (int)state->init_error;
}

int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == DRIVER_NOT_LOADED ? "Driver Not Loaded" : "stub error"; }
int nvmlSystemGetDriverVersion(char *text, unsigned int size) { return copy(text, size, state->driver_version); }
int nvmlSystemGetNVMLVersion(char *text, unsigned int size) { return copy(text, size, "13.0.stub"); }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 13010; return OK; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = state->device_count; return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, struct device **device) {
    if (index >= state->device_count) return INVALID_ARGUMENT;
    *device = &state->devices[index];
    ENTER(*device);
    return OK;
}

int nvmlDeviceGetIndex(struct device *device, unsigned int *index) {
    ENTER(device);
    *index = (unsigned int)(device - state->devices);
    return OK;
}

int nvmlDeviceGetMinorNumber(struct device *device, unsigned int *minor) {
    ENTER(device);
    *minor = DEVICES - 1 - (unsigned int)(device - state->devices); /* not the index: on real machines the two differ too */
    return OK;
}

int nvmlDeviceGetName(struct device *device, char *text, unsigned int size) { ENTER(device); return copy(text, size, device->name); }
/* Answers even for a device in trouble, as the driver does for one that fell off the bus: events name it. */
int nvmlDeviceGetUUID(struct device *device, char *text, unsigned int size) { return copy(text, size, device->uuid); }
int nvmlDeviceGetSerial(struct device *device, char *text, unsigned int size) {
    UNLESS(device, NO_SERIAL);
    return copy(text, size, device->serial);
}

int nvmlDeviceGetPciInfo_v3(struct device *device, struct pci *pci) {
    ENTER(device);
    memset(pci, 0, sizeof *pci);
    return copy(pci->bus_id, sizeof pci->bus_id, device->bus_id);
}

int nvmlDeviceGetMemoryInfo(struct device *device, struct memory *memory) {
    ENTER(device);
    *memory = (struct memory){device->memory_total, device->memory_total - device->memory_used, device->memory_used};
    return OK;
}

int nvmlDeviceGetUtilizationRates(struct device *device, struct utilisation *rates) {
    UNLESS(device, NO_UTILISATION);
    *rates = (struct utilisation){device->utilisation_percent, 0};
    return OK;
}

int nvmlDeviceGetPowerUsage(struct device *device, unsigned int *milliwatt) {
    ENTER(device);
    *milliwatt = device->power_milliwatt;
    return OK;
}

int nvmlDeviceGetTemperature(struct device *device, unsigned int sensor, unsigned int *celsius) {
    ENTER(device);
    if (sensor != 0) return INVALID_ARGUMENT;
    *celsius = device->temperature_celsius;
    return OK;
}

int nvmlDeviceGetTotalEccErrors(struct device *device, unsigned int type, unsigned int counter, unsigned long long *count) {
    UNLESS(device, NO_ECC);
    if (type > 1 || counter > 1) return INVALID_ARGUMENT;
    *count = type ? device->ecc_uncorrected : device->ecc_corrected;
    return OK;
}

/* The size protocol: too small an array is answered by error 7 and the number of processes. */
static int list(const uint32_t *from, uint32_t from_count, unsigned int *count, struct process *processes) {
    unsigned int room = *count;
    *count = from_count;
    if (from_count > room) return INSUFFICIENT_SIZE;
    for (unsigned int i = 0; i < from_count; i++) processes[i] = (struct process){from[i], 1 << 20, 0xFFFFFFFF, 0xFFFFFFFF};
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct device *device, unsigned int *count, struct process *processes) {
    UNLESS(device, NO_PROCESSES);
    return list(device->compute, device->compute_count, count, processes);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(struct device *device, unsigned int *count, struct process *processes) {
    UNLESS(device, NO_GRAPHICS);
    return list(device->graphics, device->graphics_count, count, processes);
}

#ifndef PARTIAL_DRIVER
int nvmlDeviceGetTotalEnergyConsumption(struct device *device, unsigned long long *millijoule) {
    UNLESS(device, NO_ENERGY);
    *millijoule = device->energy_millijoule;
    return OK;
}

int nvmlDeviceGetMigMode(struct device *device, unsigned int *current, unsigned int *pending) {
    UNLESS(device, NO_MIG);
    *current = *pending = device->is_mig_enabled;
    return OK;
}

/* Two profiles are enough to see the table cross the border: 1g.18gb (number 0, id 19) and 7g.141gb (number 4, id 0). */
int nvmlDeviceGetGpuInstanceProfileInfoV(struct device *device, unsigned int number, struct profile *profile) {
    UNLESS(device, NO_MIG);
    if (profile->version != (sizeof *profile | 2U << 24)) return 25; /* argument version mismatch */
    if (number != 0 && number != 4) return NOT_SUPPORTED;
    int is_whole = number == 4;
    profile->id = is_whole ? 0 : 19;
    profile->slices = is_whole ? 7 : 1;
    profile->instances = is_whole ? 1 : 7;
    profile->memory_mib = is_whole ? 143360 : 16384;
    return copy(profile->name, sizeof profile->name, is_whole ? "MIG 7g.141gb" : "MIG 1g.18gb");
}

int nvmlDeviceGetGpuInstancePossiblePlacements_v2(struct device *device, unsigned int id, struct placement *placements, unsigned int *count) {
    UNLESS(device, NO_MIG);
    unsigned int needed = id == 0 ? 1 : 7;
    if (*count < needed) return INSUFFICIENT_SIZE;
    *count = needed;
    for (unsigned int i = 0; i < needed; i++) placements[i] = (struct placement){i, id == 0 ? 8 : 1};
    return OK;
}

int nvmlEventSetCreate(void **events) { *events = state; return OK; }
int nvmlDeviceRegisterEvents(struct device *device, unsigned long long types, void *events) {
    (void)types; (void)events;
    ENTER(device);
    return OK;
}

int nvmlEventSetWait_v2(void *events, struct event *event, unsigned int timeout_ms) {
    (void)events; (void)timeout_ms;
    for (unsigned int i = 0; i < state->device_count; i++) {
        struct device *device = &state->devices[i];
        if (device->pending_xid) {
            *event = (struct event){device, 8, device->pending_xid, 0xFFFFFFFF, 0xFFFFFFFF};
            device->pending_xid = 0;
            return OK;
        }
    }
    return TIMEOUT;
}
#endif
