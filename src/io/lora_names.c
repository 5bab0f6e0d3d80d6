#include "io/lora_names.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *kac_lora_part_name(kac_lora_part part) {
    static const char *const names[] = {"unet", "text_encoder", "text_encoder_2"};
    return part < KAC_LORA_N_PARTS ? names[part] : "?";
}

const char *kac_lora_format_name(kac_lora_format format) {
    static const char *const names[] = {"kohya", "peft", "diffusers", "processor"};
    return format < KAC_LORA_N_FORMATS ? names[format] : "?";
}

/* ---- text helpers ---- */

static bool starts(const char *s, const char *prefix) {
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* Takes `suffix` off the end. */
static bool cut_end(char *s, const char *suffix) {
    const size_t n = strlen(s), m = strlen(suffix);
    if (n <= m || strcmp(s + n - m, suffix) != 0) return false;
    s[n - m] = '\0';
    return true;
}

static bool cut_start(char *s, const char *prefix) {
    if (!starts(s, prefix)) return false;
    memmove(s, s + strlen(prefix), strlen(s + strlen(prefix)) + 1);
    return true;
}

/* The first `from` becomes `to`; false when there is none or no room. */
static bool replace(char s[KAC_LORA_MAX_NAME], const char *from, const char *to) {
    char *at = strstr(s, from);
    const size_t n_from = strlen(from), n_to = strlen(to);
    if (at == NULL || strlen(s) - n_from + n_to >= KAC_LORA_MAX_NAME) return false;
    memmove(at + n_to, at + n_from, strlen(at + n_from) + 1);
    memcpy(at, to, n_to);
    return true;
}

/* There is room: kac_lora_key_read refuses keys that are nearly too long. */
static void prepend(char s[KAC_LORA_MAX_NAME], const char *head) {
    memmove(s + strlen(head), s, strlen(s) + 1);
    memcpy(s, head, strlen(head));
}

void kac_lora_flatten(char out[KAC_LORA_MAX_NAME], const char *path) {
    size_t i = 0;
    for (; path[i] != '\0' && i + 1 < KAC_LORA_MAX_NAME; i++) out[i] = path[i] == '.' ? '_' : path[i];
    out[i] = '\0';
}

/* ---- kohya: where an underscore was a dot ---- */

/* Names that hold underscores of their own; a longer one stands before its beginning. */
static const char *const compound[] = {"down_blocks",
                                       "up_blocks",
                                       "mid_block",
                                       "transformer_blocks",
                                       "input_blocks",
                                       "middle_block",
                                       "output_blocks",
                                       "in_layers",
                                       "out_layers",
                                       "emb_layers",
                                       "skip_connection",
                                       "time_embedding",
                                       "time_embed",
                                       "time_emb_proj",
                                       "label_emb",
                                       "add_embedding",
                                       "linear_1",
                                       "linear_2",
                                       "conv_in",
                                       "conv_out",
                                       "conv_shortcut",
                                       "proj_in",
                                       "proj_out",
                                       "to_q",
                                       "to_k",
                                       "to_v",
                                       "to_out",
                                       "text_model",
                                       "self_attn",
                                       "q_proj",
                                       "k_proj",
                                       "v_proj",
                                       "out_proj",
                                       "text_projection",
                                       "token_embedding",
                                       "position_embedding",
                                       "cond_proj"};

static void unflatten(char *path) {
    for (char *at = path; *at != '\0';) {
        size_t n = strcspn(at, "_");
        for (int i = 0; i < KAC_COUNT_OF(compound); i++) {
            const size_t m = strlen(compound[i]);
            if (strncmp(at, compound[i], m) == 0 && (at[m] == '_' || at[m] == '\0')) {
                n = m;
                break;
            }
        }
        at += n;
        if (*at == '_') *at++ = '.';
    }
}

/* ---- reading ---- */

static const struct {
    const char *text, *kind;
} other_kinds[] = {{".hada_", "LoHa"},
                   {".lokr_", "LoKr"},
                   {".dora_scale", "DoRA"},
                   {"lora_magnitude_vector", "DoRA"},
                   {".oft_", "OFT"},
                   {".oft_diag", "OFT"},
                   {"lora_embedding_", "LoRA of an embedding table"},
                   {".a1.weight", "GLoRA"},
                   {".on_input", "IA3"},
                   {"ia3_l", "IA3"},
                   {".w_norm", "full difference of a norm"},
                   {".diff_b", "full difference"},
                   {"vera_lambda", "VeRA"},
                   {"boft_", "BOFT"}};

static kac_status refuse_other_kinds(const char *key, const char *file) {
    for (int i = 0; i < KAC_COUNT_OF(other_kinds); i++)
        if (strstr(key, other_kinds[i].text) != NULL)
            return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"%.100s\" is %s, which is not supported; only plain LoRA is", file,
                            key, other_kinds[i].kind);
    char copy[KAC_LORA_MAX_NAME];
    snprintf(copy, sizeof copy, "%s", key);
    if (cut_end(copy, ".diff"))
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s: \"%.100s\" is a full difference, which is not supported; only plain "
                        "LoRA is",
                        file, key);
    if (cut_end(copy, ".bias") && strstr(copy, "lora") != NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"%.100s\" is a LoRA bias, which is not supported", file, key);
    return KAC_OK;
}

/* "X.lora_A.weight", "X.lora_A.NAME.weight" -> "X" */
static bool cut_peft(char *s, const char *letter) {
    char *at = strstr(s, letter);
    if (at == NULL) return false;
    char *rest = at + strlen(letter);
    char *name_end = strrchr(rest, '.');
    const bool plain = strcmp(rest, ".weight") == 0 || rest[0] == '\0';
    const bool named = rest[0] == '.' && name_end != rest && name_end != NULL && strcmp(name_end, ".weight") == 0 &&
                       memchr(rest + 1, '.', (size_t)(name_end - rest - 1)) == NULL;
    if (!plain && !named) return false;
    *at = '\0';
    return true;
}

/* Takes the last part of the key off and says what it was. */
static bool read_slot(kac_lora_key *k) {
    static const struct {
        const char *suffix;
        kac_lora_slot slot;
        kac_lora_format format;
    } suffixes[] = {{".lora_down.weight", KAC_LORA_DOWN, KAC_LORA_KOHYA},
                    {".lora_up.weight", KAC_LORA_UP, KAC_LORA_KOHYA},
                    {".lora_mid.weight", KAC_LORA_MID, KAC_LORA_KOHYA},
                    {".alpha", KAC_LORA_ALPHA, KAC_LORA_KOHYA},
                    {".lora.down.weight", KAC_LORA_DOWN, KAC_LORA_DIFFUSERS},
                    {".lora.up.weight", KAC_LORA_UP, KAC_LORA_DIFFUSERS},
                    {".lora_linear_layer.down.weight", KAC_LORA_DOWN, KAC_LORA_DIFFUSERS},
                    {".lora_linear_layer.up.weight", KAC_LORA_UP, KAC_LORA_DIFFUSERS},
                    {"_lora.down.weight", KAC_LORA_DOWN, KAC_LORA_PROCESSOR},
                    {"_lora.up.weight", KAC_LORA_UP, KAC_LORA_PROCESSOR}};
    for (int i = 0; i < KAC_COUNT_OF(suffixes); i++)
        if (cut_end(k->path, suffixes[i].suffix)) {
            k->slot = suffixes[i].slot, k->format = suffixes[i].format;
            return true;
        }
    k->format = KAC_LORA_PEFT;
    k->slot = KAC_LORA_DOWN;
    if (cut_peft(k->path, ".lora_A")) return true;
    k->slot = KAC_LORA_UP;
    return cut_peft(k->path, ".lora_B");
}

static bool is_sgm(const char *path) {
    static const char *const heads[] = {"input_blocks.", "middle_block.", "output_blocks.",
                                        "time_embed.",   "label_emb.",    "out."};
    for (int i = 0; i < KAC_COUNT_OF(heads); i++)
        if (starts(path, heads[i])) return true;
    return false;
}

static bool is_unet(const char *path) {
    static const char *const heads[] = {"down_blocks.", "up_blocks.",      "mid_block.",    "conv_in",
                                        "conv_out",     "time_embedding.", "add_embedding."};
    for (int i = 0; i < KAC_COUNT_OF(heads); i++)
        if (starts(path, heads[i])) return true;
    return is_sgm(path);
}

static bool is_text(const char *path) {
    return starts(path, "text_model.") || starts(path, "encoder.layers.") || starts(path, "text_projection") ||
           starts(path, "embeddings.");
}

/* Takes the network's name off the front. */
static void read_part(kac_lora_key *k) {
    static const struct {
        const char *prefix;
        kac_lora_part part;
        bool flat;
    } prefixes[] = {{"lora_unet_", KAC_LORA_UNET, true},
                    {"lora_te1_", KAC_LORA_TEXT, true},
                    {"lora_te2_", KAC_LORA_TEXT_2, true},
                    {"lora_te_", KAC_LORA_TEXT, true},
                    {"lycoris_", KAC_LORA_UNET, true},
                    {"unet.", KAC_LORA_UNET, false},
                    {"text_encoder_2.", KAC_LORA_TEXT_2, false},
                    {"text_encoder.", KAC_LORA_TEXT, false},
                    {"model.diffusion_model.", KAC_LORA_UNET, false},
                    {"diffusion_model.", KAC_LORA_UNET, false}};
    k->part = KAC_LORA_N_PARTS;
    while (cut_start(k->path, "base_model.model.")) continue;
    for (int i = 0; i < KAC_COUNT_OF(prefixes); i++) {
        if (!cut_start(k->path, prefixes[i].prefix)) continue;
        k->part = prefixes[i].part;
        if (prefixes[i].flat) {
            cut_start(k->path, "_");
            unflatten(k->path);
        }
        break;
    }
    while (cut_start(k->path, "base_model.model.")) continue;
    if (k->part == KAC_LORA_N_PARTS && is_text(k->path)) k->part = KAC_LORA_TEXT;
    if (k->part == KAC_LORA_N_PARTS && is_unet(k->path)) k->part = KAC_LORA_UNET;
}

/* The attention's name in one spelling: "attn1.processor.to_out" -> "attn1.to_out.0", and in text encoders
 * "self_attn.to_q" -> "self_attn.q_proj". */
static void read_processor(kac_lora_key *k) {
    replace(k->path, ".processor.", ".");
    const char *last = strrchr(k->path, '.');
    if (k->part == KAC_LORA_UNET) {
        if (last != NULL && strcmp(last, ".to_out") == 0) replace(k->path, ".to_out", ".to_out.0");
        return;
    }
    static const char *const names[][2] = {{"self_attn.to_q", "self_attn.q_proj"},
                                           {"self_attn.to_k", "self_attn.k_proj"},
                                           {"self_attn.to_v", "self_attn.v_proj"},
                                           {"self_attn.to_out", "self_attn.out_proj"}};
    for (int i = 0; i < KAC_COUNT_OF(names); i++)
        if (replace(k->path, names[i][0], names[i][1])) return;
}

kac_status kac_lora_key_read(kac_lora_key *k, bool *known, const char *key, const char *file) {
    *known = false;
    KAC_TRY(refuse_other_kinds(key, file));
    if (strlen(key) + 32 >= KAC_LORA_MAX_NAME)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the key \"%.60s…\" is longer than any module's name", file, key);
    *k = (kac_lora_key){0};
    snprintf(k->path, sizeof k->path, "%s", key);
    if (!read_slot(k)) return KAC_OK;
    *known = true;
    read_part(k);
    if (k->part == KAC_LORA_N_PARTS) return KAC_OK;
    /* old spellings also occur under alpha keys and under other suffixes */
    read_processor(k);
    if (k->part == KAC_LORA_UNET)
        k->sgm = is_sgm(k->path);
    else if (!starts(k->path, "text_model.") && !starts(k->path, "text_projection"))
        prepend(k->path, "text_model.");
    return KAC_OK;
}

/* ---- names of the original code ---- */

static bool sgm_resnet(char *out, size_t n, const char *head, const char *rest) {
    static const char *const names[][2] = {{"in_layers.2", "conv1"},
                                           {"out_layers.3", "conv2"},
                                           {"emb_layers.1", "time_emb_proj"},
                                           {"skip_connection", "conv_shortcut"}};
    for (int i = 0; i < KAC_COUNT_OF(names); i++)
        if (strcmp(rest, names[i][0]) == 0) {
            snprintf(out, n, "%s.%s", head, names[i][1]);
            return true;
        }
    return false;
}

/* "7.1.REST" -> 7, 1, REST; the second number only when asked. */
static bool two_numbers(const char *s, int *a, int *b, const char **rest) {
    char *end;
    const long first = strtol(s, &end, 10);
    if (end == s || *end != '.' || first < 0 || first > 999) return false;
    *a = (int)first;
    s = end + 1;
    if (b != NULL) {
        const long second = strtol(s, &end, 10);
        if (end == s || *end != '.' || second < 0 || second > 9) return false;
        *b = (int)second;
        s = end + 1;
    }
    *rest = s;
    return true;
}

bool kac_lora_from_sgm(char out[KAC_LORA_MAX_NAME], const char *path, int layers) {
    static const char *const fixed[][2] = {{"input_blocks.0.0", "conv_in"},
                                           {"time_embed.0", "time_embedding.linear_1"},
                                           {"time_embed.2", "time_embedding.linear_2"},
                                           {"label_emb.0.0", "add_embedding.linear_1"},
                                           {"label_emb.0.2", "add_embedding.linear_2"},
                                           {"out.2", "conv_out"}};
    const size_t n = KAC_LORA_MAX_NAME;
    for (int i = 0; i < KAC_COUNT_OF(fixed); i++)
        if (strcmp(path, fixed[i][0]) == 0) {
            snprintf(out, n, "%s", fixed[i][1]);
            return true;
        }
    char head[96];
    const char *rest;
    int i, k;
    if (starts(path, "input_blocks.") && two_numbers(path + 13, &i, &k, &rest) && i > 0) {
        const int block = (i - 1) / (layers + 1), layer = (i - 1) % (layers + 1);
        snprintf(head, sizeof head, "down_blocks.%d.%s.%d", block, k == 0 ? "resnets" : "attentions", layer);
        if (k == 0 && strcmp(rest, "op") == 0) return snprintf(out, n, "down_blocks.%d.downsamplers.0.conv", block) > 0;
    } else if (starts(path, "middle_block.") && two_numbers(path + 13, &i, NULL, &rest) && i < 3) {
        k = i == 1;
        snprintf(head, sizeof head, "mid_block.%s.%d", k == 0 ? "resnets" : "attentions", i / 2);
    } else if (starts(path, "output_blocks.") && two_numbers(path + 14, &i, &k, &rest)) {
        const int block = i / (layers + 1), layer = i % (layers + 1);
        snprintf(head, sizeof head, "up_blocks.%d.%s.%d", block, k == 0 ? "resnets" : "attentions", layer);
        if (k > 0 && strcmp(rest, "conv") == 0) return snprintf(out, n, "up_blocks.%d.upsamplers.0.conv", block) > 0;
    } else {
        return false;
    }
    if (k == 0) return sgm_resnet(out, n, head, rest);
    return k == 1 && snprintf(out, n, "%s.%s", head, rest) < (int)n;
}

/* ---- writing ---- */

static kac_status write_processor(char *out, kac_lora_part part, const char *path, const char *direction) {
    static const char *const names[][2] = {{".to_q", ".processor.to_q"},
                                           {".to_k", ".processor.to_k"},
                                           {".to_v", ".processor.to_v"},
                                           {".to_out.0", ".processor.to_out"}};
    char name[KAC_LORA_MAX_NAME];
    snprintf(name, sizeof name, "%s", path);
    for (int i = 0; i < KAC_COUNT_OF(names) && part == KAC_LORA_UNET; i++)
        if (cut_end(name, names[i][0])) {
            const int n = snprintf(out, KAC_LORA_MAX_NAME, "unet.%s%s_lora.%s.weight", name, names[i][1], direction);
            if (n < KAC_LORA_MAX_NAME) return KAC_OK;
        }
    if (part != KAC_LORA_UNET && strstr(path, "self_attn.") != NULL &&
        snprintf(out, KAC_LORA_MAX_NAME, "%s.%s.lora_linear_layer.%s.weight", kac_lora_part_name(part), path,
                 direction) < KAC_LORA_MAX_NAME)
        return KAC_OK;
    return KAC_FAIL(KAC_E_UNSUPPORTED,
                    "the format \"processor\" has names for attention layers only, not for %s; write kohya, peft or "
                    "diffusers",
                    path);
}

kac_status kac_lora_key_write(char out[KAC_LORA_MAX_NAME], kac_lora_format format, kac_lora_part part, const char *path,
                              kac_lora_slot slot, bool two_texts) {
    const char *const kohya_prefix[] = {"lora_unet_", two_texts ? "lora_te1_" : "lora_te_", "lora_te2_"};
    static const char *const kohya_slot[] = {"lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha"};
    const char *direction = slot == KAC_LORA_DOWN ? "down" : "up";
    char flat[KAC_LORA_MAX_NAME];
    int n = 0;
    switch (format) {
    case KAC_LORA_KOHYA:
        kac_lora_flatten(flat, path);
        n = snprintf(out, KAC_LORA_MAX_NAME, "%s%s.%s", kohya_prefix[part], flat, kohya_slot[slot]);
        break;
    case KAC_LORA_PEFT:
        n = snprintf(out, KAC_LORA_MAX_NAME, "%s.%s.lora_%s.weight", kac_lora_part_name(part), path,
                     slot == KAC_LORA_DOWN ? "A" : "B");
        break;
    case KAC_LORA_DIFFUSERS:
        n = snprintf(out, KAC_LORA_MAX_NAME, "%s.%s.%s.%s.weight", kac_lora_part_name(part), path,
                     part == KAC_LORA_UNET ? "lora" : "lora_linear_layer", direction);
        break;
    default:
        return write_processor(out, part, path, direction);
    }
    return n < KAC_LORA_MAX_NAME ? KAC_OK : KAC_FAIL(KAC_E_FORMAT, "the name of %s is too long", path);
}
