// Functions of each value: alone, or of rows to which a bias is added. A thread stays in its column, so the sums that are
// the bias's gradient come on the way.
#undef THREADS
#define THREADS 256

__device__ inline float normal_cdf(float x) { return 0.5f * (1 + erff(x * 0.70710678118654752440f)); }
__device__ inline double normal_cdf(double x) { return 0.5 * (1 + erf(x * 0.70710678118654752440)); }

// The approximation of it: a logistic function of 2 sqrt(2/pi) (x + 0.044715 x^3), and half the slope of what is in it. Beyond
// +-10 it is 0 or 1 to all digits.
template <class V> __device__ V approximate_cdf(V x, V& du) {
    bool below = x < -10;
    x = below ? -10 : x > 10 ? 10 : x;
    V square = (V)0.044715 * x * x, root = (V)0.79788456080286535588;
    du = root * (1 + 3 * square);
    return below ? 0 : 1 / (1 + exponential(-2 * root * x * (1 + square)));
}

enum Activation { NONE, GELU, TANH, RELU, GELU_TANH };

template <class V> __device__ V activate(V x, int activation) {
    switch (activation) {
        // The cdf of minus infinity is 0, and 0 times it not a number.
        case GELU: { V cdf = normal_cdf(x); return cdf == 0 ? 0 : x * cdf; }
        case TANH: return hyperbolic_tangent(x);
        case RELU: return x < 0 ? 0 : x;
        case GELU_TANH: { V du, cdf = approximate_cdf(x, du); return cdf == 0 ? 0 : x * cdf; }
        default: return x;
    }
}

template <class V> __device__ V slope(V x, int activation) {
    switch (activation) {
        case GELU: {
            V density = (V)0.398942280401432678 * exponential(x * x * (V)-0.5);
            return normal_cdf(x) + (density == 0 ? 0 : x * density);
        }
        case TANH: { V y = hyperbolic_tangent(x); return 1 - y * y; }
        case RELU: return x > 0 ? 1 : 0;
        case GELU_TANH: {
            V du, cdf = approximate_cdf(x, du), density = 2 * cdf * (1 - cdf) * du;
            return cdf + (density == 0 ? 0 : x * density);
        }
        default: return 1;
    }
}

// The first of a thread's N columns, where N is 4 if rows can be cut into fours, else 1.
template <int N> __device__ inline int first_column() { return (blockIdx.x * blockDim.x + threadIdx.x) * N; }

template <int N, class T>
__device__ void activate_columns(const T* u, const A<T>* bias, T* y, long long rows, int width, int activation) {
    int column = first_column<N>();
    if (column >= width) return;
    A<T> shift[N];
#pragma unroll
    for (int k = 0; k < N; k++) shift[k] = bias ? bias[column + k] : 0;
#pragma unroll 4
    for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
        Pack<T, N> pack = load_pack<N>(u + row * width + column);
#pragma unroll
        for (int k = 0; k < N; k++) store(pack.values[k], activate(load(pack.values[k]) + shift[k], activation));
        store_pack(y + row * width + column, pack);
    }
}

// bias may be null.
template <class T>
__device__ void bias_activation(const T* u, const A<T>* bias, T* y, long long rows, int width, int activation) {
    if (width % 4 == 0)
        activate_columns<4>(u, bias, y, rows, width, activation);
    else
        activate_columns<1>(u, bias, y, rows, width, activation);
}
FOR_EACH_FLOAT(bias_activation, (const T* u, const V* bias, T* y, long long rows, int width, int activation),
               (u, bias, y, rows, width, activation))

template <int N, class T>
__device__ void activate_columns_backward(const T* u, const A<T>* bias, const T* dy, T* du, A<T>* partial, long long rows,
                                          int width, int activation) {
    typedef A<T> V;
    int column = first_column<N>();
    if (column >= width) return;
    V shift[N], sum[N];
#pragma unroll
    for (int k = 0; k < N; k++) {
        shift[k] = bias ? bias[column + k] : 0;
        sum[k] = 0;
    }
#pragma unroll 4
    for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
        long long at = row * width + column;
        Pack<T, N> d = load_pack<N>(dy + at);
        if (activation != NONE) {
            Pack<T, N> x = load_pack<N>(u + at);
#pragma unroll
            for (int k = 0; k < N; k++) {
                V value = load(d.values[k]) * slope(load(x.values[k]) + shift[k], activation);
                store(d.values[k], value);
                sum[k] += value;
            }
        } else {
#pragma unroll
            for (int k = 0; k < N; k++) sum[k] += load(d.values[k]);
        }
        if (du) store_pack(du + at, d);
    }
    if (partial)
#pragma unroll
        for (int k = 0; k < N; k++) partial[(long long)blockIdx.y * width + column + k] = sum[k];
}

// du = dy f'(u + bias), which may be dy or null; partial[blockIdx.y][width] are the block's sums of it.
template <class T>
__device__ void bias_activation_backward(const T* u, const A<T>* bias, const T* dy, T* du, A<T>* partial,
                                         long long rows, int width, int activation) {
    if (width % 4 == 0)
        activate_columns_backward<4>(u, bias, dy, du, partial, rows, width, activation);
    else
        activate_columns_backward<1>(u, bias, dy, du, partial, rows, width, activation);
}
FOR_EACH_FLOAT(bias_activation_backward, (const T* u, const V* bias, const T* dy, T* du, V* partial, long long rows,
                                          int width, int activation),
               (u, bias, dy, du, partial, rows, width, activation))

template <class T>
__device__ void dropout(const T* x, T* y, long long count, Dropout dropout) {
    long long step = (long long)gridDim.x * blockDim.x;
#pragma unroll 4
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        store(y[i], load(x[i]) * factor<A<T>>(dropout, i));
}
FOR_EACH_FLOAT(dropout, (const T* x, T* y, long long count, Dropout mask), (x, y, count, mask))

// A column of the three projections: which of them it is in, and where in its row.
struct Place {
    int which, inside;
};

__device__ inline Place place_of(int column, int heads, int width) {
    int hidden = heads * width, inside = column % hidden;
    return {column / hidden, inside};
}

__device__ inline long long by_head(const Place& place, long long row, int len, int heads, int width) {
    long long example = row / len;
    return ((example * heads + place.inside / width) * len + row % len) * width + place.inside % width;
}

template <int N, class T>
__device__ void split_columns(const T* u, const A<T>* bias_q, const A<T>* bias_k, const A<T>* bias_v, T* q, T* k, T* v,
                              long long rows, int len, int heads, int width) {
    int row_width = 3 * heads * width, column = first_column<N>();
    if (column >= row_width) return;
    Place place = place_of(column, heads, width);
    const A<T>* bias = place.which == 0 ? bias_q : place.which == 1 ? bias_k : bias_v;
    T* to = place.which == 0 ? q : place.which == 1 ? k : v;
    A<T> shift[N];
#pragma unroll
    for (int n = 0; n < N; n++) shift[n] = bias[place.inside + n];
#pragma unroll 4
    for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
        Pack<T, N> pack = load_pack<N>(u + row * row_width + column);
#pragma unroll
        for (int n = 0; n < N; n++) store(pack.values[n], load(pack.values[n]) + shift[n]);
        store_pack(to + by_head(place, row, len, heads, width), pack);
    }
}

// (batch, len, 3 * heads * width) without bias to three of (batch, heads, len, width) with it.
template <class T>
__device__ void split_projections(const T* u, const A<T>* bias_q, const A<T>* bias_k, const A<T>* bias_v, T* q, T* k,
                                  T* v, long long rows, int len, int heads, int width) {
    if (width % 4 == 0)
        split_columns<4>(u, bias_q, bias_k, bias_v, q, k, v, rows, len, heads, width);
    else
        split_columns<1>(u, bias_q, bias_k, bias_v, q, k, v, rows, len, heads, width);
}
FOR_EACH_FLOAT(split_projections, (const T* u, const V* bias_q, const V* bias_k, const V* bias_v, T* q, T* k, T* v,
                                   long long rows, int len, int heads, int width),
               (u, bias_q, bias_k, bias_v, q, k, v, rows, len, heads, width))

template <int N, class T>
__device__ void join_columns(const T* q, const T* k, const T* v, T* u, A<T>* partial, long long rows, int len, int heads,
                             int width) {
    int row_width = 3 * heads * width, column = first_column<N>();
    if (column >= row_width) return;
    Place place = place_of(column, heads, width);
    const T* from = place.which == 0 ? q : place.which == 1 ? k : v;
    A<T> sum[N];
#pragma unroll
    for (int n = 0; n < N; n++) sum[n] = 0;
#pragma unroll 4
    for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
        Pack<T, N> pack = load_pack<N>(from + by_head(place, row, len, heads, width));
#pragma unroll
        for (int n = 0; n < N; n++) sum[n] += load(pack.values[n]);
        store_pack(u + row * row_width + column, pack);
    }
#pragma unroll
    for (int n = 0; n < N; n++) partial[(long long)blockIdx.y * row_width + column + n] = sum[n];
}

// The way back, with the sums of rows in partial[blockIdx.y][3 * heads * width].
template <class T>
__device__ void join_projections(const T* q, const T* k, const T* v, T* u, A<T>* partial, long long rows, int len,
                                 int heads, int width) {
    if (width % 4 == 0)
        join_columns<4>(q, k, v, u, partial, rows, len, heads, width);
    else
        join_columns<1>(q, k, v, u, partial, rows, len, heads, width);
}
FOR_EACH_FLOAT(join_projections, (const T* q, const T* k, const T* v, T* u, V* partial, long long rows, int len,
                                  int heads, int width),
               (q, k, v, u, partial, rows, len, heads, width))

template <int N, class T>
__device__ void swap_packs(const T* x, T* y, long long packs, int first, int second, int per_row) {
    long long step = (long long)gridDim.x * blockDim.x;
#pragma unroll 4
    for (long long to = (long long)blockIdx.x * blockDim.x + threadIdx.x; to < packs; to += step) {
        int i = to % per_row, a = to / per_row % first, b = to / per_row / first % second;
        long long example = to / per_row / first / second;
        store_pack(y + to * N, load_pack<N>(x + (((example * first + a) * second + b) * per_row + i) * N));
    }
}

// (batch, first, second, width) to (batch, second, first, width).
template <class T>
__device__ void swap_middle(const T* x, T* y, long long count, int first, int second, int width) {
    if (width % 4 == 0)
        swap_packs<4>(x, y, count / 4, first, second, width / 4);
    else
        swap_packs<1>(x, y, count, first, second, width);
}
FOR_EACH_FLOAT(swap_middle, (const T* x, T* y, long long count, int first, int second, int width),
               (x, y, count, first, second, width))
