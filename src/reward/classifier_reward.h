/* The log-probability that a classifier gives a label, or the likeliest of several; no prompt. */
#ifndef KAC_CLASSIFIER_REWARD_H
#define KAC_CLASSIFIER_REWARD_H

#include "reward/image_reward.h"

/* DIR:LABEL or DIR:LABEL+LABEL…. DIR is a ViTForImageClassification of transformers (labels: its id2label), or a network described in config.json (model/cnn.h).
 * LABEL is a label (one of those between commas is enough) or its number; a number needs quotes around the whole, as :3 alone would be
 * a weight: classifier="DIR:3". Score: log softmax(logits)[LABEL], the highest of several. */
kac_status kac_classifier_reward_open(kac_image_reward *r, const char *path);

#endif
