// Softmax and its logarithm, and softmax of scores with scale, mask and dropout.
#undef THREADS
#define THREADS 512

template <class T>
__device__ void softmax(const T* x, T* y, long long rows, int width, int log) {
    typedef A<T> V;
    long long row = row_of_thread();
    if (row >= rows) return;
    x += row * width;
    y += row * width;
    V max = nothing(V());
#pragma unroll 4
    for (int i = threadIdx.x; i < width; i += blockDim.x) max = larger(max, load(x[i]));
    max = over_row<Max>(max);
    V sum = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum += exponential(load(x[i]) - max);
    sum = over_row<Sum>(sum);
    V shift = max + logarithm(sum), scale = 1 / sum;
#pragma unroll 4
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        V value = load(x[i]);
        store(y[i], log ? value - shift : exponential(value - max) * scale);
    }
}
FOR_EACH_FLOAT(softmax, (const T* x, T* y, long long rows, int width, int log), (x, y, rows, width, log))

template <class T>
__device__ void softmax_backward(const T* y, const T* dy, T* dx, long long rows, int width, int log) {
    typedef A<T> V;
    long long row = row_of_thread();
    if (row >= rows) return;
    y += row * width;
    dy += row * width;
    dx += row * width;
    V sum = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum += log ? load(dy[i]) : load(y[i]) * load(dy[i]);
    sum = over_row<Sum>(sum);
#pragma unroll 4
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        V value = load(y[i]), d = load(dy[i]);
        store(dx[i], log ? d - exponential(value) * sum : value * (d - sum));
    }
}
FOR_EACH_FLOAT(softmax_backward, (const T* y, const T* dy, T* dx, long long rows, int width, int log),
               (y, dy, dx, rows, width, log))

// The largest scaled score and 1 / the sum of exponentials of a row; the sum is 0 where the mask keeps nothing.
template <class T, class V>
__device__ void masked_moments(const T* scores, const unsigned char* mask, int keys, V scale, V& max, V& inverse) {
    max = nothing(V());
#pragma unroll 4
    for (int i = threadIdx.x; i < keys; i += blockDim.x)
        if (mask[i]) max = larger(max, load(scores[i]) * scale);
    max = over_row<Max>(max);
    V sum = 0, any = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < keys; i += blockDim.x)
        if (mask[i]) {
            sum += exponential(load(scores[i]) * scale - max);
            any = 1;
        }
    sum = over_row<Sum>(sum);
    any = over_row<Max>(any);
    inverse = any > 0 ? 1 / sum : 0;
}

// Keys of a thread where a warp holds a row in registers.
#define KEYS 8

// Of such a row the probabilities before dropout, 0 for masked keys and for rows without any.
template <class T, class V>
__device__ void held_probabilities(const T* scores, const unsigned char* mask, int keys, V scale, V* probabilities) {
    V max = nothing(V()), sum = 0;
#pragma unroll
    for (int k = 0; k < KEYS; k++) {
        int i = threadIdx.x + 32 * k;
        probabilities[k] = i < keys && mask[i] ? load(scores[i]) * scale : nothing(V());
        max = larger(max, probabilities[k]);
    }
    max = over_row<Max>(max);
    V any = 0;
#pragma unroll
    for (int k = 0; k < KEYS; k++) {
        int i = threadIdx.x + 32 * k;
        bool kept = i < keys && mask[i];
        probabilities[k] = kept ? exponential(probabilities[k] - max) : 0;
        sum += probabilities[k];
        if (kept) any = 1;
    }
    sum = over_row<Sum>(sum);
    V inverse = over_row<Max>(any) > 0 ? 1 / sum : 0;
#pragma unroll
    for (int k = 0; k < KEYS; k++) probabilities[k] *= inverse;
}

// y may be scores.
template <class T>
__device__ void masked_softmax(const T* scores, const unsigned char* mask, T* y, long long rows, int keys,
                               long long rows_per_example, double scale, Dropout dropout) {
    typedef A<T> V;
    long long row = row_of_thread();
    if (row >= rows) return;
    scores += row * keys;
    y += row * keys;
    mask += row / rows_per_example * keys;
    if (keys <= 32 * KEYS && blockDim.x == 32) {
        V probabilities[KEYS];
        held_probabilities(scores, mask, keys, (V)scale, probabilities);
#pragma unroll
        for (int k = 0; k < KEYS; k++) {
            int i = threadIdx.x + 32 * k;
            if (i < keys) store(y[i], probabilities[k] * factor<V>(dropout, row * keys + i));
        }
        return;
    }
    V max, inverse;
    masked_moments(scores, mask, keys, (V)scale, max, inverse);
#pragma unroll 4
    for (int i = threadIdx.x; i < keys; i += blockDim.x) {
        V probability = mask[i] ? exponential(load(scores[i]) * (V)scale - max) * inverse : 0;
        store(y[i], probability * factor<V>(dropout, row * keys + i));
    }
}
FOR_EACH_FLOAT(masked_softmax, (const T* scores, const unsigned char* mask, T* y, long long rows, int keys,
                                long long rows_per_example, double scale, Dropout dropout),
               (scores, mask, y, rows, keys, rows_per_example, scale, dropout))

// The gradient of the scores, and in `probs` the dropped probabilities if it is not null. dx may be dy, probs scores.
template <class T>
__device__ void masked_softmax_backward(const T* scores, const unsigned char* mask, const T* dy, T* dx, T* probs,
                                        long long rows, int keys, long long rows_per_example, double scale,
                                        Dropout dropout) {
    typedef A<T> V;
    long long row = row_of_thread();
    if (row >= rows) return;
    scores += row * keys;
    dy += row * keys;
    dx += row * keys;
    mask += row / rows_per_example * keys;
    if (keys <= 32 * KEYS && blockDim.x == 32) {
        V probabilities[KEYS], gradients[KEYS], mean = 0;
        held_probabilities(scores, mask, keys, (V)scale, probabilities);
#pragma unroll
        for (int k = 0; k < KEYS; k++) {
            int i = threadIdx.x + 32 * k;
            if (i < keys) {
                V kept = factor<V>(dropout, row * keys + i);
                // Nothing comes from a masked key, whatever its gradient is.
                gradients[k] = mask[i] ? load(dy[i]) * kept : 0;
                mean += probabilities[k] * gradients[k];
                if (probs) store(probs[row * keys + i], probabilities[k] * kept);
            }
        }
        mean = over_row<Sum>(mean);
#pragma unroll
        for (int k = 0; k < KEYS; k++) {
            int i = threadIdx.x + 32 * k;
            if (i < keys) store(dx[i], probabilities[k] * (gradients[k] - mean) * (V)scale);
        }
        return;
    }
    V max, inverse;
    masked_moments(scores, mask, keys, (V)scale, max, inverse);
    V mean = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < keys; i += blockDim.x)
        if (mask[i])
            mean += load(dy[i]) * factor<V>(dropout, row * keys + i) *
                    exponential(load(scores[i]) * (V)scale - max) * inverse;
    mean = over_row<Sum>(mean);
#pragma unroll 4
    for (int i = threadIdx.x; i < keys; i += blockDim.x) {
        V kept = factor<V>(dropout, row * keys + i);
        V probability = mask[i] ? exponential(load(scores[i]) * (V)scale - max) * inverse : 0;
        V d = probability > 0 ? probability * (load(dy[i]) * kept - mean) * (V)scale : probability * 0;
        if (probs) store(probs[row * keys + i], probability * kept);
        store(dx[i], d);
    }
}
FOR_EACH_FLOAT(masked_softmax_backward, (const T* scores, const unsigned char* mask, const T* dy, T* dx, T* probs,
                                         long long rows, int keys, long long rows_per_example, double scale,
                                         Dropout dropout),
               (scores, mask, dy, dx, probs, rows, keys, rows_per_example, scale, dropout))
