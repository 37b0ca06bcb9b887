// The update of AdamW and sums of squares.
#undef THREADS
#define THREADS 256

template <class T>
__device__ void adamw(T* weight, const T* gradient, A<T>* m, A<T>* v, long long count, double gradient_scale,
                      double beta1, double beta2, double step, double root_scale, double eps, double decay) {
    typedef A<T> V;
    V take1 = (V)(1 - beta1), take2 = (V)(1 - beta2), keep1 = (V)beta1, keep2 = (V)beta2;
    V scale = (V)gradient_scale, rate = (V)step, shrink = (V)root_scale, least = (V)eps, kept = (V)decay;
    long long threads = (long long)gridDim.x * blockDim.x;
#pragma unroll 4
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += threads) {
        V g = load(gradient[i]) * scale;
        V first = keep1 * m[i] + take1 * g, second = keep2 * v[i] + take2 * g * g;
        m[i] = first;
        v[i] = second;
        store(weight[i], load(weight[i]) * kept - rate * first / (root(second) * shrink + least));
    }
}
FOR_EACH_FLOAT(adamw, (T* weight, const T* gradient, V* m, V* v, long long count, double gradient_scale, double beta1,
                       double beta2, double step, double root_scale, double eps, double decay),
               (weight, gradient, m, v, count, gradient_scale, beta1, beta2, step, root_scale, eps, decay))

// partial[blockIdx.x] = the block's sum of squares.
template <class T>
__device__ void squares(const T* x, double* partial, long long count) {
    double sum = 0;
    long long threads = (long long)gridDim.x * blockDim.x;
#pragma unroll 4
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += threads) {
        double value = load(x[i]);
        sum += value * value;
    }
    sum = over_row<Sum>(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
FOR_EACH_FLOAT(squares, (const T* x, double* partial, long long count), (x, partial, count))
