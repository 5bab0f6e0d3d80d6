/* kac: steers diffusion models by rewards. Everything public, in the order in which one meets it:
 *
 *     status.h   what can fail, and the one line that says why
 *     rng.h      randomness as a function of (seed, purpose, step, slot, element)
 *     tensor.h   small values that say where numbers lie
 *     options.h  one table of options: flags, help, files, validation
 *     process.h  first seam: what is sampled
 *     reward.h   second seam: how good a state is
 *     mixture.h  a process and a reward whose answers are known exactly
 *     events.h   third seam: what happened
 *     steer.h    the methods: none, best-of-n, fk
 *     reward_plugin.h   a reward from a shared library; stands alone
 *
 * A program is built with `pkg-config --cflags --libs kac` or CMake's find_package(kac) and target kac::kac. */
#ifndef KAC_KAC_H
#define KAC_KAC_H

/* The order is for the reader. */
/* clang-format off */

#include <kac/status.h>
#include <kac/rng.h>
#include <kac/tensor.h>
#include <kac/options.h>
#include <kac/process.h>
#include <kac/reward.h>
#include <kac/mixture.h>
#include <kac/events.h>
#include <kac/steer.h>
#include <kac/reward_plugin.h>
/* clang-format on */

#endif
