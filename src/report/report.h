/* The page of a run: reads a run folder, writes its index.html; the page needs no network and no other file.
 *
 *     RUN/run.json       what was asked and what came out; written at the start, replaced (atomically) at the end
 *     RUN/events.jsonl   one JSON object a line, appended as things happen; the last line may be cut by a kill
 *     RUN/NAME.png       final pictures          RUN/previews/NAME.png   x0-hat on the way
 *     RUN/trees/NAME.json  a search's tree (tree_data.h)   RUN/index.html     this page
 *
 * Paths inside both files are relative to the run folder, with '/', without "..". A number that is not finite is null
 * (in log_weights: minus infinity). Every key may be missing: the page shows what there is.
 *
 * run.json
 *     "kac_run"     1, the version of this layout
 *     "version"     of kac, "0.1.0"
 *     "state"       "running" | "finished" | "interrupted" | "failed"
 *     "error"       one line, when failed
 *     "command"     ["kac", "generate", …] as it was typed
 *     "started"     UTC, "2026-01-31T12:00:00Z"
 *     "options"     {"steps": "25", …}: every option with a value, as text; a repeatable one: a list
 *     "given"       ["steps", …]: names of the options that the user set
 *     "model"       {"path", "class", "files": [{"path", "bytes", "sha256"}, …]}
 *     "machine"     {"backend", "dtype", "threads", "cpu", "onednn"}
 *     "seed"        number        "n_steps", "n_particles", "width", "height"   numbers
 *     "steer"       the method's name        "sampler"   the solver's name
 *     "groups"      [{"prompt", "negative_prompt"}, …]: one per prompt
 *     "rewards"     [{"name", "weight"}, …]: what the reward is the weighted sum of
 * and at the end
 *     "images"      [{"file", "group", "particle", "rank", "reward", "rewards": {name: value}, "log_weight", "weight",
 *                     "eve", "seed"}, …]
 *                   rank: 0 is the best of its group; reward: the weighted sum; weight: normalised in the group;
 *                   eve: the particle at the start that it descends from
 *     "samples"     "samples.safetensors" when the states are no pictures
 *     "log_z"       [number, …]: estimate of log E exp(λ r), per group
 *     "anytime"     true: the method goes on until its budget is spent; "particles" are then the results it hands over
 *     "counts"      {"nfe" (states evaluated: with and without the prompt, for guidance, count once), "denoiser", "denoiser_calls", "decoder", "reward"}: states evaluated (calls: batches)
 *     "seconds"     {"load", "text", "denoiser", "decoder", "reward", "write", "total"}
 *     "peak_bytes", "plan_bytes", "flops"   numbers
 *
 * events.jsonl: objects with "event" and "ms" (since the start of the program)
 *     "start"     "i_step": the step that it (re)starts with; more than 0 after --resume: later lines replace earlier
 *                 ones of the same step and group
 *     "step"      kac_step_event: "i_step", "n_steps", "group", "n_groups", "scored", "resampled", "ancestors",
 *                 "eves", "log_weights", "rewards" (null when not scored), "ess", "log_z", and "counts" (as in
 *                 run.json, so far); i_step = n_steps is the final scoring
 *     "search"    kac_search_event: "group", "n_groups", "nfe", "nfe_budget", "seconds", "seconds_budget", "n_samples", "n_nodes",
 *                 "best_reward", "log_z", "ess" (null: none)
 *     "tree"      "group", "file": a tree written: trees/group_00.json
 *     "preview"   "i_step", "group", "particle", "file": an x0-hat written: previews/step_07_particle_03.png; with more
 *                 than one group previews/group_02_step_07_particle_03.png; the particle's number is that before this
 *                 step's resampling
 *     "image"     "group", "particle", "file": a final picture written
 *     "search"    kac_search_event, of a method that searches until its budget is spent: "group", "n_groups", "nfe",
 *                 "nfe_budget", "seconds", "seconds_budget" (0: no such limit), "n_samples", "n_nodes", "best_reward",
 *                 "rewards" (of the samples since the group's line before), "log_z", "ess", "counts". After --resume nfe
 *                 may begin lower than before: such lines replace earlier ones of the same group from that nfe on
 *     "tree"      "group", "file", "n_nodes": a group's tree written: trees/group_00.json
 *     "end"       "state" as in run.json
 *
 * trees/group_00.json: {"group", "n_steps", "n_nodes"} and lists with an entry per node, in the order of their making:
 *     "parent"      its number, −1: the root      "i_step"   steps taken to the state, n_steps: a finished sample, −1: the root
 *     "visits"      of the search                 "value"    soft value, in units of the reward; a sample's is its reward
 *     "log_prob"    of a finished sample under the law that results are drawn from; null for others
 *   and "chosen": for each result the node that it is
 */
#ifndef KAC_REPORT_H
#define KAC_REPORT_H

#include "base/base.h"

enum { KAC_RUN_LAYOUT = 1 };

typedef struct kac_report_info {
    int n_groups, n_images, n_previews, n_steps; /* shown on the page; n_steps: step events read */
    size_t n_bytes;                              /* of index.html */
} kac_report_info;

/* Reads folder/run.json and folder/events.jsonl and writes folder/index.html (atomically). Works on a run that is still
 * going on or was killed: a missing or half-written file is shown as missing. `info` may be NULL.
 * Fails: IO (no such folder, neither file in it, page not writable), MEMORY. */
kac_status kac_report_write(const char *folder, kac_report_info *info);

/* The page as text; caller frees with kac_text_free, also on failure. */
kac_status kac_report_render(kac_text *page, const char *folder, kac_report_info *info);

#endif
