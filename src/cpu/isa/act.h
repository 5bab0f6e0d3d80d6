/* Activations on vectors. */
#ifndef KAC_CPU_ACT_H
#define KAC_CPU_ACT_H

#include "cpu/isa/vec.h"
#include "tensor/ops.h"

static KAC_INLINE vf v_act(vf x, kac_act act) {
    switch (act) {
    case KAC_ACT_NONE:
        return x;
    case KAC_ACT_SILU:
        return x / (1.0f + v_exp(-x));
    case KAC_ACT_GELU:
        return 0.5f * x * (1.0f + v_erf(x * 0.707106781f));
    case KAC_ACT_GELU_TANH:
        return 0.5f * x * (1.0f + v_tanh(0.797884561f * (x + 0.044715f * x * x * x)));
    case KAC_ACT_QUICK_GELU:
        return x / (1.0f + v_exp(x * -1.702f));
    case KAC_ACT_RELU:
        return v_select(x < 0.0f, (vf){0}, x);
    case KAC_ACT_TANH:
        return v_tanh(x);
    case KAC_ACT_MISH: { /* x tanh(ln(1 + e)) = x (e² + 2e) / (e² + 2e + 2), e = e^x; beyond 20 the quotient is 1 */
        const vf e = v_exp(v_min(v_set(20.0f), x)), q = e * (e + 2.0f);
        return x * (q / (q + 2.0f));
    }
    }
    return x;
}

#endif
