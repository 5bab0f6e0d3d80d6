#include "fuzz/fuzz.h"
#include "io/weights.h"
#include <string.h>

static volatile uint8_t sink; /* reading is the check */

/* Every tensor that the reader lists can be viewed and read. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    kac_weights s;
    if (kac_weights_open(&s, fuzz_file(data, n)) != KAC_OK) {
        if (kac_error()[0] == 0 || s.n_entries != 0) abort();
        return 0;
    }
    for (int i = 0; i < s.n_entries; i++) {
        kac_tensor x;
        if (kac_weights_find(&s, s.entries[i].name, &x) != KAC_OK) continue;
        if ((uintptr_t)x.data % kac_dtype_bytes(x.dtype) != 0 && kac_tensor_bytes(x) > 0) abort();
        const uint8_t *bytes = x.data;
        for (size_t k = 0; k < kac_tensor_bytes(x); k++) sink ^= bytes[k];
    }
    kac_tensor none;
    (void)kac_weights_find(&s, "no such tensor", &none);
    (void)kac_weights_metadata(&s, "format");
    kac_weights_close(&s);
    return 0;
}
