/* Attention's passes over the edges, all heads in one. See __init__.py for what each computes.

   Rows are compressed: the edges of row d are ptr[d]..ptr[d + 1], col holds their other ends. Each function serves the
   rows first..last, so that threads can share them out; all rows of its output in the range are written. Vectors are
   [rows, heads * channels] with channels a multiple of 8; what belongs to edges is [edges, heads].

   Reading the vectors at the other ends is what takes the time: they lie anywhere in memory. So those of the edges to
   come are fetched ahead, and each is read once for all heads. */

#include <math.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define LANES 8
#define MAX_VECTORS 64 /* 512 channels over all heads */
#define AHEAD 12       /* edges; 4 to 24 took about the same time */
#define TINY 1e-25f    /* below this a sum of exponentials may have lost digits: SMALLEST_TOTAL in kernels.py */

typedef float vec __attribute__((vector_size(32), aligned(4)));
typedef int32_t mask __attribute__((vector_size(32), aligned(4)));

INLINE void fetch(const float *x, const int32_t *col, int64_t edge, int64_t end, int width) {
    if (edge + AHEAD >= end) return;
    const float *row = x + (int64_t)col[edge + AHEAD] * width;
    for (int c = 0; c < width; c += 16) __builtin_prefetch(row + c, 0, 1); /* a line of cache holds 16 numbers */
}

INLINE const vec *at(const float *x, int64_t row, int width) { return (const vec *)(x + row * width); }

INLINE vec choose(mask which, vec a, vec b) { return (vec)(((mask)a & which) | ((mask)b & ~which)); }

INLINE float total_of(vec a) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += a[i];
    return total;
}

/* Bodies: heads and channels are constants where EACH writes them out, so their loops become straight vector code. */

/* place: where an edge's weight lies, or nothing: in the order of the edges. */
INLINE int64_t placed(const int64_t *place, const float *weight, int64_t edge, int64_t end, int heads) {
    if (!place) return edge * heads;
    if (edge + AHEAD < end) __builtin_prefetch(weight + place[edge + AHEAD] * heads, 0, 1);
    return place[edge] * heads;
}

INLINE void sum_body(int64_t first, int64_t last, const int32_t *ptr, const int32_t *col, const int64_t *place,
                     const float *weight, const float *x, float *out, const int heads, const int channels) {
    const int width = heads * channels, n = channels / LANES;
    for (int64_t d = first; d < last; d++) {
        vec sum[MAX_VECTORS];
        for (int i = 0; i < heads * n; i++) sum[i] = (vec){0};
        for (int64_t e = ptr[d]; e < ptr[d + 1]; e++) {
            fetch(x, col, e, ptr[last], width);
            const vec *row = at(x, col[e], width);
            const float *own = weight + placed(place, weight, e, ptr[last], heads);
            for (int h = 0; h < heads; h++)
                for (int i = 0; i < n; i++) sum[h * n + i] += own[h] * row[h * n + i];
        }
        for (int i = 0; i < heads * n; i++) ((vec *)(out + d * width))[i] = sum[i];
    }
}

INLINE void dot_body(int64_t first, int64_t last, const int32_t *ptr, const int32_t *col, const float *left,
                     const float *x, float *out, const int heads, const int channels) {
    const int width = heads * channels, n = channels / LANES;
    for (int64_t d = first; d < last; d++) {
        const vec *own = at(left, d, width);
        for (int64_t e = ptr[d]; e < ptr[d + 1]; e++) {
            fetch(x, col, e, ptr[last], width);
            const vec *row = at(x, col[e], width);
            for (int h = 0; h < heads; h++) {
                vec product = {0};
                for (int i = 0; i < n; i++) product += own[h * n + i] * row[h * n + i];
                out[e * heads + h] = total_of(product);
            }
        }
    }
}

/* One maximum for all segments made these exponentials too small: take them from the segment's own. */
static float softmax_far_below(const float *scores, float *alpha, int64_t start, int64_t stop, int heads, int head) {
    float peak = scores[start * heads + head], total = 0;
    for (int64_t e = start; e < stop; e++) peak = fmaxf(peak, scores[e * heads + head]);
    for (int64_t e = start; e < stop; e++) total += alpha[e * heads + head] = expf(scores[e * heads + head] - peak);
    return total;
}

INLINE void attend_body(int64_t first, int64_t last, const int32_t *ptr, const int32_t *col, const float *scores,
                        float *alpha, const float *x, float *out, const int heads, const int channels) {
    for (int64_t d = first; d < last; d++) {
        const int64_t start = ptr[d], stop = ptr[d + 1];
        float scale[MAX_VECTORS];
        for (int h = 0; h < heads; h++) scale[h] = 0;
        for (int64_t e = start; e < stop; e++)
            for (int h = 0; h < heads; h++) scale[h] += alpha[e * heads + h];
        for (int h = 0; h < heads; h++) {
            if (start < stop && scale[h] < TINY) scale[h] = softmax_far_below(scores, alpha, start, stop, heads, h);
            scale[h] = 1 / scale[h];
        }
        for (int64_t e = start; e < stop; e++)
            for (int h = 0; h < heads; h++) alpha[e * heads + h] *= scale[h];
    }
    sum_body(first, last, ptr, col, 0, alpha, x, out, heads, channels);
}

INLINE void attend_gradient_body(int64_t first, int64_t last, const int32_t *ptr, const int32_t *col,
                                 const float *alpha, const float *x, const float *grad, const float *to_alpha,
                                 float *out, const int heads, const int channels) {
    dot_body(first, last, ptr, col, grad, x, out, heads, channels);
    for (int64_t d = first; d < last; d++) {
        float total[MAX_VECTORS];
        for (int h = 0; h < heads; h++) total[h] = 0;
        for (int64_t e = ptr[d] * (int64_t)heads; e < ptr[d + 1] * (int64_t)heads; e += heads)
            for (int h = 0; h < heads; h++) {
                if (to_alpha) out[e + h] += to_alpha[e + h];
                total[h] += alpha[e + h] * out[e + h];
            }
        for (int64_t e = ptr[d] * (int64_t)heads; e < ptr[d + 1] * (int64_t)heads; e += heads)
            for (int h = 0; h < heads; h++) out[e + h] = alpha[e + h] * (out[e + h] - total[h]);
    }
}

/* GATv2: z = left[d] + x[s], + vectors[type] where there are types (typed is a constant). */

INLINE void gatv2_body(int64_t first, int64_t last, const int32_t *ptr, const int32_t *col, const int32_t *types,
                       const float *att, const float *left, const float *x, const float *vectors, float slope,
                       float *out, const int typed, const int heads, const int channels) {
    const int width = heads * channels, n = channels / LANES;
    for (int64_t d = first; d < last; d++) {
        const vec *own = at(left, d, width);
        for (int64_t e = ptr[d]; e < ptr[d + 1]; e++) {
            fetch(x, col, e, ptr[last], width);
            const vec *row = at(x, col[e], width), *kind = typed ? at(vectors, types[e], width) : 0;
            for (int h = 0; h < heads; h++) {
                vec score = {0};
                for (int i = h * n; i < (h + 1) * n; i++) {
                    vec z = own[i] + row[i];
                    if (typed) z += kind[i];
                    score += at(att, 0, 0)[i] * choose(z > 0, z, slope * z);
                }
                out[e * heads + h] = total_of(score);
            }
        }
    }
}

INLINE void gatv2_gradient_body(int64_t first, int64_t last, const int32_t *ptr, const int32_t *col,
                                const int32_t *types, const float *left, const float *x, const float *vectors,
                                const int64_t *place, const float *grad, float slope, float *out, float *to_att,
                                float *by_type, const int typed, const int with_att, const int heads, const int channels) {
    const int width = heads * channels, n = channels / LANES;
    for (int64_t d = first; d < last; d++) {
        const vec *own = at(left, d, width);
        vec sum[MAX_VECTORS];
        for (int i = 0; i < heads * n; i++) sum[i] = (vec){0};
        for (int64_t e = ptr[d]; e < ptr[d + 1]; e++) {
            fetch(x, col, e, ptr[last], width);
            const vec *row = at(x, col[e], width);
            const int64_t own_place = placed(place, grad, e, ptr[last], heads);
            const vec *kind = typed ? at(vectors, types[own_place / heads], width) : 0;
            vec *of_type = typed && with_att ? (vec *)(by_type + (int64_t)types[e] * width) : 0;
            for (int h = 0; h < heads; h++) {
                const vec high = (vec){0} + grad[own_place + h], low = slope * high;
                for (int i = h * n; i < (h + 1) * n; i++) {
                    vec z = own[i] + row[i];
                    if (typed) z += kind[i];
                    const vec pulled = choose(z > 0, high, low);
                    sum[i] += pulled;
                    if (with_att) ((vec *)to_att)[i] += pulled * z;
                    if (typed && with_att) of_type[i] += pulled;
                }
            }
        }
        for (int i = 0; i < heads * n; i++) ((vec *)(out + d * width))[i] = sum[i];
    }
}

/* The usual shapes get code of their own; the others share the last line. */
#define EACH(body, ...)                                                      \
    do {                                                                     \
        if (heads == 1 && channels == 64) body(__VA_ARGS__, 1, 64);          \
        else if (heads == 1 && channels == 128) body(__VA_ARGS__, 1, 128);   \
        else if (heads == 4 && channels == 16) body(__VA_ARGS__, 4, 16);     \
        else if (heads == 4 && channels == 32) body(__VA_ARGS__, 4, 32);     \
        else if (heads == 8 && channels == 8) body(__VA_ARGS__, 8, 8);       \
        else if (heads == 8 && channels == 16) body(__VA_ARGS__, 8, 16);     \
        else body(__VA_ARGS__, heads, channels);                             \
    } while (0)

void graphrec_sum(int64_t first, int64_t last, int heads, int channels, const int32_t *ptr, const int32_t *col,
                  const int64_t *place, const float *weight, const float *x, float *out) {
    if (place) EACH(sum_body, first, last, ptr, col, place, weight, x, out);
    else EACH(sum_body, first, last, ptr, col, 0, weight, x, out);
}

void graphrec_dot(int64_t first, int64_t last, int heads, int channels, const int32_t *ptr, const int32_t *col,
                  const float *left, const float *x, float *out) {
    EACH(dot_body, first, last, ptr, col, left, x, out);
}

void graphrec_attend(int64_t first, int64_t last, int heads, int channels, const int32_t *ptr, const int32_t *col,
                     const float *scores, float *alpha, const float *x, float *out) {
    EACH(attend_body, first, last, ptr, col, scores, alpha, x, out);
}

void graphrec_attend_gradient(int64_t first, int64_t last, int heads, int channels, const int32_t *ptr,
                              const int32_t *col, const float *alpha, const float *x, const float *grad,
                              const float *to_alpha, float *out) {
    EACH(attend_gradient_body, first, last, ptr, col, alpha, x, grad, to_alpha, out);
}

void graphrec_gatv2(int64_t first, int64_t last, int heads, int channels, const int32_t *ptr, const int32_t *col,
                    const int32_t *types, const float *att, const float *left, const float *x, const float *vectors,
                    float slope, float *out) {
    if (types) EACH(gatv2_body, first, last, ptr, col, types, att, left, x, vectors, slope, out, 1);
    else EACH(gatv2_body, first, last, ptr, col, types, att, left, x, vectors, slope, out, 0);
}

void graphrec_gatv2_gradient(int64_t first, int64_t last, int heads, int channels, const int32_t *ptr,
                             const int32_t *col, const int32_t *types, const float *left, const float *x,
                             const float *vectors, const int64_t *place, const float *grad, float slope, float *out,
                             float *to_att, float *by_type) {
#define GRADIENT(typed, with_att)                                                                                  \
    EACH(gatv2_gradient_body, first, last, ptr, col, types, left, x, vectors, place, grad, slope, out, to_att,   \
         by_type, typed, with_att)
    if (types && to_att) GRADIENT(1, 1);
    else if (types) GRADIENT(1, 0);
    else if (to_att) GRADIENT(0, 1);
    else GRADIENT(0, 0);
}

/* Scalars of nodes and types; any of the four summands may be missing. */

INLINE void additive_body(int64_t first, int64_t last, const int32_t *ptr, const int32_t *col, const int32_t *types,
                          const float *source, const float *destination, const float *by_type, const float *edge,
                          float slope, float *out, const int heads) {
    for (int64_t d = first; d < last; d++)
        for (int64_t e = ptr[d]; e < ptr[d + 1]; e++) {
            if (source && e + AHEAD < ptr[last]) __builtin_prefetch(source + (int64_t)col[e + AHEAD] * heads, 0, 1);
            for (int h = 0; h < heads; h++) {
                float z = source ? source[(int64_t)col[e] * heads + h] : 0;
                if (destination) z += destination[d * heads + h];
                if (by_type) z += by_type[(int64_t)types[e] * heads + h];
                if (edge) z += edge[e * heads + h];
                out[e * heads + h] = z > 0 ? z : slope * z;
            }
        }
}

INLINE void row_sums_body(int64_t first, int64_t last, const int32_t *ptr, const int64_t *place, const float *values,
                          float *out, const int heads) {
    for (int64_t d = first; d < last; d++) {
        float sum[MAX_VECTORS];
        for (int h = 0; h < heads; h++) sum[h] = 0;
        for (int64_t e = ptr[d]; e < ptr[d + 1]; e++) {
            const float *own = values + placed(place, values, e, ptr[last], heads);
            for (int h = 0; h < heads; h++) sum[h] += own[h];
        }
        for (int h = 0; h < heads; h++) out[d * heads + h] = sum[h];
    }
}

#define EACH_HEADS(body, ...)                           \
    do {                                                \
        if (heads == 1) body(__VA_ARGS__, 1);           \
        else if (heads == 4) body(__VA_ARGS__, 4);      \
        else if (heads == 8) body(__VA_ARGS__, 8);      \
        else body(__VA_ARGS__, heads);                  \
    } while (0)

void graphrec_additive(int64_t first, int64_t last, int heads, const int32_t *ptr, const int32_t *col,
                       const int32_t *types, const float *source, const float *destination, const float *by_type,
                       const float *edge, float slope, float *out) {
    if (source && destination && !by_type && !edge)
        EACH_HEADS(additive_body, first, last, ptr, col, 0, source, destination, 0, 0, slope, out);
    else
        EACH_HEADS(additive_body, first, last, ptr, col, types, source, destination, by_type, edge, slope, out);
}

void graphrec_row_sums(int64_t first, int64_t last, int heads, const int32_t *ptr, const int64_t *place,
                       const float *values, float *out) {
    if (place) EACH_HEADS(row_sums_body, first, last, ptr, place, values, out);
    else EACH_HEADS(row_sums_body, first, last, ptr, 0, values, out);
}

/* Maxima of scores: items in groups of 16, whose channels lie side by side as whole numbers (group, channel, item).

   A whole number of 16 bits is half of what a float takes, and with few users it is reading the items that takes the
   time. Several users share what is read, and a block of items stays in the cache until all users have read it.
   hidden[next[b]..end[b]] are the items, in ascending order, that do not count for user b; next moves on. */

#define GROUP 16
#define BLOCK 128 /* groups; with 64 channels 256 KiB */
#define USERS 8   /* as many sums of a group stay in registers */

typedef float group_of_floats __attribute__((vector_size(64), aligned(4)));
typedef int16_t group_of_shorts __attribute__((vector_size(32), aligned(2)));

INLINE float highest(group_of_floats score) {
    vec halves[2];
    __builtin_memcpy(halves, &score, sizeof halves);
    vec top = choose(halves[0] > halves[1], halves[0], halves[1]);
    vec other = __builtin_shuffle(top, (mask){4, 5, 6, 7, 0, 1, 2, 3});
    top = choose(top > other, top, other);
    other = __builtin_shuffle(top, (mask){2, 3, 0, 1, 6, 7, 4, 5});
    top = choose(top > other, top, other);
    return top[0] > top[1] ? top[0] : top[1];
}

INLINE void maxima_body(int64_t first, int64_t last, int channels, const int16_t *items, const float *bias,
                        const float *user, int64_t *next, const int64_t *end, const int64_t *hidden, float *out,
                        int64_t num_groups, const int users) {
    for (int64_t g = first; g < last; g++) {
        const group_of_shorts *channel = (const group_of_shorts *)(items + g * channels * GROUP);
        group_of_floats score[USERS];
        for (int b = 0; b < users; b++) score[b] = *(const group_of_floats *)(bias + g * GROUP);
        for (int c = 0; c < channels; c++) {
            const group_of_floats values = __builtin_convertvector(channel[c], group_of_floats);
            for (int b = 0; b < users; b++) score[b] += user[b * channels + c] * values;
        }
        for (int b = 0; b < users; b++) {
            for (; next[b] < end[b] && hidden[next[b]] < (g + 1) * GROUP; next[b]++)
                score[b][hidden[next[b]] - g * GROUP] = -INFINITY;
            out[b * num_groups + g] = highest(score[b]);
        }
    }
}

void graphrec_maxima(int64_t num_groups, int batch, int channels, const int16_t *items, const float *bias,
                     const float *user, int64_t *next, const int64_t *end, const int64_t *hidden, float *out) {
#define SOME(users)                                                                                              \
    maxima_body(first, last, channels, items, bias, user + (int64_t)b * channels, next + b, end + b, hidden,    \
                out + b * num_groups, num_groups, users)
    for (int64_t first = 0; first < num_groups; first += BLOCK) {
        const int64_t last = first + BLOCK < num_groups ? first + BLOCK : num_groups;
        for (int b = 0; b < batch; b += USERS) switch (batch - b) {
                case 1: SOME(1); break;
                case 2: SOME(2); break;
                case 3: SOME(3); break;
                case 4: SOME(4); break;
                case 5: SOME(5); break;
                case 6: SOME(6); break;
                case 7: SOME(7); break;
                default: SOME(8);
            }
    }
#undef SOME
}
