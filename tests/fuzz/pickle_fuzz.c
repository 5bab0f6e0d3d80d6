#include "fuzz/fuzz.h"
#include "io/weights.h"
#include <string.h>

static volatile uint8_t sink; /* reading is the check */

/* Every tensor that the reader lists can be viewed and read. The seeds are whole files of torch.save; a file that begins as no such
 * file is taken for the pickle of one. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    enum { MAX_PICKLE = 1 << 16 };
    static const uint8_t old_head[] = {0x80, 2,    0x8a, 10,   0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8,
                                       0x50, 0x19, '.',  0x80, 2,    'N',  '.',  0x80, 2,    '}',  '.'};
    static uint8_t file[sizeof old_head + MAX_PICKLE];
    kac_weights w;
    const bool whole = n >= 4 && (memcmp(data, "PK", 2) == 0 || memcmp(data, old_head, 4) == 0);
    if (n > MAX_PICKLE) return 0;
    memcpy(file, old_head, sizeof old_head);
    memcpy(file + sizeof old_head, data, n);
    if (kac_weights_open(&w, whole ? fuzz_file(data, n) : fuzz_file(file, sizeof old_head + n)) != KAC_OK) {
        if (kac_error()[0] == 0 || w.n_entries != 0) abort();
        return 0;
    }
    for (int i = 0; i < w.n_entries; i++) {
        kac_tensor x;
        if (kac_weights_find(&w, w.entries[i].name, &x) != KAC_OK) continue;
        if ((uintptr_t)x.data % kac_dtype_bytes(x.dtype) != 0 && kac_tensor_bytes(x) > 0) abort();
        const uint8_t *bytes = x.data;
        for (size_t k = 0; k < kac_tensor_bytes(x); k++) sink ^= bytes[k];
    }
    (void)kac_weights_metadata(&w, "global_step");
    kac_weights_close(&w);
    return 0;
}
