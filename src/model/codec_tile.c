/* Decoding and encoding in tiles that overlap by a quarter, blended linearly. Source: diffusers AutoencoderKL.tiled_decode,
 * tiled_encode.
 *
 *     tile (i, j) covers inputs [i·step, i·step + tile) × [j·step, j·step + tile), step = ¾ tile
 *     its first rows blend with the last rows of the tile above, its first columns with the last columns of the tile to the left,
 *     both as they are after their own blending; the next tile owns what lies beyond the results of ¾ tile. */
#include "model/codec_net.h"
#include "nn/scope.h"

enum { MAX_TILES = 64, MAX_EXTENT = 1024 };

typedef struct tiling {
    kac_ctx *c;
    const kac_codec *v;
    kac_status (*run)(kac_tensor *out, const kac_codec *v, kac_ctx *c, kac_tensor part);
    int64_t tile, step;          /* of the input */
    int64_t side, extent, limit; /* of the result: a whole tile, what is blended, what is owned */
    kac_tensor below[MAX_TILES]; /* [extent, width, C]: the last rows of the tile above, per column of tiles */
    int64_t n_below[MAX_TILES];  /* rows of it in use */
    kac_tensor right;            /* [extent, height, C]: the last columns of the tile to the left, as rows */
    int64_t n_right;
} tiling;

/* b[y] = a[y] (1 − y / n) + b[y] y / n over the n rows of both. */
static kac_status blend(kac_ctx *c, kac_tensor a, kac_tensor b) {
    double coef[2 * MAX_EXTENT];
    const int64_t n = b.shape[0];
    for (int64_t y = 0; y < n; y++) {
        coef[y] = 1 - (double)y / (double)n;
        coef[n + y] = (double)y / (double)n;
    }
    return kac_lincomb(c, &b, 2, (kac_tensor[]){a, b}, coef, (int)n);
}

/* The last n of n_used rows. */
static kac_tensor last_rows(kac_tensor t, int64_t n_used, int64_t n) {
    return kac_tensor_slice(t, 0, n_used - n, n);
}

static kac_status blend_above(tiling *t, int j, kac_tensor tile) {
    const int64_t n = KAC_MIN(KAC_MIN(t->n_below[j], tile.shape[0]), t->extent);
    kac_tensor a = KAC_NONE;
    const kac_tensor above = kac_tensor_slice(last_rows(t->below[j], t->n_below[j], n), 1, 0, tile.shape[1]);
    KAC_TRY(kac_take(&a, &t->c->scratch, KAC_F32, above.rank, above.shape));
    KAC_TRY(kac_copy(t->c, &a, above));
    return blend(t->c, a, kac_tensor_slice(tile, 0, 0, n));
}

static kac_status blend_left(tiling *t, kac_tensor tile) {
    const int64_t n = KAC_MIN(KAC_MIN(t->n_right, tile.shape[1]), t->extent);
    kac_tensor a = KAC_NONE, b = KAC_NONE;
    const kac_tensor left = kac_tensor_slice(last_rows(t->right, t->n_right, n), 1, 0, tile.shape[0]);
    const kac_tensor here = kac_tensor_slice(kac_tensor_transpose(tile, 0, 1), 0, 0, n);
    KAC_TRY(kac_take(&a, &t->c->scratch, KAC_F32, left.rank, left.shape));
    KAC_TRY(kac_take(&b, &t->c->scratch, KAC_F32, here.rank, here.shape));
    KAC_TRY(kac_copy(t->c, &a, left));
    KAC_TRY(kac_copy(t->c, &b, here));
    KAC_TRY(blend(t->c, a, b));
    kac_tensor back = here;
    return kac_copy(t->c, &back, b);
}

/* What the tiles below and to the right will need of this one. */
static kac_status keep_edges(tiling *t, int j, kac_tensor tile) {
    const int64_t h = tile.shape[0], w = tile.shape[1];
    t->n_below[j] = KAC_MIN(h, t->extent);
    t->n_right = KAC_MIN(w, t->extent);
    kac_tensor below = kac_tensor_slice(kac_tensor_slice(t->below[j], 0, 0, t->n_below[j]), 1, 0, w);
    kac_tensor right = kac_tensor_slice(kac_tensor_slice(t->right, 0, 0, t->n_right), 1, 0, h);
    KAC_TRY(kac_copy(t->c, &below, last_rows(tile, h, t->n_below[j])));
    return kac_copy(t->c, &right, last_rows(kac_tensor_transpose(tile, 0, 1), w, t->n_right));
}

/* x [h, w, C], out [h', w', C']: both one image. */
static kac_status one_tile(tiling *t, kac_tensor x, kac_tensor out, int i, int j) {
    const int64_t h = KAC_MIN(t->tile, x.shape[0] - i * t->step), w = KAC_MIN(t->tile, x.shape[1] - j * t->step);
    kac_tensor part = KAC_NONE, done = KAC_NONE;
    KAC_TRY(kac_take_make(&part, &t->c->scratch, x.dtype, 1, h, w, x.shape[2]));
    kac_tensor flat = kac_tensor_reshape(part, h, w, x.shape[2]);
    KAC_TRY(kac_copy(t->c, &flat, kac_tensor_slice(kac_tensor_slice(x, 0, i * t->step, h), 1, j * t->step, w)));
    KAC_TRY(t->run(&done, t->v, t->c, part));
    const kac_tensor tile = kac_tensor_reshape(done, done.shape[1], done.shape[2], done.shape[3]);
    if (i > 0) KAC_TRY(blend_above(t, j, tile));
    if (j > 0) KAC_TRY(blend_left(t, tile));
    KAC_TRY(keep_edges(t, j, tile));
    const int64_t height = KAC_MIN(tile.shape[0], t->limit), width = KAC_MIN(tile.shape[1], t->limit);
    kac_tensor to = kac_tensor_slice(kac_tensor_slice(out, 0, i * t->limit, height), 1, j * t->limit, width);
    return kac_copy(t->c, &to, kac_tensor_slice(kac_tensor_slice(tile, 0, 0, height), 1, 0, width));
}

static kac_status one_image(tiling *t, kac_tensor x, kac_tensor out) {
    const int64_t channels = out.shape[2];
    const int rows = (int)((x.shape[0] - 1) / t->step + 1), columns = (int)((x.shape[1] - 1) / t->step + 1);
    if (columns > MAX_TILES)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%d tiles in a row; at most %d: use larger tiles", columns, (int)MAX_TILES);
    for (int j = 0; j < columns; j++)
        KAC_TRY(kac_take_make(&t->below[j], &t->c->scratch, KAC_F32, t->extent, t->side, channels));
    KAC_TRY(kac_take_make(&t->right, &t->c->scratch, KAC_F32, t->extent, t->side, channels));
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            const size_t mark = kac_scope_open(t->c);
            KAC_TRY(one_tile(t, x, out, i, j));
            kac_scope_close(t->c, mark);
        }
    return KAC_OK;
}

static kac_tensor image_of(kac_tensor batch, int64_t n) {
    const kac_tensor one = kac_tensor_slice(batch, 0, n, 1);
    return kac_tensor_reshape(one, batch.shape[1], batch.shape[2], batch.shape[3]);
}

static kac_status all_images(tiling *t, kac_tensor *out, kac_tensor x) {
    for (int64_t n = 0; n < x.shape[0]; n++) {
        const size_t mark = kac_scope_open(t->c);
        KAC_TRY(one_image(t, image_of(x, n), image_of(*out, n)));
        kac_scope_close(t->c, mark);
    }
    return KAC_OK;
}

/* The tile's side in latents, a multiple of 4, so that a quarter of it is whole. */
static kac_status tile_side(int64_t *tile, const kac_codec *v) {
    const int64_t factor = v->cfg.factor;
    if (*tile <= 0) *tile = KAC_MAX(v->cfg.sample_size / factor, 4);
    *tile = (*tile + 3) / 4 * 4;
    if (*tile / 4 * factor > MAX_EXTENT)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "tiles of %lld latents; at most %lld", (long long)*tile,
                        (long long)(4 * MAX_EXTENT / factor));
    return KAC_OK;
}

kac_status kac_codec_decode_tiled(kac_tensor *image, const kac_codec *v, kac_ctx *c, kac_tensor z, int64_t tile) {
    const int64_t factor = v->cfg.factor;
    if (z.rank != 4 || z.shape[3] != v->cfg.latent_channels)
        return KAC_FAIL(KAC_E_SHAPE, "this autoencoder decodes latents with %lld channels",
                        (long long)v->cfg.latent_channels);
    KAC_TRY(tile_side(&tile, v));
    if (z.shape[1] <= tile && z.shape[2] <= tile) return kac_codec_decode(image, v, c, z);
    if (image->data == NULL)
        KAC_TRY(kac_take_make(image, &c->scratch, KAC_F32, z.shape[0], z.shape[1] * factor, z.shape[2] * factor,
                              v->cfg.out_channels));
    tiling t = {.c = c,
                .v = v,
                .run = kac_codec_decode,
                .tile = tile,
                .step = tile / 4 * 3,
                .side = tile * factor,
                .extent = tile / 4 * factor,
                .limit = tile / 4 * 3 * factor};
    const size_t mark = kac_scope_open(c);
    const kac_status s = all_images(&t, image, z);
    kac_scope_close(c, mark);
    return s;
}

kac_status kac_codec_encode_tiled(kac_tensor *moments, const kac_codec *v, kac_ctx *c, kac_tensor image, int64_t tile) {
    const int64_t factor = v->cfg.factor;
    KAC_TRY(kac_codec_check_image(v, image));
    KAC_TRY(tile_side(&tile, v));
    if (image.shape[1] <= tile * factor && image.shape[2] <= tile * factor)
        return kac_codec_encode_whole(moments, v, c, image);
    if (moments->data == NULL)
        KAC_TRY(kac_take_make(moments, &c->scratch, KAC_F32, image.shape[0], image.shape[1] / factor,
                              image.shape[2] / factor, v->cfg.latent_channels * (v->cfg.tiny ? 1 : 2)));
    tiling t = {.c = c,
                .v = v,
                .run = kac_codec_encode_whole,
                .tile = tile * factor,
                .step = tile / 4 * 3 * factor,
                .side = tile,
                .extent = tile / 4,
                .limit = tile / 4 * 3};
    const size_t mark = kac_scope_open(c);
    const kac_status s = all_images(&t, moments, image);
    kac_scope_close(c, mark);
    return s;
}
