// Layer norm, with or without what is added before it: s = residual + dropout(x + bias), y = norm(s).
#undef THREADS
#define THREADS 512

// A thread holds up to this many values of a row; the launch sees to it that they are enough.
#define HELD 8

template <class V> __device__ void moments(const V* held, int width, double eps, V& mean, V& scale) {
    V sum = 0;
#pragma unroll
    for (int k = 0; k < HELD; k++)
        if (threadIdx.x + k * blockDim.x < width) sum += held[k];
    mean = over_row<Sum>(sum) / width;
    V squares = 0;
#pragma unroll
    for (int k = 0; k < HELD; k++)
        if (threadIdx.x + k * blockDim.x < width) squares += (held[k] - mean) * (held[k] - mean);
    scale = 1 / root(over_row<Sum>(squares) / width + (V)eps);
}

// bias, residual and sum may be null.
template <class T>
__device__ void norm(const T* x, const A<T>* bias, const T* residual, const A<T>* gamma, const A<T>* beta, T* sum, T* y,
                     long long rows, int width, double eps, Dropout dropout) {
    typedef A<T> V;
    long long row = row_of_thread();
    if (row >= rows) return;
    V held[HELD];
#pragma unroll
    for (int k = 0; k < HELD; k++) {
        int i = threadIdx.x + k * blockDim.x;
        if (i < width) {
            V value = load(x[row * width + i]);
            if (bias) value += bias[i];
            if (dropout.threshold) value *= factor<V>(dropout, row * width + i);
            if (residual) value += load(residual[row * width + i]);
            if (sum) {
                // What is kept is what is normalised, rounded.
                T rounded;
                store(rounded, value);
                sum[row * width + i] = rounded;
                value = load(rounded);
            }
            held[k] = value;
        }
    }
    V mean, scale;
    moments(held, width, eps, mean, scale);
#pragma unroll
    for (int k = 0; k < HELD; k++) {
        int i = threadIdx.x + k * blockDim.x;
        if (i < width) store(y[row * width + i], (held[k] - mean) * scale * gamma[i] + beta[i]);
    }
}
FOR_EACH_FLOAT(norm, (const T* x, const V* bias, const T* residual, const V* gamma, const V* beta, T* sum, T* y,
                      long long rows, int width, double eps, Dropout dropout),
               (x, bias, residual, gamma, beta, sum, y, rows, width, eps, dropout))

// With the gradient dy (+ more, if it is not null) of y: d of s, dx of x if it is not null, and each block's sums for gamma,
// beta and bias in partial[block][3][width]. blockDim.y is 1.
template <class T>
__device__ void norm_backward(const T* sum, const T* dy, const T* more, const A<T>* gamma, T* d, T* dx, A<T>* partial,
                              long long rows, int width, double eps, Dropout dropout) {
    typedef A<T> V;
    V d_gamma[HELD], d_beta[HELD], d_bias[HELD], held[HELD], g[HELD];
#pragma unroll
    for (int k = 0; k < HELD; k++) d_gamma[k] = d_beta[k] = d_bias[k] = 0;
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
#pragma unroll
        for (int k = 0; k < HELD; k++) {
            int i = threadIdx.x + k * blockDim.x;
            if (i < width) {
                held[k] = load(sum[row * width + i]);
                g[k] = load(dy[row * width + i]);
                if (more) g[k] += load(more[row * width + i]);
            }
        }
        V mean, scale;
        moments(held, width, eps, mean, scale);
        V sum_g = 0, sum_gx = 0;
#pragma unroll
        for (int k = 0; k < HELD; k++) {
            int i = threadIdx.x + k * blockDim.x;
            if (i < width) {
                held[k] = (held[k] - mean) * scale;
                d_gamma[k] += g[k] * held[k];
                d_beta[k] += g[k];
                g[k] *= gamma[i];
                sum_g += g[k];
                sum_gx += g[k] * held[k];
            }
        }
        V mean_g = over_row<Sum>(sum_g) / width, mean_gx = over_row<Sum>(sum_gx) / width;
#pragma unroll
        for (int k = 0; k < HELD; k++) {
            int i = threadIdx.x + k * blockDim.x;
            if (i < width) {
                V value = (g[k] - mean_g - held[k] * mean_gx) * scale;
                store(d[row * width + i], value);
                if (dropout.threshold) value *= factor<V>(dropout, row * width + i);
                if (dx) store(dx[row * width + i], value);
                d_bias[k] += value;
            }
        }
    }
    partial += (long long)blockIdx.x * 3 * width;
#pragma unroll
    for (int k = 0; k < HELD; k++) {
        int i = threadIdx.x + k * blockDim.x;
        if (i < width) {
            partial[i] = d_gamma[k];
            partial[width + i] = d_beta[k];
            partial[2 * width + i] = d_bias[k];
        }
    }
}
FOR_EACH_FLOAT(norm_backward, (const T* sum, const T* dy, const T* more, const V* gamma, T* d, T* dx, V* partial,
                               long long rows, int width, double eps, Dropout dropout),
               (sum, dy, more, gamma, d, dx, partial, rows, width, eps, dropout))
