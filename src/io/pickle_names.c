#include "io/pickle_names.h"
#include <kac/tensor.h>
#include <string.h>

const kac_torch_dtype kac_torch_dtypes[] = {
    {"FloatStorage", "float32", "float", KAC_F32, 4, "F32"},
    {"HalfStorage", "float16", "half", KAC_F16, 2, "F16"},
    {"BFloat16Storage", "bfloat16", "bfloat16", KAC_BF16, 2, "BF16"},
    {"DoubleStorage", "float64", "double", KAC_F64, 8, "F64"},
    {"LongStorage", "int64", "long", KAC_I64, 8, "I64"},
    {"IntStorage", "int32", "int", KAC_I32, 4, "I32"},
    {"ShortStorage", "int16", "short", KAC_I16, 2, "I16"},
    {"CharStorage", "int8", "int8", KAC_I8, 1, "I8"},
    {"ByteStorage", "uint8", "uint8", KAC_U8, 1, "U8"},
    {"BoolStorage", "bool", "bool", KAC_BOOL, 1, "BOOL"},
    {"UntypedStorage", "uint8", "uint8", KAC_U8, 1, "U8"},
    {"ComplexFloatStorage", "complex64", "cfloat", -1, 8, "C64"},
    {"ComplexDoubleStorage", "complex128", "cdouble", -1, 16, "C128"},
    {NULL, "uint16", "uint16", KAC_U16, 2, "U16"},
    {NULL, "uint32", "uint32", KAC_U32, 4, "U32"},
    {NULL, "uint64", "uint64", KAC_U64, 8, "U64"},
    {NULL, "float8_e4m3fn", "float8_e4m3fn", -1, 1, "F8_E4M3"},
    {NULL, "float8_e5m2", "float8_e5m2", -1, 1, "F8_E5M2"},
};

static const struct {
    const char *module, *name;
    kac_pickle_name_kind kind;
} names[] = {
    {"collections", "OrderedDict", KAC_NAME_DICT},
    {"torch._utils", "_rebuild_tensor", KAC_NAME_REBUILD_V1},
    {"torch._utils", "_rebuild_tensor_v2", KAC_NAME_REBUILD_V2},
    {"torch._utils", "_rebuild_tensor_v3", KAC_NAME_REBUILD_V3},
    {"torch._utils", "_rebuild_parameter", KAC_NAME_PARAMETER},
    {"torch._utils", "_rebuild_parameter_with_state", KAC_NAME_PARAMETER},
    {"torch._tensor", "_rebuild_from_type_v2", KAC_NAME_FROM_TYPE},
    {"torch", "Size", KAC_NAME_SIZE},
    {"torch.nn.modules.container", "ParameterDict", KAC_NAME_PARAMETER_DICT},
    {"torch", "Tensor", KAC_NAME_OTHER},
    {"torch", "device", KAC_NAME_OTHER},
    {"torch.nn.parameter", "Parameter", KAC_NAME_OTHER},
    {"__builtin__", "set", KAC_NAME_OTHER},
    {"builtins", "set", KAC_NAME_OTHER},
    {"__builtin__", "frozenset", KAC_NAME_OTHER},
    {"builtins", "frozenset", KAC_NAME_OTHER},
    {"_codecs", "encode", KAC_NAME_OTHER},
    {"numpy", "dtype", KAC_NAME_OTHER},
    {"numpy", "ndarray", KAC_NAME_OTHER},
    {"numpy.core.multiarray", "scalar", KAC_NAME_OTHER},
    {"numpy.core.multiarray", "_reconstruct", KAC_NAME_OTHER},
    {"numpy._core.multiarray", "scalar", KAC_NAME_OTHER},
    {"numpy._core.multiarray", "_reconstruct", KAC_NAME_OTHER},
    {"pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", KAC_NAME_OTHER},
};

enum { N_NAMES = KAC_COUNT_OF(names), N_DTYPES = KAC_COUNT_OF(kac_torch_dtypes) };

static bool same(const char *text, const char *s, size_t n) {
    return text != NULL && strlen(text) == n && memcmp(text, s, n) == 0;
}

/* After the names come the storages, then the dtypes. */
int kac_pickle_name_find(const char *module, size_t n_module, const char *name, size_t n_name) {
    for (int i = 0; i < N_NAMES; i++)
        if (same(names[i].module, module, n_module) && same(names[i].name, name, n_name)) return i;
    const bool torch = same("torch", module, n_module);
    for (int i = 0; i < N_DTYPES; i++) {
        const kac_torch_dtype *d = &kac_torch_dtypes[i];
        if ((torch || same("torch.cuda", module, n_module) || same("torch.storage", module, n_module)) &&
            same(d->storage, name, n_name))
            return N_NAMES + i;
        if (torch && (same(d->name, name, n_name) || same(d->alias, name, n_name))) return N_NAMES + N_DTYPES + i;
    }
    return -1;
}

kac_pickle_name kac_pickle_name_of(int index) {
    if (index < N_NAMES) return (kac_pickle_name){.kind = names[index].kind};
    if (index < N_NAMES + N_DTYPES) return (kac_pickle_name){.kind = KAC_NAME_STORAGE, .dtype = index - N_NAMES};
    return (kac_pickle_name){.kind = KAC_NAME_DTYPE, .dtype = index - N_NAMES - N_DTYPES};
}
