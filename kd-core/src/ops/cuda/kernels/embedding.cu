// Rows of a table, by id; NaN where there is no such row.
#undef THREADS
#define THREADS 256
template <class T>
__device__ void embedding(const unsigned* ids, const T* table, T* y, long long count, int width, int rows) {
    long long step = (long long)gridDim.x * blockDim.x;
#pragma unroll 4
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        unsigned id = ids[i / width];
        if (id < rows)
            y[i] = table[(long long)id * width + i % width];
        else
            store(y[i], nothing(A<T>()) * 0);
    }
}
FOR_EACH_FLOAT(embedding, (const unsigned* ids, const T* table, T* y, long long count, int width, int rows),
               (ids, table, y, count, width, rows))

// The gradient of a table: the gradients at each id's positions, added in the order of the positions.

// A warp for each position; only that of an id's first position works. `gradient` starts as zeros.
template <class T>
__device__ void embedding_backward(const unsigned* ids, const T* dy, T* gradient, int count, int width, int rows) {
    int position = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x;
    if (position >= count) return;
    unsigned id = ids[position];
    if (id >= rows) return;
    for (int first = 0; first < position; first += 32) {
        int other = first + lane;
        if (__any_sync(0xffffffffu, other < position && ids[other] == id)) return;
    }
    // Columns in groups of 32 * 8, so that the sums stay in registers.
    for (int start = blockIdx.y * 256; start < width; start += gridDim.y * 256) {
        A<T> sums[8];
#pragma unroll
        for (int k = 0; k < 8; k++) sums[k] = 0;
        for (int first = position; first < count; first += 32) {
            int other = first + lane;
            unsigned found = __ballot_sync(0xffffffffu, other < count && ids[other] == id);
            while (found) {
                long long from = (long long)(first + __ffs(found) - 1) * width;
                found &= found - 1;
#pragma unroll
                for (int k = 0; k < 8; k++) {
                    int column = start + 32 * k + lane;
                    if (column < width) sums[k] += load(dy[from + column]);
                }
            }
        }
#pragma unroll
        for (int k = 0; k < 8; k++) {
            int column = start + 32 * k + lane;
            if (column < width) store(gradient[(long long)id * width + column], sums[k]);
        }
    }
}
FOR_EACH_FLOAT(embedding_backward, (const unsigned* ids, const T* dy, T* gradient, int count, int width, int rows),
               (ids, dy, gradient, count, width, rows))
