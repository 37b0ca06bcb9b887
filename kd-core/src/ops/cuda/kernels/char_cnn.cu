// The convolution over the characters of a word and its maximum, from what each symbol adds at each offset.
#undef THREADS
#define THREADS 128

// A thread for each word and filter. shares[symbol][offset][filter], symbols_at_peak[word][offset][filter].
template <class T>
__device__ void char_cnn(const unsigned* chars, const T* shares, const A<T>* bias, T* y, unsigned* symbols_at_peak,
                         int words, int max_chars, int filters, int kernel, int symbols) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)words * filters) return;
    int filter = i % filters, half = kernel / 2, len = 0;
    long long columns = (long long)kernel * filters, word = i / filters;
    const unsigned* letters = chars + word * max_chars;
    bool known = true;
    while (len < max_chars && letters[len] != 0) {
        known = known && letters[len] < symbols;
        len++;
    }
    A<T> best = 0;
    int peak = -1;
    for (int t = 0; known && t < len; t++) {
        A<T> sum = bias[filter];
        for (int k = max(0, half - t); k < min(kernel, len + half - t); k++)
            sum += load(shares[letters[t + k - half] * columns + k * filters + filter]);
        if (sum > best || sum != sum) {
            best = sum;
            peak = t;
        }
    }
    store(y[i], known ? best : nothing(A<T>()) * 0);
    for (int k = 0; k < kernel; k++) {
        int at = peak + k - half;
        bool inside = peak >= 0 && at >= 0 && at < len;
        symbols_at_peak[word * columns + k * filters + filter] = inside ? letters[at] : 0;
    }
}
FOR_EACH_FLOAT(char_cnn, (const unsigned* chars, const T* shares, const V* bias, T* y, unsigned* symbols_at_peak,
                          int words, int max_chars, int filters, int kernel, int symbols),
               (chars, shares, bias, y, symbols_at_peak, words, max_chars, filters, kernel, symbols))

// A thread for each symbol, offset and filter, and a row of blocks for each part of the words.
template <class T>
__device__ void char_cnn_backward(const unsigned* symbols_at_peak, const T* dy, A<T>* partial, int words, int columns,
                                  int filters, int symbols) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x, all = (long long)symbols * columns;
    if (i >= all) return;
    unsigned symbol = i / columns;
    int column = i % columns, filter = column % filters;
    int each = (words + gridDim.y - 1) / gridDim.y, first = blockIdx.y * each, last = min(first + each, words);
    A<T> sum = 0;
    if (symbol != 0) {
#pragma unroll 4
        for (int word = first; word < last; word++)
            if (symbols_at_peak[(long long)word * columns + column] == symbol)
                sum += load(dy[(long long)word * filters + filter]);
    }
    partial[blockIdx.y * all + i] = sum;
}
FOR_EACH_FLOAT(char_cnn_backward, (const unsigned* symbols_at_peak, const T* dy, V* partial, int words, int columns,
                                   int filters, int symbols),
               (symbols_at_peak, dy, partial, words, columns, filters, symbols))
