/* Configurations: defaults of the classes, refusals that name key and value, and weights that do not fit them. */
#include "check.h"
#include "model/clip.h"
#include "model/codec.h"
#include "model/unet.h"
#include "util/golden.h"
#include "util/temp.h"

/* A folder whose config.json holds `text`. */
static const char *folder(const char *text) {
    const char *path = temp_write("config.json", text, strlen(text));
    CHECK(path != NULL);
    return temp_dir();
}

#define UNET "{\"_class_name\": \"UNet2DConditionModel\""
#define PLAIN "{\"_class_name\": \"UNet2DModel\""
#define KL "{\"_class_name\": \"AutoencoderKL\""
#define TINY "{\"_class_name\": \"AutoencoderTiny\""

static void test_unet_defaults(void) {
    kac_unet_config c;
    CHECK_OK(kac_unet_config_load(&c, folder(UNET "}")));
    CHECK(c.conditional && c.n_blocks == 4 && c.in_channels == 4 && c.channels[3] == 1280 && c.layers[0] == 2 &&
          c.heads[2] == 8);
    CHECK(c.cross_dim[0] == 1280 && c.groups == 32 && c.flip_sin_to_cos && c.freq_shift == 0 && c.time_dim == 1280);
    CHECK(c.down[3] == KAC_BLOCK_PLAIN && c.up[0] == KAC_BLOCK_PLAIN && c.mid == KAC_BLOCK_CROSS_ATTN &&
          !c.linear_projection);
    CHECK_OK(kac_unet_config_load(
        &c, folder(UNET ", \"mid_block_type\": null, \"unknown\": [1], \"_note\": 3, \"dropout\": 0.5}")));
    CHECK(c.mid == KAC_BLOCK_NONE);
    CHECK_OK(kac_unet_config_load(&c, folder(PLAIN "}")));
    CHECK(!c.conditional && c.in_channels == 3 && c.channels[0] == 224 && c.head_dim_down[1] == 8 &&
          c.mid == KAC_BLOCK_ATTN);
    CHECK_OK(kac_unet_config_load(&c, folder(PLAIN ", \"attention_head_dim\": null}")));
    CHECK(c.head_dim_down[1] == 448 && c.head_dim_up[0] == 896 && c.head_dim_mid == 896);
    CHECK_OK(kac_unet_config_load(
        &c, folder("{\"_class_name\": \"FlaxUNet2DConditionModel\", \"attention_head_dim\": [5, 10, 20, 20]}")));
    CHECK(c.heads[0] == 5 && c.heads[3] == 20);
    /* Lists inside lists, as SSD-1B has them: the way up is named from its own start. */
    CHECK_OK(kac_unet_config_load(
        &c, folder(UNET ", \"transformer_layers_per_block\": [0, 1, [2, 2], [4, 5]], "
                        "\"reverse_transformer_layers_per_block\": [[7, 6, 8], [2, 1, 1], 3, 9]}")));
    CHECK(c.depth_down[0][0] == 0 && c.depth_down[1][1] == 1 && c.depth_down[3][1] == 5 && c.depth_mid == 4);
    CHECK(c.depth_up[0][0] == 7 && c.depth_up[0][2] == 8 && c.depth_up[2][2] == 3 && c.depth_up[3][0] == 9);
}

static const struct {
    const char *text;
    kac_status status;
    const char *message;
} bad_unets[] = {
    {"{}", KAC_E_FORMAT, "_class_name"},
    {"[]", KAC_E_FORMAT, "object"},
    {"{\"_class_name\": \"Transformer2DModel\"}", KAC_E_UNSUPPORTED, "\"_class_name\" is \"Transformer2DModel\""},
    {"{\"_class_name\": 3}", KAC_E_FORMAT, "_class_name"},
    {UNET ", \"in_channels\": \"four\"}", KAC_E_FORMAT, "in_channels"},
    {UNET ", \"in_channels\": 4.5}", KAC_E_FORMAT, "in_channels"},
    {UNET ", \"in_channels\": 0}", KAC_E_UNSUPPORTED, "\"in_channels\" is 0"},
    {UNET ", \"block_out_channels\": [320, 640, 1280, 1000000000]}", KAC_E_UNSUPPORTED, "1000000000"},
    {UNET ", \"block_out_channels\": [0, 640, 1280, 1280]}", KAC_E_UNSUPPORTED, "\"block_out_channels\" is 0"},
    {UNET ", \"block_out_channels\": [320, 640]}", KAC_E_FORMAT, "4 down_block_types"},
    {UNET ", \"block_out_channels\": []}", KAC_E_FORMAT, "block_out_channels"},
    {UNET ", \"down_block_types\": [\"DownBlock2D\", \"SkipDownBlock2D\"]}", KAC_E_UNSUPPORTED, "SkipDownBlock2D"},
    {UNET ", \"mid_block_type\": \"UNetMidBlock2DSimpleCrossAttn\"}", KAC_E_UNSUPPORTED,
     "UNetMidBlock2DSimpleCrossAttn"},
    {UNET ", \"act_fn\": \"sine\"}", KAC_E_UNSUPPORTED, "\"act_fn\" is \"sine\""},
    {UNET ", \"layers_per_block\": [1, 2]}", KAC_E_FORMAT, "2 entries for 4 blocks"},
    {UNET ", \"layers_per_block\": 100}", KAC_E_UNSUPPORTED, "\"layers_per_block\" is 100"},
    {UNET ", \"attention_head_dim\": 0}", KAC_E_UNSUPPORTED, "\"attention_head_dim\" is 0"},
    {UNET ", \"transformer_layers_per_block\": [[1], 2, 3, 4]}", KAC_E_FORMAT, "transformer_layers_per_block"},
    {UNET ", \"only_cross_attention\": [true, false]}", KAC_E_FORMAT, "only_cross_attention"},
    {UNET ", \"only_cross_attention\": [1, 1, 1, 1]}", KAC_E_FORMAT, "only_cross_attention"},
    {UNET ", \"addition_embed_type\": \"text_time\"}", KAC_E_UNSUPPORTED, "projection_class_embeddings_input_dim"},
    {UNET ", \"addition_embed_type\": \"text_time\", \"projection_class_embeddings_input_dim\": 2816}",
     KAC_E_UNSUPPORTED, "addition_time_embed_dim"},
    {UNET ", \"addition_embed_type\": \"image\"}", KAC_E_UNSUPPORTED, "\"addition_embed_type\" is \"image\""},
    {UNET ", \"addition_embed_type\": \"text\", \"addition_embed_type_num_heads\": 3}", KAC_E_UNSUPPORTED,
     "addition_embed_type_num_heads"},
    {UNET ", \"class_embed_type\": \"projection\"}", KAC_E_UNSUPPORTED, "projection_class_embeddings_input_dim"},
    {UNET ", \"class_embed_type\": \"wheel\"}", KAC_E_UNSUPPORTED, "\"class_embed_type\" is \"wheel\""},
    {UNET ", \"class_embeddings_concat\": true}", KAC_E_UNSUPPORTED, "class_embeddings_concat"},
    {UNET ", \"encoder_hid_dim_type\": \"image_proj\", \"encoder_hid_dim\": 8}", KAC_E_UNSUPPORTED, "image_proj"},
    {UNET ", \"encoder_hid_dim_type\": \"text_proj\"}", KAC_E_UNSUPPORTED, "encoder_hid_dim is missing"},
    {UNET ", \"attention_type\": \"gated\"}", KAC_E_UNSUPPORTED, "\"attention_type\" is \"gated\""},
    {UNET ", \"reverse_transformer_layers_per_block\": [[1, 1], 1, 1, 1]}", KAC_E_FORMAT,
     "a list of 2 numbers for a block of 3"},
    {UNET ", \"transformer_layers_per_block\": [1, 2]}", KAC_E_FORMAT, "2 entries for 4 blocks"},
    {UNET ", \"transformer_layers_per_block\": [1, 2, -1, 1]}", KAC_E_FORMAT, "whole numbers from 0"},
    {UNET ", \"num_attention_heads\": 8}", KAC_E_UNSUPPORTED, "num_attention_heads"},
    {UNET ", \"dual_cross_attention\": true}", KAC_E_UNSUPPORTED, "dual_cross_attention"},
    {UNET ", \"time_embedding_type\": \"learned\"}", KAC_E_UNSUPPORTED, "\"time_embedding_type\" is \"learned\""},
    {UNET ", \"resnet_out_scale_factor\": 0}", KAC_E_UNSUPPORTED, "resnet_out_scale_factor"},
    {UNET ", \"resnet_time_scale_shift\": \"spatial\"}", KAC_E_UNSUPPORTED, "spatial"},
    {UNET ", \"norm_num_groups\": null}", KAC_E_UNSUPPORTED, "norm_num_groups"},
    {UNET ", \"norm_eps\": 0}", KAC_E_UNSUPPORTED, "norm_eps"},
    {UNET ", \"conv_in_kernel\": 4}", KAC_E_UNSUPPORTED, "conv_in_kernel"},
    {UNET ", \"mid_block_scale_factor\": 0}", KAC_E_UNSUPPORTED, "mid_block_scale_factor"},
    {UNET ", \"center_input_sample\": 1}", KAC_E_FORMAT, "center_input_sample"},
    {PLAIN ", \"num_class_embeds\": 0}", KAC_E_UNSUPPORTED, "\"num_class_embeds\" is 0"},
    {PLAIN ", \"class_embed_type\": \"projection\"}", KAC_E_UNSUPPORTED, "\"class_embed_type\" is \"projection\""},
    {PLAIN ", \"down_block_types\": [\"DownBlock2D\", \"DownBlock2D\", \"DownBlock2D\", \"CrossAttnDownBlock2D\"]}",
     KAC_E_UNSUPPORTED, "down_block_types"},
    {PLAIN ", \"downsample_type\": \"fir\"}", KAC_E_UNSUPPORTED, "\"downsample_type\" is \"fir\""},
};

static void test_bad_unets(void) {
    kac_unet_config c;
    for (int i = 0; i < KAC_COUNT_OF(bad_unets); i++)
        if (!CHECK_FAILS(kac_unet_config_load(&c, folder(bad_unets[i].text)), bad_unets[i].status,
                         bad_unets[i].message))
            printf("  in case %d: %s\n", i, bad_unets[i].text);
    CHECK_FAILS(kac_unet_config_load(&c, temp_path("nowhere")), KAC_E_IO, "nowhere");
}

static void test_codec_configs(void) {
    kac_codec_config c;
    CHECK_OK(kac_codec_config_load(&c, folder(KL "}")));
    CHECK(!c.tiny && c.scaling == 0.18215 && c.shift == 0 && c.factor == 1 && c.quant_conv && c.mid_attention &&
          c.layers_decoder[0] == 2);
    CHECK_OK(kac_codec_config_load(&c, folder(TINY "}")));
    CHECK(c.tiny && c.scaling == 1 && c.factor == 8 && c.layers[1] == 3 && c.layers_decoder[3] == 1 &&
          c.act == KAC_ACT_RELU);
    CHECK_FAILS(kac_codec_config_load(&c, folder(KL ", \"scaling_factor\": 0}")), KAC_E_UNSUPPORTED, "scaling_factor");
    CHECK_FAILS(kac_codec_config_load(&c, folder(KL ", \"down_block_types\": [\"AttnDownEncoderBlock2D\"]}")),
                KAC_E_UNSUPPORTED, "AttnDownEncoderBlock2D");
    CHECK_FAILS(kac_codec_config_load(&c, folder(KL ", \"block_out_channels\": [64, 64]}")), KAC_E_FORMAT,
                "block_out_channels");
    CHECK_FAILS(kac_codec_config_load(&c, folder(KL ", \"latents_mean\": [0, 0], \"latents_std\": [1, 1]}")),
                KAC_E_FORMAT, "latents_mean");
    CHECK_FAILS(kac_codec_config_load(&c, folder(TINY ", \"upsample_fn\": \"bilinear\"}")), KAC_E_UNSUPPORTED,
                "bilinear");
    CHECK_FAILS(kac_codec_config_load(&c, folder(TINY ", \"num_decoder_blocks\": [1, 1]}")), KAC_E_FORMAT,
                "num_decoder_blocks");
    CHECK_FAILS(kac_codec_config_load(&c, folder("{\"_class_name\": \"VQModel\"}")), KAC_E_UNSUPPORTED, "VQModel");
    CHECK_FAILS(kac_codec_config_load(&c, folder("{\"_class_name\": \"AsymmetricAutoencoderKL\"}")), KAC_E_UNSUPPORTED,
                "\"_class_name\" is \"AsymmetricAutoencoderKL\"");
}

static void test_clip_configs(void) {
    kac_clip_config c;
    CHECK_OK(kac_clip_config_load(&c, folder("{\"model_type\": \"clip_text_model\"}")));
    CHECK(c.has_text && !c.has_vision && !c.has_projection && c.text.width == 512 && c.max_tokens == 77 &&
          c.eos_id == 49407);
    CHECK_OK(kac_clip_config_load(
        &c, folder("{\"architectures\": [\"CLIPTextModelWithProjection\"], \"projection_dim\": 64}")));
    CHECK(!c.has_vision && c.has_projection && c.projection == 64);
    CHECK_OK(kac_clip_config_load(
        &c, folder("{\"model_type\": \"clip\", \"text_config\": {\"hidden_size\": 64, \"eos_token_id\": 7},"
                   "\"vision_config\": null, \"text_config_dict\": {\"hidden_size\": 128}}")));
    CHECK(c.has_vision && c.text.width == 128 && c.eos_id == 49407 && c.vision.width == 768 && c.patch == 32);
    CHECK_FAILS(kac_clip_config_load(&c, folder("{\"hidden_size\": 100}")), KAC_E_UNSUPPORTED, "num_attention_heads");
    CHECK_FAILS(kac_clip_config_load(&c, folder("{\"hidden_act\": \"swoosh\"}")), KAC_E_UNSUPPORTED, "swoosh");
    CHECK_FAILS(kac_clip_config_load(&c, folder("{\"vision_config\": {\"patch_size\": 500}}")), KAC_E_UNSUPPORTED,
                "patch_size");
    CHECK_FAILS(kac_clip_config_load(&c, folder("{\"vision_config\": 3}")), KAC_E_FORMAT, "vision_config");
    CHECK_FAILS(kac_clip_config_load(&c, folder("{\"model_type\": \"siglip\"}")), KAC_E_UNSUPPORTED, "siglip");
}

/* The checkpoint of a golden case with `from` replaced by `to` in its config. */
static void load_changed(kac_ctx *c, const char *from, const char *to, kac_status status, const char *message) {
    golden g;
    kac_unet *u = NULL;
    char *text = NULL, *at;
    size_t n = 0;
    if (!CHECK_OK(golden_open(&g, "unet/plain_mid"))) return;
    char *path = kac_path_join(g.dir, "config.json");
    CHECK_OK(kac_file_read(&text, &n, path, 1 << 20));
    at = strstr(text, from);
    if (CHECK(at != NULL)) {
        char *changed = kac_format("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
        CHECK_OK(kac_file_write(path, changed, strlen(changed)));
        CHECK_FAILS(kac_unet_load(&u, c, g.dir), status, message);
        CHECK(u == NULL);
        kac_free(changed);
    }
    kac_free(text);
    kac_free(path);
    golden_close(&g);
}

static void test_weights_that_do_not_fit(void) {
    kac_ctx c;
    const kac_ctx_sizes small = {16 << 20, 16 << 20, 16 << 20};
    if (!CHECK_OK(kac_ctx_open(&c, &kac_ref_ops, KAC_F32, 1, &small))) return;
    load_changed(&c, "\"in_channels\":4", "\"in_channels\":9", KAC_E_SHAPE,
                 "conv_in.weight is [16, 4, 3, 3], its config implies [16, 9, 3, 3]");
    load_changed(&c, "\"layers_per_block\":1", "\"layers_per_block\":2", KAC_E_FORMAT,
                 "the weights lack down_blocks.0.resnets.1.norm1.weight");
    load_changed(&c, "\"norm_num_groups\":8", "\"norm_num_groups\":7", KAC_E_UNSUPPORTED,
                 "norm_num_groups 7 does not divide the 16 channels");
    kac_ctx_close(&c);
}

int main(void) {
    test_unet_defaults();
    test_bad_unets();
    test_codec_configs();
    test_clip_configs();
    test_weights_that_do_not_fit();
    return check_done();
}
