// What the kernels share: values in memory and in registers, sums over a block, dropout.
//
// T is the dtype in memory (float, double or bf16), A<T> what is computed with: float, or double for double. Biases, the
// weights of norms and all partial sums are A<T>, so in bf16 they stay f32. No sum depends on the order in which blocks
// run: every block writes its own partial sums, and `reduce` adds them in their order.

struct bf16 {
    unsigned short bits;
};

template <class T> struct Wide { typedef float type; };
template <> struct Wide<double> { typedef double type; };
template <class T> using A = typename Wide<T>::type;

__device__ inline float load(float x) { return x; }
__device__ inline double load(double x) { return x; }
__device__ inline float load(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }

__device__ inline void store(float& to, float x) { to = x; }
__device__ inline void store(double& to, double x) { to = x; }
// To the nearest, ties to even, NaN stays NaN.
__device__ inline void store(bf16& to, float x) {
    unsigned bits = __float_as_uint(x);
    to.bits = x != x ? 0x7fc0 : (unsigned short)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return exp(x); }
__device__ inline float logarithm(float x) { return logf(x); }
__device__ inline double logarithm(double x) { return log(x); }
__device__ inline float larger(float a, float b) { return fmaxf(a, b); }
__device__ inline double larger(double a, double b) { return fmax(a, b); }
__device__ inline float root(float x) { return sqrtf(x); }
__device__ inline double root(double x) { return sqrt(x); }
__device__ inline float error_function(float x) { return erff(x); }
__device__ inline double error_function(double x) { return erf(x); }
__device__ inline float hyperbolic_tangent(float x) { return tanhf(x); }
__device__ inline double hyperbolic_tangent(double x) { return tanh(x); }
__device__ inline float nothing(float) { return __uint_as_float(0xff800000); }
__device__ inline double nothing(double) { return -(double)__uint_as_float(0x7f800000); }

// N values that lie one behind the other, read and written at once.
template <class T, int N> struct alignas(N * sizeof(T)) Pack {
    T values[N];
};
template <int N, class T> __device__ inline Pack<T, N> load_pack(const T* from) { return *(const Pack<T, N>*)from; }
template <class T, int N> __device__ inline void store_pack(T* to, const Pack<T, N>& pack) { *(Pack<T, N>*)to = pack; }

struct Sum {
    template <class V> __device__ static V join(V a, V b) { return a + b; }
    template <class V> __device__ static V start(V) { return 0; }
};
struct Max {
    template <class V> __device__ static V join(V a, V b) { return larger(a, b); }
    template <class V> __device__ static V start(V x) { return nothing(x); }
};

// Over the threads of a row: those of a warp where blockDim.x is 32, else those of the block. All of them get the result.
template <class Op, class V> __device__ V over_row(V x) {
    __shared__ V parts[32];
    for (int offset = 16; offset > 0; offset /= 2) x = Op::join(x, __shfl_xor_sync(0xffffffffu, x, offset));
    if (blockDim.x == 32) return x;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    __syncthreads();
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    x = lane < blockDim.x / 32 ? parts[lane] : Op::start(x);
    for (int offset = 16; offset > 0; offset /= 2) x = Op::join(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

// The row of a thread, where a block has blockDim.y rows of 32 threads or one row of more.
__device__ inline long long row_of_thread() { return (long long)blockIdx.x * blockDim.y + threadIdx.y; }

// Dropout as in ops/dropout.rs, bit for bit; `scale` is 1 and `threshold` 0 where nothing is dropped.
struct Dropout {
    unsigned long long seed;
    unsigned high_key, low_key, threshold, unused;
    double scale;
};

__device__ inline unsigned long long mix_round(unsigned long long z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

__device__ inline unsigned long long mix(unsigned long long a, unsigned long long b) {
    return mix_round(mix_round(a + 0x9e3779b97f4a7c15ull) ^ (b * 0x9e3779b97f4a7c15ull));
}

template <class V> __device__ inline V factor(const Dropout& dropout, long long index) {
    unsigned first = dropout.high_key, second = dropout.low_key, high = (unsigned)((unsigned long long)index >> 32);
    if (high != 0) {
        unsigned long long key = mix(dropout.seed, high);
        first = (unsigned)(key >> 32);
        second = (unsigned)key;
    }
    unsigned h = (unsigned)index ^ first;
    h = (h ^ (h >> 16)) * 0x7feb352du + second;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    h ^= h >> 16;
    return h >= dropout.threshold ? (V)dropout.scale : (V)0;
}

// out[column] = the sum over the `parts` of partial[part][column], in their order.
template <class V> __device__ void reduce_columns(const V* partial, V* out, int parts, int columns) {
    __shared__ V sums[32][33];
    int column = blockIdx.x * 32 + threadIdx.x;
    V sum = 0;
    if (column < columns) {
#pragma unroll 4
        for (int part = threadIdx.y; part < parts; part += 32) sum += partial[(long long)part * columns + column];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < columns) {
        V total = 0;
        for (int y = 0; y < 32; y++) total += sums[y][threadIdx.x];
        out[column] = total;
    }
}

extern "C" __global__ void reduce_f32(const float* partial, float* out, int parts, int columns) {
    reduce_columns(partial, out, parts, columns);
}
extern "C" __global__ void reduce_f64(const double* partial, double* out, int parts, int columns) {
    reduce_columns(partial, out, parts, columns);
}

// Makes NAME_f32, NAME_f64 and NAME_bf16 of a kernel written for T. PARAMS and the call's ARGS stand in parentheses; a block
// has at most THREADS, which every file defines, so that the compiler leaves registers for all of them.
#define FOR_EACH_FLOAT(NAME, PARAMS, ARGS)                                                            \
    namespace name_f32 { typedef float T; typedef A<float> V;                                         \
        extern "C" __global__ void __launch_bounds__(THREADS) NAME##_f32 PARAMS { NAME<T> ARGS; } }   \
    namespace name_f64 { typedef double T; typedef A<double> V;                                       \
        extern "C" __global__ void __launch_bounds__(THREADS) NAME##_f64 PARAMS { NAME<T> ARGS; } }   \
    namespace name_bf16 { typedef bf16 T; typedef A<bf16> V;                                          \
        extern "C" __global__ void __launch_bounds__(THREADS) NAME##_bf16 PARAMS { NAME<T> ARGS; } }
