/* plugin=FILE.so[ ARGUMENT]: a reward from a shared library (kac/reward_plugin.h). */
#ifndef KAC_PLUGIN_REWARD_H
#define KAC_PLUGIN_REWARD_H

#include "reward/image_reward.h"

/* KAC_E_IO: no such library; KAC_E_UNSUPPORTED: no plug-in, or one for another ABI. */
kac_status kac_plugin_reward_open(kac_image_reward *r, const char *path);

#endif
