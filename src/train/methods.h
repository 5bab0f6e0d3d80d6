/* The tuning methods, one file each; list.c names them. */
#ifndef KAC_TRAIN_METHODS_H
#define KAC_TRAIN_METHODS_H

#include "train/trainer.h"

extern const kac_tune_method kac_tune_alignprop, kac_tune_draft_k, kac_tune_draft_lv, kac_tune_refl, kac_tune_drtune;
extern const kac_tune_method kac_tune_ddpo, kac_tune_raft, kac_tune_dpo_online, kac_tune_nft;

#define KAC_TUNE_OPTIONS_END                                                                                           \
    { NULL, 0, KAC_OPT_BOOL, NULL, 0, 0, NULL, NULL, NULL, false }

#endif
