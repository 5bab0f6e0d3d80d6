/* What a run records of its rewards beyond the combined one. */
#include "run/generate_job.h"
#include <math.h>

cJSON *kac_job_reward_facts(const kac_reward_spec *const *specs, int n) {
    cJSON *rewards = cJSON_CreateArray();
    char text[64];
    for (int i = 0; i < n; i++) {
        cJSON *reward = cJSON_CreateObject();
        cJSON_AddStringToObject(reward, "name", specs[i]->label);
        cJSON_AddNumberToObject(reward, "weight", specs[i]->weight);
        cJSON *shapings = specs[i]->n_shapings == 0 ? NULL : cJSON_AddArrayToObject(reward, "shapings");
        for (int k = 0; k < specs[i]->n_shapings; k++)
            cJSON_AddItemToArray(shapings, cJSON_CreateString(kac_shaping_text(&specs[i]->shapings[k], text)));
        cJSON_AddItemToArray(rewards, reward);
    }
    return rewards;
}

/* One group's part of the list. */
static kac_status record_group(kac_job *j, const kac_reward_spec *const *specs, int n, int n_per_group,
                               const int *slots, int n_slots, const double *const *rows) {
    cJSON *line = cJSON_CreateObject();
    cJSON_AddNumberToObject(line, "i_step", j->i_step);
    cJSON_AddNumberToObject(line, "group", slots[0] / n_per_group);
    cJSON *list = cJSON_AddArrayToObject(line, "particles"), *single = cJSON_AddObjectToObject(line, "rewards");
    for (int i = 0; i < n_slots; i++) cJSON_AddItemToArray(list, cJSON_CreateNumber(slots[i] % n_per_group));
    for (int k = 0; k < n; k++) {
        list = cJSON_AddArrayToObject(single, specs[k]->label);
        for (int i = 0; i < n_slots; i++) cJSON_AddItemToArray(list, kac_json_number(rows[i][k]));
    }
    list = cJSON_AddArrayToObject(line, "combined");
    for (int i = 0; i < n_slots; i++) cJSON_AddItemToArray(list, kac_json_number(rows[i][n]));
    list = isnan(rows[0][n + 1]) ? NULL : cJSON_AddArrayToObject(line, "uncertainty");
    for (int i = 0; i < n_slots && list != NULL; i++) cJSON_AddItemToArray(list, kac_json_number(rows[i][n + 1]));
    return kac_run_folder_event(&j->folder, "rewards", line);
}

kac_status kac_job_record_rewards(kac_job *j, const kac_reward_spec *const *specs, int n, int n_per_group,
                                  const int *slots, int n_slots, const double *const *rows) {
    for (int i = 0; i < n_slots;) {
        int end = i + 1;
        while (end < n_slots && slots[end] / n_per_group == slots[i] / n_per_group) end++;
        KAC_TRY(record_group(j, specs, n, n_per_group, slots + i, end - i, rows + i));
        i = end;
    }
    return KAC_OK;
}
