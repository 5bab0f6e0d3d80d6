/* What a pickle may ask to be imported, and what that means here. */
#ifndef KAC_IO_PICKLE_NAMES_H
#define KAC_IO_PICKLE_NAMES_H

#include "io/pickle.h"

typedef enum kac_pickle_name_kind {
    KAC_NAME_REBUILD_V1,     /* (storage, offset, size, stride) -> tensor */
    KAC_NAME_REBUILD_V2,     /* (storage, offset, size, stride, requires_grad, hooks, …) -> tensor */
    KAC_NAME_REBUILD_V3,     /* (storage, offset, size, stride, requires_grad, hooks, dtype, …) -> tensor */
    KAC_NAME_PARAMETER,      /* (tensor, …) -> the tensor */
    KAC_NAME_FROM_TYPE,      /* (name, type, arguments, state) -> name(*arguments) */
    KAC_NAME_DICT,           /* () or a list of pairs -> dict */
    KAC_NAME_PARAMETER_DICT, /* a dict that comes with its state */
    KAC_NAME_SIZE,           /* (list) -> the list */
    KAC_NAME_STORAGE,        /* the class of a storage */
    KAC_NAME_DTYPE,
    KAC_NAME_OTHER /* its objects carry no tensors that we want */
} kac_pickle_name_kind;

/* Index of a name, for kac_pickle_name_of; -1: not in the list. */
int kac_pickle_name_find(const char *module, size_t n_module, const char *name, size_t n_name);

typedef struct kac_pickle_name {
    kac_pickle_name_kind kind;
    int dtype; /* of STORAGE and DTYPE: index into kac_torch_dtypes */
} kac_pickle_name;
kac_pickle_name kac_pickle_name_of(int index);

#endif
