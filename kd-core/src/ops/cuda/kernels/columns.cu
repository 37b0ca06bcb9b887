// Functions of each value: alone, or of rows to which a bias is added. A thread stays in its column, so the sums that are
// the bias's gradient come on the way.
#undef THREADS
#define THREADS 256

__device__ inline float normal_cdf(float x) { return 0.5f * (1 + erff(x * 0.70710678118654752440f)); }
__device__ inline double normal_cdf(double x) { return 0.5 * (1 + erf(x * 0.70710678118654752440)); }

enum Activation { NONE, GELU, TANH, RELU };

template <class V> __device__ V activate(V x, int activation) {
    switch (activation) {
        // The cdf of minus infinity is 0, and 0 times it not a number.
        case GELU: { V cdf = normal_cdf(x); return cdf == 0 ? 0 : x * cdf; }
        case TANH: return hyperbolic_tangent(x);
        case RELU: return x < 0 ? 0 : x;
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
        default: return 1;
    }
}

// bias may be null.
template <class T>
__device__ void bias_activation(const T* u, const A<T>* bias, T* y, long long rows, int width, int activation) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    A<T> shift = bias ? bias[column] : 0;
#pragma unroll 4
    for (long long row = blockIdx.y; row < rows; row += gridDim.y)
        store(y[row * width + column], activate(load(u[row * width + column]) + shift, activation));
}
FOR_EACH_FLOAT(bias_activation, (const T* u, const V* bias, T* y, long long rows, int width, int activation),
               (u, bias, y, rows, width, activation))

// du = dy f'(u + bias), which may be dy or null; partial[blockIdx.y][width] are the block's sums of it.
template <class T>
__device__ void bias_activation_backward(const T* u, const A<T>* bias, const T* dy, T* du, A<T>* partial,
                                         long long rows, int width, int activation) {
    typedef A<T> V;
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    V shift = bias ? bias[column] : 0, sum = 0;
#pragma unroll 4
    for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
        V d = load(dy[row * width + column]);
        if (activation != NONE) d *= slope(load(u[row * width + column]) + shift, activation);
        if (du) store(du[row * width + column], d);
        sum += d;
    }
    if (partial) partial[(long long)blockIdx.y * width + column] = sum;
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

// (batch, len, 3 * heads * width) without bias to three of (batch, heads, len, width) with it.
template <class T>
__device__ void split_projections(const T* u, const A<T>* bias_q, const A<T>* bias_k, const A<T>* bias_v, T* q, T* k,
                                  T* v, long long rows, int len, int heads, int width) {
    int hidden = heads * width, column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= 3 * hidden) return;
    int which = column / hidden, inside = column % hidden, head = inside / width, i = inside % width;
    A<T> shift = (which == 0 ? bias_q : which == 1 ? bias_k : bias_v)[inside];
    T* to = which == 0 ? q : which == 1 ? k : v;
#pragma unroll 4
    for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
        long long example = row / len;
        int t = row % len;
        store(to[((example * heads + head) * len + t) * width + i], load(u[row * 3 * hidden + column]) + shift);
    }
}
FOR_EACH_FLOAT(split_projections, (const T* u, const V* bias_q, const V* bias_k, const V* bias_v, T* q, T* k, T* v,
                                   long long rows, int len, int heads, int width),
               (u, bias_q, bias_k, bias_v, q, k, v, rows, len, heads, width))

// The way back, with the sums of rows in partial[blockIdx.y][3 * heads * width].
template <class T>
__device__ void join_projections(const T* q, const T* k, const T* v, T* u, A<T>* partial, long long rows, int len,
                                 int heads, int width) {
    int hidden = heads * width, column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= 3 * hidden) return;
    int which = column / hidden, inside = column % hidden, head = inside / width, i = inside % width;
    const T* from = which == 0 ? q : which == 1 ? k : v;
    A<T> sum = 0;
#pragma unroll 4
    for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
        long long example = row / len;
        int t = row % len;
        A<T> value = load(from[((example * heads + head) * len + t) * width + i]);
        store(u[row * 3 * hidden + column], value);
        sum += value;
    }
    partial[(long long)blockIdx.y * 3 * hidden + column] = sum;
}
FOR_EACH_FLOAT(join_projections, (const T* q, const T* k, const T* v, T* u, V* partial, long long rows, int len,
                                  int heads, int width),
               (q, k, v, u, partial, rows, len, heads, width))

// (batch, first, second, width) to (batch, second, first, width).
template <class T>
__device__ void swap_middle(const T* x, T* y, long long count, int first, int second, int width) {
    long long step = (long long)gridDim.x * blockDim.x;
#pragma unroll 4
    for (long long to = (long long)blockIdx.x * blockDim.x + threadIdx.x; to < count; to += step) {
        int i = to % width, a = to / width % first, b = to / width / first % second;
        long long example = to / width / first / second;
        y[to] = x[((example * first + a) * second + b) * width + i];
    }
}
FOR_EACH_FLOAT(swap_middle, (const T* x, T* y, long long count, int first, int second, int width),
               (x, y, count, first, second, width))
