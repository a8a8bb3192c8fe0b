/* NVIDIA's management library as one GPU with four NVLink connections would answer it. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, TIMEOUT = 10 };

#ifndef STATUS
#define STATUS SUCCESS
#endif

typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { uint32_t field, scope; int64_t stamp, latency; int type, status; union { double d; unsigned long long u; } value; } field_t;
typedef struct { void *device; unsigned long long type, data; unsigned gpu_instance, compute_instance; } event_t;

static int the_gpu, events_told;

int nvmlInit_v2(void) { return STATUS; }
int nvmlInitWithFlags(unsigned flags) { return STATUS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return "as told"; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "580.159.04", length); return SUCCESS; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13000; return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu) { *gpu = &the_gpu; return index ? NOT_FOUND : SUCCESS; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **gpu) { *gpu = &the_gpu; return strcmp(uuid, "GPU-a") ? NOT_FOUND : SUCCESS; }
int nvmlDeviceGetUUID(void *gpu, char *text, unsigned length) { strncpy(text, "GPU-a", length); return SUCCESS; }
int nvmlDeviceGetName(void *gpu, char *text, unsigned length) { strncpy(text, "NVIDIA H100 80GB HBM3", length); return SUCCESS; }
int nvmlDeviceGetUtilizationRates(void *gpu, utilization_t *rates) { rates->gpu = 87; rates->memory = 40; return SUCCESS; }
int nvmlDeviceGetMemoryInfo(void *gpu, memory_t *memory) { memory->total = 85520809984ULL; memory->used = 506724352ULL; return SUCCESS; }
int nvmlDeviceGetPowerUsage(void *gpu, unsigned *milliwatts) { *milliwatts = 121607; return SUCCESS; }
int nvmlDeviceGetEnforcedPowerLimit(void *gpu, unsigned *milliwatts) { *milliwatts = 700000; return SUCCESS; }
int nvmlDeviceGetTotalEnergyConsumption(void *gpu, unsigned long long *millijoules) { *millijoules = 8113140; return SUCCESS; }
int nvmlDeviceGetTemperature(void *gpu, int sensor, unsigned *celsius) { *celsius = 38; return SUCCESS; }
int nvmlDeviceGetClockInfo(void *gpu, int clock, unsigned *megahertz) { *megahertz = clock == 2 ? 2619 : 1980; return SUCCESS; }
int nvmlDeviceGetCurrentClocksEventReasons(void *gpu, unsigned long long *reasons) { *reasons = 0x4 | 0x1; return SUCCESS; }
int nvmlDeviceGetTotalEccErrors(void *gpu, int kind, int counter, unsigned long long *errors) { *errors = kind ? 0 : 3; return SUCCESS; }
int nvmlDeviceGetPcieThroughput(void *gpu, int way, unsigned *kib) { *kib = way ? 390 : 1295; return SUCCESS; }
/* Some GPUs don't tell this. */
int nvmlDeviceGetPcieReplayCounter(void *gpu, unsigned *count) { return NOT_SUPPORTED; }
int nvmlDeviceGetNvLinkState(void *gpu, unsigned link, int *state) { *state = link != 2; return link < 4 ? SUCCESS : 2; }

int nvmlDeviceGetFieldValues(void *gpu, int count, field_t *fields) {
    for (int i = 0; i < count; i++) {
        fields[i].status = fields[i].scope == 0xFFFFFFFF ? SUCCESS : NOT_FOUND;
        fields[i].value.u = fields[i].field == 138 ? 7 : 9;
    }
    return SUCCESS;
}

int nvmlEventSetCreate(void **set) { *set = &events_told; return SUCCESS; }
int nvmlDeviceRegisterEvents(void *gpu, unsigned long long types, void *set) { return types == 8 ? SUCCESS : NOT_SUPPORTED; }

/* One error soon, then none. */
int nvmlEventSetWait_v2(void *set, event_t *event, unsigned milliseconds) {
    if (events_told++) {
        usleep(1000 * milliseconds);
        return TIMEOUT;
    }
    event->device = &the_gpu;
    event->type = 8;
    event->data = 79;
    return SUCCESS;
}
